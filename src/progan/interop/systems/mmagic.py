"""PGGAN of open-mmlab/mmagic (formerly MMGeneration): a `state_dict` of `generator_ema.*` and others.

Norms divide by sqrt(E[x^2]) + 1e-5, that of latents by sqrt(E[x^2]) + 1e-6. A convolution that doubles the
size is kept transposed, and its constant is that of its outputs instead of its inputs. D has no convolution
at 4x4 (one is kept, and not called).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from progan.interop.systems.genforce import is_transposed
from progan.interop.systems.layers import SQRT2, Foreign, Layer, Network, State, assemble, equalized
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Refused

NETWORKS = {"Gs": "generator_ema.", "G": "generator.", "D": "discriminator."}
FIRST, FIRST_D = "noise2feat.linear.weight_orig", "decision.linear0.weight_orig"
GROUP = 4
EPSILON, LATENT_EPSILON = 1e-5, 1e-6


def matches(found: object) -> bool:
    """Tell whether an unpickled object is such a checkpoint, or the state dict of a network."""
    return isinstance(found, dict) and bool(_prefixes(_states(found)))


def _states(found: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = found.get("state_dict")
    return inner if isinstance(inner, dict) else found


def _prefixes(states: Mapping[str, Any]) -> dict[str, str]:
    """Return what the names of each network begin with, by 'Gs', 'G' and 'D'."""
    known = {n: p for n, p in NETWORKS.items() if p + (FIRST_D if n == "D" else FIRST) in states}
    if known:
        return known
    return {"G": ""} if FIRST in states else {"D": ""} if FIRST_D in states else {}


class Checkpoint(Foreign):
    """A checkpoint, or a bare state dict.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._states, self._budget = _states(found), budget
        self._prefixes = _prefixes(self._states)
        self.names = list(self._prefixes)

    def describe(self) -> str:
        """Return what it is, in words."""
        form = (
            "fromrgb_layers.{}.conv.weight_orig"
            if self.names == ["D"]
            else "torgb_layers.{}.conv.weight_orig"
        )
        return f"a PGGAN checkpoint of MMagic, {self._state(self.names[0]).count(form)} levels"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        if name == "D":
            self.notes = ("levels are convolved and halved at once, as its default is",)
            return _discriminator(self._state(name), self._growth())
        labels = self._labels()
        made, self.notes = _generator(self._state(name), 0 if labels is None else labels, self._growth())
        if labels is None:
            self.notes += ("it takes no labels; its discriminator is missing",)
        return made

    def _labels(self) -> int | None:
        """Return for how many labels the last layer of D has outputs; None if there is no D."""
        last = self._states.get(f"{self._prefixes.get('D', '?')}decision.linear1.weight_orig")
        return max(last.shape[0] - 1, 0) if isinstance(last, Tensor) and last.ndim == 2 else None

    def _growth(self) -> dict[str, Any]:
        """Return level and alpha, where the file has them."""
        scale, alpha = (self._states.get(key) for key in ("_curr_scale_int", "_curr_transition_weight"))
        if not (isinstance(scale, Tensor) and isinstance(alpha, Tensor)):
            return {}
        if scale.numel() != 1 or alpha.numel() != 1 or not 4 <= int(scale) <= 2**22 or not 0 <= alpha <= 1:
            raise Refused("its _curr_scale_int or _curr_transition_weight is out of range")
        return {"level": int(scale).bit_length() - 3, "alpha": float(alpha)}

    def _state(self, name: str) -> State:
        prefix = self._prefixes[name]
        mine = {k.removeprefix(prefix): v for k, v in self._states.items() if k.startswith(prefix)}
        return State(mine, self._budget)


def _conv(state: State, name: str, *sides: int | None, gain: float = SQRT2) -> Layer:
    weight = state.take(f"{name}.weight_orig", *sides)
    return equalized(weight, state.bias(f"{name}.bias", weight.shape[0]), gain=gain)


def _generator(state: State, labels: int, growth: dict[str, Any]) -> tuple[Network, tuple[str, ...]]:
    levels = state.count("torgb_layers.{}.conv.weight_orig")
    shapes = state.shapes("torgb_layers.{}.conv.weight_orig", range(levels))
    channels, widths = shapes[0][0], [shape[1] for shape in shapes]
    ups = [state.shape(f"conv_blocks.{2 * i - 1}.conv.weight_orig") for i in range(1, levels)]
    told = is_transposed(ups, widths)
    start = state.take("noise2feat.linear.weight_orig", 16 * widths[0], None)
    bias = state.take("noise2feat.bias", 1, widths[0], 1, 1).flatten()
    layers = {
        "dense": equalized(start, bias, gain=SQRT2 / 4),
        "conv": _conv(state, "conv_blocks.0.conv", widths[0], widths[0], 3, 3),
    }
    for i in range(1, levels):
        first, second = f"conv_blocks.{2 * i - 1}.conv", f"conv_blocks.{2 * i}.conv"
        here, below = widths[i], widths[i - 1]
        if told is False:
            up = _conv(state, first, here, below, 3, 3)
        else:
            kept = state.take(f"{first}.weight_orig", below, here, 3, 3)
            factor = equalized(kept, None).factor  # of [in, out, k, k], the fan_in is taken for out * k * k
            up = Layer(kept.transpose(0, 1).flip(2, 3), state.bias(f"{first}.bias", here), factor)
        layers[f"blocks.{i - 1}.conv0_up"] = up
        layers[f"blocks.{i - 1}.conv1"] = _conv(state, second, here, here, 3, 3)
    for i, width in enumerate(widths):
        layers[f"to_rgb.{i}"] = _conv(state, f"torgb_layers.{i}.conv", channels, width, 1, 1, gain=1.0)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "latent_size": start.shape[1] - labels,
        "label_size": labels,
        "pixel_norm_form": "root",
        "pixel_norm_eps": EPSILON,
        "latent_norm_eps": LATENT_EPSILON,
        "upscale": "separate" if told is False else "fused",
        **growth,
    }
    assumed = "levels are doubled and convolved at once, as its default is"
    return assemble(Generator, config, layers), ((assumed,) if told is None and levels > 1 else ())


def _discriminator(state: State, growth: dict[str, Any]) -> Network:
    levels = state.count("fromrgb_layers.{}.conv.weight_orig")
    shapes = state.shapes("fromrgb_layers.{}.conv.weight_orig", range(levels))
    channels, widths = shapes[0][1], [shape[0] for shape in shapes]
    state.drop(r"conv_blocks\.0\.conv\.(weight_orig|bias)")
    layers = {
        "dense0": _conv(state, "decision.linear0", None, None),
        "dense1": _conv(state, "decision.linear1", None, None, gain=1.0),
    }
    for i, width in enumerate(widths):
        layers[f"from_rgb.{i}"] = _conv(state, f"fromrgb_layers.{i}.conv", width, channels, 1, 1)
        if i:
            down = _conv(state, f"conv_blocks.{2 * i}.conv", widths[i - 1], width, 3, 3)
            layers[f"blocks.{i - 1}.conv0"] = _conv(
                state, f"conv_blocks.{2 * i - 1}.conv", width, width, 3, 3
            )
            layers[f"blocks.{i - 1}.conv1_down"] = down
    state.done()
    hidden, inputs = layers["dense0"].weight.shape
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "label_size": layers["dense1"].weight.shape[0] - 1,
        "dense_features": hidden,
        "last_conv": False,
        "stddev_group": GROUP if inputs != 16 * widths[0] else 0,
        "downscale": "fused",
        **growth,
    }
    return assemble(Discriminator, config, layers)

"""Checkpoints of akanimax/pro_gan_pytorch: those of 3.x with a `conf`, and the bare state dicts of 2.x.

The first layer is a transposed convolution, four times as strong as the paper's, with no norm after it;
toRGB and the last layer of D have the gain sqrt(2), as all others. From 3.0 on, G normalises its latents and
deviations are those of groups of 4; before, latents are used as they are, deviations are of the whole batch,
and D has no activation after fromRGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from progan.interop.systems.layers import (
    SQRT2,
    Foreign,
    Layer,
    Network,
    State,
    assemble,
    dense_of_transposed,
    equalized,
)
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Refused

NETWORKS = {"Gs": "shadow_generator", "G": "generator", "D": "discriminator"}
BATCH = 16
"""Samples that a statistic of the whole batch is of at most, here."""


def matches(found: object) -> bool:
    """Tell whether an unpickled object is a checkpoint of 3.x, or a bare state dict of either version."""
    return isinstance(found, dict) and (_is_whole(found) or _bare_kind(found) is not None)


def _is_whole(found: Mapping[str, Any]) -> bool:
    parts = [found.get(key) for key in NETWORKS.values()]
    return any(isinstance(part, dict) and isinstance(part.get("state_dict"), dict) for part in parts)


def _bare_kind(found: Mapping[str, Any]) -> str | None:
    """Return which network a bare state dict is of: 'G' or 'D'; None if of neither."""
    names = {str(name).removeprefix("module.") for name in list(found)[:400]}
    if "rgb_converters.0.weight" in names or "initial_block.conv_1.deconv.weight" in names:
        return "G"
    return "D" if names & {"from_rgb.0.0.weight", "rgb_to_features.0.weight"} else None


class Checkpoint(Foreign):
    """A checkpoint, or a bare state dict.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._budget = budget
        self._parts: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        if _is_whole(found):
            for name, key in NETWORKS.items():
                part = found.get(key)
                if isinstance(part, dict) and isinstance(part.get("state_dict"), dict):
                    conf = part.get("conf")
                    self._parts[name] = (part["state_dict"], conf if isinstance(conf, dict) else {})
        else:
            self._parts[_bare_kind(found) or "G"] = (found, {})
        self.names = list(self._parts)

    def describe(self) -> str:
        """Return what it is, in words."""
        state, conf = self._parts[self.names[0]]
        many = "levels" if conf else "levels, without a description"
        return f"a pro_gan_pytorch checkpoint ({'2.x' if _is_old(state) else '3.x'}), {_depth(state)} {many}"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        given, conf = self._parts[name]
        if any(".deconv." in key or key.endswith(".conv.weight") for key in list(given)[:400]):
            raise Refused("it was written by pro_gan_pytorch 1.x, whose files lack the scales of its layers")
        if conf.get("num_classes") is not None:
            raise Refused("its discriminator applies a leaky ReLU to the score, which ours cannot")
        state = State(given, self._budget)
        on = conf.get("use_eql")
        if not isinstance(on, bool):
            on = _looks_equalized(given)
            self.notes = (f"its weights say that learning rates are {'' if on else 'not '}equalized",)
        return (_discriminator if name == "D" else _generator)(state, _is_old(given), on)


def _is_old(given: Mapping[str, Any]) -> bool:
    names = [str(name).removeprefix("module.") for name in list(given)[:400]]
    return any(name.startswith(("initial_block.", "final_block.", "rgb_to_features.")) for name in names)


def _depth(given: Mapping[str, Any]) -> int:
    names = {str(name).removeprefix("module.") for name in list(given)[:400]}
    forms = ("rgb_converters.{}.weight", "from_rgb.{}.0.weight", "rgb_to_features.{}.weight")
    return max(sum(form.format(i) in names for i in range(32)) for form in forms)


def _looks_equalized(given: Mapping[str, Any]) -> bool:
    """Tell by its weights whether a network has equalized learning rates: they are drawn with variance 1."""
    squares = [
        float(value.double().square().mean())
        for value in given.values()
        if isinstance(value, Tensor) and value.ndim == 4 and value.numel() and value.is_floating_point()
    ]
    return sum(square > 0.25 for square in squares) * 2 > len(squares)


def _conv(state: State, name: str, on: bool, *sides: int | None) -> Layer:
    weight = state.take(f"{name}.weight", *sides)
    return equalized(weight, state.bias(f"{name}.bias", weight.shape[0]), on=on)


def _generator(state: State, old: bool, on: bool) -> Network:
    first = "initial_block" if old else "layers.0"
    levels = state.count("rgb_converters.{}.weight")
    rgb = [state.take(f"rgb_converters.{i}.weight", None, None, 1, 1) for i in range(levels)]
    if not rgb:
        raise Refused("its generator has no rgb_converters")
    channels, widths = rgb[0].shape[0], [weight.shape[1] for weight in rgb]
    start = state.take(f"{first}.conv_1.weight", None, widths[0], 4, 4)
    latent = start.shape[0]
    layers = {
        "dense": Layer(
            dense_of_transposed(start),
            state.bias(f"{first}.conv_1.bias", widths[0]),
            SQRT2 / latent**0.5 if on else 1.0,
        ),
        "conv": _conv(state, f"{first}.conv_2", on, widths[0], widths[0], 3, 3),
    }
    for i, weight in enumerate(rgb):
        layers[f"to_rgb.{i}"] = equalized(weight, state.bias(f"rgb_converters.{i}.bias", channels), on=on)
    for i in range(levels - 1):
        name, below, here = f"layers.{i if old else i + 1}", widths[i], widths[i + 1]
        layers[f"blocks.{i}.conv0_up"] = _conv(state, f"{name}.conv_1", on, here, below, 3, 3)
        layers[f"blocks.{i}.conv1"] = _conv(state, f"{name}.conv_2", on, here, here, 3, 3)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "latent_size": latent,
        "normalize_latents": not old,
        "dense_norm": "none",
        "dense_gain": SQRT2,
        "equalized_lr": on,
        "upscale": "separate",
    }
    return assemble(Generator, config, layers)


def _discriminator(state: State, old: bool, on: bool) -> Network:
    form = "rgb_to_features.{}.weight" if old else "from_rgb.{}.0.weight"
    levels = state.count(form)
    # From 3.0 on, the blocks and fromRGB are listed from the largest picture down.
    places = [i if old else levels - 1 - i for i in range(levels)]
    rgb = [state.take(form.format(i), None, None, 1, 1) for i in places]
    if not rgb:
        raise Refused("its discriminator has no fromRGB")
    channels, widths = rgb[0].shape[1], [weight.shape[0] for weight in rgb]
    last = "final_block" if old else f"layers.{levels - 1}"
    maps = state.shape(f"{last}.conv_1.weight")[1] - widths[0]
    dense0 = state.take(f"{last}.conv_2.weight", None, widths[0], 4, 4)
    dense = dense0.shape[0]
    dense1 = state.take(f"{last}.conv_3.weight", 1, dense, 1, 1)
    layers = {
        "conv": _conv(state, f"{last}.conv_1", on, widths[0], widths[0] + maps, 3, 3),
        "dense0": equalized(dense0.flatten(1), state.bias(f"{last}.conv_2.bias", dense), on=on),
        "dense1": equalized(dense1.flatten(1), state.bias(f"{last}.conv_3.bias", 1), on=on),
    }
    for i, weight in enumerate(rgb):
        bias = form.format(places[i]).removesuffix("weight") + "bias"
        layers[f"from_rgb.{i}"] = equalized(weight, state.bias(bias, widths[i]), on=on)
    for i in range(levels - 1):
        name, below, here = f"layers.{i if old else levels - 2 - i}", widths[i], widths[i + 1]
        layers[f"blocks.{i}.conv0"] = _conv(state, f"{name}.conv_1", on, here, here, 3, 3)
        layers[f"blocks.{i}.conv1_down"] = _conv(state, f"{name}.conv_2", on, below, here, 3, 3)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "dense_features": dense,
        "equalized_lr": on,
        "downscale": "separate",
        "rgb_activation": not old,
        "stddev_group": (BATCH if old else 4) if maps else 0,
    }
    return assemble(Discriminator, config, layers)

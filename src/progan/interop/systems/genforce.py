"""PGGAN of genforce/genforce and genforce/sefa (`generator_smooth`, `generator`, `discriminator`).

The paper's networks, in the order in which a norm comes before the convolution that it is for. Latents are
normalised alone, and once more together with their label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from progan.errors import shown
from progan.interop.systems.layers import (
    Foreign,
    Layer,
    Network,
    State,
    assemble,
    dense_of_full,
    equalized,
)
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Refused

NETWORKS = {"Gs": "generator_smooth", "G": "generator", "D": "discriminator"}
GROUP = 16
FIRST, FIRST_D = "output0.weight", "input0.weight"
NOT_FUSED = "levels are scaled and convolved in two steps, as its default is"


def matches(found: object) -> bool:
    """Tell whether an unpickled object is such a checkpoint, or one of its state dicts."""
    return isinstance(found, dict) and bool(_parts(found))


def _parts(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the state dicts in a checkpoint, by 'Gs', 'G' and 'D'."""
    models = found.get("models")
    found = models if isinstance(models, dict) else found
    parts = {name: found.get(key) for name, key in NETWORKS.items()}
    known: dict[str, Mapping[str, Any]] = {
        n: part for n, part in parts.items() if isinstance(part, dict) and {FIRST, FIRST_D} & part.keys()
    }
    if known:
        return known
    return {"G": found} if FIRST in found else {"D": found} if FIRST_D in found else {}


class Checkpoint(Foreign):
    """A checkpoint, or a bare state dict.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._parts, self._budget = _parts(found), budget
        self.names = list(self._parts)

    def describe(self) -> str:
        """Return what it is, in words."""
        levels = State(self._parts[self.names[0]], self._budget)
        form = "input{}.weight" if self.names == ["D"] else "output{}.weight"
        return f"a PGGAN checkpoint of genforce, {levels.count(form)} levels"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        state = State(self._parts[name], self._budget)
        made, fused = _discriminator(state) if name == "D" else _generator(state, self._labels())
        notes = [] if fused is not None else [NOT_FUSED]
        if name != "D" and "D" not in self._parts:
            notes.append("it takes no labels; its discriminator is missing")
        self.notes = tuple(notes)
        return made

    def _labels(self) -> int:
        """Return how many labels there are, which the last layer of D has outputs for."""
        weights = [
            (int(key[5:-7]), value)
            for key, value in self._parts.get("D", {}).items()
            if key.startswith("layer") and key[5:-7].isdecimal() and key.endswith(".weight") and len(key) < 20
        ]
        last = max(weights, default=(0, None), key=lambda pair: pair[0])[1]
        return max(last.shape[0] - 1, 0) if isinstance(last, Tensor) and last.ndim == 2 else 0


def _growth(state: State, max_level: int) -> dict[str, Any]:
    """Translate lod: 0 when grown to full size; 1.25 at half of it, a quarter faded out."""
    if "lod" not in state:
        return {}
    lod = float(state.take("lod"))
    if not 0 <= lod <= max_level:
        raise Refused(f"its lod is {shown(lod)}; expected 0 to {max_level}")
    return {"level": max_level - int(lod), "alpha": 1.0 - (lod - int(lod))}


def _conv(state: State, name: str, *sides: int | None, gain: float | None = None) -> Layer:
    weight = state.take(f"{name}.weight", *sides)
    bias = state.bias(f"{name}.bias", weight.shape[0])
    return equalized(weight, bias) if gain is None else equalized(weight, bias, gain=gain)


def is_transposed(shapes: Sequence[Sequence[int]], widths: Sequence[int]) -> bool | None:
    """Tell whether the convolutions that double the size are kept as [in, out, k, k].

    Args:
        shapes: Of the weights, level by level from 1 on.
        widths: Filters of the levels.

    Returns:
        None where shapes do not tell, because filters stay the same.
    """
    for i, shape in enumerate(shapes):
        if widths[i] != widths[i + 1]:
            return shape[0] == widths[i]
    return None


def _generator(state: State, labels: int) -> tuple[Network, bool | None]:
    levels = state.count("output{}.weight")
    shapes = state.shapes("output{}.weight", range(levels))
    channels, widths = shapes[0][0], [shape[1] for shape in shapes]
    growth = _growth(state, levels - 1)
    fused = is_transposed([state.shape(f"layer{2 * i}.weight") for i in range(1, levels)], widths)
    start = state.take("layer0.weight", widths[0], None, 4, 4)
    bias = state.bias("layer0.bias", widths[0])
    layers = {
        "dense": Layer(dense_of_full(start), bias, equalized(start, None).factor),
        "conv": _conv(state, "layer1", widths[0], widths[0], 3, 3),
    }
    for i in range(1, levels):
        here, below = widths[i], widths[i - 1]
        if fused:
            weight = state.take(f"layer{2 * i}.weight", below, here, 3, 3).transpose(0, 1).flip(2, 3)
            up = equalized(weight, state.bias(f"layer{2 * i}.bias", here))
        else:
            up = _conv(state, f"layer{2 * i}", here, below, 3, 3)
        layers[f"blocks.{i - 1}.conv0_up"] = up
        layers[f"blocks.{i - 1}.conv1"] = _conv(state, f"layer{2 * i + 1}", here, here, 3, 3)
    for i, width in enumerate(widths):
        layers[f"to_rgb.{i}"] = _conv(state, f"output{i}", channels, width, 1, 1, gain=1.0)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "latent_size": start.shape[1] - labels,
        "label_size": labels,
        "label_norm": "both",
        "upscale": "fused" if fused else "separate",
        **growth,
    }
    return assemble(Generator, config, layers), fused if levels > 1 else False


def _discriminator(state: State) -> tuple[Network, bool | None]:
    levels = state.count("input{}.weight")
    shapes = state.shapes("input{}.weight", range(levels - 1, -1, -1))
    channels, widths = shapes[0][1], [shape[0] for shape in shapes]
    growth = _growth(state, levels - 1)
    last = 2 * (levels - 1)
    maps = state.shape(f"layer{last}.weight")[1] - widths[0]
    layers = {
        "conv": _conv(state, f"layer{last}", widths[0], widths[0] + maps, 3, 3),
        "dense0": _conv(state, f"layer{last + 1}", None, 16 * widths[0]),
        "dense1": _conv(state, f"layer{last + 2}", None, None, gain=1.0),
    }
    for i, width in enumerate(widths):
        place = levels - 1 - i
        layers[f"from_rgb.{i}"] = _conv(state, f"input{place}", width, channels, 1, 1)
        if i:
            layers[f"blocks.{i - 1}.conv0"] = _conv(state, f"layer{2 * place}", width, width, 3, 3)
            down = _conv(state, f"layer{2 * place + 1}", widths[i - 1], width, 3, 3)
            layers[f"blocks.{i - 1}.conv1_down"] = down
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "label_size": layers["dense1"].weight.shape[0] - 1,
        "dense_features": layers["dense0"].weight.shape[0],
        "stddev_group": GROUP if maps else 0,
        "downscale": "separate",
        **growth,
    }
    # Its state does not say whether it halves and convolves at once.
    return assemble(Discriminator, config, layers), None if levels > 1 else False

"""State dicts of rosinality/progressive-gan-pytorch.

G normalises a layer before its activation, and joins an embedding of the label to the normalised latent; D
has no activation after fromRGB, and its deviation is that of the images, over n - 1. Layers that touch
images, and the last one, have no equalized learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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

BATCH = 16
"""Its batch, of which the deviation is."""
FIRST = "progression.0.conv.0.conv.weight_orig"


def matches(found: object) -> bool:
    """Tell whether an unpickled object is such a state dict."""
    names = (
        {str(name).removeprefix("module.") for name in list(found)[:400]} if isinstance(found, dict) else ()
    )
    return FIRST in names


class Checkpoint(Foreign):
    """A state dict.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._state = State(found, budget)
        self.names = ["D" if "from_rgb.0.weight" in self._state else "G"]

    def describe(self) -> str:
        """Return what it is, in words."""
        levels = self._state.count("progression.{}.conv.0.conv.weight_orig")
        kind = "discriminator" if self.names == ["D"] else "generator"
        return f"the {kind} of rosinality/progressive-gan-pytorch, {levels} levels"

    def network(self, name: str) -> Network:
        """Return the network as ours."""
        return _discriminator(self._state) if name == "D" else _generator(self._state)


def _conv(state: State, block: int, part: int, *sides: int | None) -> Layer:
    """Return a convolution of a block, by the place of its module in it."""
    name = f"progression.{block}.conv.{part}.conv"
    weight = state.take(f"{name}.weight_orig", *sides)
    return equalized(weight, state.bias(f"{name}.bias", weight.shape[0]))


def _plain(state: State, name: str, *sides: int | None) -> Layer:
    weight = state.take(f"{name}.weight", *sides)
    return Layer(weight, state.bias(f"{name}.bias", weight.shape[0]))


def _generator(state: State) -> Network:
    levels = state.count("to_rgb.{}.weight")
    shapes = state.shapes("to_rgb.{}.weight", range(levels))
    channels, widths = shapes[0][0], [shape[1] for shape in shapes]
    embedding = state.take("label_embed.weight", None, None)
    first = _conv(state, 0, 0, widths[0], None, 4, 4)
    dense, classes = _embedded(first, embedding)
    # Norm and activation are modules of their own between the two convolutions: 0 and 3.
    layers = {"dense": dense, "conv": _conv(state, 0, 3, widths[0], widths[0], 3, 3)}
    for i in range(1, levels):
        layers[f"blocks.{i - 1}.conv0_up"] = _conv(state, i, 0, widths[i], widths[i - 1], 3, 3)
        layers[f"blocks.{i - 1}.conv1"] = _conv(state, i, 3, widths[i], widths[i], 3, 3)
    for i in range(levels):
        layers[f"to_rgb.{i}"] = _plain(state, f"to_rgb.{i}", channels, widths[i], 1, 1)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "label_size": classes,
        "latent_size": dense.weight.shape[1] - classes,
        "label_norm": "apart",
        "pixel_norm_place": "before",
        "dense_bias": "channel" if classes else "unit",
        "upscale": "separate",
    }
    return assemble(Generator, config, layers)


def _embedded(first: Layer, embedding: Tensor) -> tuple[Layer, int]:
    """Put the embedding of labels, a linear map of a one-hot vector, into the first layer.

    Args:
        first: [out, latent + width, 4, 4], with a bias a channel.
        embedding: [classes, width].

    Returns:
        The dense layer, and for how many labels. The embedding of a single class is a constant: biases, one a
        unit.
    """
    classes, width = embedding.shape
    latent = first.weight.shape[1] - width
    if latent < 1:
        raise Refused(f"its label_embed has {width} features, its first layer {latent + width} inputs")
    weight = dense_of_full(first.weight)
    of_labels = weight[:, latent:].double() @ embedding.double().t()  # [out * 16, classes]
    if classes > 1:
        joined = torch.cat([weight[:, :latent], of_labels.to(weight.dtype)], dim=1)
        return Layer(joined, first.bias, first.factor), classes
    biases = of_labels[:, 0] * first.factor
    if first.bias is not None:
        biases = biases + first.bias.double().repeat_interleave(16)
    return Layer(weight[:, :latent], biases.to(weight.dtype), first.factor), 0


def _discriminator(state: State) -> Network:
    levels = state.count("from_rgb.{}.weight")
    places = [levels - 1 - i for i in range(levels)]  # listed from the largest picture down
    shapes = state.shapes("from_rgb.{}.weight", places)
    channels, widths = shapes[0][1], [shape[0] for shape in shapes]
    dense0 = state.take(f"progression.{levels - 1}.conv.2.conv.weight_orig", None, widths[0], 4, 4)
    dense = dense0.shape[0]
    bias = state.bias(f"progression.{levels - 1}.conv.2.conv.bias", dense)
    layers = {
        "conv": _conv(state, levels - 1, 0, widths[0], widths[0] + 1, 3, 3),
        "dense0": equalized(dense0.flatten(1), bias),
        "dense1": _plain(state, "linear", None, dense),
    }
    for i in range(1, levels):
        below = widths[i - 1]
        layers[f"blocks.{i - 1}.conv0"] = _conv(state, places[i], 0, below, widths[i], 3, 3)
        layers[f"blocks.{i - 1}.conv1_down"] = _conv(state, places[i], 2, below, below, 3, 3)
    for i in range(levels):
        layers[f"from_rgb.{i}"] = _plain(state, f"from_rgb.{places[i]}", widths[i], channels, 1, 1)
    state.done()
    classes = layers["dense1"].weight.shape[0] - 1
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "label_size": classes if classes > 1 else 0,
        "dense_features": dense,
        "downscale": "separate",
        "rgb_activation": False,
        "widening": "first",
        "stddev_group": BATCH,
        "stddev_of": "images",
        "stddev_variance": "sample",
    }
    if classes == 1:  # the logit of a single class is nothing that could be learned
        layers["dense1"] = _first_output(layers["dense1"])
    return assemble(Discriminator, config, layers)


def _first_output(layer: Layer) -> Layer:
    return Layer(layer.weight[:1], None if layer.bias is None else layer.bias[:1], layer.factor)

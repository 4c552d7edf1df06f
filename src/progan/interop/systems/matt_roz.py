"""Models of matt-roz/progressive_growing_of_gans_tensorflow_2, as Keras saved them (HDF5).

Each layer computes `weight_scale * kernel + bias`; the scale is in the file. Levels are scaled by strides, or
in two steps; images end in tanh, after the fade. The names of blocks say log2 of the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from progan.errors import shown
from progan.interop.keras_files import KerasFile
from progan.interop.systems.layers import Foreign, Layer, Network, State, assemble, channel_major
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Refused

FIRST, LAST_D = "block_2/dense_projector/kernel", "block_2/dense_2/kernel"
GROUP = 16
NORM_EPS = 1e-8
NOT_SAID = (
    "a file of weights alone does not say how units are ordered and normalised, so as its configuration has "
    "it: channels come first, latents are normalised, slope 0.2, epsilon 1e-8"
)
KINDS = frozenset(
    {
        *("InputLayer", "Dense", "Conv2D", "Conv2DTranspose", "WeightScalingWrapper", "LeakyReLU", "Reshape"),
        *("PixelNormalization", "StandardDeviationLayer", "Flatten", "UpSampling2D", "AveragePooling2D"),
        *("TensorFlowOpLayer", "TFOpLambda"),  # the fade and tanh
    }
)


@dataclass(frozen=True)
class Facts:
    """What the description of a model says that its weights do not.

    Attributes:
        channels_last: The order of units where features become a vector, and back.
        normalized: Whether latents are.
        eps: Of pixel norm.
        slope: Of the leaky ReLU.
    """

    channels_last: bool = False
    normalized: bool = True
    eps: float = NORM_EPS
    slope: float = 0.2


def matches(found: object) -> bool:
    """Tell whether what was read is such a model."""
    return isinstance(found, KerasFile) and bool({FIRST, LAST_D} & found.weights.keys())


class Checkpoint(Foreign):
    """A model.

    Args:
        found: As read.
        budget: Bytes of the file.

    Raises:
        Refused: if its description has layers that the system has not.
    """

    def __init__(self, found: KerasFile, budget: int) -> None:
        self._state = State(found.weights, budget)
        self._facts = Facts() if found.config is None else _facts(found.config)
        self.names = ["G" if FIRST in found.weights else "D"]
        self.notes = (NOT_SAID,) if found.config is None else ()

    def describe(self) -> str:
        """Return what it is, in words."""
        kind = "generator" if self.names == ["G"] else "discriminator"
        return f"a {kind} of matt-roz's progressive growing in TensorFlow 2, {_levels(self._state)} levels"

    def network(self, name: str) -> Network:
        """Return it as ours: 'G' or 'D'."""
        levels = _levels(self._state)
        rgb = "toRGB" if name == "G" else "fromRGB"
        there = [i for i in range(levels) if f"block_{i + 2}/{rgb}/kernel" in self._state]
        if levels - 1 not in there:
            raise Refused(f"its network lacks the {rgb} of its largest level")
        if len(there) < levels:
            lacking = f"{rgb} of levels {', '.join(str(i) for i in range(levels) if i not in there)}"
            self.notes += (f"{lacking} is not in the file: zeros",)
        if levels > 1:
            self.notes += (
                "alpha is 1 at its largest level, since the file does not say how far it has come in",
            )
        made = _generator if name == "G" else _discriminator
        return made(self._state, self._facts, levels)


def _facts(config: Mapping[str, Any]) -> Facts:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or not all(isinstance(one, dict) for one in layers):
        raise Refused("the description of its model has no layers")
    for one in layers:
        kind = one.get("class_name")
        if not isinstance(kind, str) or kind not in KINDS:
            raise Refused(f"its model has a layer of the class {shown(kind)}, which that system has not")

    def values(kind: str, *keys: str) -> list[Any]:
        of_kind = [one.get("config") for one in layers if one["class_name"] == kind]
        return [one[key] for one in of_kind if isinstance(one, dict) for key in keys if key in one]

    formats = values("PixelNormalization", "data_format") + values("StandardDeviationLayer", "data_format")
    if values("StandardDeviationLayer", "epsilon") not in ([], [NORM_EPS]):
        raise Refused("its minibatch standard deviation has another epsilon than 1e-8, which ours have")
    return Facts(
        channels_last=_one(formats, "data_format", "channels_last") in ("channels_last", "NHWC"),
        normalized="block_s/pixel_norm_noise" in values("PixelNormalization", "name"),
        eps=_number(_one(values("PixelNormalization", "epsilon"), "epsilon", NORM_EPS)),
        slope=_number(_one(values("LeakyReLU", "alpha", "negative_slope"), "alpha", 0.2)),
    )


def _one(values: list[Any], name: str, default: Any) -> Any:
    """Return the value that all layers have."""
    if any(value != values[0] for value in values):
        raise Refused(f"its layers have different values of {name}")
    return values[0] if values else default


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise Refused(f"its layers have the number {shown(value)}; expected one from 0 on")
    return float(str(np.float32(value)))  # Keras writes what float32 makes of 0.2


def _levels(state: State) -> int:
    return next(i for i in range(1, 30) if f"block_{i + 2}/conv2d_2/kernel" not in state)


def _layer(state: State, name: str, *sides: int | None, transposed: bool = False) -> Layer:
    """Return a layer; convolutions are kept as [k, k, in, out], transposed ones as [k, k, out, in]."""
    kernel = state.take(f"{name}/kernel", *sides)
    if kernel.ndim == 2:
        weight = kernel.t()
    else:
        weight = kernel.permute(2, 3, 0, 1) if transposed else kernel.permute(3, 2, 0, 1)
    scale = f"{name}/weight_scale"
    factor = float(state.take(scale)) if scale in state else 1.0
    return Layer(weight, state.bias(f"{name}/bias", weight.shape[0]), factor)


def _rgb(state: State, name: str, outputs: int, inputs: int) -> Layer:
    """Return toRGB or fromRGB of a level; where it is not in the file, zeros."""
    if f"{name}/kernel" in state:
        return _layer(state, name, 1, 1, inputs, outputs)
    return Layer(torch.zeros(outputs, inputs, 1, 1), torch.zeros(outputs))


def _shared(state: State, facts: Facts, levels: int, widths: list[int]) -> dict[str, Any]:
    return {
        "max_level": levels - 1,
        "fmaps": widths,
        "bias": "block_2/conv2d_1/bias" in state,
        "equalized_lr": "block_2/conv2d_1/weight_scale" in state,
        "leaky_slope": facts.slope,
    }


def _generator(state: State, facts: Facts, levels: int) -> Network:
    strided = "block_3/conv2d_upsample_1/kernel" in state
    widths = [state.shape("block_2/conv2d_1/kernel")[3]]
    widths += [state.shape(f"block_{i + 2}/conv2d_2/kernel")[3] for i in range(1, levels)]
    channels = state.shape(f"block_{levels + 1}/toRGB/kernel")[3]
    config = _shared(state, facts, levels, widths)
    first = _layer(state, "block_2/dense_projector", None, 16 * widths[0])
    if facts.channels_last:
        bias = None if first.bias is None else channel_major(first.bias)
        first = Layer(channel_major(first.weight), bias, first.factor)
    layers = {"dense": first, "conv": _layer(state, "block_2/conv2d_1", 3, 3, widths[0], widths[0])}
    for i, width in enumerate(widths):
        place = f"block_{i + 2}"
        layers[f"to_rgb.{i}"] = _rgb(state, f"{place}/toRGB", channels, width)
        if i:
            up, sides = ("upsample_1", (width, widths[i - 1])) if strided else ("1", (widths[i - 1], width))
            name = f"{place}/conv2d_{up}"
            layers[f"blocks.{i - 1}.conv0_up"] = _layer(state, name, 3, 3, *sides, transposed=strided)
            layers[f"blocks.{i - 1}.conv1"] = _layer(state, f"{place}/conv2d_2", 3, 3, width, width)
    state.done()
    config |= {
        "channels": channels,
        "latent_size": first.weight.shape[1],
        "normalize_latents": facts.normalized,
        "pixel_norm_eps": facts.eps,
        "dense_bias": "unit",
        "upscale": "strided" if strided else "separate",
        "output_activation": "tanh",
    }
    return assemble(Generator, config, layers)


def _discriminator(state: State, facts: Facts, levels: int) -> Network:
    strided = "block_3/conv2d_downsample_1/kernel" in state
    first = "conv2d_downsample_1" if strided else "conv2d_1"
    widths = [state.shape("block_2/conv2d_1/kernel")[3]]
    widths += [state.shape(f"block_{i + 2}/{first}/kernel")[3] for i in range(1, levels)]
    channels = state.shape(f"block_{levels + 1}/fromRGB/kernel")[2]
    config = _shared(state, facts, levels, widths)
    conv = _layer(state, "block_2/conv2d_1", 3, 3, widths[0] + 1, widths[0])
    dense = _layer(state, "block_2/dense_1", 16 * widths[0], None)
    if facts.channels_last:
        dense = Layer(channel_major(dense.weight.t()).t(), dense.bias, dense.factor)
    layers = {"conv": conv, "dense0": dense, "dense1": _layer(state, "block_2/dense_2", None, 1)}
    for i, width in enumerate(widths):
        place = f"block_{i + 2}"
        layers[f"from_rgb.{i}"] = _rgb(state, f"{place}/fromRGB", width, channels)
        if i:
            layers[f"blocks.{i - 1}.conv0"] = _layer(state, f"{place}/{first}", 3, 3, width, width)
            down = _layer(state, f"{place}/conv2d_2", 3, 3, width, widths[i - 1])
            layers[f"blocks.{i - 1}.conv1_down"] = down
    state.done()
    config |= {
        "channels": channels,
        "dense_features": dense.weight.shape[0],
        "stddev_group": GROUP,
        "downscale": "strided" if strided else "separate",
    }
    return assemble(Discriminator, config, layers)

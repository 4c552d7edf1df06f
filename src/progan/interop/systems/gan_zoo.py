"""Checkpoints of facebookresearch/pytorch_GAN_zoo (`netG`, `netD`, `avgG`, and a `config`).

Its layers multiply the bias by the layer's constant, too; all have the gain sqrt(2). The first layer has a
bias a unit. Deviations are those of neighbours, over n - 1. Its alpha is the weight of the level below, which
D does not blend in at 8x8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from progan.errors import shown
from progan.interop.systems.layers import SQRT2, Foreign, Layer, Network, State, assemble
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Instance, Refused

CONFIG_CLASS = "models.utils.config.BaseConfig"
NETWORKS = {"Gs": "avgG", "G": "netG", "D": "netD"}
TANH_LOSSES = ("MSE", "DCGAN")
GROUP = 4


def matches(found: object) -> bool:
    """Tell whether an unpickled object is such a checkpoint."""
    return isinstance(found, dict) and "config" in found and bool({"netG", "avgG"} & found.keys())


class Checkpoint(Foreign):
    """A checkpoint.

    Args:
        found: As unpickled.
        budget: Bytes of the file.

    Raises:
        Refused: if its configuration says what cannot be expressed.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._found, self._budget = found, budget
        config = found["config"]
        config = config.state if isinstance(config, Instance) else config
        if not isinstance(config, dict):
            raise Refused(f"its config is {shown(config)}")
        self._config: Mapping[str, Any] = config
        self.names = [name for name, key in NETWORKS.items() if isinstance(found.get(key), dict)]
        alpha = config.get("alpha", 0)
        if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
            raise Refused(f"its config has the alpha {shown(alpha)}; expected 0 to 1")
        self._old = float(alpha)
        if config.get("perChannelNormalization") is False:
            raise Refused("its generator is built without pixel norm, with which its own code fails")
        self._equalized = config.get("equalizedlR", True) is not False

    def describe(self) -> str:
        """Return what it is, in words."""
        key = NETWORKS[self.names[0]]
        prefix = "module." if any(name.startswith("module.") for name in self._found[key]) else ""
        layers = "toRGBLayers" if key != "netD" else "fromRGBLayers"
        scales = State(self._found[key], self._budget).count(f"{layers}.{{}}.module.weight")
        return (
            f"a pytorch_GAN_zoo checkpoint{' of several GPUs' if prefix else ''}, scale {scales - 1} of "
            + (f"{scales}, alpha {self._old:g}")
        )

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        state = State(self._found[NETWORKS[name]], self._budget)
        return self._discriminator(state) if name == "D" else self._generator(state)

    def _shared(self, levels: int, rgb: str, state: State) -> dict[str, Any]:
        slope = self._config.get("leakyReluLeak", 0.2)
        if not isinstance(slope, int | float) or not 0 <= slope < math.inf:
            raise Refused(f"its config has the leakyReluLeak {shown(slope)}")
        side = 1 if rgb == "fromRGBLayers" else 0
        shapes = state.shapes(f"{rgb}.{{}}.module.weight", range(levels))
        return {
            "channels": shapes[0][side],
            "max_level": levels - 1,
            "fmaps": [shape[1 - side] for shape in shapes],
            "leaky_slope": float(slope),
            "equalized_lr": self._equalized,
            **self._labels(),
        }

    def _labels(self) -> dict[str, Any]:
        """Return what its labels are: parts of one-hot vectors behind the latent, one an attribute."""
        size = self._config.get("categoryVectorDim", 0) or 0
        if type(size) is not int or not 0 <= size < 2**20:
            raise Refused(f"its config has the categoryVectorDim {shown(size)}")
        keys = self._config.get("attribKeysOrder")
        many = isinstance(keys, dict) and len(keys) > 1
        return {"label_size": size, "label_form": "classes" if size and many else "class"}

    def _layer(self, state: State, name: str, *sides: int | None) -> Layer:
        weight = state.take(f"{name}.module.weight", *sides)
        bias = state.bias(f"{name}.module.bias", weight.shape[0])
        factor = SQRT2 / math.sqrt(weight[0].numel()) if self._equalized else 1.0
        return Layer(weight, bias, factor, factor)

    def _generator(self, state: State) -> Network:
        levels = state.count("toRGBLayers.{}.module.weight")
        config = self._shared(levels, "toRGBLayers", state)
        widths, channels = config["fmaps"], config["channels"]
        layers = {
            "dense": self._layer(state, "formatLayer", 16 * widths[0], None),
            "conv": self._layer(state, "groupScale0.0", widths[0], widths[0], 3, 3),
        }
        for i in range(levels - 1):
            below, here = widths[i], widths[i + 1]
            layers[f"blocks.{i}.conv0_up"] = self._layer(state, f"scaleLayers.{i}.0", here, below, 3, 3)
            layers[f"blocks.{i}.conv1"] = self._layer(state, f"scaleLayers.{i}.1", here, here, 3, 3)
        for i, width in enumerate(widths):
            layers[f"to_rgb.{i}"] = self._layer(state, f"toRGBLayers.{i}", channels, width, 1, 1)
        state.done()
        latent = layers["dense"].weight.shape[1] - config["label_size"]
        if latent < 1:
            raise Refused(
                f"its config has more labels ({config['label_size']}) than its generator has inputs"
            )
        config |= {
            "latent_size": latent,
            "alpha": 1.0 - self._old if levels > 1 else 1.0,
            "dense_bias": "unit",
            "upscale": "separate",
            "output_activation": "tanh" if self._config.get("lossCriterion") in TANH_LOSSES else "linear",
        }
        return assemble(Generator, config, layers)

    def _discriminator(self, state: State) -> Network:
        levels = state.count("fromRGBLayers.{}.module.weight")
        config = self._shared(levels, "fromRGBLayers", state)
        widths, channels = config["fmaps"], config["channels"]
        first = state.shape("groupScaleZero.0.module.weight")
        maps = first[1] - widths[0]
        layers = {
            "conv": self._layer(state, "groupScaleZero.0", widths[0], widths[0] + maps, 3, 3),
            "dense0": self._layer(state, "groupScaleZero.1", None, 16 * widths[0]),
        }
        dense = layers["dense0"].weight.shape[0]
        outputs = 1 + config["label_size"]
        layers["dense1"] = self._layer(state, "decisionLayer", outputs, dense)
        for i in range(levels - 1):
            below, here = widths[i], widths[i + 1]
            layers[f"blocks.{i}.conv0"] = self._layer(state, f"scaleLayers.{i}.0", here, here, 3, 3)
            layers[f"blocks.{i}.conv1_down"] = self._layer(state, f"scaleLayers.{i}.1", below, here, 3, 3)
        for i, width in enumerate(widths):
            layers[f"from_rgb.{i}"] = self._layer(state, f"fromRGBLayers.{i}", width, channels, 1, 1)
        state.done()
        config |= {
            "alpha": 1.0 - self._old if levels > 2 else 1.0,
            "dense_features": dense,
            "downscale": "separate",
            "stddev_group": GROUP if maps else 0,
            **({"stddev_order": "contiguous", "stddev_variance": "sample"} if maps else {}),
        }
        return assemble(Discriminator, config, layers)

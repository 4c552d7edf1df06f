"""Networks of the original Theano code (its branch original-theano-version), `network.Network`.

They are pickles of Python 2. `__getstate__` gives build_func_spec (`G_paper` or `D_paper` and its arguments),
source text that is never run, and the values of all layers in the order in which Lasagne walks them: weight,
with equalized learning rates a constant, then the bias. Theano convolves, with kernels that are flipped both
ways, where PyTorch correlates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import shown
from progan.interop.systems.layers import Layer, Network, assemble
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import feature_maps
from progan.system.numpy_pickle import array_of
from progan.system.safe_pickle import Instance, Refused

CLASS = "network.Network"
BATCH = 16
"""Its deviation is of the whole batch, which has at most 16 images in its training."""
REFUSED = {
    "use_batchnorm": "batch normalisation",
    "use_layernorm": "layer normalisation",
    "mbdisc_kernels": "minibatch discrimination",
}

Arguments = Mapping[str, Any]


def matches(found: object) -> bool:
    """Tell whether an unpickled object is such a network."""
    return isinstance(found, Instance) and found.name == CLASS


def kind_of(network: Instance) -> str:
    """Return 'G' or 'D'.

    Raises:
        Refused: if another function has built it.
    """
    name = _specification(network).get("func")
    if name not in ("G_paper", "D_paper"):
        raise Refused(f"its network was built by the function {shown(name)}, not by G_paper or D_paper")
    return str(name)[0]


def convert(network: Instance, budget: int) -> Network:
    """Translate a network.

    Args:
        network: As unpickled.
        budget: Bytes that its arrays may have.

    Raises:
        Refused: if an operation is missing from ours, or the values are not those of the function.
    """
    arguments, kind = _specification(network), kind_of(network)
    for name, operation in REFUSED.items():
        if arguments.get(name):
            raise Refused(f"its network has {operation} ({name}), which ours have not")
    values = _Values(network.state.get("param_values"), budget, scaled=_flag(arguments, "use_wscale"))
    lod = network.state.get("toplevel_params", {})
    lod = lod.get("cur_lod", 0.0) if isinstance(lod, dict) else 0.0
    return (_generator if kind == "G" else _discriminator)(arguments, values, lod)


def _specification(network: Instance) -> Arguments:
    state = network.state
    spec = state.get("build_func_spec") if isinstance(state, dict) else None
    if not isinstance(spec, dict):
        raise Refused("its network (of the original Theano code) says nothing of how it was built")
    return spec


class _Values:
    """The values of all layers, in order.

    Args:
        given: A list of arrays.
        budget: Bytes that all of them may have.
        scaled: Whether a layer has a constant of its own.
    """

    def __init__(self, given: object, budget: int, *, scaled: bool) -> None:
        if not isinstance(given, list):
            raise Refused(f"the values of its network are {shown(given)}")
        arrays = [array_of(value) for value in given]
        if any(array is None or array.dtype.kind != "f" for array in arrays):
            raise Refused("its network has values that are no floating-point numbers")
        self._arrays = [array for array in arrays if array is not None]
        if sum(array.nbytes for array in self._arrays) > budget:
            raise Refused("one array is there many times: more numbers than the file has")
        self._scaled, self._next = scaled, 0

    def layer(self, *shape: int) -> tuple[Tensor, Tensor, float]:
        """Return weight, bias and factor of the next layer."""
        weight = self._take(*shape)
        factor = float(self._take()) if self._scaled else 1.0
        return weight, self._take(shape[0] if len(shape) == 4 else shape[1]), factor

    def done(self) -> None:
        """Check that there is nothing left."""
        if self._next != len(self._arrays):
            raise Refused(f"its network has {len(self._arrays)} arrays; its function has {self._next}")

    def _take(self, *shape: int) -> Tensor:
        if self._next >= len(self._arrays):
            raise Refused(f"its network has {len(self._arrays)} arrays, too few for its function")
        array: NDArray[Any] = self._arrays[self._next]
        if array.shape != shape:
            raise Refused(f"array {self._next} of its network is {array.shape}; expected {shape}")
        self._next += 1
        kind = np.float64 if array.dtype.itemsize == 8 else np.float32
        return torch.from_numpy(np.array(array, dtype=kind))


def _conv(values: _Values, outputs: int, inputs: int) -> Layer:
    weight, bias, factor = values.layer(outputs, inputs, 3, 3)
    return Layer(weight.flip(2, 3), bias, factor)


def _units(values: _Values, outputs: int, inputs: int) -> Layer:
    """Return a layer that is kept as [in, out]: lasagne's DenseLayer, and NINLayer for pixels."""
    weight, bias, factor = values.layer(inputs, outputs)
    return Layer(weight.t(), bias, factor)


def _pixels(values: _Values, outputs: int, inputs: int) -> Layer:
    layer = _units(values, outputs, inputs)
    return Layer(layer.weight[:, :, None, None], layer.bias, layer.factor)


def _generator(arguments: Arguments, values: _Values, lod: object) -> Network:
    config, widths = _shared(arguments, lod)
    latent = arguments.get("latent_size")
    latent = min(_filters(arguments, 0), 2**31) if latent is None else _whole(arguments, "latent_size", 0)
    config |= {
        "latent_size": latent,
        "normalize_latents": _flag(arguments, "normalize_latents"),
        "label_norm": "apart" if _flag(arguments, "normalize_latents") else "joined",
        "pixel_norm": _flag(arguments, "use_pixelnorm"),
        "activation": "leaky_relu" if _flag(arguments, "use_leakyrelu") else "relu",
        "upscale": "separate",
        "output_activation": _output(arguments),
    }
    weight, bias, factor = values.layer(widths[0], latent + config["label_size"], 4, 4)
    # A convolution of one pixel, padded all around, is its kernel: not flipped again.
    layers = {"dense": Layer(weight.permute(0, 2, 3, 1).flatten(0, 2), bias, factor)}
    layers["conv"] = _conv(values, widths[0], widths[0])
    for i in range(1, len(widths)):
        layers[f"blocks.{i - 1}.conv0_up"] = _conv(values, widths[i], widths[i - 1])
        layers[f"blocks.{i - 1}.conv1"] = _conv(values, widths[i], widths[i])
    for i in range(len(widths) - 1, -1, -1):  # lod 0, the largest, comes first
        layers[f"to_rgb.{i}"] = _pixels(values, config["channels"], widths[i])
    values.done()
    return assemble(Generator, config, layers)


def _discriminator(arguments: Arguments, values: _Values, lod: object) -> Network:
    config, widths = _shared(arguments, lod)
    maps = _maps(arguments)
    last, labels = _filters(arguments, 0), config["label_size"]
    config |= {
        "downscale": "separate",
        "dense_features": last,
        "stddev_group": BATCH if maps else 0,
        "stddev_features": max(maps, 1),
    }
    layers = {}
    for i in range(len(widths) - 1, 0, -1):
        layers[f"from_rgb.{i}"] = _pixels(values, widths[i], config["channels"])
        layers[f"blocks.{i - 1}.conv0"] = _conv(values, widths[i], widths[i])
        layers[f"blocks.{i - 1}.conv1_down"] = _conv(values, widths[i - 1], widths[i])
    layers["from_rgb.0"] = _pixels(values, widths[0], config["channels"])
    layers["conv"] = _conv(values, widths[0], widths[0] + maps)
    weight, bias, factor = values.layer(last, widths[0], 4, 4)
    layers["dense0"] = Layer(weight.flip(2, 3).flatten(1), bias, factor)
    layers["dense1"] = _joined(_units(values, 1, last), _units(values, labels, last) if labels else None)
    values.done()
    return assemble(Discriminator, config, layers)


def _joined(scores: Layer, labels: Layer | None) -> Layer:
    """Return the last layer of D: the score, then the labels, which are layers of their own there."""
    if labels is None:
        return scores
    weight = torch.cat([part.weight.double() * part.factor for part in (scores, labels)])
    biases = [part.bias for part in (scores, labels) if part.bias is not None]
    return Layer(weight.to(scores.weight.dtype), torch.cat(biases))


def _shared(arguments: Arguments, lod: object) -> tuple[dict[str, Any], list[int]]:
    """Translate what both functions take, and lod (0: grown; 1.25: to half of it, a quarter faded out)."""
    resolution = _whole(arguments, "resolution", 32)
    top = resolution.bit_length() - 3
    if not 0 <= top <= 20 or resolution != 4 << top:
        raise Refused(f"its network makes images of {resolution} pixels; expected 4 times a power of two")
    array = array_of(lod)
    value = float(array) if array is not None and array.ndim == 0 else -1.0
    if not 0 <= value <= top:
        raise Refused("its network has a cur_lod out of range")
    widths = [_filters(arguments, level) for level in range(1, top + 2)]
    config = {
        "channels": _whole(arguments, "num_channels", 1),
        "max_level": top,
        "label_size": _whole(arguments, "label_size", 0),
        "fmap_base": _whole(arguments, "fmap_base", 4096),
        "fmap_decay": _number(arguments, "fmap_decay", 1.0),
        "fmap_max": _whole(arguments, "fmap_max", 256),
        "equalized_lr": _flag(arguments, "use_wscale"),
        "level": top - int(value),
        "alpha": 1.0 - (value - int(value)),
    }
    return config, widths


def _filters(arguments: Arguments, stage: int) -> int:
    """Return `nf(stage)` of its network.py."""
    return feature_maps(
        stage - 1,
        fmap_base=_whole(arguments, "fmap_base", 4096),
        fmap_decay=_number(arguments, "fmap_decay", 1.0),
        fmap_max=_whole(arguments, "fmap_max", 256),
    )


def _maps(arguments: Arguments) -> int:
    """Return how many maps of deviations there are.

    Raises:
        Refused: if they are averaged in a way that ours are not.
    """
    averaging = arguments.get("mbstat_avg", "all")
    if arguments.get("mbstat_func", "Tstdeps") != "Tstdeps":
        raise Refused(
            f"its network has the batch statistic {shown(arguments['mbstat_func'])}, which ours have not"
        )
    if averaging is None or averaging == "all":
        return 0 if averaging is None else 1
    text = averaging if isinstance(averaging, str) else ""
    count = text.removeprefix("group")
    if text.startswith("group") and count.isascii() and count.isdigit() and 0 < len(count) < 6:
        return int(count)
    raise Refused(f"its network averages batch statistics by {shown(averaging)}, as ours do not")


def _output(arguments: Arguments) -> str:
    scale = arguments.get("tanh_at_end")
    if scale is None:
        return "linear"
    if scale not in (1, True) or not isinstance(scale, int | float):
        raise Refused(f"its network multiplies its images by {shown(scale)} after tanh, which ours do not")
    return "tanh"


def _whole(arguments: Arguments, name: str, default: int) -> int:
    value = arguments.get(name, default)
    if type(value) is not int or not 0 <= value < 2**31:
        raise Refused(f"its network has the {name} {shown(value)}; expected a whole number")
    return value


def _number(arguments: Arguments, name: str, default: float) -> float:
    value = arguments.get(name, default)
    if not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise Refused(f"its network has the {name} {shown(value)}; expected a number")
    return float(value)


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, True)
    if type(value) is not bool:
        raise Refused(f"its network has the {name} {shown(value)}; expected true or false")
    return value

"""Networks of the original TensorFlow code (tkarras/progressive_growing_of_gans on GitHub), `tfutil.Network`.

Its `__getstate__` gives version, name, static_kwargs, build_module_src, build_func_name and variables. The
source text among them is never run: the two functions `G_paper` and `D_paper` of its networks.py are what our
networks compute, and the arguments in static_kwargs say which of their variants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import shown
from progan.interop.systems.layers import Network
from progan.system.numpy_pickle import array_of
from progan.system.safe_pickle import Instance, Refused

CLASS = "tfutil.Network"
FUNCTIONS = {"G_paper": "Generator", "D_paper": "Discriminator"}

Arguments = Mapping[str, Any]
_SCOPE = re.compile(
    r"(To|From)RGB_lod([0-9]{1,2})/(weight|bias)|([0-9]{1,8})x\4/([A-Za-z0-9_]+)/(weight|bias)"
)
_BASE_LAYERS = ("Conv", "Dense", "Dense0", "Dense1")
_BLOCK_LAYERS = {
    "G": {"Conv0": "conv0_up", "Conv0_up": "conv0_up", "Conv1": "conv1"},
    "D": {"Conv0": "conv0", "Conv1": "conv1_down", "Conv1_down": "conv1_down"},
}


def matches(found: object) -> bool:
    """Tell whether an unpickled object is a network of the original TensorFlow code."""
    return isinstance(found, Instance) and found.name == CLASS


def kind_of(network: Instance) -> str:
    """Return 'G' or 'D'.

    Raises:
        Refused: if another function has built it.
    """
    function = _state(network).get("build_func_name")
    if not isinstance(function, str) or function not in FUNCTIONS:
        raise Refused(f"its network was built by the function {shown(function)}, not by G_paper or D_paper")
    return FUNCTIONS[function][0]


def convert(network: Instance, budget: int) -> Network:
    """Translate a network of the original code; its tensors become float32.

    Args:
        network: As unpickled.
        budget: Bytes that its variables may have.

    Raises:
        Refused: if it was built by another function, or is not whole.
    """
    kind, arguments = kind_of(network), _state(network).get("static_kwargs")
    if not isinstance(arguments, dict):
        raise Refused(f"its network was built with the arguments {shown(arguments)}")
    variables = _variables(_state(network).get("variables"))
    if sum(value.nbytes for value in variables.values()) > budget:
        raise Refused("one array is there under many names: more numbers than the file has")
    config = (_generator if kind == "G" else _discriminator)(arguments)
    max_level = config["max_level"]
    config["level"], config["alpha"] = _growth(variables.pop("lod", np.zeros(())), max_level)
    tensors = {}
    for name, value in variables.items():
        ours, tensor = translate(name, value, max_level, kind)
        tensors[ours] = tensor.float()
    return Network({"network": "Generator" if kind == "G" else "Discriminator", "config": config}, tensors)


def _state(network: Instance) -> Mapping[str, Any]:
    if not isinstance(network.state, dict):
        raise Refused("its network (of the original TensorFlow code) has no contents")
    return network.state


def translate(name: str, value: NDArray[Any], max_level: int, network: str) -> tuple[str, Tensor]:
    """Return our name and value of an official variable (or of its gradient).

    The original keeps convolutions as [k, k, in, out], its fused upscaling kernel as [k, k, out, in] and for
    a transposed convolution (hence mirrored against ours), and dense layers as [in, out]. It counts toRGB and
    fromRGB from the largest level, and names blocks by their resolution.

    Args:
        name: Such as `8x8/Conv0_up/weight` or `ToRGB_lod0/bias`.
        value: The variable.
        max_level: Of the network.
        network: `G` or `D`.

    Raises:
        Refused: for a name that the network does not have.
    """
    found = _SCOPE.fullmatch(name)
    ours = None if found is None else _our_name(found, max_level, network)
    if ours is None:
        raise Refused(f"its network has an unknown variable {shown(name)}")
    return ours, _our_value(name, value)


def _our_name(found: re.Match[str], max_level: int, network: str) -> str | None:
    rgb, lod, rgb_part, side, layer, part = found.groups()
    if rgb is not None:
        return f"{rgb.lower()}_rgb.{max_level - int(lod)}.{rgb_part}"
    level = int(side).bit_length() - 3
    if int(side) != 4 << max(level, 0):
        return None
    if level == 0:
        if layer == "Dense":
            return "dense_bias" if part == "bias" else "dense.weight"
        return f"{layer.lower()}.{part}" if layer in _BASE_LAYERS else None
    ours = _BLOCK_LAYERS[network].get(layer)
    return None if ours is None else f"blocks.{level - 1}.{ours}.{part}"


def _our_value(name: str, value: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    if tensor.ndim == 4 and "/Conv0_up/" in name:
        return tensor.permute(2, 3, 0, 1).flip(2, 3).contiguous()
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.t().contiguous() if tensor.ndim == 2 else tensor


def _variables(given: Any) -> dict[str, NDArray[Any]]:
    """Check the variables of a network: pairs of a name and an array of floating-point numbers."""
    if not isinstance(given, list):
        raise Refused("its network has no list of variables")
    found: dict[str, NDArray[Any]] = {}
    for pair in given:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise Refused("its network has variables without names")
        value = array_of(pair[1])
        if value is None or value.dtype.kind != "f" or pair[0] in found:
            raise Refused(
                f"its network's variable {shown(pair[0])} is no array of numbers, or is there twice"
            )
        found[pair[0]] = value
    return found


def _growth(lod: NDArray[Any], max_level: int) -> tuple[int, float]:
    """Translate lod (0: grown to full size; 1.25: to half of it, a quarter faded out) to level and alpha."""
    value = float(lod) if lod.ndim == 0 else -1.0
    if not 0 <= value <= max_level:
        raise Refused("its network has a variable lod out of range")
    return max_level - int(value), 1.0 - (value - int(value))


def _shared(arguments: Arguments) -> dict[str, Any]:
    """Translate the arguments that G_paper and D_paper share; the defaults are those of the functions."""
    resolution = _whole(arguments, "resolution", 32)
    max_level = resolution.bit_length() - 3
    if max_level < 0 or resolution != 4 << max_level:
        raise Refused(f"its network makes images of {resolution} pixels; expected 4 times a power of two")
    return {
        "channels": _whole(arguments, "num_channels", 1),
        "max_level": max_level,
        "label_size": _whole(arguments, "label_size", 0),
        "fmap_base": _whole(arguments, "fmap_base", 8192),
        "fmap_decay": arguments.get("fmap_decay", 1.0),
        "fmap_max": _whole(arguments, "fmap_max", 512),
        "equalized_lr": _flag(arguments, "use_wscale"),
    }


def _generator(arguments: Arguments) -> dict[str, Any]:
    """Translate the arguments of G_paper."""
    return {
        **_shared(arguments),
        "latent_size": arguments.get("latent_size"),
        "normalize_latents": _flag(arguments, "normalize_latents"),
        "pixel_norm": _flag(arguments, "use_pixelnorm"),
        "pixel_norm_eps": arguments.get("pixelnorm_epsilon", 1e-8),
        "activation": "leaky_relu" if _flag(arguments, "use_leakyrelu") else "relu",
        # One function, but for rounding.
        "upscale": "fused" if _flag(arguments, "fused_scale") else "separate",
    }


def _discriminator(arguments: Arguments) -> dict[str, Any]:
    """Translate the arguments of D_paper, which has no minibatch standard deviation for groups up to 1."""
    group = _whole(arguments, "mbstd_group_size", 4)
    return {
        **_shared(arguments),
        "stddev_group": group if group > 1 else 0,
        "downscale": "fused" if _flag(arguments, "fused_scale") else "separate",
    }


def _whole(arguments: Arguments, name: str, default: int) -> int:
    value = arguments.get(name, default)
    if type(value) is not int or not 0 <= value < 2**31:
        raise Refused(f"its network has the {name} {shown(value)}; expected a whole number")
    return value


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, True)
    if type(value) is not bool:
        raise Refused(f"its network has the {name} {shown(value)}; expected true or false")
    return value

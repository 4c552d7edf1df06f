"""Checkpoints of n2cholas/progan-flax: what `flax.training.checkpoints` writes, MessagePack.

Latents are used as they are; norms divide by the deviation, sqrt(Var[x] + eps), the first one over all units;
images end in tanh. Gains are those of PyTorch's `calculate_gain`. Its D never blends: the branch that would
is not reached.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progan.errors import DependencyError
from progan.interop.systems.layers import (
    Foreign,
    Layer,
    Network,
    State,
    assemble,
    channel_major,
    equalized,
)
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.safe_pickle import Refused

NETWORKS = {"Gs": "g_ema_params", "G": "g_params", "D": "d_params"}
TYPES = frozenset({"float16", "float32", "float64", "int32", "int64", "uint8", "bool"})
LEAKY = math.sqrt(2 / (1 + 0.2**2))
TANH = 5 / 3
GROUP = 4
MAX_SIDES, MAX_KEYS = 64, 10_000


def starts(start: bytes) -> bool:
    """Tell whether a file that begins like this may be MessagePack: a map whose first key is text."""
    header = 3 if start[:1] == b"\xde" else 1 if b"\x81" <= start[:1] <= b"\x8f" else 0
    key = start[header : header + 1]
    return header > 0 and (b"\xa1" <= key <= b"\xbf" or key == b"\xd9")


def read(path: Path) -> Any:
    """Return what is in a file of MessagePack: arrays in dicts with text as keys.

    Raises:
        Refused: if it is damaged, or holds anything else.
        DependencyError: if the package msgpack is missing.
    """
    try:
        import msgpack
    except ModuleNotFoundError:
        raise DependencyError(
            f"{path} is a checkpoint of Flax, which needs the package msgpack: pip install 'progan[flax]'"
        ) from None
    try:
        return msgpack.unpackb(
            path.read_bytes(), ext_hook=_extension, max_array_len=MAX_SIDES, max_map_len=MAX_KEYS
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Refused(f"it is a damaged file of MessagePack ({error})") from None


def _extension(code: int, data: bytes) -> Any:
    """Return an array, which Flax writes as (shape, type, bytes); None for other objects."""
    import msgpack

    if code != 1:
        return None
    parts = msgpack.unpackb(data, max_array_len=MAX_SIDES)
    if not isinstance(parts, list) or len(parts) != 3:
        raise Refused("it has an array in an unknown form")
    if parts[1] not in TYPES:  # such as random states; a network has no such parameters
        return None
    shape, kind, buffer = parts
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise Refused("it has an array of an unknown shape")
    if not isinstance(buffer, bytes) or len(buffer) != math.prod(shape) * np.dtype(kind).itemsize:
        raise Refused("it has an array of another size than it says")
    return torch.from_numpy(np.frombuffer(bytearray(buffer), dtype=kind).reshape(shape))


def matches(found: object) -> bool:
    """Tell whether what was read is such a checkpoint, or the parameters of a network."""
    return isinstance(found, dict) and bool(_parts(found))


def _parts(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    known = {name: found[key] for name, key in NETWORKS.items() if isinstance(found.get(key), dict)}
    if known:
        return known
    return {"G": found} if "4x4_to_rgb" in found else {"D": found} if "4x4_from_rgb" in found else {}


class Checkpoint(Foreign):
    """A checkpoint, or the parameters of a network.

    Args:
        found: As read.
        budget: Bytes of the file.
    """

    def __init__(self, found: Mapping[str, Any], budget: int) -> None:
        self._parts, self._budget = _parts(found), budget
        self.names = list(self._parts)

    def describe(self) -> str:
        """Return what it is, in words."""
        rgb = "from_rgb" if self.names == ["D"] else "to_rgb"
        levels = sum(f"{4 << i}x{4 << i}_{rgb}" in self._parts[self.names[0]] for i in range(20))
        return f"a checkpoint of progan-flax, {levels} levels"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        state = State(_flat(self._parts[name]), self._budget)
        return _discriminator(state) if name == "D" else _generator(state)


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by `module/kernel`; modules are one or two deep."""
    flat: dict[str, Any] = {}
    for name, part in parameters.items():
        inner = part.get("EqualizedLRConv_0", part) if isinstance(part, dict) else part
        if not isinstance(inner, dict):
            raise Refused("its network has parameters that belong to no layer")
        flat |= {f"{name}/{key}": value for key, value in inner.items()}
    return flat


def _levels(state: State, rgb: str) -> int:
    return next(i for i in range(22) if f"{4 << i}x{4 << i}_{rgb}/kernel" not in state)


def _conv(state: State, name: str, outputs: int | None, inputs: int | None, side: int, gain: float) -> Layer:
    """Return a convolution that is kept as [k, k, in, out]."""
    kernel = state.take(f"{name}/kernel", side, side, inputs, outputs).permute(3, 2, 0, 1)
    return equalized(kernel, state.bias(f"{name}/bias", kernel.shape[0]), gain=gain)


def _generator(state: State) -> Network:
    levels = _levels(state, "to_rgb")
    shapes = state.shapes("{0}x{0}_to_rgb/kernel", [4 << i for i in range(levels)])
    channels, widths = shapes[0][3], [shape[2] for shape in shapes]
    first = _conv(state, "4x4_block_0", 16 * widths[0], None, 1, LEAKY)
    bias = None if first.bias is None else channel_major(first.bias)
    layers = {
        "dense": Layer(channel_major(first.weight.flatten(1)), bias, first.factor),
        "conv": _conv(state, "4x4_block_1", widths[0], widths[0], 3, LEAKY),
    }
    for i, width in enumerate(widths):
        place = f"{4 << i}x{4 << i}"
        layers[f"to_rgb.{i}"] = _conv(state, f"{place}_to_rgb", channels, width, 1, TANH)
        if i:
            up = _conv(state, f"{place}_block_0", width, widths[i - 1], 3, LEAKY)
            layers[f"blocks.{i - 1}.conv0_up"] = up
            layers[f"blocks.{i - 1}.conv1"] = _conv(state, f"{place}_block_1", width, width, 3, LEAKY)
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "latent_size": first.weight.shape[1],
        "normalize_latents": False,
        "pixel_norm_form": "variance",
        "dense_norm": "units",
        "dense_bias": "unit",
        "gain": "activation",
        "upscale": "separate",
        "output_activation": "tanh",
    }
    return assemble(Generator, config, layers)


def _discriminator(state: State) -> Network:
    levels = _levels(state, "from_rgb")
    shapes = state.shapes("{0}x{0}_from_rgb/kernel", [4 << i for i in range(levels)])
    channels, widths = shapes[0][2], [shape[3] for shape in shapes]
    dense0 = _conv(state, "4x4_block_1", None, widths[0], 4, LEAKY)
    dense1 = _conv(state, "dense_out", 1, None, 1, 1.0)
    layers = {
        "conv": _conv(state, "4x4_block_0", widths[0], widths[0] + 1, 3, LEAKY),
        "dense0": Layer(dense0.weight.flatten(1), dense0.bias, dense0.factor),
        "dense1": Layer(dense1.weight.flatten(1), dense1.bias, dense1.factor),
    }
    for i, width in enumerate(widths):
        place = f"{4 << i}x{4 << i}"
        layers[f"from_rgb.{i}"] = _conv(state, f"{place}_from_rgb", width, channels, 1, LEAKY)
        if i:
            layers[f"blocks.{i - 1}.conv0"] = _conv(state, f"{place}_block_0", width, width, 3, LEAKY)
            down = _conv(state, f"{place}_block_1", widths[i - 1], width, 3, LEAKY)
            layers[f"blocks.{i - 1}.conv1_down"] = down
    state.done()
    config = {
        "channels": channels,
        "max_level": levels - 1,
        "fmaps": widths,
        "dense_features": dense0.weight.shape[0],
        "gain": "activation",
        "downscale": "separate",
        "stddev_group": GROUP,
    }
    return assemble(Discriminator, config, layers)

"""What Keras 2 wrote as HDF5 (`model.save("x.h5")`, `save_weights`): a description, and weights by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progan.errors import DependencyError, shown
from progan.system.files import parse_json
from progan.system.safe_pickle import Refused

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_ITEMS = 20_000
LEAVES = ("kernel:0", "bias:0", "weight_scale:0")


@dataclass(frozen=True)
class KerasFile:
    """A model of Keras.

    Attributes:
        config: Its `model_config`; None if the file holds weights alone.
        weights: Tensors by `layer/kernel`, where the first two parts of a layer's name (`block_2/conv2d_1`)
            stand for it.
    """

    config: Mapping[str, Any] | None
    weights: Mapping[str, Tensor]


def read_keras(path: Path, budget: int) -> KerasFile:
    """Read a model; nothing outside the file is followed, whatever links it has.

    Args:
        path: An HDF5 file.
        budget: Bytes that all its weights may have.

    Raises:
        Refused: if it is damaged, or no file of Keras 2.
        DependencyError: if the package h5py is missing.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise DependencyError(
            f"{path} is an HDF5 file, which needs the package h5py: pip install 'progan[hdf5]'"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return KerasFile(_config(file.attrs.get("model_config")), _weights(root, budget))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"it is a damaged HDF5 file ({shown(str(error), 120)})") from None


def _config(text: Any) -> Mapping[str, Any] | None:
    """Parse the description of a model."""
    if text is None:
        return None
    try:
        found = parse_json(text if isinstance(text, str) else bytes(text))
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused("the description of its model is no JSON")
    return found


def _weights(root: Any, budget: int) -> dict[str, Tensor]:
    """Return the weights in a group; hard links alone are followed, each object once."""
    import h5py

    found: dict[str, Any] = {}
    seen = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if seen > MAX_ITEMS:
            return True
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 2 and parts[-1] in LEAVES:
            found["/".join([*parts[:2], parts[-1].removesuffix(":0")])] = item
        return None

    if root.visititems(visit):
        raise Refused(f"it has more than {MAX_ITEMS:,} items")
    total = 0
    for name, item in found.items():
        if item.external or item.is_virtual:
            raise Refused(f"its {shown(name)} lies in another file")
        if item.dtype.kind != "f" or item.ndim > 4:
            raise Refused(f"its {shown(name)} is no tensor of floating-point numbers")
        total += math.prod(item.shape) * item.dtype.itemsize
    if total > budget:
        raise Refused("its weights have more numbers than the file has bytes for")
    return {name: torch.from_numpy(_plain(np.asarray(item[()]))) for name, item in found.items()}


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return values in the machine's byte order, in memory that may be written."""
    return np.array(values, dtype=values.dtype.newbyteorder("="))

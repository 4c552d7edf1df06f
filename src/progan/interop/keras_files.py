"""What Keras 2 wrote as HDF5 (`model.save("x.h5")`, `save_weights`): a description, and weights by layer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import progan
from progan.errors import DependencyError
from progan.interop.keras_process import REFUSED
from progan.system.files import parse_json
from progan.system.npy_files import load_arrays
from progan.system.safe_pickle import Refused

MAGIC = b"\x89HDF\r\n\x1a\n"
PATIENCE = 60.0
"""Seconds that a file may take, and one more for each 10 MB."""


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
    """Read a model in a process of its own, which a damaged file may hang or crash.

    Args:
        path: An HDF5 file.
        budget: Bytes that all its weights may have.

    Raises:
        Refused: if it is damaged, or no file of Keras 2.
        DependencyError: if the package h5py is missing.
    """
    if find_spec("h5py") is None:
        raise DependencyError(
            f"{path} is an HDF5 file, which needs the package h5py: pip install 'progan[hdf5]'"
        )
    with tempfile.TemporaryDirectory(prefix="progan-keras-") as folder:
        arrays = _arrays(path, budget, Path(folder) / "weights.npz")
    text = arrays.pop("config", None)
    weights = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    return KerasFile(None if text is None else _config(text.tobytes()), weights)


def _arrays(path: Path, budget: int, out: Path) -> dict[str, Any]:
    """Have the file read by a process, within a time."""
    words = [sys.executable, "-m", "progan.interop.keras_process", str(path.resolve()), str(budget), str(out)]
    paths = [str(Path(progan.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    patience = PATIENCE + path.stat().st_size / 1e7
    try:
        done = subprocess.run(words, capture_output=True, env=environment, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"it is a damaged HDF5 file (not read in {patience:.0f} seconds)") from None
    said = done.stderr.decode(errors="replace").strip().splitlines() or [""]
    if done.returncode == REFUSED:
        raise Refused(said[-1])
    if done.returncode:
        raise Refused(f"it is a damaged HDF5 file (its reader ended with {done.returncode})")
    return load_arrays(out)


def _config(text: bytes) -> Mapping[str, Any]:
    """Parse the description of a model."""
    try:
        found = parse_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused("the description of its model is no JSON")
    return found

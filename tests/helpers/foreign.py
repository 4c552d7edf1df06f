"""Networks of other systems for tests: their names and shapes from tests/golden, their numbers by a formula.

The same formula filled the networks of the other systems' own code, whose outputs tests/golden/foreign_*.npz
holds: of each, `PLACES` values spread over it, in float64.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan import Generator, import_weights, load, save
from progan.interop.import_weights import Which

GOLDEN = Path(__file__).parents[1] / "golden"
PLACES = 40
TOLERANCE = 2e-6
"""Of images and scores of size 4, in float64."""


def numbers(seed: int, *shape: int) -> NDArray[np.float64]:
    """Return numbers of mean 0 and variance 1, uniform, from a hash of the place (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1_000_003)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    uniform = (x >> np.uint64(11)).astype(np.float64) / 2.0**53
    made: NDArray[np.float64] = ((uniform * 2 - 1) * math.sqrt(3)).reshape(shape)
    return made


def spread(output: Any) -> NDArray[np.float64]:
    """Return `PLACES` values of an output, or all if there are fewer."""
    flat = np.asarray(output, dtype=np.float64).reshape(-1)
    places = np.linspace(0, len(flat) - 1, min(PLACES, len(flat))).round().astype(int)
    chosen: NDArray[np.float64] = flat[places]
    return chosen


def state_dict(entries: list[Any], seed: int) -> OrderedDict[str, Tensor]:
    """Return tensors of these names, shapes and deviations; a deviation of None is a count, 0."""
    state = OrderedDict()
    for i, (name, shape, deviation) in enumerate(entries):
        values = numbers(seed + i, *shape) * (0.0 if deviation is None else deviation)
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


@cache
def golden(system: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Return the cases of a system, and what its own code made of them."""
    with np.load(GOLDEN / f"foreign_{system}.npz") as arrays:
        cases = json.loads(str(arrays["cases"]))
        return cases, {name: arrays[name] for name in arrays.files if name != "cases"}


def latents(size: int, n: int = 8) -> Tensor:
    """Return the latents that the outputs were made of: [n, size]."""
    return torch.from_numpy(numbers(901, n, size))


def images(channels: int, height: int, width: int, n: int = 8) -> Tensor:
    """Return the images that the scores were made of: [n, channels, height, width]."""
    return torch.from_numpy(numbers(902, n, channels, height, width))


def read(path: Path, name: Which | None = None, like: Path | None = None) -> tuple[Any, list[str]]:
    """Return a network in float64, after it was saved and loaded as ours, and what was said of its file."""
    said: list[str] = []
    made = import_weights(path, name, like=like, say=said.append)
    if isinstance(made, Generator):
        save(made, path.with_suffix(".safetensors"))
        made = load(path.with_suffix(".safetensors"))
    return made.double(), said


def agrees(ours: Tensor, theirs: NDArray[Any]) -> None:
    """Compare what ours makes with the values that a golden file has."""
    print(f"largest difference {np.abs(spread(ours.detach().numpy()) - theirs).max():.1e}")
    np.testing.assert_allclose(spread(ours.detach().numpy()), theirs, rtol=0, atol=TOLERANCE)

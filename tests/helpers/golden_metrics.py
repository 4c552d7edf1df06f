"""Numbers that the original code computed of two sets of images, and the images."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = [
    (0, -1),
    (0, -2),
    (0, -3),
    *((-1, dx) for dx in range(-3, 4)),
    *((-2, dx) for dx in range(-2, 3)),
]
NEIGHBOURS += [(-3, 0)]


@cache
def golden(metric: str) -> dict[str, NDArray[np.float32]]:
    with np.load(Path(__file__).parents[1] / "golden" / f"metrics_{metric}.npz") as arrays:
        return dict(arrays)


@cache
def golden_images(name: str) -> NDArray[np.uint8]:
    """[512, 3, 64, 64], multiples of 4. Stored is what a linear guess from the pixels before gets wrong."""
    stored = zlib.decompress(golden("swd")[f"images_{name}_zlib"].tobytes())
    wrong = np.frombuffer(stored, dtype=np.uint8).reshape(-1, 64, 64).transpose(1, 2, 0).astype(np.int32) - 32
    weights = golden("swd")[f"images_{name}_weights"].astype(np.int32)
    canvas = np.full((67, 70, wrong.shape[2]), 32, dtype=np.int32)
    for y in range(3, 67):
        for x in range(3, 67):
            guess = sum(w * canvas[y + dy, x + dx] for w, (dy, dx) in zip(weights, NEIGHBOURS, strict=True))
            canvas[y, x] = (wrong[y - 3, x - 3] + ((guess + 128) >> 8)) % 64
    planes = canvas[3:, 3:67].transpose(2, 0, 1) * 4
    return np.ascontiguousarray(planes.reshape(-1, 3, 64, 64), dtype=np.uint8)

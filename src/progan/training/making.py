"""Images made by several processes: the same as by one, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from progan.evaluation.labels import Label
from progan.evaluation.sampling import batch_size_for, generate, level_of
from progan.models.generator import Generator
from progan.training.distributed import Ranks


def generate_together(
    ranks: Ranks,
    G: Generator,
    n: int,
    *,
    seed: int = 0,
    start: int = 0,
    label: Label | None = None,
    level: int | None = None,
    batch_size: int | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Make pictures as `generate` does, each batch on one of the processes in turn; all call it.

    The batches are those of one process, so every picture is the same in its last bit (on the same hardware).

    Args:
        ranks: The processes.
        G: The generator; each process has its own, with the same weights.
        n, seed, start, label, level, batch_size: As in `generate`, the same on all processes.

    Returns:
        On the first process all batches in their order, uint8 [b, C, h, w]; on the others none: they are to
        iterate all the same.

    Raises:
        ConfigError: as `generate`.
    """
    whole = generate(
        G, n, seed=seed, start=start, label=label, level=level, batch_size=batch_size
    )  # which has checked all of it
    if ranks.size == 1:
        return whole
    level = level_of(G, level)
    size = batch_size or batch_size_for(G, level)

    def make(first: int, count: int) -> NDArray[np.uint8]:
        parts = generate(G, count, seed=seed, start=first, label=label, level=level, batch_size=size)
        return next(parts)

    return _dealt(ranks, make, range(start, start + n), (size, G.channels, *G.resolution(level)))


def _dealt(
    ranks: Ranks, make: Callable[[int, int], NDArray[np.uint8]], indices: range, shape: tuple[int, ...]
) -> Iterator[NDArray[np.uint8]]:
    """Make a batch of `shape` on each process, gather them, and so on until all indices are made."""
    size = shape[0]
    for turn in range(indices.start, indices.stop, size * ranks.size):
        ranks.at(f"making pictures from {turn:,}")
        first = turn + ranks.rank * size
        count = max(0, min(size, indices.stop - first))
        made = torch.zeros(shape, dtype=torch.uint8)
        if count:
            made[:count] = torch.from_numpy(make(first, count))
        for rank, images in enumerate(ranks.gather(made)):
            left = indices.stop - turn - rank * size
            if left > 0:
                yield images[: min(size, left)].numpy()

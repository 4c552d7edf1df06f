"""Images that all processes of a group make together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from progan.distributed.ranks import Ranks
from progan.distributed.work_sharing import Part, Work, share_parts
from progan.generation.samples import Samples
from progan.generation.sampling import Make, Stored, batch_size_for, batches_of, in_batches, level_of, whole
from progan.models.generator import Generator


def generate_together(
    ranks: Ranks,
    G: Generator,
    samples: Samples,
    *,
    start: int = 0,
    level: int | None = None,
    batch_size: int | None = None,
    make: Make | None = None,
    depth: int = 8,
) -> Iterator[Stored]:
    """Make the pictures of samples, each batch on one of the processes in turn; all call it.

    The batches are those of one process, so every picture is the same in its last bit (on the same hardware).

    Args:
        ranks: The processes.
        G: The generator; each process has its own, with the same weights.
        samples: Which, the same on all processes.
        start: The first of them to be made.
        level: As `level_of` takes it; None for the generator's own.
        batch_size: Images in a batch; None chooses by their size.
        make: What makes them with G; None for G itself.
        depth: Bits of a value, 8 or 16.

    Returns:
        On the first process all batches in their order, uint8 (or uint16) [b, C, h, w]; on the others
        none: they are to iterate all the same.

    Raises:
        ConfigError: if a number is not whole or out of range, or there is no such level.
    """
    level, start = level_of(G, level), whole("start", start)
    size = batch_size_for(G, level) if batch_size is None else whole("batch_size", batch_size, least=1)
    if ranks.size == 1:
        return batches_of(G, samples.rows, range(start, samples.count), size, level, make, depth)
    kind = np.uint8 if depth == 8 else np.int32  # processes do not send uint16 to each other

    def made(part: Part) -> NDArray[np.uint8 | np.int32]:
        indices = range(int(part[0]), int(part[0]) + len(part))
        return next(batches_of(G, samples.rows, indices, size, level, make, depth)).astype(kind, copy=False)

    work = Work("making images", made, (G.channels, *G.resolution(level)), kind)
    parts = [np.arange(part.start, part.stop) for part in in_batches(range(start, samples.count), size)]
    made_by_all = share_parts(ranks, work, parts)
    return made_by_all if depth == 8 else (batch.astype(np.uint16) for batch in made_by_all)

"""Images that all processes of a group make together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from progan.data.pixels import Images
from progan.distributed.ranks import Ranks
from progan.distributed.work_sharing import Part, Work, follow, in_parts, leading
from progan.generation.samples import Samples
from progan.generation.sampling import Make, batch_size_for, batches_of, level_of, whole
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
) -> Iterator[Images]:
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

    Returns:
        On the first process all batches in their order, uint8 [b, C, h, w]; on the others none: they are to
        iterate all the same.

    Raises:
        ConfigError: if a number is not whole or out of range, or there is no such level.
    """
    level, start = level_of(G, level), whole("start", start)
    size = batch_size_for(G, level) if batch_size is None else whole("batch_size", batch_size, least=1)
    if ranks.size == 1:
        return batches_of(G, samples.rows, range(start, samples.count), size, level, make)

    def made(part: Part) -> Images:
        first = int(part[0])
        return next(batches_of(G, samples.rows, range(first, first + len(part)), size, level, make))

    work = Work("making images", made, (G.channels, *G.resolution(level)), np.uint8)
    return _all(ranks, work, in_parts(np.arange(start, samples.count), size))


def _all(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[Images]:
    """Do all parts: yield what is made on the first process, follow on the others."""
    if not ranks.first:
        follow(ranks, [work])
        return
    with leading(ranks) as deal:
        yield from deal(work, parts)

"""Images that all processes of a group make together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from progan.data.pixels import Images
from progan.distributed.ranks import Ranks
from progan.distributed.work_sharing import Part, Work, follow, in_parts, leading
from progan.generation.label_arguments import Label
from progan.generation.sampling import batch_size_for, generate, level_of
from progan.models.generator import Generator


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
) -> Iterator[Images]:
    """Make pictures as `generate` does, each batch on one of the processes in turn; all call it.

    The batches are those of one process, so every picture is the same in its last bit (on the same hardware).

    Args:
        ranks: The processes.
        G: The generator; each process has its own, with the same weights.
        n, seed, start, label, level, batch_size: The arguments of `generate`, the same on all processes.

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

    def make(part: Part) -> Images:
        first = int(part[0])
        return next(generate(G, len(part), seed=seed, start=first, label=label, level=level, batch_size=size))

    work = Work("making images", make, (G.channels, *G.resolution(level)), np.uint8)
    return _all(ranks, work, in_parts(np.arange(start, start + n), size))


def _all(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[Images]:
    """Do all parts: yield what is made on the first process, follow on the others."""
    if not ranks.first:
        follow(ranks, [work])
        return
    with leading(ranks) as deal:
        yield from deal(work, parts)

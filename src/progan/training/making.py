"""Images made by several processes: the same as by one, in the same order.

The first process leads: it alone knows which images are wanted, and how long. The others follow: they make
what it asks for until it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch

from progan.errors import Interrupted, RankError, ToldElsewhere
from progan.evaluation.dealing import Deal, Make, Part, alone, in_parts
from progan.evaluation.images import Images
from progan.evaluation.labels import Label
from progan.evaluation.sampling import batch_size_for, generate, level_of
from progan.models.generator import Generator
from progan.training.distributed import Ranks


@contextmanager
def leading(ranks: Ranks) -> Iterator[Deal]:
    """Give the first process what makes images together with the others, which `follow` meanwhile.

    The end of the block lets them go on, also if it ends with an error. Not if a process is lost or this one
    is interrupted (amid a part, perhaps): then all of them end, as `Ranks` tells them.

    Args:
        ranks: The processes.

    Raises:
        RankError, ToldElsewhere: if a process is lost or has failed.
    """
    if ranks.size == 1:
        yield alone
        return
    try:
        yield partial(_lead, ranks)
    except (RankError, ToldElsewhere, Interrupted):
        raise
    except Exception:
        ranks.from_first(None)
        raise
    ranks.from_first(None)


def follow(ranks: Ranks, make: Make, shape: tuple[int, ...]) -> None:
    """Make what the first process asks for within its `leading`; all others call this.

    Args:
        ranks: The processes.
        make: Makes the images that the first would make of the same indices.
        shape: Of an image.

    Raises:
        RankError, ToldElsewhere: if a process is lost or has failed.
    """
    done: list[list[int]] | None = None
    while (wanted := ranks.from_first(done)) is not None:
        _exchange(ranks, make, wanted, shape)


def _lead(ranks: Ranks, make: Make, parts: Sequence[Part], shape: tuple[int, ...]) -> Iterator[Images]:
    """Deal parts to the processes, one each, and so on; yield their images in order. See `Deal`."""
    for turn in range(0, len(parts), ranks.size):
        dealt = parts[turn : turn + ranks.size]
        wanted: list[list[int]] = ranks.from_first([part.tolist() for part in dealt])
        for part, images in zip(dealt, _exchange(ranks, make, wanted, shape), strict=True):
            yield make(part) if images is None else images


def _exchange(
    ranks: Ranks, make: Make, wanted: Sequence[Sequence[int]], shape: tuple[int, ...]
) -> list[Images | None]:
    """Make this process's part, and give it to the first.

    Returns:
        On the first the images of each part, None where they could not be made; on the others nothing.
    """
    ranks.at(f"making images from {wanted[0][0]:,}")
    own = wanted[ranks.rank] if ranks.rank < len(wanted) else []
    made, count = torch.zeros((max(map(len, wanted)), *shape), dtype=torch.uint8), 0
    # Whatever hinders it, the others wait for an answer; then the first makes the part or meets the same.
    with suppress(Exception):
        if own:
            made[: len(own)] = torch.from_numpy(make(np.array(own, np.int64)))
            count = len(own)
    counts, images = ranks.gather(torch.tensor(count)), ranks.gather(made)
    each = zip(wanted, counts, images, strict=False)  # there may be fewer parts than processes
    return [there[: len(part)].numpy() if int(n) == len(part) else None for part, n, there in each]


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

    def make(part: Part) -> Images:
        first = int(part[0])
        return next(generate(G, len(part), seed=seed, start=first, label=label, level=level, batch_size=size))

    return _all(ranks, make, in_parts(np.arange(start, start + n), size), (G.channels, *G.resolution(level)))


def _all(ranks: Ranks, make: Make, parts: Sequence[Part], shape: tuple[int, ...]) -> Iterator[Images]:
    """Make all parts: yield them on the first process, follow on the others."""
    if not ranks.first:
        follow(ranks, make, shape)
        return
    with leading(ranks) as deal:
        yield from deal(make, parts, shape)

"""Work on many images done by several processes: the same as by one, in the same order.

The first process leads: it alone knows what is wanted, and how long. The others follow: they do what it asks
for until it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from progan.errors import Interrupted, RankError, ToldElsewhere
from progan.evaluation.dealing import Deal, Make, Part, Work, alone, in_parts
from progan.evaluation.images import Images
from progan.evaluation.labels import Label
from progan.evaluation.sampling import batch_size_for, generate, level_of
from progan.models.generator import Generator
from progan.training.distributed import Ranks


class _Wanted(TypedDict):
    """What the first process asks for: a part for each process, of some work."""

    work: str
    parts: list[list[int]]
    shape: tuple[int, ...]
    dtype: str


@contextmanager
def leading(ranks: Ranks) -> Iterator[Deal]:
    """Give the first process what does work together with the others, which `follow` meanwhile.

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


def follow(ranks: Ranks, works: Sequence[Work]) -> None:
    """Do what the first process asks for within its `leading`; all others call this.

    Args:
        ranks: The processes.
        works: What can be done here. Work of another name, which means something else there, the first does
            by itself.

    Raises:
        RankError, ToldElsewhere: if a process is lost or has failed.
    """
    makes = {work.name: work.make for work in works}
    done: _Wanted | None = None
    while (wanted := ranks.from_first(done)) is not None:
        _exchange(ranks, makes.get(wanted["work"], _cannot), wanted)


def _cannot(_part: Part) -> NDArray[Any]:
    raise NotImplementedError


def _lead(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """Deal parts to the processes, one each, and so on; yield what is made of each in order. See `Deal`."""
    for turn in range(0, len(parts), ranks.size):
        dealt = parts[turn : turn + ranks.size]
        wanted: _Wanted = {
            "work": work.name,
            "parts": [part.tolist() for part in dealt],
            "shape": work.shape,
            "dtype": np.dtype(work.dtype).name,
        }
        for part, made in zip(dealt, _exchange(ranks, work.make, ranks.from_first(wanted)), strict=True):
            yield work.make(part) if made is None else made


def _exchange(ranks: Ranks, make: Make, wanted: _Wanted) -> list[NDArray[Any] | None]:
    """Do this process's part, and give what it makes to the first.

    Returns:
        On the first what was made of each part, None where it could not be made; on the others nothing.
    """
    parts = wanted["parts"]
    ranks.at(f"{wanted['work'].split(':')[0]} from {parts[0][0]:,}")
    own = parts[ranks.rank] if ranks.rank < len(parts) else []
    kind = getattr(torch, wanted["dtype"])
    made, count = torch.zeros((max(map(len, parts)), *wanted["shape"]), dtype=kind), 0
    # Whatever hinders it, the others wait for an answer; then the first does the part or meets the same.
    try:
        if own:
            made[: len(own)] = torch.from_numpy(make(np.array(own, np.int64)))
            count = len(own)
    except (RankError, ToldElsewhere):
        raise
    except Exception:
        count = 0
    counts, all_made = ranks.gather(torch.tensor(count)), ranks.gather(made)
    each = zip(parts, counts, all_made, strict=False)  # there may be fewer parts than processes
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

    work = Work("making images", make, (G.channels, *G.resolution(level)), np.uint8)
    return _all(ranks, work, in_parts(np.arange(start, start + n), size))


def _all(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[Images]:
    """Do all parts: yield what is made on the first process, follow on the others."""
    if not ranks.first:
        follow(ranks, [work])
        return
    with leading(ranks) as deal:
        yield from deal(work, parts)

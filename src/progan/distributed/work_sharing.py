"""Work on many images done by several processes: the same as by one, in the same order.

The first process leads: it alone knows what is wanted, and how long. The others follow: they do what it asks
for until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from progan.distributed.ranks import Ranks
from progan.errors import Interrupted, RankError, ToldElsewhere

T = TypeVar("T")

Part: TypeAlias = NDArray[np.int64]
"""Indices, of images or whatever the work is on, that are done at once, at least one."""

Make: TypeAlias = Callable[[Part], NDArray[Any]]
"""Makes something of each index of a part, [len(part), ...]: a pure function."""


@dataclass(frozen=True)
class Work:
    """What is to be made of indices, and the shape and type of what is made of one.

    The name tells it from all other work: processes where it means the same do it for each other.
    """

    name: str
    make: Make
    shape: tuple[int, ...] = ()
    dtype: type[np.generic] = np.float64


Deal: TypeAlias = Callable[[Work, Sequence[Part]], Iterator[NDArray[Any]]]
"""Has parts of some work done, and yields what `Work.make` returns for each, in order."""


def alone(work: Work, parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """Do all parts here, each when it is asked for: the `Deal` of one process."""
    return map(work.make, parts)


def in_parts(indices: Part, size: int) -> list[Part]:
    """Cut indices into parts of a size; the last may be smaller.

    Args:
        indices: In the order in which they are wanted.
        size: At least 1.
    """
    return [indices[start : start + size] for start in range(0, len(indices), size)]


ENDS = (RankError, ToldElsewhere, Interrupted)
"""Errors with which all processes end: nobody is let go on, and nobody goes on without."""


def share(
    ranks: Ranks,
    lead: Callable[[Deal], T],
    works: Callable[[], Sequence[Work]],
    excuse: Callable[[Exception], bool] = lambda _error: False,
) -> T | None:
    """Do some work on the first process, and have the others help; all call this.

    Args:
        ranks: The processes.
        lead: The work, given what has parts of it done.
        works: Returns what the others can do for it; asked there.
        excuse: Told an error of `lead`; returns whether to go on without what it would have returned. The
            first alone may do so: it would wait for the help of others in vain if they did.

    Returns:
        What `lead` returns; None on the others, and where it was excused.

    Raises:
        RankError, ToldElsewhere: if a process is lost or has failed.
    """
    if not ranks.first:
        follow(ranks, works())
        return None
    with leading(ranks) as deal:
        try:
            return lead(deal)
        except ENDS:
            raise
        except Exception as error:
            if not excuse(error):
                raise
    return None


def share_parts(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """Do the parts of some work, each on one of the processes in turn; all call this and iterate it.

    Args:
        ranks: The processes.
        work: What is to be done.
        parts: The same on all processes.

    Returns:
        On the first process what is made of each part, in order; on the others nothing.

    Raises:
        RankError, ToldElsewhere: if a process is lost or has failed.
    """
    if not ranks.first:
        follow(ranks, [work])
        return
    with leading(ranks) as deal:
        yield from deal(work, parts)


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
    except ENDS:
        raise
    except Exception:
        ranks.broadcast(None)
        raise
    ranks.broadcast(None)


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
    while (wanted := ranks.broadcast(done)) is not None:
        _exchange(ranks, makes.get(wanted["work"], _cannot), wanted)


def _cannot(_part: Part) -> NDArray[Any]:
    raise NotImplementedError


def _lead(ranks: Ranks, work: Work, parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """Deal parts to the processes, one each, and so on; yield what is made of each in order."""
    for turn in range(0, len(parts), ranks.size):
        dealt = parts[turn : turn + ranks.size]
        wanted: _Wanted = {
            "work": work.name,
            "parts": [part.tolist() for part in dealt],
            "shape": work.shape,
            "dtype": np.dtype(work.dtype).name,
        }
        for part, made in zip(dealt, _exchange(ranks, work.make, ranks.broadcast(wanted)), strict=True):
            yield work.make(part) if made is None else made


def _exchange(ranks: Ranks, make: Make, wanted: _Wanted) -> list[NDArray[Any] | None]:
    """Do this process's part, and give what it makes to the first.

    The first gets what was made of each part, None where it could not be made; the others get nothing.
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

"""How work on many images is divided: into parts, each done at once, by whoever it is dealt to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Part: TypeAlias = NDArray[np.int64]
"""Indices, of images or whatever the work is on, that are done at once, at least one."""

Make: TypeAlias = Callable[[Part], NDArray[Any]]
"""Makes something of each index of a part, [len(part), ...]: a pure function."""


@dataclass(frozen=True)
class Work:
    """What is to be made of indices.

    Attributes:
        name: Tells it from all other work: processes where it means the same do it for each other.
        make: Makes it.
        shape: Of what is made of one index.
        dtype: Its type.
    """

    name: str
    make: Make
    shape: tuple[int, ...] = ()
    dtype: type[np.generic] = np.float64


Deal: TypeAlias = Callable[[Work, Sequence[Part]], Iterator[NDArray[Any]]]
"""Has parts of some work done, and yields what `Work.make` returns for each, in order."""


def alone(work: Work, parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """Do all parts here, each when it is asked for; see `Deal`."""
    return map(work.make, parts)


def in_parts(indices: Part, size: int) -> list[Part]:
    """Cut indices into parts of a size; the last may be smaller.

    Args:
        indices: In the order in which they are wanted.
        size: At least 1.
    """
    return [indices[start : start + size] for start in range(0, len(indices), size)]

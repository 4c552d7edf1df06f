"""How the making of images is divided: into parts, each made at once, by whoever it is dealt to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from progan.evaluation.images import Images

Part: TypeAlias = NDArray[np.int64]
"""Indices of images that are made at once, at least one."""

Make: TypeAlias = Callable[[Part], Images]
"""Makes the images of a part: a pure function."""

Deal: TypeAlias = Callable[[Make, Sequence[Part], tuple[int, ...]], Iterator[Images]]
"""Has parts made, whose images have this shape, and yields what `Make` returns for each, in order."""


def alone(make: Make, parts: Sequence[Part], _shape: tuple[int, ...]) -> Iterator[Images]:
    """Make all parts here, each when it is asked for; see `Deal`."""
    return map(make, parts)


def in_parts(indices: Part, size: int) -> list[Part]:
    """Cut indices into parts of a size; the last may be smaller.

    Args:
        indices: In the order in which their images are wanted.
        size: At least 1.
    """
    return [indices[start : start + size] for start in range(0, len(indices), size)]

"""Names of a great many pictures, and numbers of each, in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

R = TypeVar("R", bound=tuple[int, ...])
MOST = 2**63 - 1
SHORT = 64
"""Names of at most so many bytes are put in order as rows of an array."""


class Names(Sequence[str]):
    """Names as bytes of UTF-8, one after the other: 8 bytes more each, where a `str` takes 50 more.

    Args:
        names: What it holds at first.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")
        self.extend(names)

    def append(self, name: str) -> None:
        """Add a name."""
        self._bytes += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def extend(self, names: Iterable[str]) -> None:
        """Add names."""
        for name in names:
            self.append(name)

    def take(self, places: Iterable[int] | NDArray[np.int64]) -> Names:
        """Return those at some places."""
        return Names(self[int(place)] for place in places)

    def find(self, name: str) -> int | None:
        """Return the place of a name among names that are in order; None if it is not there."""
        place = bisect_left(self, name)
        return place if place < len(self) and self[place] == name else None

    def order(self) -> NDArray[np.int64] | None:
        """Return the places of the names in order, by code point; None if they are in order already."""
        # The bytes of UTF-8 have the order of the code points.
        before, longest, in_order = b"", 0, True
        for encoded in self._encoded():
            in_order = in_order and before <= encoded
            before, longest = encoded, max(longest, len(encoded))
        if in_order:
            return None
        if longest > SHORT or 0 in self._bytes:
            return np.array(sorted(range(len(self)), key=self.__getitem__), np.int64)
        rows = np.fromiter(self._encoded(), np.dtype(("S", longest)), len(self))
        return np.argsort(rows, kind="stable").astype(np.int64)

    def _encoded(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends:
            yield bytes(self._bytes[start:end])
            start = end

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        for encoded in self._encoded():
            yield encoded.decode("utf-8", "surrogatepass")

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        end = self._ends[place]
        i = place % len(self)
        start = self._ends[i - 1] if i else 0
        return self._bytes[start:end].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names of {len(self):,}"


class Table(Generic[R]):
    """Whole numbers by name: 8 bytes each and the name, where entries of a `dict` take some hundred bytes.

    Args:
        row: Makes of the numbers of a name what they are.

    Attributes:
        names: The names, in the order in which they were added until they are sorted.
    """

    def __init__(self, row: Callable[..., R]) -> None:
        self.names = Names()
        self._row = row
        self._columns: list[array[int]] = []

    def append(self, name: str, row: Iterable[int]) -> None:
        """Add a name with its numbers, which are cut off at 2^63 - 1."""
        values = [min(value, MOST) for value in row]
        self._columns = self._columns or [array("q") for _ in values]
        self.names.append(name)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)

    def sort(self) -> None:
        """Put the names in order, by code point; of one that is there twice the last counts."""
        order = self.names.order()
        if order is not None:
            self._take(order)
        twice = (one == after for one, after in pairwise(self.names))
        kept = np.flatnonzero(~np.fromiter(chain(twice, [False]), np.bool_, len(self.names) or 1))
        if len(kept) < len(self.names):
            self._take(kept)

    def _take(self, places: NDArray[np.int64]) -> None:
        self.names = self.names.take(places)
        self._columns = [array("q", np.frombuffer(one, np.int64)[places].tobytes()) for one in self._columns]

    def at(self, place: int) -> R:
        """Return the numbers of the name at a place."""
        return self._row(*(column[place] for column in self._columns))

    def items(self) -> Iterator[tuple[str, R]]:
        """Yield each name with its numbers."""
        return ((name, self.at(place)) for place, name in enumerate(self.names))

    def get(self, name: str) -> R | None:
        """Return the numbers of a name, of names that are sorted; None if it is not there."""
        place = self.names.find(name)
        return None if place is None else self.at(place)

    def __len__(self) -> int:
        return len(self.names)

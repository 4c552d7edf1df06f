"""The pixels of one level on disk, read so that a disk that fails says so."""

from __future__ import annotations

import itertools
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.system.files import why

_AT_ONCE = 2**30
"""Bytes that are asked of the system in one call, which takes no more than about 2 GiB."""


class LevelFile:
    """A file of pictures, one after the other; it stays open, so that it can be replaced meanwhile.

    It is read, not mapped: where a mapped file cannot be read, the system kills the process without a word.

    Args:
        path: The file.
        dtype: Of its values; they are little-endian.
        shape: [count, C, h, w].

    Raises:
        DataError: if it cannot be opened.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path, self._dtype, self._shape = path, np.dtype(dtype), shape
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._cannot(why(error.errno)) from None
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def nbytes(self) -> int:
        """Size of all pictures."""
        return int(np.prod(self._shape)) * self._dtype.itemsize

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some pictures: [n, C, h, w]; may be called by several threads.

        Args:
            rows: [n], each in [0, count).

        Raises:
            DataError: if the disk cannot be read, or the file has been cut off.
        """
        pictures = np.empty((len(rows), *self._shape[1:]), self._dtype.newbyteorder("<"))
        each = self.nbytes // self._shape[0]
        into = pictures.reshape(-1).view(np.uint8).data
        # Those that follow each other are read at once.
        begins = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
        for first, end in itertools.pairwise(begins):
            self._fill(into[first * each : end * each], int(rows[first]) * each)
        return pictures.astype(self._dtype, copy=False)

    def _fill(self, into: memoryview, offset: int) -> None:
        """Read bytes from an offset on until `into` is full."""
        while len(into):
            try:
                count = os.preadv(self._descriptor, [into[:_AT_ONCE]], offset)
            except OSError as error:
                raise self._cannot(why(error.errno)) from error
            if count == 0:
                raise self._cannot("it is shorter than it was")
            into, offset = into[count:], offset + count

    def _cannot(self, reason: str) -> DataError:
        return DataError(
            f"{self.path}: cannot be read ({reason}); copy the set again or prepare the pictures again"
        )

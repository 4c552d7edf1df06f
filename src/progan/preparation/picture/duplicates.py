"""Pictures that are in a set already: with the same pixels, or nearly so."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.data.names import Names

SIDE = 16
"""Pixels of a side of a thumbnail."""
NEAR = 3.0
"""Root mean square difference of two thumbnails, of 255, up to which pictures are nearly the same."""

Dedupe = Literal["never", "exact", "near"]


class Twins:
    """The pictures that were met, and which new one is like one of them.

    Args:
        how: By what pictures are the same.
        thumbnails: An empty file that takes thumbnails; of a million pictures they are gigabytes.
    """

    def __init__(self, how: Dedupe, thumbnails: IO[bytes]) -> None:
        self._how = how
        self._names = Names()
        self._exact: dict[bytes, int] = {}
        self._thumbnails = thumbnails
        self._cells: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)

    def find(self, name: str, digest: bytes, top: NDArray[np.uint8 | np.uint16]) -> str | None:
        """Return the name of the picture that this one is like; if there is none, take note of it.

        Args:
            name: Of the picture.
            digest: What identifies its pixels.
            top: They themselves, [C, H, W].
        """
        if digest in self._exact:
            return self._names[self._exact[digest]]
        thumbnail = None
        if self._how == "near":
            thumbnail = thumbnail_of(top)
            twin = self._nearest(thumbnail)
            if twin is not None:
                return self._names[twin]
        self._exact[digest] = len(self._names)
        if thumbnail is not None:
            self._cells[_cell(thumbnail)].append(len(self._names))
            self._thumbnails.seek(0, os.SEEK_END)
            self._thumbnails.write(thumbnail.tobytes())
        self._names.append(name)
        return None

    def _nearest(self, thumbnail: NDArray[np.float32]) -> int | None:
        """Return the first picture that is near, of those in this cell and the cells around it.

        Thumbnails that differ by d have quarters whose means differ by 2d at most: the mean square over a
        quarter is at most four times that over all. So cells of that width and their neighbours have all.
        """
        cell = _cell(thumbnail)
        found = []
        for step in itertools.product((-1, 0, 1), repeat=len(cell)):
            for place in self._cells.get(tuple(a + b for a, b in zip(cell, step, strict=True)), ()):
                difference = self._stored(place, thumbnail.shape) - thumbnail
                if float(np.sqrt(np.mean(difference * difference))) <= NEAR:
                    found.append(place)
        return min(found, default=None)

    def _stored(self, place: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        size = math.prod(shape) * np.dtype(np.float32).itemsize
        self._thumbnails.seek(place * size)
        return np.frombuffer(self._thumbnails.read(size), np.float32).reshape(shape)


def thumbnail_of(top: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
    """Return means over boxes of a picture [C, H, W]: [C, 16, 16], of 255."""
    scale = np.float32(255 / np.iinfo(top.dtype).max)
    planes = [
        np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BOX))
        for plane in top.astype(np.float32)
    ]
    made: NDArray[np.float32] = np.stack(planes) * scale
    return made


def _cell(thumbnail: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the means of the four quarters, in steps of twice the distance that is near."""
    half = SIDE // 2
    quarters = thumbnail.mean(axis=0).reshape(2, half, 2, half).mean(axis=(1, 3)).ravel()
    return tuple(int(value) for value in np.floor(quarters / (2 * NEAR)))

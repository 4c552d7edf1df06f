"""Pictures that are rows of one array, whatever file it is in; and which of several arrays that is."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.decoding import Header
from progan.preparation.formats.extras import elsewhere, needed
from progan.preparation.labels.array_labels import labelling_of
from progan.preparation.labels.class_lists import LABEL_COLUMNS
from progan.preparation.pictures import Candidate, Candidates, Listing, first_few, reason_of

MOST_CHANNELS = 64
FLAT_AT_LEAST = 16
"""Numbers of a row that may be a picture."""
PAIRS = (("x", "y"), ("images", "labels"), ("image", "label"), ("data", "labels"), ("data", "label"),
         ("imgs", "labels"), ("pictures", "labels"), ("arr_0", "arr_1"), ("data", "target"))  # fmt: skip
"""What arrays of pictures are called, and those of their labels."""


class Layout(NamedTuple):
    """How the axes of an array are to be read.

    Attributes:
        axes: A letter an axis, of N, H, W and C.
        size: (height, width), where the array itself does not tell it.
        note: What should be said of it.
    """

    axes: str
    size: tuple[int, int] | None = None
    note: str = ""


class Rows(NamedTuple):
    """An array of pictures.

    Attributes:
        pixels: Has a shape and a dtype; an index along the axis of pictures gives one.
        layout: How its axes are to be read; None if its shape must tell.
        labels: A label, or a row of numbers, for each picture; None without.
        label_names: What the numbers of classes mean, if that is known.
        notes: What was decided, a sentence each.
    """

    pixels: Any
    layout: Layout | None = None
    labels: NDArray[Any] | None = None
    label_names: Sequence[str] = ()
    notes: Sequence[str] = ()


class ArrayPictures(ABC):
    """Pictures that are rows of an array; their names are their numbers.

    The array is opened once in each process.

    Args:
        path: The file or folder.
    """

    in_archive = False
    library: tuple[str, str] | None = None
    """A library that damaged files can crash, and its extra."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: Rows | None = None
        self._tried = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_rows": None}

    @abstractmethod
    def load(self) -> Rows:
        """Open the array; raises whatever its library does."""

    def rows(self) -> Rows:
        """Return the array with its layout.

        Raises:
            DataError: if it cannot be read, or is none of pictures.
        """
        if self._rows is None:
            try:
                rows = self.load()
            except (DataError, ImportError):
                raise
            except OSError as error:
                if error.errno is not None:
                    raise DataError(f"{self.path}: {reason_of(error)}") from None
                # Of a library, that found no more data.
                raise DataError(
                    f"{self.path}: is cut off or damaged ({reason_of(error)}); copy it again"
                ) from None
            except Exception as error:  # libraries raise anything on damaged files
                raise DataError(f"{self.path}: cannot be read ({type(error).__name__}: {error})") from None
            layout = rows.layout or layout_of(f"{self.path}", tuple(rows.pixels.shape))
            require_numbers(str(self.path), rows.pixels.dtype)
            self._rows = rows._replace(layout=layout)
        return self._rows

    def listing(self) -> Listing:
        """Name the pictures, and bring their labels into order.

        What may end the process that reads it is first tried in another one.

        Raises:
            DataError: if the array cannot be read, or labels do not belong to it.
        """
        if self.library is not None and not self._tried:
            needed(*self.library, self.path)
            elsewhere(_try, self, self.path)
            self._tried = True
        rows = self.rows()
        assert rows.layout is not None
        axis = rows.layout.axes.find("N")
        count = rows.pixels.shape[axis] if axis >= 0 else 1
        stamp = self.path.stat().st_mtime_ns
        size = math.prod(rows.pixels.shape) * rows.pixels.dtype.itemsize // max(count, 1)
        listing = Listing(Candidates(Candidate(f"{i:06d}", size, stamp) for i in range(count)), ordered=True)
        names = listing.candidates.names
        listing.notes = [note for note in (rows.layout.note, *rows.notes) if note]
        listing.header = _header(rows)
        if rows.labels is not None and count:
            listing.labels = labelling_of(str(self.path), rows.labels, names, rows.label_names)
        return listing

    def open(self, name: str) -> BinaryIO:
        """Return a picture as a .npy file."""
        rows = self.rows()
        assert rows.layout is not None
        axes, index = rows.layout.axes, int(name)
        place = tuple(index if axis == "N" else slice(None) for axis in axes)
        pixels = np.asarray(rows.pixels[place])
        left = axes.replace("N", "")
        if rows.layout.size is not None:
            pixels, left = pixels.reshape(rows.layout.size), "HW"
        return array_stream(pixels.transpose([left.index(axis) for axis in "HWC" if axis in left]))

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return nothing: beside the pictures of an array are no files."""
        return None


def _header(rows: Rows) -> Header | None:
    """Return the header of every picture, where types and shapes tell it without a look at values."""
    assert rows.layout is not None
    sides = dict(zip(rows.layout.axes, rows.pixels.shape, strict=True))
    channels = sides.get("C", 1)
    if rows.pixels.dtype != np.uint8 or channels not in (1, 3):
        return None
    height, width = rows.layout.size or (sides["H"], sides["W"])
    return Header(width, height, channels == 3, False, False)


def _try(pictures: ArrayPictures) -> bool:
    """Open an array and read its first picture."""
    rows = pictures.rows()
    if min(rows.pixels.shape):
        np.asarray(rows.pixels[0])
    return True


def array_stream(pixels: NDArray[Any]) -> BinaryIO:
    """Return a picture [H, W] or [H, W, C] as a `.npy` file; truth values become 0 and 255."""
    stream = io.BytesIO()
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    np.save(stream, np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False)))
    stream.seek(0)
    return stream


def require_numbers(where: str, dtype: np.dtype[Any]) -> None:
    """Refuse arrays of anything but numbers.

    Raises:
        DataError: saying what they hold.
    """
    if dtype.kind not in "uifb":
        raise DataError(f"{where}: holds {str(dtype)[:60]}, not numbers; pixels are integers or floats")


def layout_of(where: str, shape: tuple[int, ...]) -> Layout:
    """Find out how an array of pictures is laid out.

    Raises:
        DataError: if its shape cannot be one of pictures.
    """
    written = "x".join(map(str, shape))
    if 0 in shape:
        raise DataError(f"{where}: is an empty array ({written})")
    if len(shape) == 4:
        few = [axis for axis in (3, 1) if shape[axis] <= 4]
        if not few:
            few = [axis for axis in (3, 1) if shape[axis] <= MOST_CHANNELS and shape[axis] * 2 < shape[2]]
        if len(few) == 2:
            return Layout("NHWC", note=f"{written} is read as N H W C, though it could be N C H W")
        if few:
            return Layout("NHWC" if few[0] == 3 else "NCHW")
    if len(shape) == 3 and shape[2] in (3, 4) and shape[1] > 4:
        return Layout("HWC", note=f"{written} is read as one picture, H W C")
    if len(shape) == 3:
        return Layout("NHW")
    side = int(shape[1] ** 0.5) if len(shape) == 2 else 0
    if side * side >= FLAT_AT_LEAST and side * side == shape[1]:
        return Layout("NH", (side, side), f"rows of {shape[1]} numbers are read as gray, {side}x{side}")
    raise DataError(
        f"{where}: an array of {written} is none of pictures; expected N H W, N H W C or N C H W: reshape "
        f"it and save it again"
    )


def choose_arrays(
    where: str, shapes: Mapping[str, Sequence[int]], key: str
) -> tuple[str, str | None, list[str]]:
    """Choose which of some arrays holds the pictures, and which their labels.

    Args:
        where: What holds them.
        shapes: The shape of each; the first axis counts pictures.
        key: The one with the pictures, if the user said so.

    Returns:
        Both names, and what is to be said.

    Raises:
        DataError: if that cannot be told.
    """
    pictures = [name for name, shape in shapes.items() if len(shape) >= 3 and shape[0] > 0]
    pictures = pictures or [n for n, shape in shapes.items() if len(shape) == 2 and shape[1] >= FLAT_AT_LEAST]
    held = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in list(shapes.items())[:8])
    if key and key not in shapes:
        raise DataError(f"{where}: has no array {key!r}; it holds {held or 'none'}")
    if not key and not pictures:
        raise DataError(
            f"{where}: holds no array of pictures (N H W, N H W C or N C H W), only {held or 'none'}"
        )
    train = [name for name in pictures if "train" in name.lower()]
    if not key and len(pictures) > 1 and len(train) != 1:
        raise DataError(f"{where}: which array is meant? It holds {held}; name one: {where}:{pictures[0]}")
    chosen = key or (train[0] if len(pictures) > 1 else pictures[0])
    others = [f"{name} ({shapes[name][0]:,})" for name in pictures if name != chosen]
    notes = (
        [f"the pictures are {chosen}; left out: {first_few(others)} ({where}:NAME takes them)"]
        if others
        else []
    )
    return chosen, _labels_of(chosen, shapes, len(pictures) == 1), notes


def _labels_of(pictures: str, shapes: Mapping[str, Sequence[int]], alone: bool) -> str | None:
    """Return the name of the array of labels; None if there is none, or more than one could be."""
    count = shapes[pictures][0]
    lower = {name.lower(): name for name in shapes}
    for word, label in PAIRS:
        name = lower.get(pictures.lower().replace(word, label))
        if name is not None and name != pictures:
            return name
    if not alone:
        return None
    known = [lower[word] for word in LABEL_COLUMNS if word in lower and lower[word] != pictures]
    if known:
        return known[0]
    fitting = [name for name, shape in shapes.items() if name != pictures and shape and count in shape[:2]]
    return fitting[0] if len(fitting) == 1 and len(shapes) == 2 else None

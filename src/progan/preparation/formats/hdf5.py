"""HDF5 files: one data set of pictures, with labels beside it, or a data set for each size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from progan.errors import DataError
from progan.preparation.formats.arrays import ArrayPictures, Layout, Rows, choose_arrays
from progan.preparation.formats.extras import needed
from progan.preparation.pictures import Found
from progan.system.spool import MAX_RATIO

MAGIC = b"\x89HDF\r\n\x1a\n"
SMALL = 64 << 20
"""Bytes that any file may announce."""
LEVEL = re.compile(r"data(\d+)x(\d+)")


def recognise(found: Found) -> Hdf5File | None:
    """Return the reader of a HDF5 file, also of one of MATLAB 7.3."""
    at = (0, 512, 1024, 2048)
    if any(found.head[place : place + len(MAGIC)] == MAGIC for place in at):
        return Hdf5File(found.path, found.key)
    return None


class Hdf5File(ArrayPictures):
    """Pictures that are a data set; one is read at a time.

    Args:
        path: The file.
        key: The data set of pictures; nothing if that must be found out.
    """

    library = "h5py", "hdf5"

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path)
        self._key = key

    def load(self) -> Rows:
        """Open the file and choose the data set."""
        h5py = needed("h5py", "hdf5", self.path)
        file = h5py.File(self.path, "r")
        sets: dict[str, Any] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                sets[name] = item

        file.visititems(note)
        shapes = {name: item.shape for name, item in sets.items() if item.shape}
        levels = {name: shape for name, shape in shapes.items() if LEVEL.fullmatch(name)}
        if levels and not self._key:
            return self._of_levels(sets, levels)
        chosen, label, notes = choose_arrays(str(self.path), shapes, self._key)
        self._require_honest(sets[chosen])
        labels = None
        if label is not None:
            self._require_honest(sets[label])
            labels = np.asarray(sets[label][()])
        return Rows(sets[chosen], None, labels, notes=notes)

    def _of_levels(self, sets: dict[str, Any], levels: dict[str, tuple[int, ...]]) -> Rows:
        """Return the largest of the sets `data2x2` to `data1024x1024`, which must be of the same pictures."""
        largest = max(levels, key=lambda name: int(LEVEL.fullmatch(name)[1]))  # type: ignore[index]
        counts = {shape[0] for shape in levels.values()}
        if len(counts) > 1:
            held = ", ".join(f"{name} {shape[0]:,}" for name, shape in levels.items())
            raise DataError(f"{self.path}: its sizes hold different numbers of pictures ({held})")
        for name, shape in levels.items():
            side = tuple(int(part) for part in LEVEL.fullmatch(name).groups())  # type: ignore[union-attr]
            if len(shape) != 4 or tuple(shape[2:]) != side:
                raise DataError(f"{self.path}: {name} has pictures of {'x'.join(map(str, shape[1:]))}")
        self._require_honest(sets[largest])
        names = [name for name in ("labels", "y") if name in sets]
        labels = np.asarray(sets[names[0]][()]) if names else None
        note = f"the pictures are {largest}; the smaller ones are made of them"
        return Rows(sets[largest], Layout("NCHW"), labels, notes=[note])

    def _require_honest(self, data: Any) -> None:
        """Refuse a data set that is stored elsewhere, which may be any file."""
        if data.external or data.is_virtual:
            raise DataError(f"{self.path}: {data.name} refers to other files, which are not read")
        size = self.path.stat().st_size
        if data.nbytes > max(SMALL, MAX_RATIO * size):
            raise DataError(
                f"{self.path}: suspicious: {data.name} has {data.nbytes} bytes in a file of {size}"
            )

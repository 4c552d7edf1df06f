"""Arrays of NumPy, `.npy` and `.npz`, and of MATLAB, `.mat`, with labels in a second array."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.formats.arrays import ArrayPictures, Layout, Rows, choose_arrays
from progan.preparation.formats.extras import needed
from progan.preparation.pictures import Found
from progan.system.npy_files import map_array, parse_array
from progan.system.spool import MAX_RATIO, SMALL, spool

NPY = b"\x93NUMPY"
MATLAB = b"MATLAB 5.0"


def recognise(found: Found) -> ArrayPictures | None:
    """Return the reader of a .npy, .npz or .mat file."""
    if found.head.startswith(NPY):
        return NpyFile(found.path)
    if found.head.startswith(MATLAB):
        return MatFile(found.path, found.key)
    if found.head.startswith(b"PK\x03\x04") and _is_npz(found.path):
        return NpzFile(found.path, found.key)
    return None


class NpyFile(ArrayPictures):
    """One array, which stays on disk until a picture of it is read."""

    def load(self) -> Rows:
        """Map the file."""
        return Rows(map_array(self.path))


class NpzFile(ArrayPictures):
    """An array of pictures among others. What is compressed is uncompressed once, for all processes.

    Args:
        path: The file.
        key: The array of pictures; nothing if that must be found out.
    """

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path)
        self._key = key
        self._spooled: Path | None = None

    def load(self) -> Rows:
        """Map the array of pictures, and read that of labels."""
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            shapes = {name[:-4]: _header(archive, name)[0] for name in names}
            pictures, label, note = choose_arrays(str(self.path), shapes, self._key)
            labels = None if label is None else self._read(archive, label)
            return Rows(self._map(archive, f"{pictures}.npy"), labels=labels, notes=note)

    def _read(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
            raise DataError(f"{self.path}: suspicious compression of {name}")
        return parse_array(archive.read(info))

    def _map(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        info = archive.getinfo(name)
        if info.compress_type == zipfile.ZIP_STORED:
            shape, fortran, dtype, header = _header(archive, name)
            with self.path.open("rb") as stream:
                stream.seek(info.header_offset + 26)
                lengths = stream.read(4)
            start = (
                info.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
            )
            if dtype.hasobject:
                raise DataError(f"{self.path}: {name} holds Python objects, not numbers")
            order = cast(Any, "F" if fortran else "C")
            return np.memmap(self.path, dtype, "r", start + header, shape, order)
        if self._spooled is None or not self._spooled.exists():
            with archive.open(info) as stream:
                self._spooled = spool(self, cast(BinaryIO, stream), self.path)
        return map_array(self._spooled)


class MatFile(ArrayPictures):
    """A `.mat` file of version 5, such as those of SVHN: X is H W C N, and y holds the labels.

    Args:
        path: The file.
        key: The array of pictures; nothing if that must be found out.
    """

    library = "scipy.io", "mat"

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path)
        self._key = key

    def load(self) -> Rows:
        """Read the arrays of pictures and labels into memory."""
        scipy_io = needed("scipy.io", "mat", self.path)
        shapes = {name: shape for name, shape, _ in scipy_io.whosmat(str(self.path))}
        if any(
            np.prod(shape, dtype=float) > max(SMALL, MAX_RATIO * self.path.stat().st_size)
            for shape in shapes.values()
        ):
            raise DataError(f"{self.path}: suspicious compression")
        # The pictures of SVHN are along the last axis, and so is the number of labels.
        turned = {name: shape[::-1] if len(shape) == 4 else shape for name, shape in shapes.items()}
        pictures, label, note = choose_arrays(str(self.path), turned, self._key)
        wanted = [pictures] if label is None else [pictures, label]
        arrays = scipy_io.loadmat(str(self.path), variable_names=wanted)
        layout = Layout("HWCN") if arrays[pictures].ndim == 4 and arrays[pictures].shape[2] <= 4 else None
        labels = None if label is None else np.asarray(arrays[label])
        if labels is not None and labels.ndim == 2 and 1 in labels.shape:
            labels = labels.reshape(-1)
        return Rows(arrays[pictures], layout, labels, notes=note)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except Exception:  # a damaged directory raises anything; the reader of .zip files says what is wrong
        return False
    return bool(names) and all(name.endswith(".npy") and "/" not in name for name in names)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order, type and length of the header of an array in a .npz file."""
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
        return shape, fortran, dtype, stream.tell()

"""IDX files, as MNIST, Fashion-MNIST, KMNIST and EMNIST are kept in, also compressed with gzip."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.formats.arrays import ArrayPictures, Layout, Rows
from progan.preparation.pictures import Found, first_few
from progan.system.spool import spool

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IMAGES = re.compile(r"(.*images)([-.])idx([34])(-ubyte)?(\.gz)?")
MOST_DIMENSIONS = 4


def recognise(found: Found) -> IdxFile | None:
    """Return the reader of a file of pictures, or of a folder with such files."""
    if found.entries is None:
        head = found.head
        if head.startswith(b"\x1f\x8b"):
            head = _gunzipped(head)
        pictures = len(head) > 3 and head[:2] == b"\0\0" and head[2] in TYPES and head[3] in (3, 4)
        return IdxFile(found.path, found.path, []) if pictures else None
    names = sorted(name for name in found.entries if IMAGES.fullmatch(name))
    # The file and its compressed form are one.
    names = [name for name in names if not (name.endswith(".gz") and name[:-3] in names)]
    if not names:
        return None
    if found.key:
        chosen = [name for name in names if name.startswith(found.key)]
    else:
        chosen = [name for name in names if "train" in name] if len(names) > 1 else names
    if len(chosen) != 1:
        raise DataError(
            f"{found.path}: which of {', '.join(names)} is meant? Name the file, or {found.path}:BEGINNING"
        )
    return IdxFile(found.path, found.path / chosen[0], [name for name in names if name != chosen[0]])


class IdxFile(ArrayPictures):
    """Pictures in one IDX file, with the labels in the file beside it.

    Args:
        path: What the user named.
        file: The file of the pictures.
        others: Names of other files of pictures in the folder.
    """

    def __init__(self, path: Path, file: Path, others: list[str]) -> None:
        super().__init__(path)
        self._file = file
        self._others = others
        self._spooled: Path | None = None

    def load(self) -> Rows:
        """Map the pictures and read the labels."""
        pixels = self._map()
        notes = (
            [f"the pictures are {self._file.name}; left out: {first_few(self._others)}"]
            if self._others
            else []
        )
        layout = None
        if self._file.name.startswith("emnist"):
            layout = Layout(
                "NWH", note="EMNIST keeps its pictures lying on their side; they are turned upright"
            )
        labels = self._labels()
        return Rows(pixels, layout, labels, self._names(labels), notes)

    def _map(self) -> NDArray[Any]:
        file = self._file
        if _head(file, 2) == b"\x1f\x8b":
            if self._spooled is None or not self._spooled.exists():
                try:
                    with gzip.open(file) as stream:
                        self._spooled = spool(self, cast(BinaryIO, stream), file)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise DataError(f"{file}: is cut off or damaged ({error}); copy it again") from None
            file = self._spooled
        return map_idx(file, str(self._file))

    def _labels(self) -> NDArray[Any] | None:
        """Return the labels in the file that is called as the pictures', if there is one."""
        match = IMAGES.fullmatch(self._file.name)
        if match is None:
            return None
        beginning = match[1].removesuffix("images") + "labels"
        for name in (f"{beginning}{match[2]}idx1{match[4] or ''}{end}" for end in ("", ".gz")):
            file = self._file.with_name(name)
            if file.is_file():
                return _whole(file)
        return None

    def _names(self, labels: NDArray[Any] | None) -> list[str]:
        """Return the characters that EMNIST's classes are, from its list beside the pictures."""
        if labels is None:
            return []
        beginning = re.split("-(train|test)-", self._file.name)[0]
        file = self._file.with_name(f"{beginning}-mapping.txt")
        if not file.is_file():
            return []
        pairs = [line.split()[:2] for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
        table = {int(pair[0]): chr(int(pair[1])) for pair in pairs if len(pair) == 2}
        return [table.get(i, str(i)) for i in range(max(int(labels.max()), *table) + 1)]


def map_idx(file: Path, name: str) -> NDArray[Any]:
    """Map an uncompressed IDX file.

    Raises:
        DataError: if it is none, or shorter or longer than it says.
    """
    dtype, shape, start = _header(_head(file, 4 + 4 * MOST_DIMENSIONS), name)
    expected = start + math.prod(shape) * dtype.itemsize
    actual = file.stat().st_size
    if actual != expected:
        raise DataError(
            f"{name}: has {actual} bytes instead of the {expected} that it announces; copy it again"
        )
    return np.memmap(file, dtype, "r", start, shape) if math.prod(shape) else np.empty(shape, dtype)


def _head(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)


def _header(head: bytes, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= MOST_DIMENSIONS:
        raise DataError(f"{name}: is no IDX file")
    start = 4 + 4 * head[3]
    if len(head) < start:
        raise DataError(f"{name}: is cut off; copy it again")
    shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4))
    return np.dtype(TYPES[head[2]]), shape, start


def _whole(file: Path) -> NDArray[Any]:
    """Return the array of a small IDX file."""
    data = file.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        inflater = zlib.decompressobj(31)
        try:
            data = inflater.decompress(data, 1 << 28)
        except zlib.error as error:
            raise DataError(f"{file}: is damaged ({error}); copy it again") from None
    dtype, shape, start = _header(data[:20], str(file))
    if len(data) != start + math.prod(shape) * dtype.itemsize:
        raise DataError(f"{file}: is cut off: it announces {math.prod(shape):,} labels; copy it again")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _gunzipped(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 32)
    except zlib.error:
        return b""

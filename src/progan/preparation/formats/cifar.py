"""The batches of CIFAR-10 and CIFAR-100, as pickles of Python and as binary records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.formats.arrays import ArrayPictures, Layout, Rows
from progan.preparation.pictures import Found
from progan.system.numpy_pickle import NAMES, NUMPY, array_of
from progan.system.safe_pickle import Machine, Refused

SIDE, PIXELS = 32, 3072
BATCH = re.compile(r"data_batch_\d+(\.bin)?|train(\.bin)?")
TEST = ("test_batch", "test_batch.bin", "test", "test.bin")
COLUMNS = {"fine": "fine_labels", "coarse": "coarse_labels"}
LAYOUT = Layout("NCHW")


def recognise(found: Found) -> CifarBatches | None:
    """Return the reader of a folder of batches, or of one of them."""
    if found.entries is not None:
        files = [found.path / name for name in sorted(found.entries) if BATCH.fullmatch(name)]
        known = {"batches.meta", "batches.meta.txt", "meta", "fine_label_names.txt", *TEST} & found.entries
        if not files or not known or not all(_is_batch(file) for file in files):
            return None
        return CifarBatches(found.path, files, found.key)
    name = found.path.name
    if (BATCH.fullmatch(name) or name in TEST) and _is_batch(found.path):
        return CifarBatches(found.path, [found.path], found.key)
    return None


class CifarBatches(ArrayPictures):
    """Batches of 32x32 RGB pictures with the classes of their folder's list of names.

    Args:
        path: What the user named.
        files: The batches, in order.
        key: Of CIFAR-100 `fine` (100 classes) or `coarse` (20); nothing: fine.
    """

    def __init__(self, path: Path, files: list[Path], key: str) -> None:
        super().__init__(path)
        self._files = files
        self._kind = key or "fine"

    def load(self) -> Rows:
        """Read all batches into memory (180 MB at most)."""
        if self._kind not in COLUMNS:
            raise DataError(f"{self.path}: has labels 'fine' and 'coarse', not {self._kind!r}")
        read = [
            _read_binary(file, self._kind) if file.suffix else _read_pickle(file, self._kind)
            for file in self._files
        ]
        pixels = np.concatenate([pixels for pixels, _ in read]).reshape(-1, 3, SIDE, SIDE)
        labels = np.concatenate([labels for _, labels in read])
        folder = self._files[0].parent
        left = [name for name in TEST if (folder / name).is_file() and folder / name not in self._files]
        notes = [f"{folder / name} was left out: give it alone for its pictures" for name in left]
        return Rows(pixels, LAYOUT, labels, _names(folder, self._kind), notes)


def _read_pickle(file: Path, kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
    tree = _unpickle(file)
    pixels = array_of(tree.get("data"))
    column = COLUMNS[kind] if COLUMNS[kind] in tree else "labels"
    labels = tree.get(column)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise DataError(f"{file}: is no batch of CIFAR: its 'data' are not rows of {PIXELS} bytes")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"{file}: is no batch of CIFAR: its {column!r} are not numbers of classes")
    if len(labels) != len(pixels):
        raise DataError(f"{file}: holds {len(labels):,} labels for {len(pixels):,} pictures; each needs one")
    return pixels, np.array(labels, np.int64)


def _read_binary(file: Path, kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
    hundred = file.name in ("train.bin", "test.bin")
    labels = 2 if hundred else 1
    data = np.fromfile(file, np.uint8)
    if not data.size or data.size % (labels + PIXELS):
        raise DataError(
            f"{file}: has {data.size} bytes, no whole number of records of {labels + PIXELS}; copy it again"
        )
    rows = data.reshape(-1, labels + PIXELS)
    return rows[:, labels:], rows[:, 1 if hundred and kind == "fine" else 0].astype(np.int64)


def _unpickle(file: Path) -> dict[str, Any]:
    try:
        tree = Machine(file.read_bytes(), NUMPY, names=NAMES).run()
    except Refused as error:
        raise DataError(f"{file}: is not read, as {error}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{file}: is no batch of CIFAR")
    return tree


def _names(folder: Path, kind: str) -> list[str]:
    """Return the names of the classes from the file beside the batches; nothing if there is none."""
    for name in ("batches.meta", "meta"):
        if (folder / name).is_file():
            tree = _unpickle(folder / name)
            names = tree.get(f"{kind}_label_names") or tree.get("label_names")
            return [str(one) for one in names] if isinstance(names, list) else []
    for name in ("batches.meta.txt", f"{kind}_label_names.txt"):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8", "replace").split()
    return []


def _is_batch(file: Path) -> bool:
    """Tell from its beginning or its size whether a file is a batch."""
    if not file.is_file():
        return False
    if file.suffix == ".bin":
        return True
    with file.open("rb") as stream:
        return stream.read(2) == b"\x80\x02"

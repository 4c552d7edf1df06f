"""Parquet files with a column of pictures; data sets of Hugging Face, saved on disk or by name."""

from __future__ import annotations

import hashlib
import io
import json
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from progan.errors import DataError, ProganError, StorageError
from progan.preparation.formats.extras import needed
from progan.preparation.labels.array_labels import labelling_of
from progan.preparation.labels.class_lists import LABEL_COLUMNS
from progan.preparation.pictures import Candidate, Candidates, Found, Labelling, Listing

T = TypeVar("T")

MAGIC = b"PAR1"
HUB = "hf:"
PAUSES = (1.0, 4.0, 15.0, 60.0)
"""Seconds between tries to fetch something."""
PICTURES = ("image", "img", "picture", "jpg", "png", "pixel_values", "photo")
"""What columns of pictures are called, where their type does not tell."""


def recognise(found: Found) -> Rows | None:
    """Return the reader of Parquet files, or of a data set that was saved on disk."""
    if found.entries is None:
        return ParquetFiles(found.path, [found.path], found.key) if found.head.startswith(MAGIC) else None
    if {"state.json", "dataset_info.json"} <= found.entries or "dataset_dict.json" in found.entries:
        return SavedSet(found.path, found.key)
    files = found.holds(".parquet")
    data = found.path / "data"
    if not files and "data" in found.entries and data.is_dir():  # as in repositories of the hub
        files = sorted(data.glob("*.parquet"))
    if not files:
        return None
    splits = sorted({file.name.split("-")[0] for file in files})
    key = found.key or ("train" if "train" in splits and len(splits) > 1 else "")
    chosen = [file for file in files if file.name.split("-")[0] == key] if key in splits else files
    left = [split for split in splits if key in splits and split != key]
    return ParquetFiles(found.path, chosen, "" if key in splits else key, left)


class Rows(ABC):
    """Rows with a column of encoded pictures; their names are their numbers.

    Args:
        path: What the user named.
    """

    in_archive = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Any = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    @abstractmethod
    def listing(self) -> Listing:
        """Return the rows; raises DataError if they cannot be read."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Return the picture of a row; raises OSError if it has none."""

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return nothing: beside rows are no files."""
        return None

    def _list(self, count: int, stamp: int, labels: Any, names: list[str]) -> Listing:
        """Return the listing of so many rows, with their labels."""
        listing = Listing(Candidates(Candidate(f"{i:06d}", 1, stamp) for i in range(count)), ordered=True)
        if labels is not None and count:
            listing.labels = _labelling(str(self.path), labels, listing, names)
        return listing


class ParquetFiles(Rows):
    """The rows of Parquet files; a group of rows is held at a time.

    Args:
        path: What the user named.
        files: The files, in order; addresses where they are elsewhere.
        column: The column of pictures; nothing if that must be found out.
        left: Other splits beside them.
    """

    def __init__(
        self, path: Path, files: Sequence[Path | str], column: str, left: list[str] | None = None
    ) -> None:
        super().__init__(path)
        self._files = files
        self._column = column
        self._left = left or []
        self._group: tuple[int, Any] = (-1, None)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_group": (-1, None)}

    def listing(self) -> Listing:
        """Count the rows, and read the labels.

        Raises:
            DataError: if a file cannot be read, or has no column of pictures.
            DependencyError: if pyarrow is not installed.
        """
        try:
            groups = self._groups()
            first = groups[0][0]
            table = self._labels(first)
            labels, names = (None, []) if table is None else table
        except ProganError:
            raise
        except Exception as error:  # a damaged file raises anything
            raise DataError(f"{self.path}: cannot be read as Parquet ({_first_line(error)})") from None
        listing = self._list(groups[-1][3], self._stamp(), labels, names)
        if self._left:
            listing.notes.append(f"left out: the splits {', '.join(self._left)}; {self.path}:SPLIT takes one")
        return listing

    def open(self, name: str) -> BinaryIO:
        """Return the picture of a row."""
        groups = self._groups()
        row = int(name)
        place = bisect_right([end for *_, end in groups], row)
        if self._group[0] != place:
            file, group, _, _ = groups[place]
            self._group = place, self._read_group(file, group, self._picture_column(file))
        return _bytes_of(self._group[1][row - groups[place][2]].as_py())

    def _groups(self) -> list[tuple[Any, int, int, int]]:
        """Return of each group of rows the file, its number there, its first row and the next after it."""
        if self._opened is None:
            self._opened, row = [], 0
            for path in self._files:
                file = self._open_file(path)
                for group in range(file.metadata.num_row_groups):
                    end = row + file.metadata.row_group(group).num_rows
                    self._opened.append((file, group, row, end))
                    row = end
            if not row:
                raise DataError(f"{self.path}: has no rows")
        opened: list[tuple[Any, int, int, int]] = self._opened
        return opened

    def _picture_column(self, file: Any) -> str:
        """Return the name of the column of pictures: the one of bytes, or of records with bytes."""
        schema = file.schema_arrow
        if self._column:
            if self._column not in schema.names:
                raise DataError(
                    f"{self.path}: has no column {self._column!r}, only {', '.join(schema.names)[:200]}"
                )
            return self._column
        good = [str(field.name) for field in schema if _holds_bytes(str(field.type))]
        named = [name for name in good if name.lower() in PICTURES]
        if len(good) != 1 and len(named) != 1:
            held = ", ".join(f"{field.name} ({str(field.type)[:40]})" for field in schema)[:300]
            which = (
                f"which column is meant? Name it: {self.path}:COLUMN."
                if good
                else "has no column of pictures."
            )
            raise DataError(f"{self.path}: {which} It has {held}")
        return named[0] if len(named) == 1 else good[0]

    def _labels(self, first: Any) -> tuple[Any, list[str]] | None:
        """Return the column of labels, and the names of its classes; None without."""
        self._picture_column(first)
        known = {name.lower(): name for name in first.schema_arrow.names}
        column = next((known[name] for name in LABEL_COLUMNS if name in known), None)
        if column is None:
            return None
        values = [
            one
            for path in self._files
            for one in self._open_file(path).read(columns=[column])[column].to_pylist()
        ]
        return values, _class_names(first.schema_arrow.metadata or {}, column)

    def _read_group(self, file: Any, group: int, column: str) -> Any:
        return file.read_row_group(group, columns=[column]).column(0)

    def _open_file(self, path: Path | str) -> Any:
        return needed("pyarrow.parquet", "parquet", self.path).ParquetFile(path)

    def _stamp(self) -> int:
        """Return a number that changes with the files."""
        return max(Path(file).stat().st_mtime_ns for file in self._files)


class HubFiles(ParquetFiles):
    """Parquet files of a data set on the hub, of which groups of rows are fetched when they are needed.

    Nothing of them is kept on disk. What the network fails to bring is asked for again; then the work stops,
    so that no picture is left out because of it.

    Args:
        name: `user/name`.
        files: Addresses that fsspec opens, or paths.
        left: Other splits of the set.
    """

    def __init__(self, name: str, files: Sequence[str], left: list[str]) -> None:
        super().__init__(Path(HUB + name), files, "", left)

    def listing(self) -> Listing:
        """Count the rows, read the labels, and say that the pictures are not kept."""
        listing = super().listing()
        listing.notes.append(f"{self.path}: read from where it is, without a copy of it on this disk")
        return listing

    def _read_group(self, file: Any, group: int, column: str) -> Any:
        return self._patiently(lambda: super(HubFiles, self)._read_group(file, group, column))

    def _open_file(self, path: Path | str) -> Any:
        fsspec = needed("fsspec", "datasets", self.path)
        opened = super()._open_file
        return self._patiently(lambda: opened(fsspec.open(str(path)).open()))

    def _stamp(self) -> int:
        # Addresses on the hub name the revision.
        return int(hashlib.sha256("\n".join(map(str, self._files)).encode()).hexdigest()[:15], 16)

    def _patiently(self, read: Callable[[], T]) -> T:
        """Return what is read, after some more tries if need be.

        Raises:
            StorageError: if all of them fail.
        """
        damaged = needed("pyarrow", "parquet", self.path).ArrowInvalid
        for pause in PAUSES:
            try:
                return read()
            except damaged:
                raise
            except Exception:  # of the network: fsspec and the hub raise errors of several libraries
                time.sleep(pause)
        try:
            return read()
        except Exception as error:
            raise StorageError(
                f"{self.path}: cannot be fetched ({_first_line(error)}); the same command continues "
                f"when the network is there again"
            ) from None


class SavedSet(Rows):
    """A data set that `datasets` has saved on disk, or loads by its name.

    Args:
        path: The folder; or the name on the hub.
        split: Which part of it; nothing: `train`, or the only one.
        load: Whether `path` is a name.
    """

    def __init__(self, path: Path, split: str, load: str = "") -> None:
        super().__init__(path)
        self._split = split
        self._load = load

    def listing(self) -> Listing:
        """Count the rows, and read the labels.

        Raises:
            DataError: if the set cannot be had, or has no column of pictures.
            DependencyError: if `datasets` is not installed.
        """
        data, _, left = self._open()
        names: list[str] = []
        label = next((name for name in LABEL_COLUMNS if name in data.column_names), None)
        labels: list[Any] | None = None
        if label is not None:
            names = list(getattr(data.features[label], "names", None) or [])
            labels = list(data[label])
        stamp = int(str(data._fingerprint)[:15], 16) if data._fingerprint else 0
        listing = self._list(len(data), stamp, labels, names)
        if left:
            listing.notes.append(
                f"left out: the splits {', '.join(left)}; {self._load or self.path}:SPLIT takes one"
            )
        if self._load:
            listing.notes.append(
                f"{HUB}{self._load}: not of Parquet files, so `datasets` keeps a copy in its cache"
            )
        return listing

    def open(self, name: str) -> BinaryIO:
        """Return the picture of a row."""
        data, column, _ = self._open()
        value = data[int(name)][column]
        if self._load and isinstance(value, dict) and not value.get("bytes") and value.get("path"):
            return Path(value["path"]).open("rb")  # where `datasets` has put it
        return _bytes_of(value)

    def _open(self) -> tuple[Any, str, list[str]]:
        """Return the set with its pictures not decoded, their column, and the splits left out."""
        if self._opened is None:
            datasets = needed("datasets", "datasets", self.path)
            datasets.disable_progress_bars()
            try:
                whole = (
                    datasets.load_dataset(self._load)
                    if self._load
                    else datasets.load_from_disk(str(self.path))
                )
            except Exception as error:  # of the network, of the hub, of damaged files
                what = self._load or str(self.path)
                raise DataError(f"{what}: cannot be loaded ({_first_line(error)})") from None
            self._opened = self._chosen(whole, datasets)
        opened: tuple[Any, str, list[str]] = self._opened
        return opened

    def _chosen(self, whole: Any, datasets: Any) -> tuple[Any, str, list[str]]:
        left: list[str] = []
        if isinstance(whole, datasets.DatasetDict):
            split, left = _choose_split(self._load or str(self.path), list(whole), self._split)
            whole = whole[split]
        columns = [name for name, kind in whole.features.items() if isinstance(kind, datasets.Image)]
        if len(columns) != 1:
            found = "several columns" if columns else "no column"
            raise DataError(
                f"{self._load or self.path}: has {found} of pictures; it has {', '.join(whole.column_names)}"
            )
        return whole.cast_column(columns[0], datasets.Image(decode=False)), columns[0], left


def open_hub(name: str) -> Rows:
    """Return the reader of a data set by name: `hf:user/name`, or `hf:user/name:SPLIT`.

    One of Parquet files, as nearly all are, is read from where it is. Another is downloaded by `datasets`.

    Raises:
        DataError: if it cannot be had, or has no such split.
        DependencyError: if `datasets` is not installed.
    """
    place, _, split = name.removeprefix(HUB).partition(":")
    datasets = needed("datasets", "datasets", Path(place))
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(place)
        files = {
            str(part): [str(file) for file in found] for part, found in builder.config.data_files.items()
        }
    except AttributeError:  # of a kind that is not described by files
        return SavedSet(Path(place), split, place)
    except Exception as error:  # of the network, of the hub
        raise DataError(f"{place}: cannot be loaded ({_first_line(error)})") from None
    if not files or not all(file.endswith(".parquet") for several in files.values() for file in several):
        return SavedSet(Path(place), split, place)
    chosen, left = _choose_split(place, list(files), split)
    return HubFiles(place, files[chosen], left)


def _choose_split(place: str, splits: list[str], asked: str) -> tuple[str, list[str]]:
    """Return the split that is meant, and the others.

    Raises:
        DataError: if that cannot be told.
    """
    split = asked or ("train" if "train" in splits else splits[0] if len(splits) == 1 else "")
    if split not in splits:
        raise DataError(f"{place}: has the splits {', '.join(splits)}; name one with :SPLIT")
    return split, [one for one in splits if one != split]


def _bytes_of(value: Any) -> BinaryIO:
    """Return the picture file in a cell; raises OSError if it holds none."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        value = bytes(value)
    if not isinstance(value, bytes) or not value:
        raise OSError("the row holds no picture, or only the name of a file elsewhere")
    return io.BytesIO(value)


def _labelling(where: str, labels: list[Any], listing: Listing, names: list[str]) -> Labelling | None:
    """Return the labels of rows, of which some may be missing."""
    pictures = listing.candidates.names
    if len(labels) != len(pictures):
        raise DataError(
            f"{where}: holds {len(labels):,} labels for {len(pictures):,} pictures; each needs one"
        )
    texts = any(isinstance(label, str) for label in labels)
    if any(isinstance(label, list | dict) for label in labels):
        return None
    kept = [(name, label) for name, label in zip(pictures, labels, strict=True) if label is not None]
    if not kept:
        return None
    values = np.array([str(label) if texts else label for _, label in kept])
    return labelling_of(where, values, [name for name, _ in kept], names)


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """Return the names of a `ClassLabel` column, which Hugging Face keeps in the file's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = features[column].get("names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _holds_bytes(kind: str) -> bool:
    return kind in ("binary", "large_binary") or (kind.startswith("struct<") and "bytes: binary" in kind)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

"""Pictures to disk as they are made: a folder or zip of pictures, or NumPy arrays."""

from __future__ import annotations

import contextlib
import glob
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from progan.generation.picture_form import PictureForm, is_whole
from progan.system.background import behind
from progan.system.files import atomic_path, is_leftover, storage_errors

T = TypeVar("T")

Stored = NDArray[np.uint8 | np.uint16]
Batches = Iterable[Stored]

_THREADS = min(16, os.cpu_count() or 1)


@dataclass(frozen=True)
class Written:
    """How each of many pictures is written.

    Attributes:
        form: Format and scale.
        stem: From an index to a file name without ending.
        facts: From an index to what stands in the metadata.
    """

    form: PictureForm = field(default_factory=PictureForm)
    stem: Callable[[int], str] = "{:06d}".format
    facts: Callable[[int], Mapping[str, Any]] | None = None

    def name(self, index: int) -> str:
        """Return the file name of a picture, such as `000042.png`."""
        return f"{self.stem(index)}.{self.form.format}"

    def encode(self, index: int, image: Stored) -> bytes:
        """Return a picture [C, H, W] as a file."""
        return self.form.encode(image, None if self.facts is None else self.facts(index))

    def count_whole(self, folder: Path, most: int) -> int:
        """Return how many pictures, counted from the first, are in a folder and whole, up to `most`.

        A file that a crash of the machine left short or empty does not end as it must, and ends the count.
        """
        count = 0
        while count < most and is_whole(folder / self.name(count)):
            count += 1
        return count


PLAIN = Written()
"""Numbered PNGs without metadata."""


def save_folder(batches: Batches, folder: Path, start: int = 0, written: Written = PLAIN) -> None:
    """Write `000000.png`, `000001.png`, ... into one flat folder, as tools that compute FID expect.

    Each file appears whole or not at all.

    Args:
        batches: Batches [b, C, H, W], as the form can write them.
        folder: Made if missing.
        start: Index of the first picture.
        written: Names, format and metadata, if others.

    Raises:
        StorageError: if a file cannot be written; those before it are kept.
    """

    def write(index: int, image: Stored) -> None:
        path = folder / written.name(index)
        # Not `atomic_path`: waiting for the disk after each of 50,000 files would take minutes, and
        # `count_whole` finds what a crash spoils. The name is none that *.png finds.
        temporary = path.with_name(f".{path.name}.tmp")
        with storage_errors(path):
            try:
                temporary.write_bytes(written.encode(index, image))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        begun = _in_threads(pool, write, batches, start)
        behind(begun, lambda futures: [future.result() for future in futures])


def save_zip(batches: Batches, path: Path, written: Written = PLAIN) -> None:
    """Write `000000.png`, ... into a zip, not compressed again; the same pictures give the same bytes.

    Args:
        batches: Batches [b, C, H, W], as the form can write them.
        path: The file; it appears when it is complete.
        written: Names, format and metadata, if others.

    Raises:
        StorageError: if it cannot be written; an older file is then unharmed.
    """

    def encode(index: int, image: Stored) -> tuple[zipfile.ZipInfo, bytes]:
        # A ZipInfo without a date has a constant one, where a plain name would take the clock's.
        return zipfile.ZipInfo(written.name(index)), written.encode(index, image)

    def append(futures: list[Future[tuple[zipfile.ZipInfo, bytes]]]) -> None:
        for future in futures:
            archive.writestr(*future.result())

    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        behind(_in_threads(pool, encode, batches, 0), append)


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays to one file, not compressed; the same arrays give the same bytes.

    Raises:
        StorageError: if it cannot be written; an older file is then unharmed.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def save_npy(batches: Batches, path: Path, shape: tuple[int, int, int, int], depth: int = 8) -> None:
    """Write one uint8 or uint16 array [N, C, H, W], which `numpy.load(path, mmap_mode="r")` opens at once.

    The file is written plainly, not through a memory map: a full disk is then an error that can be told,
    where a memory map ends the process.

    Args:
        batches: Batches [b, C, H, W], N pictures in all, C of any number.
        path: The file; it appears when it is complete.
        shape: (N, C, H, W).
        depth: Bits of a value.

    Raises:
        StorageError: if it cannot be written; an older file is then unharmed.
        ValueError: if the batches are not of this shape.
    """
    kind = np.dtype(np.uint8 if depth == 8 else np.uint16)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        count = 0

        def write(batch: Stored) -> None:
            nonlocal count
            if batch.shape[1:] != shape[1:]:
                raise ValueError(f"a batch has the shape {batch.shape}, not [b, {shape[1:]}]")
            file.write(np.ascontiguousarray(batch).data)
            count += len(batch)

        behind(batches, write)
        if count != shape[0]:
            raise ValueError(f"{count} pictures were made, not {shape[0]}")


def remove_leftovers_of(path: Path) -> None:
    """Delete the temporary files that killed writers of this one file left beside it.

    Those of processes that are still there, on this machine, are left alone.
    """
    pattern = f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}"
    for leftover in path.parent.glob(pattern):
        number = leftover.name[len(path.stem) + 2 : -len(f".tmp{path.suffix}")]
        if is_leftover(leftover) and number.isdigit() and not _is_alive(int(number)):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _is_alive(process: int) -> bool:
    """Return whether there is a process of this number."""
    try:
        os.kill(process, 0)  # 0 is no signal: it asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def _in_threads(
    pool: ThreadPoolExecutor, work: Callable[[int, Stored], T], batches: Batches, start: int
) -> Iterator[list[Future[T]]]:
    """Begin work(index, picture) of all pictures, and yield what will come of each batch.

    Threads pay because what takes long releases Python's lock: compressing, checksums, writing.
    """
    for batch in batches:
        yield [pool.submit(work, start + i, image) for i, image in enumerate(batch)]
        start += len(batch)

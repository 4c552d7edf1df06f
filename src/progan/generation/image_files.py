"""Pictures to disk as they are made: a folder of PNGs, a zip of PNGs, or one NumPy array."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import to_image
from progan.system.background import behind
from progan.system.files import atomic_path, is_leftover, storage_errors

END = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode one picture as PNG.

    Thousands of pictures a second leave no time to look for the best compression: of repetitions only runs of
    one byte are looked for, which takes less time than zlib's usual strategy does at its quickest
    (docs/performance.md). As Pillow filters each row first, files become smaller, not larger, for it.

    Args:
        image: [C, H, W], uint8, C of 1 (grey), 2 (grey with alpha), 3 (RGB) or 4 (RGBA).

    Returns:
        A whole file, the same for the same picture.
    """
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


T = TypeVar("T")

Batches = Iterable[NDArray[np.uint8]]

_THREADS = min(16, os.cpu_count() or 1)


def picture_name(index: int) -> str:
    """Return the file name of a sample: `000042.png`."""
    return f"{index:06d}.png"


def count_whole(folder: Path) -> int:
    """Return how many pictures, counted from `000000.png`, are in a folder and whole.

    A file that a crash of the machine left short or empty does not end as a PNG must, and ends the count.
    """
    count = 0
    while _is_whole(folder / picture_name(count)):
        count += 1
    return count


def save_folder(batches: Batches, folder: Path, start: int = 0) -> None:
    """Write `000000.png`, `000001.png`, ... into one flat folder, as tools that compute FID expect.

    Each file appears whole or not at all.

    Args:
        batches: uint8 batches [b, C, H, W], C of 1 to 4.
        folder: Made if missing.
        start: Index of the first picture.

    Raises:
        StorageError: if a file cannot be written; those before it are kept.
    """

    def write(index: int, image: NDArray[np.uint8]) -> None:
        path = folder / picture_name(index)
        # Not `atomic_path`: waiting for the disk after each of 50,000 files would take minutes, and
        # `count_whole` finds what a crash spoils. The name is none that *.png finds.
        temporary = path.with_name(f".{path.name}.tmp")
        with storage_errors(path):
            try:
                temporary.write_bytes(png(image))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        begun = _in_threads(pool, write, batches, start)
        behind(begun, lambda futures: [future.result() for future in futures])


def save_zip(batches: Batches, path: Path) -> None:
    """Write `000000.png`, ... into a zip, not compressed again; the same pictures give the same bytes.

    Args:
        batches: uint8 batches [b, C, H, W], C of 1 to 4.
        path: The file; it appears when it is complete.

    Raises:
        StorageError: if it cannot be written; an older file is then unharmed.
    """

    def encode(index: int, image: NDArray[np.uint8]) -> tuple[zipfile.ZipInfo, bytes]:
        # A ZipInfo without a date has a constant one, where a plain name would take the clock's.
        return zipfile.ZipInfo(picture_name(index)), png(image)

    def append(futures: list[Future[tuple[zipfile.ZipInfo, bytes]]]) -> None:
        for future in futures:
            archive.writestr(*future.result())

    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        behind(_in_threads(pool, encode, batches, 0), append)


def save_npy(batches: Batches, path: Path, shape: tuple[int, int, int, int]) -> None:
    """Write one uint8 array [N, C, H, W], which `numpy.load(path, mmap_mode="r")` opens at once.

    The file is written plainly, not through a memory map: a full disk is then an error that can be told,
    where a memory map ends the process.

    Args:
        batches: uint8 batches [b, C, H, W], N pictures in all, C of any number.
        path: The file; it appears when it is complete.
        shape: (N, C, H, W).

    Raises:
        StorageError: if it cannot be written; an older file is then unharmed.
        ValueError: if the batches are not of this shape.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        count = 0

        def write(batch: NDArray[np.uint8]) -> None:
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
    pool: ThreadPoolExecutor, work: Callable[[int, NDArray[np.uint8]], T], batches: Batches, start: int
) -> Iterator[list[Future[T]]]:
    """Begin work(index, picture) of all pictures, and yield what will come of each batch.

    Threads pay because what takes long releases Python's lock: compressing, checksums, writing.
    """
    for batch in batches:
        yield [pool.submit(work, start + i, image) for i, image in enumerate(batch)]
        start += len(batch)


def _is_whole(path: Path) -> bool:
    """Return whether there is a file that ends as a PNG does."""
    try:
        with path.open("rb") as file:
            file.seek(-len(END), os.SEEK_END)
            return file.read() == END
    except OSError:
        return False

"""Arrays in `.npy` and `.npz` files, read without pickles and within the size of the file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_HEADER = 1 << 16
"""Bytes of the header of an array of numbers, which has about a hundred."""


def map_array(file: Path) -> NDArray[Any]:
    """Open a `.npy` file that holds numbers; they stay on disk until they are read.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is something else, or shorter than it says.
    """
    with file.open("rb") as stream:
        head = stream.read(12)
    if head.startswith(b"PK\x03\x04"):
        raise ValueError("it is a .npz archive under another name; save one array with numpy.save")
    # Of version 1 the length has two bytes; of others four, and so much room is made before they are read.
    if head[6:7] > b"\1" and int.from_bytes(head[8:12], "little") > MOST_HEADER:
        raise ValueError("its header is damaged: too long")
    try:
        values: NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:
        if "greater than file size" in str(error):
            raise ValueError("it is cut off: shorter than its header says; copy it again") from None
        raise
    except Exception as error:  # the header is parsed as Python, and fails as Python: TokenError, MemoryError
        raise ValueError(f"its header is damaged: {type(error).__name__}") from None
    return values


def load_array(file: Path) -> NDArray[Any]:
    """Read a `.npy` file that holds numbers into memory.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is something else, or shorter than it says.
    """
    # By way of the map, since reading would make room for what the header promises first.
    return np.array(map_array(file))


MOST_UNPACKED = 1 << 30
"""Bytes of an array in a `.npz` file."""


def load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a `.npz` file, by name.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is something else, an array is damaged or holds objects, or would take more than a
            GiB.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.file_size > MOST_UNPACKED or len(arrays) > 1000:
                    raise ValueError(f"{info.filename} is larger than {MOST_UNPACKED >> 20} MiB")
                arrays[info.filename.removesuffix(".npy")] = parse_array(archive.read(info))
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged archive fails in a dozen ways, among them zlib.error and EOFError
        raise ValueError(f"it is damaged: {error or type(error).__name__}") from None
    return arrays


def parse_array(data: bytes) -> NDArray[Any]:
    """Return the array of a whole `.npy` file; its header must promise as much as there is.

    Raises:
        ValueError: if it does not, or the array holds objects.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    count = 1
    for side in shape:
        count *= int(side)
    if len(data) - stream.tell() != count * dtype.itemsize:
        raise ValueError("its header does not fit what it holds")
    values: NDArray[Any] = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if fortran else "C")

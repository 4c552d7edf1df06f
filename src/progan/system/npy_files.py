"""Arrays in `.npy` files, read without pickles and within the size of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_array(file: Path) -> NDArray[Any]:
    """Open a `.npy` file that holds numbers; they stay on disk until they are read.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is something else, or shorter than it says.
    """
    with file.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            raise ValueError("it is a .npz archive under another name; save one array with numpy.save")
    try:
        values: NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError):
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

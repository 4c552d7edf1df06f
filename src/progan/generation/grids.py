"""Many pictures in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import tile, to_image
from progan.errors import ConfigError
from progan.system.files import atomic_path

_MOST_PIXELS = 89_478_485
"""Where Pillow starts to warn that a picture it reads may be an attack (Image.MAX_IMAGE_PIXELS)."""


def check_picture_channels(channels: int) -> None:
    """Raise `ConfigError` unless images of so many channels can be shown (1 to 4)."""
    if not 1 <= channels <= 4:
        raise ConfigError(
            f"images of {channels} channels cannot be shown as pictures (1 to 4 can); write a .npy array"
        )


def check_grid(images: int, channels: int, size: tuple[int, int]) -> None:
    """Raise `ConfigError` if so many images of (height, width) would not make a grid that can be opened."""
    check_picture_channels(channels)
    factor = max(1, -(-MIN_SIDE // min(size)))
    pixels = images * (size[0] * factor + GAP) * (size[1] * factor + GAP)
    if pixels > _MOST_PIXELS:
        raise ConfigError(
            f"a grid of {images:,} images would have {pixels / 1e6:,.0f} million pixels, more than most "
            f"programs open; ask for fewer, or write to a folder, a .zip or a .npy file"
        )


def save_grid(images: NDArray[np.uint8], path: Path, columns: int | None = None) -> Path:
    """Write pictures as one, row by row; small ones are enlarged by a whole factor.

    Args:
        images: [N, C, H, W] uint8, N at least 1, C of 1 to 4.
        path: The file; its ending chooses the format (`.png`).
        columns: Pictures in a row; None for about as many as there are rows.

    Returns:
        The path.

    Raises:
        ConfigError: if they cannot be shown as one picture.
        StorageError: if the file cannot be written.
    """
    n, channels, height, width = images.shape
    check_grid(n, channels, (height, width))
    columns = columns or int(np.ceil(np.sqrt(n)))
    write_grid(images, columns, path)
    return path


MIN_SIDE = 64
"""Smaller pictures are enlarged by a whole factor to at least this many pixels, so that 4x4 can be seen."""

GAP = 2
"""White pixels between the pictures of a grid."""


def write_grid(images: NDArray[np.uint8], columns: int, path: Path) -> None:
    """Write pictures [N, C, H, W] as one PNG, row by row.

    Raises:
        StorageError: if it cannot be written.
    """
    with atomic_path(path) as temporary:
        to_image(tile(images, columns, min_side=MIN_SIDE, gap=GAP)).save(temporary)

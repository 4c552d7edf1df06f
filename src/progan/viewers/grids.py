"""Many pictures in one: sample grids, and grids with one class a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from progan.data.pixels import tile, to_image
from progan.errors import ConfigError
from progan.files import atomic_path
from progan.models.generator import Generator
from progan.viewers.generate import latents, level_of, render

MIN_SIDE = 64
"""Pictures in a grid are enlarged to at least this many pixels, so that 4x4 samples can be seen."""

GAP = 2
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
    picture = to_image(tile(images, columns, min_side=MIN_SIDE, gap=GAP))
    with atomic_path(path) as temporary:
        picture.save(temporary)
    return path


def label_grid(G: Generator, columns: int, *, seed: int = 0, level: int | None = None) -> NDArray[np.uint8]:
    """Make the pictures of a grid with one class a row, for `save_grid` with the same `columns`.

    All pictures of a column have the same latent, so that a column shows what the class alone changes.

    Args:
        G: A generator with labels.
        columns: Latents, at least 1: those of samples 0 to columns - 1 of `seed`.
        seed: At least 0.
        level: As in `level_of`.

    Returns:
        [label_size * columns, channels, height, width] uint8, in the order of the labels.

    Raises:
        ConfigError: if the generator has no labels, or as in `level_of`.
    """
    if G.label_size == 0:
        raise ConfigError("this generator has no labels, so it has no grid of classes")
    z = latents(seed, 0, columns, G.latent_size).repeat(G.label_size, 1)  # [labels * columns, latent]
    labels = torch.eye(G.label_size).repeat_interleave(columns, dim=0)
    return render(G, z, labels, level=level_of(G, level))

"""Many pictures in one."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from progan.data.pixels import tile, to_image
from progan.data.showing import Sight, shown
from progan.errors import ConfigError
from progan.generation.picture_form import PictureForm, encode, enlarge, format_of
from progan.system.files import atomic_path

_MOST_PIXELS = 89_478_485
"""Where Pillow starts to warn that a picture it reads may be an attack (Image.MAX_IMAGE_PIXELS)."""

MIN_SIDE = 64
"""Smaller pictures are enlarged by a whole factor to at least this many pixels, so that 4x4 can be seen."""

GAP = 2
"""White pixels between the pictures of a grid."""

_INK = (40, 40, 40)
_LONGEST = 40
"""Characters of a caption; the rest of a longer one is left out."""


def check_grid(images: int, size: tuple[int, int], scale: int | None = None) -> None:
    """Raise `ConfigError` if so many images of (height, width) would not make a grid that can be opened."""
    factor = scale or grid_factor(size)
    pixels = images * (size[0] * factor + GAP) * (size[1] * factor + GAP)
    if pixels > _MOST_PIXELS:
        raise ConfigError(
            f"a grid of {images:,} images would have {pixels / 1e6:,.0f} million pixels, more than most "
            f"programs open; ask for fewer, or write to a folder, a .zip or a .npy file"
        )


def grid_factor(size: tuple[int, int]) -> int:
    """Return the whole factor that pictures of (height, width) are enlarged by in a grid."""
    return max(1, -(-MIN_SIDE // min(size)))


def save_grid(
    images: NDArray[np.uint8],
    path: Path,
    columns: int | None = None,
    *,
    form: PictureForm | None = None,
    captions: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    sight: Sight = Sight(),  # noqa: B008 - a NamedTuple
) -> Path:
    """Write pictures as one, row by row.

    Args:
        images: [N, C, H, W] uint8, N at least 1.
        path: The file; its ending chooses the format (`.png`, `.jpg`, `.webp`).
        columns: Pictures in a row; None for about as many as there are rows.
        form: How much each is enlarged, and how; None: small ones by a whole factor to 64 pixels at least.
        captions: A name for each picture, or none. Where those of every row are the same they stand at the
            left, once, else below each picture.
        facts: What stands in the metadata.
        sight: Which channels are shown, and what transparency is laid on.

    Returns:
        The path.

    Raises:
        ConfigError: if they cannot be shown as one picture, or the ending is another.
        StorageError: if the file cannot be written.
    """
    n, _, height, width = images.shape
    form = form or PictureForm(scale=grid_factor((height, width)))
    check_grid(n, (height, width), form.scale)
    columns = columns or int(np.ceil(np.sqrt(n)))
    large = shown(enlarge(images, form.scale, form.resample), sight)
    sheet = grid_picture(large, columns, captions)
    data = encode(sheet, format_of(path), facts)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def grid_picture(images: NDArray[np.uint8], columns: int, captions: Sequence[str] = ()) -> Image.Image:
    """Return pictures [N, C, H, W], laid out row by row, with their names (as `save_grid` places them)."""
    if not any(captions):
        return to_image(tile(images, columns, gap=GAP))
    _, _, height, width = images.shape
    size = min(28, max(13, height // 5))
    rows = [list(captions[i : i + columns]) for i in range(0, len(captions), columns)]
    if all(len(set(row)) == 1 for row in rows) and (len(rows) > 1 or columns > 1):
        return _named_rows(images, columns, [row[0] for row in rows], size)
    room = math.ceil(size * 1.5)
    padded = np.full((*images.shape[:2], height + room, width), 255, np.uint8)
    padded[:, :, :height] = images
    sheet = to_image(tile(padded, columns, gap=GAP))
    draw = ImageDraw.Draw(sheet)
    texts = [printable(caption) for caption in captions]
    size = min(fitting(text, width, size)[1] for text in texts)  # one for all
    for i, text in enumerate(texts):
        left, top = i % columns * (width + GAP), i // columns * (height + room + GAP) + height
        fitted, _ = fitting(text, width, size)
        draw.text((left + width // 2, top + room // 2), fitted, _ink(sheet), font_of(size), anchor="mm")
    return sheet


def _named_rows(images: NDArray[np.uint8], columns: int, names: Sequence[str], size: int) -> Image.Image:
    """Return a grid with the name of each row at its left."""
    grid = to_image(tile(images, columns, gap=GAP))
    height = images.shape[2] + GAP
    font = font_of(size)
    texts = [printable(name) for name in names]
    margin = math.ceil(max(font.getlength(text) for text in texts)) + size
    white = tuple([255] * len(grid.getbands()))
    sheet = Image.new(grid.mode, (grid.width + margin, grid.height), white if len(white) > 1 else 255)
    sheet.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(texts):
        draw.text((margin - size // 2, i * height + height // 2), text, _ink(sheet), font, anchor="rm")
    return sheet


def _ink(sheet: Image.Image) -> Any:
    """Return the colour of words on a sheet of any mode."""
    return {"L": _INK[0], "LA": (_INK[0], 255), "RGB": _INK, "RGBA": (*_INK, 255)}[sheet.mode]


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own typeface, which has the letters of Latin alphabets, at a size in pixels.

    Raises:
        ConfigError: if this Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ConfigError("Pillow was built without FreeType, so names cannot be drawn; ask for no captions")
    return font


def fitting(text: str, width: int, size: int) -> tuple[str, int]:
    """Return a text and a size, `size` at most and 9 at least, that fit a width, cut if need be."""
    while size > 9 and font_of(size).getlength(text) > width:
        size -= 1
    font = font_of(size)
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-1]
    return text, size


def printable(text: str) -> str:
    """Return a text in letters that the typeface has: accents are left out, other letters are shown as ?."""
    plain = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in kept)[:_LONGEST]


def write_grid(
    images: NDArray[np.uint8],
    columns: int,
    path: Path,
    sight: Sight = Sight(),  # noqa: B008 - a NamedTuple
) -> None:
    """Write pictures [N, C, H, W] as one PNG, row by row.

    Raises:
        StorageError: if it cannot be written.
    """
    with atomic_path(path) as temporary:
        to_image(shown(tile(images, columns, min_side=MIN_SIDE, gap=GAP)[None], sight)[0]).save(temporary)

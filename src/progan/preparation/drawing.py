"""The pictures of the built-in sets, each a function of the seed and its number alone."""

from __future__ import annotations

import colorsys
import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from progan.errors import DataError, DependencyError

OVERSAMPLING = 4
TEXT_FONTS = re.compile(
    r"(DejaVuSans|DejaVuSans-Bold|DejaVuSansMono-Bold|DejaVuSerif-Bold|STIXGeneralBol|cmb10)\.ttf"
)
"""Upright fonts with strokes that survive at 32 pixels: sans, serif and monospaced."""
NO_CHARACTER = "\uffff"
"""A code point that stays unassigned: fonts draw it with their box for missing characters."""

MIN_CONTRAST = 0.4
"""Least difference of luminance (0..1) between a glyph and its background."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601)."""


def find_fonts(characters: str) -> tuple[Path, ...]:
    """Return the text fonts of matplotlib that have all the characters, sorted by file name.

    matplotlib is only looked up, not imported.

    Raises:
        DependencyError: if it is not installed.
        DataError: if no font has them all.
    """
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        raise DependencyError(
            "builtin:glyphs is drawn from the fonts of matplotlib, which is not installed; "
            'run: pip install "progan[glyphs]"'
        )
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    files = sorted(path for path in folder.glob("*.ttf") if TEXT_FONTS.fullmatch(path.name))
    fonts = tuple(path for path in files if all(_has(path, character) for character in characters))
    if not fonts:
        raise DataError(f"glyphs: no text font of {len(files)} in {folder} has all of {characters!r}")
    return fonts


def _has(font_file: Path, character: str) -> bool:
    font = _load_font(font_file, 32)
    drawn = font.getmask(character)
    return drawn.getbbox() is not None and bytes(drawn) != bytes(font.getmask(NO_CHARACTER))


@lru_cache(maxsize=1024)
def _load_font(font_file: Path, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout does not depend on what else is installed.
    return ImageFont.truetype(str(font_file), size, layout_engine=ImageFont.Layout.BASIC)


def draw_glyph(
    index: int, *, characters: str, fonts: Sequence[Path], size: tuple[int, int], seed: int
) -> NDArray[np.uint8]:
    """Draw character `index % len(characters)`, randomly placed, turned, sized and coloured.

    Returns:
        [3, H, W] uint8.
    """
    random = default_rng([seed, index])
    height, width = size
    cover = _glyph_mask(random, characters[index % len(characters)], fonts, min(size) * OVERSAMPLING)
    side = min(size)
    small = cover.reshape(side, OVERSAMPLING, side, OVERSAMPLING).mean(axis=(1, 3))  # [side, side]
    mask = np.zeros(size)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = small
    ink, paper = _colours(random)
    blend = paper[:, None, None] + mask * (ink - paper)[:, None, None]  # [3, H, W]
    return np.rint(blend * 255).clip(0, 255).astype(np.uint8)


def _glyph_mask(random: Generator, character: str, fonts: Sequence[Path], side: int) -> NDArray[np.float64]:
    """Draw one character in the middle of a square, [side, side] in 0..1."""
    font_file = fonts[int(random.integers(len(fonts)))]
    extent = side * random.uniform(0.66, 0.74)
    probe = _load_font(font_file, 100).getbbox(character)
    size = round(100 * extent / max(probe[2] - probe[0], probe[3] - probe[1]))
    font = _load_font(font_file, size)
    # Light fonts are thickened until their strokes survive at the small size.
    stroke = round(side * (0.01 if "Bol" in font_file.name else 0.025))
    left, top, right, bottom = font.getbbox(character, stroke_width=stroke)
    shift = random.uniform(-0.02, 0.02, 2) * side
    angle = random.uniform(-6, 6)
    image = Image.new("L", (side, side))
    corner = ((side - right - left) / 2 + shift[0], (side - bottom - top) / 2 + shift[1])
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font, stroke_width=stroke)
    return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC), dtype=np.float64) / 255


def _colours(random: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a bright colour of any hue, and a dark one of a hue far from it: RGB in 0..1."""
    while True:
        hue = random.random()
        other = (hue + random.uniform(0.35, 0.65)) % 1
        ink = np.array(colorsys.hsv_to_rgb(hue, random.uniform(0.2, 0.8), 1.0))
        paper = np.array(colorsys.hsv_to_rgb(other, random.uniform(0.5, 0.9), random.uniform(0.15, 0.35)))
        if float((ink - paper) @ LUMINANCE) >= MIN_CONTRAST:
            return ink, paper


def draw_blobs(index: int, *, channels: int, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Draw `1 + index % 4` soft blobs on a gradient.

    Returns:
        [channels, H, W] uint8.
    """
    random = default_rng([seed, index])
    y = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
    x = np.linspace(0, 1, size[1], dtype=np.float32)[None, :]
    first, second = random.uniform(0, 255, (2, channels, 1, 1)).astype(np.float32)
    image = first + (second - first) * (x + y) / 2  # [C, H, W]
    for _ in range(1 + index % 4):
        centre_y, centre_x, radius = random.uniform((0.2, 0.2, 0.08), (0.8, 0.8, 0.2)).astype(np.float32)
        # A bell is the product of one bell in each direction.
        cover = np.exp(-(((y - centre_y) / radius) ** 2)) * np.exp(-(((x - centre_x) / radius) ** 2))
        colour = random.uniform(0, 255, (channels, 1, 1)).astype(np.float32)
        image += cover * (colour - image)
    pixels: NDArray[np.uint8] = np.rint(image).clip(0, 255).astype(np.uint8)
    return pixels

"""Levels of pictures with transparency: colours are averaged by how much of them is seen.

What is transparent has no colour of its own. Files mostly have black there, and a generator that learns
black beside the edge of every cut-out draws dark specks along it. So the colour of what is seen goes on
beneath what is not, smoothly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Stored = NDArray[np.uint8 | np.uint16]
Floats = NDArray[np.float32]


def transparent_pyramid(top: Stored, max_level: int) -> list[Stored]:
    """Return the levels 0..max_level of a picture whose last channel is alpha.

    Alpha is the 2x2 box mean of the level above, colours are its mean weighted with alpha. Where alpha is 0,
    colours are those around it: taken from the level below, resampled bilinearly. What is seen of the highest
    level is as it was, bit for bit.

    Args:
        top: [C, H, W] uint8 or uint16, C 2 or 4, with H and W divisible by 2^max_level.
        max_level: Number of halvings.
    """
    white = np.iinfo(top.dtype).max
    colours, covers = [top[:-1].astype(np.float32)], [top[-1:].astype(np.float32)]
    for _ in range(max_level):
        colour, cover = _halved(colours[-1], covers[-1])
        colours.append(colour)
        covers.append(cover)
    levels: list[Stored] = []
    beneath = _seen(colours[-1], covers[-1])
    for colour, cover in zip(reversed(colours), reversed(covers), strict=True):
        if beneath.shape != colour.shape:
            beneath = _enlarged(beneath, colour.shape[1:])
        whole = np.rint(cover).clip(0, white)
        beneath = np.where(whole > 0, colour, beneath)
        levels.append(np.concatenate([np.rint(beneath).clip(0, white), whole]).astype(top.dtype))
    return levels


def _halved(colours: Floats, cover: Floats) -> tuple[Floats, Floats]:
    """Return colours [C, H, W] and alpha [1, H, W] at half the size."""
    total = _sums(cover)
    quarter = np.float32(0.25)
    seen = np.divide(_sums(colours * cover), total, out=_sums(colours) * quarter, where=total > 0)
    return seen, total * quarter


def _sums(values: Floats) -> Floats:
    """Return the sums of 2x2 pixels of [C, H, W]."""
    made: Floats = (
        values[:, 0::2, 0::2] + values[:, 0::2, 1::2] + values[:, 1::2, 0::2] + values[:, 1::2, 1::2]
    )
    return made


def _seen(colours: Floats, cover: Floats) -> Floats:
    """Return the mean colour that is seen, as a picture of one colour."""
    total = cover.sum()
    mean = (colours * cover).sum((1, 2)) / total if total > 0 else colours.mean((1, 2))
    return np.broadcast_to(mean[:, None, None], colours.shape).astype(np.float32)


def _enlarged(colours: Floats, size: tuple[int, ...]) -> Floats:
    """Resample [C, h, w] to (height, width)."""
    bigger = (size[1], size[0])
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(bigger, Image.Resampling.BILINEAR)) for one in colours]
    )

"""Faces of CelebA turned, cut out and enlarged by their landmarks, as those of CelebA-HQ were.

The numbers are those of `create_celebahq` in dataset_tool.py of the original code (Karras et al. 2018,
appendix C), in the types that it computes with, so that the same libraries give the same bits.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

LANCZOS = Image.Resampling.LANCZOS
LANDMARKS = 5
"""Left eye, right eye, nose, left and right corner of the mouth."""
MARGIN = 0.1
"""Around the square, in parts of the result's side."""
MIRRORED = 0.3
"""So far the picture goes on as in a mirror where the square leaves it."""
SOFT = 0.02
"""Standard deviation of the blur out there."""
FINER = 4
"""The square is resampled to so many times the side, then reduced."""


class _Placed(NamedTuple):
    """A picture with the square in it.

    Attributes:
        image: RGB.
        square: Its corners [4, 2] as (x, y): upper left, lower left, lower right, upper right.
        zoom: Pixels of the result a pixel.
    """

    image: Image.Image
    square: Floats
    zoom: float


def align_face(image: Image.Image, landmarks: Floats, side: int) -> NDArray[np.uint8]:
    """Return the square around a face, upright.

    Args:
        image: RGB, as it was photographed.
        landmarks: [5, 2], (x, y) in pixels.
        side: Of the result: 1024.

    Returns:
        [3, side, side] uint8.
    """
    square, half = face_square(landmarks)
    placed = _reduced(_Placed(image, square, side / (half * 2)))
    border = max(round(side * MARGIN / placed.zoom), 3)
    placed = _padded(_enlarged(_cropped(placed, border)), border, side)
    corners = tuple((placed.square + np.float32(0.5)).flatten().tolist())
    fine = placed.image.transform(
        (side * FINER, side * FINER), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR
    )
    return np.ascontiguousarray(np.asarray(fine.resize((side, side), LANCZOS)).transpose(2, 0, 1))


def face_square(landmarks: Floats) -> tuple[Floats, float]:
    """Return the corners [4, 2] of the square around a face, and half its side.

    Its axes lie along the eyes, as well as across the line from eyes to mouth; its side is four times the
    distance of the eyes, or 3.6 times that from eyes to mouth if that is more.
    """
    half = np.float32(0.5)
    eyes = (landmarks[0] + landmarks[1]) * half + half
    mouth = (landmarks[3] + landmarks[4]) * half + half
    across, down = landmarks[1] - landmarks[0], mouth - eyes
    x = across - _quarter_turn(down)
    x /= np.hypot(*x)
    x *= np.float32(max(float(np.hypot(*across)) * 2.0, float(np.hypot(*down)) * 1.8))
    y = _quarter_turn(x)
    centre = eyes + down * np.float32(0.1)
    corners = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return corners, float(np.hypot(*x))


def _quarter_turn(v: Floats) -> Floats:
    return np.array([-v[1], v[0]], np.float32)


def _reduced(placed: _Placed) -> _Placed:
    """Reduce a picture that is much larger than wanted."""
    shrink = int(np.floor(0.5 / placed.zoom))
    if shrink <= 1:
        return placed
    size = [round(float(edge) / shrink) for edge in placed.image.size]
    return _Placed(
        placed.image.resize((size[0], size[1]), LANCZOS),
        placed.square / np.float32(shrink),
        placed.zoom * shrink,
    )


def _box(square: Floats) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of whole pixels around a square."""
    (left, top), (right, bottom) = np.floor(square.min(0)), np.ceil(square.max(0))
    return int(left), int(top), int(right), int(bottom)


def _cropped(placed: _Placed, border: int) -> _Placed:
    """Cut off what is far from the square."""
    left, top, right, bottom = _box(placed.square)
    width, height = placed.image.size
    crop = (
        max(left - border, 0), max(top - border, 0), min(right + border, width), min(bottom + border, height),
    )  # fmt: skip
    if crop[2] - crop[0] >= width and crop[3] - crop[1] >= height:
        return placed
    moved = (placed.square - np.array(crop[:2])).astype(np.float32)
    return placed._replace(image=placed.image.crop(crop), square=moved)


def _enlarged(placed: _Placed) -> _Placed:
    """Enlarge a picture that is smaller than wanted by a power of two."""
    times = int(np.exp2(np.ceil(np.log2(placed.zoom))))
    if times <= 1:
        return placed
    width, height = placed.image.size
    return _Placed(
        placed.image.resize((width * times, height * times), LANCZOS),
        placed.square * np.float32(times),
        placed.zoom / times,
    )


def _padded(placed: _Placed, border: int, side: int) -> _Placed:
    """Let a picture go on where the square leaves it: mirrored, blurred, at last of one colour."""
    left, top, right, bottom = _box(placed.square)
    width, height = placed.image.size
    need = (
        max(-left + border, 0), max(-top + border, 0), max(right - width + border, 0),
        max(bottom - height + border, 0),
    )  # fmt: skip
    if max(need) <= border - 4:
        return placed
    pad = np.maximum(need, round(side * MIRRORED / placed.zoom))
    pixels = np.asarray(placed.image, np.float32)
    pixels = np.pad(pixels, ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
    mask = _outside(pixels.shape[0], pixels.shape[1], pad)
    blur = side * SOFT / placed.zoom
    ndimage = importlib.import_module("scipy.ndimage")
    soft = ndimage.gaussian_filter(pixels, [blur, blur, 0])
    pixels += (soft - pixels) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0.0, 1.0)
    image = Image.fromarray(np.uint8(np.clip(np.round(pixels), 0, 255)))
    return _Placed(image, (placed.square + pad[:2]).astype(np.float32), placed.zoom)


def _outside(height: int, width: int, pad: NDArray[np.int64]) -> Floats:
    """Return how far outside each pixel is: 1 the outermost, 0 at the edge of the picture, less within."""
    y, x, _ = np.mgrid[:height, :width, :1]
    left, top, right, bottom = pad.astype(np.float32)
    near = np.minimum(np.float32(x) / left, np.float32(y) / top)
    far = np.minimum(np.float32(width - 1 - x) / right, np.float32(height - 1 - y) / bottom)
    mask: Floats = np.float32(1) - np.minimum(near, far)
    return mask

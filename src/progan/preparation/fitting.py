"""Bringing a picture to the resolution of the set, and the pyramid of levels below it."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.config import level_resolution
from progan.preparation.decoding import UnusablePictureError, decode
from progan.preparation.pictures import Pictures

Fit = Literal["crop", "pad", "stretch"]
Box = tuple[float, float, float, float]


class FitTask(NamedTuple):
    """What is done to every picture of a set."""

    source: Pictures
    base_shape: tuple[int, int]
    max_level: int
    channels: int
    fit: Fit


class Fitted(NamedTuple):
    """A picture ready to be stored: levels[l] is uint8 [C, h0 * 2^l, w0 * 2^l]."""

    levels: list[NDArray[np.uint8]]
    digest: bytes
    upscaled: bool


def fit_picture(task: FitTask, name: str) -> Fitted | str:
    """Decode one picture and make its levels; return the reason as text if it cannot be used."""
    try:
        image = decode(task.source, name, task.channels)
    except UnusablePictureError as error:
        return str(error)
    target = level_resolution(task.base_shape, task.max_level)
    upscaled = needs_upscaling((image.height, image.width), target, task.fit)
    pixels = np.asarray(fit_image(image, target, task.fit))
    top = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # [C, H, W]
    return Fitted(pyramid(top, task.max_level), digest(top), upscaled)


def digest(top: NDArray[np.uint8]) -> bytes:
    """Return 16 bytes that identify the content of a picture [C, H, W] at the top level."""
    return hashlib.blake2b(np.ascontiguousarray(top).data, digest_size=16).digest()


def needs_upscaling(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> bool:
    """Tell whether a picture of `size` must be enlarged to reach `target`, both (height, width)."""
    short = [have < want for have, want in zip(size, target, strict=True)]
    return all(short) if fit == "pad" else any(short)


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> Box:
    """Return the largest centred box (left, top, right, bottom) of `size` that has the aspect of `target`.

    Both are (height, width); the box is exact, in fractions of a pixel.
    """
    height, width = size
    box_width = min(float(width), height * target[1] / target[0])
    box_height = min(float(height), width * target[0] / target[1])
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, min(left + box_width, width), min(top + box_height, height)


def padded_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that a picture of `size` has when it is scaled to just fit into `target`."""
    scale = min(target[0] / size[0], target[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fit_image(image: Image.Image, target: tuple[int, int], fit: Fit) -> Image.Image:
    """Bring an image to the (height, width) `target`.

    `crop` cuts centrally to the aspect, `pad` adds black (transparent, with alpha), `stretch` distorts.
    Colours are weighted with alpha while resampling, so that what is invisible does not bleed.
    """
    size = (image.height, image.width)
    if size == target:
        return image
    if fit == "crop":
        return _resample(image, target, crop_box(size, target))
    if fit == "stretch":
        return _resample(image, target, (0, 0, image.width, image.height))
    inner = padded_size(size, target)
    scaled = _resample(image, inner, (0, 0, image.width, image.height))
    canvas = Image.new(image.mode, (target[1], target[0]))  # zeros: black, and transparent
    canvas.paste(scaled, ((target[1] - inner[1]) // 2, (target[0] - inner[0]) // 2))
    return canvas


def _resample(image: Image.Image, target: tuple[int, int], box: Box) -> Image.Image:
    # Lanczos rings when it enlarges; bicubic hardly does.
    larger = target[0] > box[3] - box[1] or target[1] > box[2] - box[0]
    kind = Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS
    # Pillow premultiplies LA and RGBA by itself when it resamples.
    return image.resize((target[1], target[0]), kind, box)


def pyramid(top: NDArray[np.uint8], max_level: int) -> list[NDArray[np.uint8]]:
    """Return the levels 0..max_level of a picture, the last being the picture itself.

    Each level is the 2x2 box mean of the one above, in float32; only what is stored is rounded, so that
    rounding does not add up. Pictures: `add_image` of the original dataset_tool.py.

    Args:
        top: [C, H, W] uint8 with H and W divisible by 2^max_level.
        max_level: Number of halvings.
    """
    levels = [np.ascontiguousarray(top)]
    mean = top.astype(np.float32)
    for _ in range(max_level):
        mean = (
            mean[:, 0::2, 0::2] + mean[:, 0::2, 1::2] + mean[:, 1::2, 0::2] + mean[:, 1::2, 1::2]
        ) * np.float32(0.25)
        levels.append(np.rint(mean).clip(0, 255).astype(np.uint8))
    return levels[::-1]

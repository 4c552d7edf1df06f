"""Bringing a picture to the resolution of the set, and the pyramid of levels below it."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.config import level_resolution
from progan.preparation.decoding import Developed, Pixels, Rules, UnusablePictureError, develop
from progan.preparation.picture.cropping import Cropping
from progan.preparation.picture.transparency import transparent_pyramid
from progan.preparation.pictures import Pictures

Fit = Literal["crop", "pad", "stretch", "tile"]
Box = tuple[float, float, float, float]
Size = tuple[int, int]
Stored = NDArray[np.uint8 | np.uint16]

ENLARGED = "enlarged"

MARGIN = 2
"""A JPEG is decoded at no less than so many times the sides that are wanted; the rest is resampled."""


class Last:
    """The picture that was decoded last: its parts follow one another."""

    def __init__(self) -> None:
        self._kept: tuple[str, Developed] | None = None

    def developed(self, task: FitTask, name: str) -> Developed:
        """Return a picture decoded by the rules of a task."""
        if self._kept is None or self._kept[0] != name:
            self._kept = None  # not both in memory
            self._kept = name, develop(task.source, name, task.rules)
        return self._kept[1]


class FitTask(NamedTuple):
    """What is done to every picture of a set."""

    source: Pictures
    base_shape: tuple[int, int]
    max_level: int
    rules: Rules
    fit: Fit
    cropping: Cropping = Cropping()
    enlarge: bool = True
    last: Last | None = None

    @property
    def target(self) -> Size:
        """(height, width) of the pictures of the set."""
        return level_resolution(self.base_shape, self.max_level)


class Fitted(NamedTuple):
    """A picture ready to be stored: levels[l] is uint8 or uint16 [C, h0 * 2^l, w0 * 2^l].

    Attributes:
        levels: Its pixels at every level.
        digest: What identifies the highest.
        notes: What was done to it that is counted.
        low, high: The smallest and largest value of its highest level.
    """

    levels: list[Stored]
    digest: bytes
    notes: tuple[str, ...]
    low: int
    high: int


def fit_picture(task: FitTask, item: str) -> Fitted | str:
    """Decode one picture, or part of it, and make its levels; return the reason as text if that fails."""
    target, name = task.target, task.cropping.origin(item)
    whole = task.cropping._replace(target=(1, 1)) == Cropping()
    try:
        if whole:
            found = develop(task.source, name, task.rules, lambda size: enough(size, target, task.fit))
        else:
            last = task.last or Last()
            found = last.developed(task, name)
        box = task.cropping.box(item, found.size)
    except (UnusablePictureError, ValueError) as error:
        return str(error)
    pixels, size = found.pixels, found.size
    if box is not None:
        pixels, size = _cut(pixels, box), (box[3] - box[1], box[2] - box[0])
    small = needs_upscaling(size, target, task.fit)
    if small and not task.enlarge:
        return (
            f"{size[1]}x{size[0]} is smaller than the resolution, and nothing is enlarged (--upscale never)"
        )
    fitted = fit_pixels(pixels, target, task.fit, size, found.reduction)
    return finish(fitted, task.max_level, found.notes + ((ENLARGED,) if small else ()))


def _cut(pixels: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """Return a part of a picture."""
    if isinstance(pixels, Image.Image):
        return pixels.crop(box)
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]


def finish(pixels: Pixels, max_level: int, notes: tuple[str, ...]) -> Fitted:
    """Make the levels of a picture that has the size of the set."""
    values: Stored = np.asarray(pixels)
    top = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)  # [C, H, W]
    levels = pyramid(top, max_level)
    colours = levels[-1][:-1] if len(top) in (2, 4) else top
    return Fitted(levels, digest(levels[-1]), notes, int(colours.min()), int(colours.max()))


def digest(top: Stored) -> bytes:
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


def enough(size: Size, target: Size, fit: Fit) -> Size:
    """Return the (height, width) at which a picture has all that is needed of it, and a margin."""
    scales = [want / have for have, want in zip(size, target, strict=True)]
    scale = MARGIN * (min(scales) if fit == "pad" else max(scales))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def cut_away(size: Size, target: Size, fit: Fit) -> float:
    """Return the share of a picture of `size` that is not in the set, 0 to 1."""
    if fit not in ("crop", "tile"):
        return 0.0
    left, top, right, bottom = crop_box(size, target)
    return 1 - (right - left) * (bottom - top) / (size[0] * size[1])


def fit_pixels(pixels: Pixels, target: Size, fit: Fit, size: Size, reduction: int) -> Pixels:
    """Bring pixels of either form to the (height, width) `target`, as `fit_image` does."""
    if isinstance(pixels, Image.Image) and pixels.mode in {"LA", "RGBA"}:
        # Pillow rounds colours after it has weighted them, and hardly visible ones become anything.
        return fit_array(np.asarray(pixels), target, fit)
    if isinstance(pixels, Image.Image):
        return fit_image(pixels, target, fit, size, reduction)
    return fit_array(pixels, target, fit)


def fit_image(
    image: Image.Image, target: Size, fit: Fit, size: Size | None = None, reduction: int = 1
) -> Image.Image:
    """Bring an image to the (height, width) `target`.

    `crop` cuts centrally to the aspect, `pad` adds black (transparent, with alpha), `stretch` distorts.
    Colours are weighted with alpha while resampling, so that what is invisible does not bleed.

    Args:
        image: The picture.
        target: What it is brought to.
        fit: How.
        size: The (height, width) of which the image is a half, quarter or eighth, rounded up, if it is.
        reduction: 2, 4 or 8 then; its last pixels may stand for less than others.
    """
    size = size if reduction > 1 and size else (image.height, image.width)
    if size == target:
        return image
    inner, box = _placed(size, target, fit)
    if reduction > 1:
        left, top, right, bottom = (edge / reduction for edge in box)
        box = left, top, right, bottom
    # Pillow premultiplies LA and RGBA by itself when it resamples.
    scaled = image.resize((inner[1], inner[0]), _kernel(inner, box), box)
    if inner == target:
        return scaled
    canvas = Image.new(image.mode, (target[1], target[0]))  # zeros: black, and transparent
    canvas.paste(scaled, ((target[1] - inner[1]) // 2, (target[0] - inner[0]) // 2))
    return canvas


def fit_array(pixels: Stored, target: Size, fit: Fit) -> Stored:
    """Bring pixels [H, W, C] to the (height, width) `target`, as `fit_image` does, in the type they have."""
    size = (pixels.shape[0], pixels.shape[1])
    if size == target:
        return pixels
    inner, box = _placed(size, target, fit)
    white = np.float32(np.iinfo(pixels.dtype).max)
    cover = pixels[..., -1].astype(np.float32) / white if pixels.shape[2] in (2, 4) else None
    planes = []
    for i in range(pixels.shape[2]):
        plane = pixels[..., i].astype(np.float32)
        if cover is not None and i < pixels.shape[2] - 1:
            plane *= cover
        planes.append(_resampled(plane, inner, box))
    if cover is not None:
        share = planes[-1] / white
        planes[:-1] = [np.divide(one, share, out=np.zeros_like(one), where=share > 0) for one in planes[:-1]]
    scaled = np.rint(np.stack(planes, axis=-1)).clip(0, white).astype(pixels.dtype)
    canvas = np.zeros((*target, pixels.shape[2]), pixels.dtype)
    top, left = (target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = scaled
    return canvas


def _placed(size: Size, target: Size, fit: Fit) -> tuple[Size, Box]:
    """Return the (height, width) that a picture is resampled to, and the box of it that is."""
    whole = (0.0, 0.0, float(size[1]), float(size[0]))
    if fit in ("crop", "tile"):
        return target, crop_box(size, target)
    return (target if fit == "stretch" else padded_size(size, target)), whole


def _resampled(plane: NDArray[np.float32], target: Size, box: Box) -> NDArray[np.float32]:
    """Resample one channel [H, W] in floating point."""
    image = Image.fromarray(plane).resize((target[1], target[0]), _kernel(target, box), box)
    return np.asarray(image, np.float32)


def _kernel(target: Size, box: Box) -> Image.Resampling:
    # Lanczos rings when it enlarges; bicubic hardly does.
    larger = target[0] > box[3] - box[1] or target[1] > box[2] - box[0]
    return Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS


def pyramid(top: Stored, max_level: int) -> list[Stored]:
    """Return the levels 0..max_level of a picture, the last being the picture itself.

    Each level is the 2x2 box mean of the one above, in float32; only what is stored is rounded, so that
    rounding does not add up. Source: `add_image` of the original dataset_tool.py. With transparency (2 or 4
    channels), colours are weighted with it.

    Args:
        top: [C, H, W] uint8 or uint16 with H and W divisible by 2^max_level.
        max_level: Number of halvings.
    """
    if len(top) in (2, 4):
        return transparent_pyramid(top, max_level)
    levels: list[Stored] = [np.ascontiguousarray(top)]
    white = np.iinfo(top.dtype).max
    mean = top.astype(np.float32)
    for _ in range(max_level):
        mean = (
            mean[:, 0::2, 0::2] + mean[:, 0::2, 1::2] + mean[:, 1::2, 0::2] + mean[:, 1::2, 1::2]
        ) * np.float32(0.25)
        levels.append(np.rint(mean).clip(0, white).astype(top.dtype))
    return levels[::-1]

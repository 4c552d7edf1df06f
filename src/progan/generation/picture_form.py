"""How a picture is written: its format, how much it is enlarged, and what stands in its metadata."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from progan.data.pixels import to_image
from progan.errors import ConfigError

Format = Literal["png", "jpg", "webp"]
Resample = Literal["nearest", "lanczos"]

METADATA_KEY = "progan"
"""Name of the PNG text that says how a picture is made again; of other formats it is the description."""

_DESCRIPTION = 0x010E
"""Of EXIF: ImageDescription."""

_MOST_SIDE = 16384
"""Pixels of a side: WebP can have no more, and most programs open no more."""


@dataclass(frozen=True)
class PictureForm:
    """How pictures are written.

    Attributes:
        format: png (as made), jpg (quality 95, alpha laid over white) or webp (as made).
        scale: A whole factor that pictures are enlarged by, at least 1.
        resample: nearest (pixels stay squares) or lanczos (smooth).

    Raises:
        ConfigError: if something is out of range.
    """

    format: Format = "png"
    scale: int = 1
    resample: Resample = "nearest"

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"format {self.format!r}: expected {', '.join(get_args(Format))}")
        if self.resample not in get_args(Resample):
            raise ConfigError(f"resample {self.resample!r}: expected {', '.join(get_args(Resample))}")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int) or self.scale < 1:
            raise ConfigError(f"scale {self.scale}: expected a whole number of at least 1")

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `ConfigError` if pictures of (height, width) would become too large to be opened."""
        if max(size) * self.scale > _MOST_SIDE:
            raise ConfigError(
                f"scale {self.scale}: pictures of {size[0] * self.scale}x{size[1] * self.scale} are larger "
                f"than programs open ({_MOST_SIDE} a side)"
            )

    def encode(self, image: NDArray[np.uint8], facts: Mapping[str, Any] | None = None) -> bytes:
        """Return a whole file, the same for the same picture and facts.

        Args:
            image: [C, H, W] uint8, C of 1 (grey), 2 (grey with alpha), 3 (RGB) or 4 (RGBA).
            facts: What stands in the metadata, as JSON; None for nothing.
        """
        picture = to_image(enlarge(image[None], self.scale, self.resample)[0])
        return encode(picture, self.format, facts)


def encode(picture: Image.Image, form: Format, facts: Mapping[str, Any] | None = None) -> bytes:
    """Return a Pillow image as a file.

    Of PNGs, thousands a second leave no time to look for the best compression: of repetitions only runs of
    one byte are looked for, which takes less time than zlib's usual strategy does at its quickest
    (docs/performance.md). As Pillow filters each row first, files become smaller, not larger, for it.
    """
    buffer = io.BytesIO()
    words = None if facts is None else json.dumps(dict(facts))
    if form == "png":
        info = None
        if words is not None:
            info = PngImagePlugin.PngInfo()
            info.add_text(METADATA_KEY, words)
        picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    if words is not None:
        exif[_DESCRIPTION] = words
    if form == "jpg":
        flat(picture).save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    else:
        opaque = picture.mode in ("L", "RGB")
        # exact: colours are kept where alpha is 0, too
        whole = picture.convert("RGB" if opaque else "RGBA")
        whole.save(buffer, "WEBP", lossless=True, exact=True, method=2, exif=exif)
    return buffer.getvalue()


def read_facts(path: str | Path) -> dict[str, Any] | None:
    """Return what the metadata of a picture says of how it was made; None if it says nothing.

    Raises:
        OSError: if it is no picture.
    """
    with Image.open(path) as picture:
        text = picture.info.get(METADATA_KEY) or picture.getexif().get(_DESCRIPTION)
    try:
        facts = json.loads(text) if text else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def format_of(path: Path) -> Format:
    """Return the format that a file's ending names; `.jpeg` is jpg.

    Raises:
        ConfigError: if it names none.
    """
    ending = path.suffix.lower().lstrip(".").replace("jpeg", "jpg")
    for known in get_args(Format):
        if ending == known:
            form: Format = known
            return form
    raise ConfigError(f"{path}: pictures are written as {', '.join(get_args(Format))}")


def enlarge(images: NDArray[np.uint8], factor: int, resample: Resample = "nearest") -> NDArray[np.uint8]:
    """Enlarge pictures [N, C, H, W] by a whole factor."""
    if factor == 1:
        return images
    if resample == "nearest":
        return images.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = images.shape[2] * factor, images.shape[3] * factor
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.LANCZOS)
        )
        for plane in images.reshape(-1, *images.shape[2:])
    ]
    return np.stack(planes).reshape(*images.shape[:2], height, width)


def on_white(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay pictures with an alpha channel over white.

    Args:
        images: [N, C, H, W] uint8; C of 1 or 3 (returned as they are), or 2 or 4 (the last is alpha).

    Returns:
        [N, 1 or 3, H, W] uint8.
    """
    if images.shape[1] in (1, 3):
        return images
    colour, alpha = images[:, :-1].astype(np.uint16), images[:, -1:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def flat(picture: Image.Image) -> Image.Image:
    """Return an image without alpha, which is laid over white: L or RGB."""
    if picture.mode in ("L", "RGB"):
        return picture
    array = np.asarray(picture)
    return to_image(on_white(array.transpose(2, 0, 1)[None])[0])


def is_whole(path: Path) -> bool:
    """Return whether there is a file that ends as its format must: a crash leaves short or empty ones."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            length = file.seek(0, os.SEEK_END)
            file.seek(-min(12, length), os.SEEK_END)
            tail = file.read()
    except OSError:
        return False
    if path.suffix == ".jpg":
        return tail.endswith(b"\xff\xd9")
    if path.suffix == ".webp":
        return len(head) == 12 and int.from_bytes(head[4:8], "little") + 8 == length
    return tail == PNG_END


PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""

"""How a picture is written: its format, how much it is enlarged, and what stands in its metadata."""

from __future__ import annotations

import importlib
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
from progan.data.showing import WHITE, laid_on
from progan.errors import ConfigError, DependencyError

Format = Literal["png", "jpg", "webp", "tiff"]
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
        format: png (as made), jpg (quality 95, alpha laid over white), webp (as made) or tiff (as made, of
            any number of channels).
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

    def encode(self, image: NDArray[np.uint8 | np.uint16], facts: Mapping[str, Any] | None = None) -> bytes:
        """Return a whole file, the same for the same picture and facts.

        Args:
            image: [C, H, W] uint8 or uint16, as `check_pixels` allows.
            facts: What stands in the metadata, as JSON; None for nothing. PNG of 16 bits a colour and TIFF
                have none.
        """
        large = enlarge(image[None], self.scale, self.resample)[0]
        if self.format == "tiff":
            return tiff(large)
        if large.dtype == np.uint16 and len(large) > 1:
            return bytes(codecs().png_encode(np.ascontiguousarray(large.transpose(1, 2, 0)), level=1))
        return encode(to_image(large), self.format, facts)

    def check_pixels(self, channels: int, depth: int) -> None:
        """Raise an error unless pictures of so many channels and bits can be written.

        Raises:
            ConfigError: if the format has no room for them.
            DependencyError: if an extra is needed that is missing.
        """
        if self.format == "tiff":
            tiff(np.zeros((channels, 1, 1), np.uint8))
            return
        if channels > 4:
            raise ConfigError(
                f"images of {channels} channels cannot be written as {self.format}; write tiff, or a "
                f".npy array"
            )
        if depth == 16 and self.format != "png":
            raise ConfigError(f"{self.format} has no 16 bits: write png or tiff, or ask for --depth 8")
        if depth == 16 and channels > 1:
            codecs()


def tiff(image: NDArray[np.uint8 | np.uint16]) -> bytes:
    """Encode one picture [C, H, W], uint8 or uint16, of any channels as an uncompressed TIFF.

    Raises:
        DependencyError: without the extra that writes it.
    """
    buffer, channels = io.BytesIO(), image.shape[0]
    _require("tifffile").imwrite(
        buffer,
        np.ascontiguousarray(image[0] if channels == 1 else image.transpose(1, 2, 0)),
        photometric="rgb" if channels in (3, 4) else "minisblack",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        metadata=None,
        software=False,
    )
    return buffer.getvalue() + TIFF_END


def codecs() -> Any:
    """Return the module that writes PNG files of 16 bits a colour.

    Raises:
        DependencyError: if it is not there.
    """
    return _require("imagecodecs")


def _require(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DependencyError(
            f"16 bits a colour and more than 4 channels are written by an extra ({name} is missing): "
            f"pip install 'progan[deep]'; a .npy file needs none"
        ) from None


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


def enlarge(images: NDArray[Any], factor: int, resample: Resample = "nearest") -> NDArray[Any]:
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


def flat(picture: Image.Image) -> Image.Image:
    """Return an image without alpha, which is laid over white: L or RGB."""
    if picture.mode in ("L", "RGB"):
        return picture
    array = np.asarray(picture)
    return to_image(laid_on(array.transpose(2, 0, 1)[None], WHITE)[0])


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
    if path.suffix == ".tiff":
        return tail.endswith(TIFF_END)
    return tail == PNG_END


PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""

TIFF_END = b"\0\0progan\0\0"
"""What is written behind a TIFF, which has no end of its own; readers do not look there."""

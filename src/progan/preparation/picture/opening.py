"""Opening the file of a picture with Pillow's guards on; whatever goes wrong is a reason in words."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from progan.errors import StorageError

MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs (a quarter of a GiB in RGB)."""

REDUCED = 8
"""JPEG files are decoded down to an eighth of their sides, so those of this many times the limit may pass."""

MAX_SCANS = 100
"""A progressive JPEG has about ten; each is a pass over all pixels, and an empty one takes hardly a byte."""
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""Formats told by their first bytes. Left out: those that start other programs (EPS), or are rare."""

JPEGS = frozenset({"JPEG", "MPO"})


class UnusablePictureError(Exception):
    """A picture that is to be skipped; the text is the reason."""


@contextmanager
def reasons() -> Iterator[None]:
    """Turn whatever goes wrong in reading a picture into UnusablePictureError."""
    truncated, largest = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            Image.MAX_IMAGE_PIXELS = None  # `require_size` knows of the option, and what the format allows
            yield
    except (UnusablePictureError, StorageError):  # what cannot be fetched now is no fault of the picture
        raise
    except UnidentifiedImageError:
        raise UnusablePictureError("not a picture in a known format") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UnusablePictureError(f"damaged in the archive: {error}") from None
    except MemoryError:
        raise UnusablePictureError("needs more memory than there is") from None
    except OSError as error:
        raise UnusablePictureError(f"cannot be read: {error.strerror or error}") from None
    except (
        Exception
    ) as error:  # decoders raise almost anything on damaged files: SyntaxError, IndexError, ...
        raise UnusablePictureError(f"damaged: {type(error).__name__}: {error}") from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
        Image.MAX_IMAGE_PIXELS = largest


@contextmanager
def opened(stream: BinaryIO, name: str, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open a picture within `reasons`; its size is one that may be decoded."""
    with Image.open(stream, formats=_formats(name)) as image:
        reducible = image.format in JPEGS and not image.info.get("progressive")
        # An eighth of each side is a 64th of the pixels, but the file is read whole, so that far is enough.
        require_size(image.size, max_pixels * (REDUCED if reducible else 1), said=max_pixels)
        yield image


def require_size(size: tuple[int, int], most: int, *, said: int | None = None) -> None:
    """Refuse a picture of more pixels than `most`.

    Args:
        size: Its sides.
        most: The limit.
        said: The limit that the reason names, if it is another.

    Raises:
        UnusablePictureError: naming the option that raises the limit.
    """
    pixels = size[0] * size[1]
    if pixels > most:
        wanted = -(-pixels // 10**6)
        raise UnusablePictureError(
            f"{size[0]}x{size[1]}: more than {_millions(said or most)} million pixels; "
            f"--max-pixels {wanted}M takes it"
        )


def _millions(pixels: int) -> str:
    return str(pixels // 10**6) if pixels >= 10**7 else f"{pixels / 10**6:.3g}"


def _formats(name: str) -> list[str]:
    """Return the formats to try; TGA has no signature, so only its suffix tells."""
    Image.init()
    wanted = (*FORMATS, "TGA") if name.lower().endswith(".tga") else FORMATS
    if _heif_is_read():
        wanted = (*wanted, "HEIF")
    return [one for one in wanted if one in Image.OPEN]


@cache
def _heif_is_read() -> bool:
    """Have Pillow read HEIF files, if the extra is there that can."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def refuse_endless_scans(image: ImageFile.ImageFile) -> None:
    """Refuse a small JPEG that takes hours to decode: one of thousands of scans."""
    if image.format not in JPEGS or image.fp is None:
        return
    before = image.fp.tell()
    image.fp.seek(0)
    data, scans, place = image.fp.read(), 0, 2
    image.fp.seek(before)
    while (found := _JPEG_MARKER.search(data, place)) and data[found.start() + 1] != _JPEG_END:
        scans += data[found.start() + 1] == _JPEG_SCAN
        if scans > MAX_SCANS:
            raise UnusablePictureError(f"a JPEG of more than {MAX_SCANS} scans")
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")

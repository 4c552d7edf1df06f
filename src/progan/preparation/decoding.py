"""From the bytes of a picture to an upright 8-bit Pillow image, gray or RGB, with or without alpha.

Everything that can be wrong with a picture file ends here as a reason in words, never as another exception.
"""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from progan.preparation.pictures import Pictures

MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs (a quarter of a GiB in RGB)."""

SCALED_AT_ONCE = 2**20
"""Pixels of a deep picture that are in floating point at one time."""

MAX_SCANS = 100
"""A progressive JPEG has about ten; each is a pass over all pixels, and an empty one takes hardly a byte."""
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""Formats told by their first bytes. Left out: those that start other programs (EPS), or are rare."""

ORIENTATION_TAG = 0x0112
QUARTER_TURNS = frozenset({5, 6, 7, 8})
BITS_TAG, PLANES_TAG = 258, 284
SEPARATE_PLANES = 2


class UnusablePictureError(Exception):
    """A picture that is to be skipped; the text is the reason."""


class Header(NamedTuple):
    """What is known of a picture before it is decoded; width and height are those of the upright picture."""

    width: int
    height: int
    colour: bool
    alpha: bool
    animated: bool


def scan(source: Pictures, name: str) -> Header | str:
    """Read the header of a picture; return the reason as text if it cannot be used."""
    try:
        with _decoding(source, name) as image:
            width, height = image.size
            if _orientation(image) in QUARTER_TURNS:
                width, height = height, width
            return Header(width, height, _is_coloured_file(image), has_alpha(image), _is_animated(image))
    except UnusablePictureError as error:
        return str(error)


def decode(source: Pictures, name: str, channels: int) -> Image.Image:
    """Decode a picture, the first frame if it has several.

    Args:
        source: Where the picture is.
        name: Its name there.
        channels: 1, 2, 3 or 4.

    Returns:
        An upright image of mode L, LA, RGB or RGBA. Alpha that the mode has no room for is laid on white.

    Raises:
        UnusablePictureError: with the reason.
    """
    with _decoding(source, name) as image:
        alpha = has_alpha(image)
        _refuse_endless_scans(image)
        # Loading before turning: some formats turn themselves when loaded.
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # a copy of the largest picture takes a third of a GiB
        return to_channels(to_8_bit(image, alpha), channels)


@contextmanager
def _decoding(source: Pictures, name: str) -> Iterator[ImageFile.ImageFile]:
    """Open a picture with Pillow's guards on, and turn whatever goes wrong into UnusablePictureError."""
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            with source.open(name) as stream, _open(stream, name) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnusablePictureError(_too_large(image.size))
                if _has_deep_planes(image):
                    raise UnusablePictureError(
                        "a TIFF with more than 8 bits in separate colour planes; save it with interleaved "
                        "colours or as PNG"
                    )
                yield image
    except UnusablePictureError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnusablePictureError(f"more than {MAX_PIXELS // 10**6} million pixels") from None
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


def _open(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Open a picture file, or an array in the form of a `.npy` file."""
    if stream.read(6) != b"\x93NUMPY":
        stream.seek(0)
        return Image.open(stream, formats=_formats(name))
    stream.seek(0)
    pixels = np.load(stream, allow_pickle=False)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8:
        pixels = np.stack([_scale_deep(one) for one in np.moveaxis(pixels[..., None], -2, 0)], -1).squeeze(-2)
    return Image.fromarray(pixels)  # type: ignore[return-value]


def _formats(name: str) -> list[str]:
    """Return the formats to try; TGA has no signature, so only its suffix tells."""
    Image.init()
    wanted = (*FORMATS, "TGA") if name.lower().endswith(".tga") else FORMATS
    return [one for one in wanted if one in Image.OPEN]


def _too_large(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}: more than {MAX_PIXELS // 10**6} million pixels"


def _has_deep_planes(image: Image.Image) -> bool:
    """Tell what Pillow would decode to noise without an error: deep TIFF, one plane a channel."""
    if image.format != "TIFF" or len(image.getbands()) == 1:
        return False
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_TAG, (1,))
    deepest = max(bits) if isinstance(bits, tuple) else bits
    return bool(tags.get(PLANES_TAG) == SEPARATE_PLANES and deepest > 8)


def _refuse_endless_scans(image: ImageFile.ImageFile) -> None:
    """Refuse a small JPEG that takes hours to decode: one of thousands of scans."""
    if image.format not in {"JPEG", "MPO"} or image.fp is None:
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


def _orientation(image: Image.Image) -> int:
    # Asking a PNG without EXIF for it would decode the whole picture.
    if image.format == "PNG" and not {"exif", "Raw profile type exif", "xmp"} & set(image.info):
        return 1
    if image.format == "TIFF":
        # Pillow already gives the upright size of a TIFF when opened if its orientation is a quarter turn.
        return 1
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _is_animated(image: Image.Image) -> bool:
    # MPO files hold other views of one photograph, which are no frames.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _has_colour(image: Image.Image) -> bool:
    return image.mode not in {"1", "L", "LA", "La", "F"} and not image.mode.startswith("I")


def _is_coloured_file(image: ImageFile.ImageFile) -> bool:
    """Tell whether a picture that is not yet decoded has colour."""
    # Pillow opens 16-bit gray with alpha as RGBA; only how it will be decoded tells.
    if (
        isinstance(image, ImageFile.ImageFile)
        and image.format == "PNG"
        and image.tile
        and image.tile[0][3] == "LA;16B"
    ):
        return False
    return _has_colour(image)


def has_alpha(image: Image.Image) -> bool:
    """Tell whether a picture has an alpha channel, a transparent colour, or a palette with either."""
    return image.mode != "F" and not image.mode.startswith("I") and image.has_transparency_data


def to_8_bit(image: Image.Image, alpha: bool) -> Image.Image:
    """Convert an image of any mode to L or RGB, or to LA or RGBA if `alpha`.

    Sixteen-bit gray is scaled, rint(value / 257), where Pillow's conversion would clip it.

    Raises:
        UnusablePictureError: for floating-point or 32-bit pictures whose range is unknown.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_deep(np.asarray(image)))
    if _has_colour(image):
        return image.convert("RGBA" if alpha else "RGB")
    return image.convert("LA" if alpha else "L")


def _scale_deep(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map 16-bit, 32-bit or floating-point gray [H, W] to 0..255."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise UnusablePictureError(f"values from {low:g} to {high:g}: the range of the pixels is unknown")
    if np.issubdtype(values.dtype, np.floating):
        if high > 255:
            raise UnusablePictureError(f"values up to {high:g}: expected 0 to 1 or 0 to 255")
        scale = 255.0 if high <= 1 else 1.0
    else:
        if high > 65535:
            raise UnusablePictureError(f"values up to {high:g}: expected at most 65535")
        scale = 1 / 257
    flat = np.ascontiguousarray(values).reshape(-1)
    scaled = np.empty(flat.shape, np.uint8)
    for start in range(0, flat.size, SCALED_AT_ONCE):  # as float64 the largest picture would take 2 GiB
        part = slice(start, start + SCALED_AT_ONCE)
        scaled[part] = np.rint(flat[part].astype(np.float64) * scale)
    return scaled.reshape(values.shape)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert L, LA, RGB or RGBA to the mode with `channels` channels, laying lost alpha on white."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode in {"LA", "RGBA"} and channels in {1, 3}:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)

"""What Pillow's image of a file is: its mode, depth and orientation; and images from one mode to another."""

from __future__ import annotations

from PIL import Image, ImageFile

from progan.preparation.picture.channels import WHITE, Background
from progan.preparation.picture.opening import UnusablePictureError

ORIENTATION_TAG = 0x0112
BITS_TAG, PLANES_TAG = 258, 284
SEPARATE_PLANES = 2


def refuse_deep_planes(image: Image.Image) -> None:
    """Refuse what Pillow would decode to noise without an error: deep TIFF, one plane a channel."""
    if image.format != "TIFF" or len(image.getbands()) == 1:
        return
    if getattr(image, "tag_v2", {}).get(PLANES_TAG) == SEPARATE_PLANES and _deepest(image) > 8:
        raise UnusablePictureError(
            "a TIFF with more than 8 bits in separate colour planes; read by an extra: "
            "pip install 'progan[deep]'"
        )


def _deepest(image: Image.Image) -> int:
    """Return the bits of a colour of a TIFF."""
    bits = getattr(image, "tag_v2", {}).get(BITS_TAG, (1,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def is_deep(image: Image.Image) -> bool:
    """Tell whether Pillow's pixels of an image are of 16 or 32 bits, or floats."""
    return image.mode == "F" or image.mode.startswith("I")


def is_shallow(image: ImageFile.ImageFile) -> bool:
    """Tell whether a file has more bits a colour than Pillow's pixels of it."""
    if image.format == "TIFF":
        return _deepest(image) > 8
    return image.format == "PNG" and bool(image.tile) and str(image.tile[0][3]).endswith(";16B")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied, 1 to 8."""
    # Asking a PNG without EXIF for it would decode the whole picture.
    if image.format == "PNG" and not {"exif", "Raw profile type exif", "xmp"} & set(image.info):
        return 1
    if image.format == "TIFF":
        # Pillow already gives the upright size of a TIFF when opened if its orientation is a quarter turn.
        return 1
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def is_animated(image: Image.Image) -> bool:
    """Tell whether a file has frames besides the first."""
    # MPO files hold other views of one photograph, which are no frames.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def has_colour(image: Image.Image) -> bool:
    """Tell whether an image is more than gray."""
    return image.mode not in {"1", "L", "LA", "La", "F"} and not image.mode.startswith("I")


def is_coloured_file(image: ImageFile.ImageFile) -> bool:
    """Tell whether a picture that is not yet decoded has colour."""
    # Pillow opens 16-bit gray with alpha as RGBA; only how it will be decoded tells.
    if image.format == "PNG" and image.tile and image.tile[0][3] == "LA;16B":
        return False
    return has_colour(image)


def has_alpha(image: Image.Image) -> bool:
    """Tell whether a picture has an alpha channel, a transparent colour, or a palette with either."""
    return not is_deep(image) and image.has_transparency_data


def to_8_bit(image: Image.Image, alpha: bool) -> Image.Image:
    """Convert an image of any mode of at most 8 bits to L or RGB, or to LA or RGBA if `alpha`."""
    if has_colour(image):
        return image.convert("RGBA" if alpha else "RGB")
    return image.convert("LA" if alpha else "L")


def to_channels(image: Image.Image, channels: int, background: Background = WHITE) -> Image.Image:
    """Convert L, LA, RGB or RGBA to the mode with `channels` channels, laying lost alpha on a background."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode in {"LA", "RGBA"} and channels in {1, 3}:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*background, 255))
        image = Image.alpha_composite(ground, rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)

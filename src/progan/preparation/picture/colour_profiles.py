"""Colours of a file to sRGB: embedded ICC profiles (LittleCMS, through Pillow), and the gamma of a PNG.

Everything after it takes pixel values as sRGB, as screens do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

CONVERTED = "converted"
UNREADABLE = "unreadable"
GAMMA = "gamma"

USUAL_GAMMA = 1 / 2.2
"""What PNG files of sRGB pictures carry."""
GAMMA_TOLERANCE = 0.02
EQUAL = 1
"""A profile by which no colour moves further, of 255, is sRGB."""

Transform = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert an image to sRGB by its profile, or by the gamma of its file.

    Args:
        image: Decoded, of any mode of at most 8 bits; alpha is kept as it is.

    Returns:
        The image (the same one if its values are those of sRGB, or nothing is said about them), and
        `CONVERTED`, `GAMMA`, `UNREADABLE` if there is a profile that cannot be used, or nothing.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return _by_profile(image, profile)
    gamma = image.info.get("gamma")
    if image.format == "PNG" and isinstance(gamma, float) and "srgb" not in image.info:
        return _by_gamma(image, gamma)
    return image, ""


def _by_profile(image: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    colours = _colours(image)
    try:
        transform = _transform(profile, colours.mode)
        if transform is None:
            return image, ""
        converted = transform(colours)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image, UNREADABLE
    return _with_alpha(converted, image), CONVERTED


def _colours(image: Image.Image) -> Image.Image:
    """Return the colours of an image without its alpha, in a mode that profiles are for."""
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image
    return image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")


def _with_alpha(converted: Image.Image, image: Image.Image) -> Image.Image:
    """Give a converted image the alpha of the image that it was made of."""
    alpha = None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    if image.mode in {"L", "LA", "La", "1"}:
        converted = converted.convert("L")  # gray stays gray: the three are equal
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Transform | None:
    """Return the conversion from a profile to sRGB; None if it would change nothing.

    Raises:
        PyCMSError, OSError: if the profile cannot be read or is of other colours than the image's.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def transform(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, made)
        if converted is None:  # only in place
            raise ValueError("nothing was converted")
        return converted

    probe = _probe(mode)
    if probe is not None:
        before, after = (np.asarray(one.convert("RGB")).astype(int) for one in (probe, transform(probe)))
        if np.abs(before - after).max() <= EQUAL:
            return None
    return transform


def _probe(mode: str) -> Image.Image | None:
    """Return an image with colours of all kinds, in a mode that sRGB values may have."""
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode != "RGB":
        return None
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(17, -1, 3)
    return Image.fromarray(np.ascontiguousarray(colours))


def _by_gamma(image: Image.Image, gamma: float) -> tuple[Image.Image, str]:
    """Convert values v that stand for light v^(1 / gamma), as the gAMA chunk of a PNG says, to sRGB."""
    if abs(gamma - USUAL_GAMMA) <= GAMMA_TOLERANCE or not 0.05 <= gamma <= 5:
        return image, ""
    light = (np.arange(256) / 255) ** (1 / gamma)
    # The transfer function of IEC 61966-2-1.
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.rint(encoded * 255).astype(int).tolist()
    colours = _colours(image)
    return _with_alpha(colours.point(table * len(colours.getbands())), image), GAMMA

"""Colours of a file to sRGB: embedded ICC profiles (LittleCMS), and the gamma of a PNG.

Pillow converts 8 bits a colour, imagecodecs (the extra `deep`) 16. Everything after it takes pixel values as
sRGB, as screens do.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

CONVERTED = "converted"
UNREADABLE = "unreadable"
GAMMA = "gamma"
NOT_CONVERTED = "not_converted"
"""There is a profile for 16 bits, and the extra that converts them is missing."""

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


def deep_to_srgb(
    colours: NDArray[np.uint16], profile: bytes | None, gamma: float | None, inks: bool
) -> tuple[NDArray[np.uint16], str]:
    """Convert colours of 16 bits to sRGB by their profile, or by the gamma of their file.

    Args:
        colours: [H, W, C] without alpha: 1 gray, 3 RGB, or 4 inks (cyan, magenta, yellow, black; 65535 is all
            of an ink).
        profile: The ICC profile.
        gamma: The number of a PNG's gAMA chunk.
        inks: Whether they are inks.

    Returns:
        [H, W, 1 or 3], and what `to_srgb` tells, or `NOT_CONVERTED`. Inks without a profile that can be used
        are multiplied: what cyan leaves of red, black leaves in the same share.
    """
    note, converted = "", None
    if profile:
        note, converted = _deep_by_profile(colours, profile, inks)
    elif gamma is not None and (table := _gamma_table(gamma, 65535)) is not None:
        note, converted = GAMMA, table.astype(np.uint16)[colours]
    if converted is not None:
        return converted, note
    if inks:
        light = np.uint32(65535) - colours
        colours = ((light[..., :3] * light[..., 3:] + 32767) // 65535).astype(np.uint16)
    return colours, note


def _deep_by_profile(
    colours: NDArray[np.uint16], profile: bytes, inks: bool
) -> tuple[str, NDArray[np.uint16] | None]:
    """Return a note, and the converted colours if they change."""
    space, mode = ("cmyk", "CMYK") if inks else ("gray", "L") if colours.shape[2] == 1 else ("rgb", "RGB")
    try:
        if _transform(profile, mode) is None:
            return "", None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return UNREADABLE, None
    try:
        codecs = importlib.import_module("imagecodecs")
    except ImportError:
        return NOT_CONVERTED, None
    flat = np.ascontiguousarray(colours.reshape(-1, 1, colours.shape[2]))
    try:
        made: NDArray[np.uint16] = codecs.cms_transform(
            flat if space != "gray" else flat[..., 0],
            profile,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
            colorspace=space,
            outcolorspace="rgb",
            outdtype="uint16",
            intent=int(ImageCms.Intent.RELATIVE_COLORIMETRIC),
            flags=int(ImageCms.Flags.BLACKPOINTCOMPENSATION),
        )
    except (codecs.CmsError, ValueError, TypeError):
        return UNREADABLE, None
    made = made.reshape(*colours.shape[:2], 3)
    return CONVERTED, made[..., :1] if space == "gray" else made


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
    """Convert the values of an image of 8 bits by the gamma of its file."""
    table = _gamma_table(gamma, 255)
    if table is None:
        return image, ""
    colours = _colours(image)
    return _with_alpha(colours.point(table.tolist() * len(colours.getbands())), image), GAMMA


def _gamma_table(gamma: float, white: int) -> NDArray[np.int64] | None:
    """Return the sRGB of each value 0..white that stands for light v^(1 / gamma), v = value / white.

    That is what the gAMA chunk of a PNG says. None for the gamma that files of sRGB have, or a senseless one.
    """
    if abs(gamma - USUAL_GAMMA) <= GAMMA_TOLERANCE or not 0.05 <= gamma <= 5:
        return None
    light = (np.arange(white + 1) / white) ** (1 / gamma)
    # The transfer function of IEC 61966-2-1.
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: NDArray[np.int64] = np.rint(encoded * white).astype(np.int64)
    return table

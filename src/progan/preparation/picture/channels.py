"""Pixels of arrays brought to the channels of a set: gray, colour, transparency, or many of any meaning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from progan.preparation.picture.opening import UnusablePictureError

Background = tuple[int, int, int]
WHITE: Background = (255, 255, 255)
LUMA = np.array([299, 587, 114]) / 1000
"""Weights of red, green and blue in gray (ITU-R BT.601), which Pillow takes, too."""

MANY = 5
"""From so many channels on they are none of gray, colour and transparency."""

Whole = NDArray[np.uint8 | np.uint16]


def to_channels(pixels: Whole, alpha: bool, channels: int, background: Background) -> Whole:
    """Bring an array to `channels` channels.

    Args:
        pixels: [H, W, C], uint8 or uint16.
        alpha: Whether the last one is alpha.
        channels: How many are wanted: 1 gray, 2 gray with alpha, 3 RGB, 4 RGBA, or as many as there are. Of
            more than 4, the first ones can be taken.
        background: What alpha that is not wanted is laid on, of 255.

    Raises:
        UnusablePictureError: if they cannot be brought to that.
    """
    have = pixels.shape[2]
    if have == channels and (alpha or channels not in (2, 4) or have >= MANY):
        return pixels
    if have >= MANY and channels < have:
        return np.ascontiguousarray(pixels[..., :channels])
    if channels >= MANY or (have >= MANY and channels > have):
        raise UnusablePictureError(f"has {have} channels, where the set has {channels}")
    if have == channels:  # four or two without alpha: taken as they are
        return pixels
    colours, cover = (pixels[..., :-1], pixels[..., -1:]) if alpha else (pixels, None)
    if cover is not None and channels in (1, 3):
        colours = _laid_on(colours, cover, background)
    colours = _coloured(colours, channels >= 3)
    if channels in (1, 3):
        return colours
    white = np.iinfo(pixels.dtype).max
    cover = np.full((*pixels.shape[:2], 1), white, pixels.dtype) if cover is None else cover
    return np.concatenate([colours, cover], axis=2)


def _coloured(colours: Whole, wanted: bool) -> Whole:
    """Return gray [H, W, 1] or colour [H, W, 3] as what is wanted."""
    if wanted:
        return (
            np.ascontiguousarray(np.broadcast_to(colours[..., :1], (*colours.shape[:2], 3)))
            if colours.shape[2] < 3
            else np.ascontiguousarray(colours[..., :3])
        )
    if colours.shape[2] < 3:
        return np.ascontiguousarray(colours[..., :1])
    return np.rint(colours[..., :3] @ LUMA).astype(colours.dtype)[..., None]


def _laid_on(colours: Whole, cover: Whole, background: Background) -> Whole:
    """Lay colours on a background by their alpha."""
    white = np.iinfo(colours.dtype).max
    ground = np.array(background, np.float64) * (white / 255)
    if colours.shape[2] < 3 and len(set(background)) > 1:
        colours = np.ascontiguousarray(np.broadcast_to(colours[..., :1], (*colours.shape[:2], 3)))
    share = cover / np.float64(white)
    mixed = colours * share + ground[: colours.shape[2]] * (1 - share)
    return np.rint(mixed).astype(colours.dtype)

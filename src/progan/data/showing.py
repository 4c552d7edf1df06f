"""Pixels of any channels as eyes see them: gray or RGB, transparency on a ground, many channels as three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import Images
from progan.errors import ConfigError

CHECKER = "checker"
"""The ground that shows transparency as programs for pictures do."""

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
Ground = Colour | str
"""A colour, or `CHECKER`."""


class Sight(NamedTuple):
    """How pictures are shown.

    Attributes:
        channels: Which of them, counted from 0: one as gray, or three as RGB; None: all of up to 4, of more
            the first three.
        ground: What transparency is laid on.
    """

    channels: tuple[int, ...] | None = None
    ground: Ground = CHECKER

    def check(self, count: int) -> None:
        """Raise `ConfigError` unless images of `count` channels have those that are to be shown."""
        if self.channels is not None:
            require_channels(self.channels, count)


SQUARE = 8
"""Pixels of a side of the checkerboard's squares."""
_SHADES = (204, 255)


def shown(images: Images, sight: Sight = Sight()) -> Images:  # noqa: B008 - a NamedTuple
    """Return images as they can be shown.

    Args:
        images: [N, C, H, W] uint8; C of 2 or 4: the last is alpha.
        sight: Which channels, and on what ground.

    Returns:
        [N, 1 or 3, H, W] uint8.

    Raises:
        ConfigError: if there are no such channels.
    """
    count = images.shape[1]
    sight.check(count)
    if sight.channels is not None:
        return images[:, list(sight.channels)]
    if count in (1, 3):
        return images
    return images[:, :3] if count > 4 else laid_on(images, sight.ground)


def require_channels(channels: Sequence[int], count: int) -> None:
    """Raise `ConfigError` unless these are one or three channels of images that have `count`."""
    if len(channels) not in (1, 3) or not all(0 <= one < count for one in channels):
        raise ConfigError(
            f"channels {' '.join(map(str, channels))}: images of {count} channels can show one of 0 to "
            f"{count - 1} as gray, or three as RGB"
        )


def laid_on(images: Images, ground: Ground) -> Images:
    """Lay images [N, 2 or 4, H, W] on a ground by their alpha; gray stays gray on a gray ground.

    Returns:
        [N, 1 or 3, H, W] uint8, rounded.
    """
    height, width = images.shape[2:]
    below = _checkerboard(height, width) if ground == CHECKER else _plain(ground)
    colour, alpha = images[:, :-1].astype(np.uint16), images[:, -1:].astype(np.uint16)
    if colour.shape[1] == 1 and len(np.unique(below, axis=0)) == 1:
        below = below[:1]
    return ((colour * alpha + below * (255 - alpha) + 127) // 255).astype(np.uint8)


def on_white(images: Images) -> Images:
    """Lay images with an alpha channel over white; those without are returned as they are."""
    return laid_on(images, WHITE) if images.shape[1] in (2, 4) else images


def _plain(ground: Ground) -> NDArray[np.uint16]:
    """Return a colour as [3, 1, 1]."""
    return np.array(ground, np.uint16).reshape(3, 1, 1)


def _checkerboard(height: int, width: int) -> NDArray[np.uint16]:
    """Return squares of light gray and white: [3, H, W]."""
    rows, columns = np.arange(height) // SQUARE, np.arange(width) // SQUARE
    light = (rows[:, None] + columns) % 2
    return np.repeat(np.array(_SHADES, np.uint16)[light][None], 3, axis=0)

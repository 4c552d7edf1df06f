"""Sizes of pictures: a small base shape times a power of two."""

from __future__ import annotations

import math
import re

from progan.errors import ConfigError

MIN_BASE = 4
"""Smallest side of a base shape that is inferred from a resolution."""

LARGEST_BASE = 64
"""Longest side of a base shape that is proposed."""


def parse_resolution(text: str | int) -> tuple[int, int]:
    """Read `128` or `96x144` as (height, width) in pixels.

    Raises:
        ConfigError: if the text is neither.
    """
    match = re.fullmatch(r"(\d{1,7})(?:x(\d{1,7}))?", str(text).strip().lower())
    if match is None or int(match[1]) == 0 or (match[2] and int(match[2]) == 0):
        raise ConfigError(f"resolution {text!r}: expected a side such as 128, or HEIGHTxWIDTH such as 96x144")
    height = int(match[1])
    return height, int(match[2] or height)


def split_resolution(
    resolution: tuple[int, int], base_shape: tuple[int, int] | None = None
) -> tuple[tuple[int, int], int]:
    """Write a resolution as base shape times a power of two.

    Args:
        resolution: (height, width) in pixels.
        base_shape: The shape of level 0. If None, the resolution is halved while both sides stay even
            and at least 4; the result must be small (no side above 16) for growth to make sense.

    Returns:
        The base shape and the highest level L: resolution = base_shape * 2**L.

    Raises:
        ConfigError: if there is no such power; the message names the nearest resolution that works.
    """
    height, width = resolution
    if base_shape is not None:
        for level in range(20):
            if (base_shape[0] << level, base_shape[1] << level) == resolution:
                return base_shape, level
        scale = min((1 << k for k in range(20)), key=lambda s: abs(base_shape[0] * s - height))
        near_text = format_resolution((base_shape[0] * scale, base_shape[1] * scale))
        raise ConfigError(
            f"resolution {format_resolution(resolution)} is not the base shape "
            f"{base_shape[0]}x{base_shape[1]} times a power of two; the nearest that is: {near_text}"
        )
    level = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_BASE:
        height, width, level = height // 2, width // 2, level + 1
    if max(height, width) > 16 or min(height, width) < MIN_BASE:
        own = grown_from(resolution)
        raise ConfigError(
            f"resolution {format_resolution(resolution)} is not a small base shape (such as 4x4 or 4x6) "
            f"times a power of two; "
            + (f"give the base shape, too (--base-shape {own[0]} {own[1]}), or " if own else "")
            + f"the nearest that is: {format_resolution(_nearest_growable(resolution))}"
        )
    return (height, width), level


def grown_from(resolution: tuple[int, int]) -> tuple[int, int] | None:
    """Return the base shape that a resolution grows from by doubling, or None if it is no small one.

    It is halved while both sides stay even, and, where that is enough for growth, at least 4.
    """
    (height, width), halvings = resolution, 0
    while (
        height % 2 == 0
        and width % 2 == 0
        and (max(height, width) > 16 or min(height, width) // 2 >= MIN_BASE)
    ):
        height, width, halvings = height // 2, width // 2, halvings + 1
    return (height, width) if halvings >= 2 and max(height, width) <= LARGEST_BASE else None


def growable_resolution(aspect: float, area: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) of about a shape and a number of pixels, and the base shape it grows from.

    Args:
        aspect: Width by height.
        area: Pixels.
    """
    height = math.sqrt(area / aspect)
    if 0.25 <= aspect <= 4:
        resolution = _nearest_growable((round(height), round(height * aspect)))
        return resolution, split_resolution(resolution)[0]
    short = 1 if 1 / 16 <= aspect <= 16 else 2
    long = round(short * max(aspect, 1 / aspect))
    base = (short, long) if aspect > 1 else (long, short)
    level = max(1, round(math.log2(height / base[0])))
    return (base[0] << level, base[1] << level), base


def _nearest_growable(resolution: tuple[int, int]) -> tuple[int, int]:
    """Return the nearest resolution that is a base shape of sides 4 to 16 times a power of two."""
    sides = range(MIN_BASE, 17)
    grown = ((k, (h << k, w << k)) for k in range(12) for h in sides for w in sides)
    # Of two that are equally near, the one with the higher power has more levels to grow through.
    return min(grown, key=lambda one: (math.dist(one[1], resolution), -one[0]))[1]


def format_resolution(resolution: tuple[int, int]) -> str:
    """Write (height, width) as `HEIGHTxWIDTH`."""
    return f"{resolution[0]}x{resolution[1]}"


def level_resolution(base_shape: tuple[int, int], level: int) -> tuple[int, int]:
    """Return (height, width) at a level: the base shape, doubled once a level."""
    return base_shape[0] << level, base_shape[1] << level

"""Which value of a picture file is black and which is white, decided over all pictures of a set.

Files of 8 bits say it themselves. Floats do not, and files of 16 or 32 bits often use a part of their range:
12 bits of a camera, 0 to 1 of a program. Deciding it picture by picture would make other pictures of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["byte", "integer", "float"]
"""What a file holds: 8 bits or fewer; more bits; floating point."""

AT_ONCE = 2**20
"""Values that are in floating point at one time."""

OVERSHOOT = 1.1
"""Resampling goes a little beyond 0..1 and 0..255; what does not go further is meant to be in them."""
MOST = 0.9
"""A range of floats is one that at least this share of the pictures keeps to."""
FAR = 16
"""A picture of floats that goes beyond the range so many times is of another kind, not brighter."""
FEW = 16
"""A set of which at most this part of the range is used is nearly black, or white, or gray."""

DEEP_STEPS = (255, 1023, 4095, 16383, 65535)
"""White of files of 8, 10, 12, 14 and 16 bits."""


class Extent(NamedTuple):
    """The smallest and largest value of a picture (of its colours, not of its transparency)."""

    low: float
    high: float


class ValueRange(NamedTuple):
    """The values of black and of white."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.10g}:{self.high:.10g}"


class Decided(NamedTuple):
    """A range, and what is to be said of it.

    Attributes:
        range: The range.
        fact: How it came about, in words.
        warning: What is unusual, and the option that changes it; empty if nothing is.
    """

    range: ValueRange
    fact: str = ""
    warning: str = ""


NATIVE: Mapping[Kind, ValueRange] = {
    "byte": ValueRange(0, 255),
    "integer": ValueRange(0, 65535),
    "float": ValueRange(0, 1),
}
"""The range of a kind of file where nothing was decided."""


def parse_range(text: str) -> ValueRange:
    """Read `LOW:HIGH`, as the option `range` writes it."""
    low, high = (float(part) for part in text.split(":"))
    return ValueRange(low, high)


def decide(kind: Kind, extents: Mapping[str, Extent], asked: str | None) -> Decided:
    """Decide the range of all pictures of one kind.

    Args:
        kind: The kind.
        extents: What is known of its pictures, by name; it may be empty if a range is asked for.
        asked: `LOW:HIGH`, `auto`, or None.
    """
    if asked not in (None, "auto"):
        given = parse_range(asked)
        # In a set of 8-bit and deeper pictures a range above 255 is meant for the deeper ones.
        return Decided(NATIVE["byte"] if kind == "byte" and given.high > 255 else given)
    if not extents:
        return Decided(NATIVE[kind])
    low, high = min(one.low for one in extents.values()), max(one.high for one in extents.values())
    if asked == "auto":
        return _extremes(low, high)
    if kind == "byte":
        return Decided(NATIVE["byte"])
    return _of_integers(extents, low, high) if kind == "integer" else _of_floats(extents)


def _extremes(low: float, high: float) -> Decided:
    """Return the range from the smallest to the largest value."""
    made = ValueRange(low, high if high > low else low + 1)
    return Decided(made, f"values {low:.6g} to {high:.6g} become black to white")


def _unusual(low: float, high: float, what: str) -> Decided:
    """Return the extremes, as no usual range holds the values."""
    made = _extremes(low, high)
    return made._replace(
        warning=f"{what} from {low:.6g} to {high:.6g} are no usual range: the smallest of the set is black, "
        f"the largest white; --range LOW:HIGH decides otherwise"
    )


def _of_integers(extents: Mapping[str, Extent], low: float, high: float) -> Decided:
    """Return the range of whole numbers of more than 8 bits: the fewest usual bits that hold all."""
    if low < 0 or high > DEEP_STEPS[-1]:
        return _unusual(low, high, "whole numbers")
    white = _step(high)
    made = Decided(ValueRange(0, white))
    if white < DEEP_STEPS[-1]:
        bits = white.bit_length()
        fact = f"values up to {high:g} in files of 16 bits, taken as {bits} bits (--range 0:{white})"
        made = made._replace(fact=fact)
    names = sorted(extents, key=lambda name: extents[name].high)
    others = _step(extents[names[-2]].high) if len(names) > 2 else white
    if others < white:
        made = made._replace(
            warning=f"one picture ({names[-1]}, up to {high:g}) decides that the range is 0:{white}; all "
            f"others have values up to {others} at most, and become dark: --range 0:{others}"
        )
    return made


def _step(high: float) -> int:
    return next(step for step in DEEP_STEPS if high <= step)


def _of_floats(extents: Mapping[str, Extent]) -> Decided:
    """Return the range of floats: the usual one that most pictures keep to."""
    for usual, over in (((0, 1), OVERSHOOT), ((-1, 1), OVERSHOOT), ((0, 255), 1.05), ((0, 65535), 1.0)):
        candidate = ValueRange(*usual)
        inside = [one for one in extents.values() if _keeps_to(one, candidate, over)]
        large = max((one.high for one in inside), default=0) > candidate.high / FEW
        if len(inside) >= MOST * len(extents) and large:
            beyond = sum(one.high > candidate.high or one.low < candidate.low for one in extents.values())
            cut = f"; {beyond} pictures go beyond it and are cut off there" if beyond else ""
            return Decided(candidate, f"floating-point values, {candidate} is black to white{cut}")
    return _unusual(
        min(one.low for one in extents.values()), max(one.high for one in extents.values()), "floats"
    )


def _keeps_to(extent: Extent, candidate: ValueRange, over: float) -> bool:
    slack = (over - 1) * candidate.high
    return candidate.low - slack <= extent.low and extent.high <= candidate.high + slack


def is_foreign(kind: Kind, extent: Extent, decided: ValueRange) -> bool:
    """Tell whether a picture of floats goes so far beyond the range that it must mean another one."""
    span = decided.high - decided.low
    beyond = max(extent.high - decided.high, decided.low - extent.low)
    return kind == "float" and beyond > FAR * span


def scale(values: NDArray[Any], decided: ValueRange, white: int) -> NDArray[np.uint8 | np.uint16]:
    """Map values to whole numbers: rint((value - low) / (high - low) * white), cut off at 0 and white.

    Args:
        values: Of any shape and type.
        decided: The values that become 0 and white.
        white: 255 for uint8, 65535 for uint16.
    """
    kind = np.uint8 if white == 255 else np.uint16
    if (decided.low, decided.high) == (0, white) and values.dtype == kind:
        return np.ascontiguousarray(values, kind)
    flat = np.ascontiguousarray(values).reshape(-1)
    scaled = np.empty(flat.shape, kind)
    factor = white / (decided.high - decided.low)
    for start in range(0, flat.size, AT_ONCE):  # as float64 the largest picture would take 2 GiB
        part = slice(start, start + AT_ONCE)
        wide = (flat[part].astype(np.float64) - decided.low) * factor
        scaled[part] = np.rint(wide).clip(0, white)
    return scaled.reshape(values.shape)


def extent_of(values: NDArray[np.generic]) -> Extent:
    """Return the smallest and largest of some values; NaN if one is NaN."""
    return Extent(float(values.min()), float(values.max()))


def dark(extents: Sequence[Extent], decided: ValueRange) -> int:
    """Return how many pictures use less than a sixteenth of the range, near its black end."""
    limit = decided.low + (decided.high - decided.low) / FEW
    return sum(one.high < limit for one in extents)

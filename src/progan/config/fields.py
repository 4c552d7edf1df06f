"""What the branches of the configuration are made of: their base class and the types of their options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from progan.config.sizes import format_resolution, parse_resolution

T = TypeVar("T")


class Branch(BaseModel):
    """A branch of the tree: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def option(default: Any, description: str, **limits: Any) -> Any:
    """Return the field of an option: its default, what it means, and limits as `pydantic.Field` has them."""
    return Field(default, description=description, **limits)


def per_level(values: tuple[T, ...], level: int) -> T:
    """Return the entry of a per-level list that belongs to `level` (the last one serves all above)."""
    return values[min(level, len(values) - 1)]


def _as_tuple(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("needs at least one value")
    return values


def _shares_text(given: Any) -> str:
    """Bring `0.8,0.1,0.1`, or a list of three numbers, into one form; they must add up to 1."""
    parts = given.split(",") if isinstance(given, str) else given
    try:
        train, validation, test = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"expected three shares such as 0.8,0.1,0.1, not {given!r}") from None
    total = train + validation + test
    if min(train, validation, test) < 0 or not abs(total - 1) <= 1e-6:
        raise ValueError(f"the shares {given} must not be negative and add up to 1, not {total:g}")
    return f"{train:g},{validation:g},{test:g}"


def _range_text(given: Any) -> str:
    """Bring `0:4095`, `auto`, or a list of two numbers, into one form: LOW:HIGH with LOW below HIGH."""
    parts = str(given).split(":") if not isinstance(given, list | tuple) else given
    if given == "auto":
        return "auto"
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"expected LOW:HIGH such as 0:4095 or 0:1, or auto, not {given!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the range {given} must go from a number up to a larger one")
    return f"{low:.10g}:{high:.10g}"


def _pixels_count(given: Any) -> int:
    """Read a number of pixels, also as `200M` or `2e8`."""
    match = re.fullmatch(r"([0-9.]+(?:e\d{1,2})?)\s*(m|mp|)", str(given).strip().lower())
    try:
        count = float(match[1]) * (10**6 if match[2] else 1) if match else 0
    except ValueError:
        count = 0
    if not 1 <= count < 2**63:
        raise ValueError(f"expected a number of pixels such as 200000000 or 200M, not {given!r}")
    return int(count)


COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128), "magenta": (255, 0, 255)}
"""Names of background colours."""


def parse_colour(text: str) -> tuple[int, int, int]:
    """Read `white`, `black`, `gray`, `magenta`, `#rrggbb` or `255,255,255` as (red, green, blue).

    Raises:
        ValueError: if the text is none of them.
    """
    name = text.strip().lower()
    if name in COLOURS:
        return COLOURS[name]
    if match := re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", name):
        return int(match[1], 16), int(match[2], 16), int(match[3], 16)
    if match := re.fullmatch(r"(\d{1,3})[,;](\d{1,3})[,;](\d{1,3})", name.replace(" ", "")):
        red, green, blue = int(match[1]), int(match[2]), int(match[3])
        if max(red, green, blue) <= 255:
            return red, green, blue
    raise ValueError(f"expected a colour such as {', '.join(COLOURS)}, #ff8800 or 255,136,0, not {text!r}")


def _colour_text(given: Any) -> str:
    """Bring a colour into one form: its name, or `#rrggbb`."""
    values = parse_colour(",".join(map(str, given)) if isinstance(given, list | tuple) else str(given))
    named = next((name for name, colour in COLOURS.items() if colour == values), None)
    return named or "#{:02x}{:02x}{:02x}".format(*values)


def _crop_text(given: Any) -> str:
    """Check `CX,CY,SIZE` or `random:K`; anything else names a file."""
    if isinstance(given, list | tuple) and all(type(part) in (int, float) for part in given):
        given = ",".join(f"{part:g}" for part in given)
    if not isinstance(given, str):
        raise ValueError(f"expected CX,CY,SIZE such as 89,121,128, random:K or a CSV file, not {given!r}")
    text = given
    if text.startswith("random:"):
        number = text.removeprefix("random:")
        if not number.isdigit() or not 1 <= int(number) <= 10_000:
            raise ValueError(f"expected random:K with K from 1 to 10000, not {text!r}")
    elif re.fullmatch(r"[-+\d.,\s]*", text):
        parts = text.split(",")
        try:
            sides = [float(part) for part in parts]
        except ValueError:
            sides = []
        if len(sides) != 3 or not sides[2] >= 1:
            raise ValueError(f"expected CX,CY,SIZE such as 89,121,128, random:K or a CSV file, not {text!r}")
    return text


def _unknown(name: str) -> str:
    raise ValueError(f"no part of your own is called {name!r}; give the file that defines it: --plugin FILE")


OwnName = Annotated[str, AfterValidator(_unknown)]
"""The name of a part of one's own, where progan ships none: a tree that knows parts has their names."""

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
PerLevelCount = Annotated[
    tuple[Count, ...], BeforeValidator(_as_tuple, Count | tuple[Count, ...]), AfterValidator(_not_empty)
]
PerLevelLength = Annotated[
    tuple[NonNegative, ...],
    BeforeValidator(_as_tuple, NonNegative | tuple[NonNegative, ...]),
    AfterValidator(_not_empty),
]
PerLevelRate = Annotated[
    tuple[Positive, ...],
    BeforeValidator(_as_tuple, Positive | tuple[Positive, ...]),
    AfterValidator(_not_empty),
]
Resolution = Annotated[
    str, BeforeValidator(lambda given: format_resolution(parse_resolution(given)), str | int)
]
Split = Annotated[str, BeforeValidator(_shares_text, str | tuple[float, float, float])]
ValueRange = Annotated[str, BeforeValidator(_range_text, str | tuple[float, float])]
Colour = Annotated[str, BeforeValidator(_colour_text, str | tuple[int, int, int])]
Crop = Annotated[str, BeforeValidator(_crop_text, str | tuple[float, float, float])]
PixelCount = Annotated[int, BeforeValidator(_pixels_count, int | str)]


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints are kept.

    Attributes:
        kind: `newest` of them, `all`, the first of `every` so many kimg, or the `best`.
        number: How many; of `every`, kimg.
    """

    kind: Literal["newest", "all", "every", "best"]
    number: float

    @staticmethod
    def parse(rule: str) -> Keeping:
        """Read `3`, `all`, `every 500 kimg` or `best 3`.

        Raises:
            ValueError: if it is none of these.
        """
        if rule == "all":
            return Keeping("all", 0)
        count = re.fullmatch(r"(?:(best)\s+)?(\d{1,6})", rule)
        if count is not None and int(count[2]) >= 1:
            return Keeping("best" if count[1] else "newest", int(count[2]))
        every = re.fullmatch(r"every\s+(\d{1,9}(?:\.\d{1,6})?)(?:\s*kimg)?", rule)
        if every is not None and float(every[1]) >= 0.001:
            return Keeping("every", float(every[1]))
        raise ValueError(f"expected a number such as 3, all, every 500 kimg, or best 3, not {rule!r}")


def as_rule(given: object) -> int | str:
    """Bring a number, a text or a list of words into one form, and check it."""
    words = given if isinstance(given, list | tuple) else [given]
    rule = " ".join(str(word) for word in words).strip().lower()
    keeping = Keeping.parse(rule)
    return int(keeping.number) if keeping.kind == "newest" else rule

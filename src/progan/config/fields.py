"""What the branches of the configuration are made of: their base class and the types of their options."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

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

"""Options of a run that begins with trained networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from progan.config.fields import Branch, option


class InitOptions(Branch):
    """What a run begins with, instead of fresh weights."""

    source: str | None = option(
        None,
        "Run, checkpoint, weight file (also of another system) or name on the hub to begin with; --init is"
        " short for it.",
    )
    skip: tuple[Literal["labels"], ...] = option((), "What is made new although it would fit: labels.")
    freeze_d: int = option(
        0,
        "FreezeD: of D's levels that come from the source, so many nearest to the image are not trained.",
        ge=0,
    )
    freeze_g: bool = option(False, "What G has from the source is not trained; only what is new is.")
    sha256: str | None = Field(None, description="Of the source, filled in.")
    level: int | None = Field(None, ge=0, description="Level that the source had grown to, filled in.")
    new: tuple[str, ...] = Field(
        (), description="Parameters of those levels that the source does not have so, filled in."
    )

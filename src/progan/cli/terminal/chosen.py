"""Which generator a command is to use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from progan.cli.terminal.console import say, training_console

if TYPE_CHECKING:
    from progan.runs.trained.kept_generators import Found

Kimg = Annotated[
    str | None,
    Parameter(
        help="Of a run: the generator that had seen so many thousand images (the nearest that is kept), or "
        "best, by run.best; default: the newest."
    ),
]


def choose(path: Path, kimg: str | None) -> Found:
    """Find out which generator is meant, and say what was decided."""
    from progan.runs.trained.kept_generators import find_generator

    found = find_generator(path, kimg)
    if found.told:
        say(training_console(), found.told)
    return found


def choose_all(path: Path) -> list[Found]:
    """Return every generator of a run that is kept, oldest first.

    Raises:
        ConfigError: if that is no run.
        CheckpointError: if there is none.
    """
    from progan.runs.trained.kept_generators import find_all

    return find_all(path)

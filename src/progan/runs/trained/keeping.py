"""Which checkpoints of a run are kept beside the newest."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from progan.config import Keeping
from progan.runs.checkpoint import Keep
from progan.runs.run_folder import RunFolder
from progan.runs.trained.kept_generators import is_higher_better, measured

NEWEST = 3
"""How many of the newest stay in any case where others are kept for a reason: a run goes on from them."""


def keeper(folder: RunFolder, rule: int | str, best: str) -> Keep:
    """Return what decides which checkpoints stay.

    Args:
        folder: The run; what was measured is read from it.
        rule: `run.keep_checkpoints`, checked.
        best: `run.best`.
    """
    keeping = Keeping.parse(str(rule))
    if keeping.kind == "all":
        return set
    if keeping.kind == "every":
        return partial(_every, round(keeping.number * 1000))
    if keeping.kind == "best":
        return lambda clocks: _best(int(keeping.number), clocks, measured(folder, best), best)
    return lambda clocks: set(clocks[-int(keeping.number) :])


def _every(images: int, clocks: list[int]) -> set[int]:
    """Keep the newest, and the first of each interval."""
    firsts: dict[int, int] = {}
    for clock in clocks:
        firsts.setdefault(clock // images, clock)
    return {*firsts.values(), *clocks[-NEWEST:]}


def _best(count: int, clocks: Iterable[int], values: dict[int, float], name: str) -> set[int]:
    """Keep the newest, and those whose number is best."""
    there = list(clocks)
    sign = -1 if is_higher_better(name) else 1
    known = [clock for clock in there if clock in values]
    ranked = sorted(known, key=lambda clock: (sign * values[clock], clock))
    return {*ranked[:count], *there[-NEWEST:]}

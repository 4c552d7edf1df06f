"""Schedules for a given time, on machines that are made up."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progan.config import load_config, merge
from progan.errors import ConfigError
from progan.performance.plan_time import TimePlan, parse_duration, plan_rest, plan_time, seconds_until
from progan.performance.projection import PhaseTime, Projection
from progan.training.schedule import Phase, Schedule

NAMES = {level: f"{4 << level}x{4 << level}" for level in range(7)}


def machine(seconds: float, factor: float, levels: int) -> dict[tuple[int, bool], float]:
    """An image of level 0 takes so many seconds, each level above a factor longer, a fade a tenth more."""
    return {
        (level, fading): seconds * factor**level * (1.1 if fading else 1.0)
        for level in range(levels)
        for fading in (False, True)
    }


def length(plan: TimePlan, cost: dict[tuple[int, bool], float]) -> float:
    stable = sum(1000 * x * cost[level, False] for level, x in enumerate(plan.stabilise_kimg))
    return stable + sum(1000 * x * cost[level, True] for level, x in enumerate(plan.fade_kimg))


@given(st.floats(600, 1e6), st.floats(1e-5, 1e-3), st.floats(1, 4), st.integers(1, 7), st.booleans())
def test_a_plan_fills_its_time(time: float, image: float, factor: float, levels: int, fixed: bool) -> None:
    cost = machine(image, factor, levels)
    plan = plan_time(time, cost, NAMES, fixed=fixed)
    assert 0.95 * time <= length(plan, cost) <= time
    assert len(plan.stabilise_kimg) == len(plan.fade_kimg) == plan.level + 1
    assert not fixed or plan.level == levels - 1


def test_more_time_never_means_a_smaller_picture() -> None:
    cost = machine(1e-3, 2.5, 6)
    levels = [plan_time(60 * minutes, cost, NAMES).level for minutes in (1, 10, 60, 600, 6000)]
    assert levels == sorted(levels)
    assert levels[0] < levels[-1] == 5


def test_the_reason_says_what_the_next_size_would_have_cost() -> None:
    plan = plan_time(600, machine(1e-3, 2.5, 6), NAMES)
    assert plan.level < 5
    assert f"{NAMES[plan.level]}: {plan.kimg:,.0f} kimg are seen; at {NAMES[plan.level + 1]}" in plan.reason


def test_too_short_a_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="10 seconds are too short: not even 1,000 images of 4x4"):
        plan_time(10, machine(1.0, 2, 3), NAMES)


def test_proportions_are_those_of_quickstart() -> None:
    plan = plan_time(6000, machine(1e-3, 1, 4), NAMES, fixed=True)
    unit = plan.stabilise_kimg[-1] / 20
    assert plan.stabilise_kimg == pytest.approx([2 * unit, 4 * unit, 16 * unit, 20 * unit], rel=1e-3)
    assert plan.fade_kimg == pytest.approx([0, 4 * unit, 6 * unit, 6 * unit], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 h", "1w", "0s", "1e9d", "nan", "9" * 400 + "d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="--time"):
        parse_duration(text)


def test_until_a_time_of_day() -> None:
    now = datetime(2030, 1, 1, 22, 30)
    assert seconds_until("23:00", now) == 1800
    assert seconds_until("07:00", now) == 8.5 * 3600
    for text in ("7", "25:00", "x:y", "07:00:00"):
        with pytest.raises(ConfigError, match="--until"):
            seconds_until(text, now)


def rate(at: Phase) -> float:
    return 1e-3 * 2.0**at.level * (1.0 if at.kind == "stabilise" else 1.1)


def laid(options: dict[str, Any] | None = None) -> Projection:
    """Return a schedule to 16x16 on a machine that is made up."""
    config = load_config("quickstart", merge({"schedule": {"total_kimg": None}}, options or {}))
    phases = Schedule(config, 2, 100).phases
    return Projection(tuple(PhaseTime(each, (each.end - each.start) * rate(each), True) for each in phases))


@given(st.integers(0, 45_000), st.floats(30, 1e5))
def test_the_rest_of_a_schedule_fills_its_time(seen: int, time: float) -> None:
    before = laid()
    try:
        plan, factor = plan_rest(time, before, seen)
    except ConfigError:
        under_way = next(each.phase for each in reversed(before.phases) if each.phase.start <= seen)
        assert under_way.kind == "fade"
        assert 0.97 * time <= (under_way.end - seen) * rate(under_way)
        return
    after = laid(plan)
    assert 0.96 * time - 1 < after.left(seen) <= 0.98 * time + 1
    for old, new in zip(before.phases, after.phases, strict=True):
        if old.phase.end <= seen or (old.phase.kind == "fade" and old.phase.start < seen):
            assert math.isinf(factor) or (old.phase.start, old.phase.end) == (new.phase.start, new.phase.end)
    assert after.phases[-1].phase.end / 1000 == plan["schedule"]["total_kimg"]


def test_a_schedule_that_ends_amid_a_fade_has_nothing_to_lengthen() -> None:
    cut = laid({"schedule": {"total_kimg": 4}})
    assert cut.phases[-1].phase.kind == "fade"
    with pytest.raises(ConfigError, match="ends amid a fade"):
        plan_rest(1000, cut, 3000)


def test_a_finished_schedule_gets_more_of_its_last_level() -> None:
    before = laid()
    last = before.phases[-1].phase
    plan, factor = plan_rest(1000, before, last.end)
    assert math.isinf(factor)
    assert laid(plan).phases[-1].phase.end == last.end + round(970 / 4e-3)
    assert laid(plan).phases[:-1] == before.phases[:-1]

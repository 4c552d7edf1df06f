"""The schedule as a function of the clock, for schedules of any shape."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progan.config import OptimizerOptions, ScheduleOptions, per_level
from progan.training.schedule import Schedule

kimg = st.one_of(st.just(0.0), st.integers(1, 400).map(lambda n: n / 1000))


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, ScheduleOptions, OptimizerOptions, int]:
    max_level = draw(st.integers(0, 5))
    lists = st.lists(kimg, min_size=1, max_size=7)
    rates = st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=4)
    options = ScheduleOptions(
        start_level=draw(st.integers(0, max_level)),
        stabilise_kimg=tuple(draw(lists)),
        fade_kimg=tuple(draw(lists)),
        total_kimg=draw(st.one_of(st.none(), st.integers(1, 3000).map(lambda n: n / 1000))),
        batch_size=tuple(draw(st.lists(st.integers(1, 64), min_size=1, max_size=4))),
        tick_kimg=tuple(draw(st.lists(st.integers(1, 200).map(lambda n: n / 1000), min_size=1, max_size=3))),
    )
    optimizer = OptimizerOptions(g_lr=tuple(draw(rates)), d_lr=tuple(draw(rates)))
    return Schedule(options, optimizer, max_level), options, optimizer, max_level


@given(schedules())
def test_phases_tile_the_whole(
    made: tuple[Schedule, ScheduleOptions, OptimizerOptions, int],
) -> None:
    schedule, options, _, max_level = made
    phases = schedule.phases
    assert phases[0].start == 0
    assert phases[0].level == options.start_level
    assert phases[0].kind == "stabilise"
    assert phases[-1].end == schedule.total
    assert [p.index for p in phases] == list(range(len(phases)))
    for before, after in pairwise(phases):
        assert before.end == after.start
        if after.kind == "fade":
            assert after.level == before.level + 1
            assert after.end > after.start
        else:
            assert after.level == before.level + (before.kind == "stabilise")
    assert all(p.level <= max_level for p in phases)
    # Everything that was asked for, in full, except where the total cuts or lengthens the last phase.
    for phase in phases[:-1]:
        lengths = options.fade_kimg if phase.kind == "fade" else options.stabilise_kimg
        assert phase.end - phase.start == round(1000 * per_level(lengths, phase.level))


@given(schedules())
def test_total(made: tuple[Schedule, ScheduleOptions, OptimizerOptions, int]) -> None:
    schedule, options, _, max_level = made
    levels = range(options.start_level, max_level + 1)
    whole = sum(round(1000 * per_level(options.stabilise_kimg, level)) for level in levels)
    whole += sum(round(1000 * per_level(options.fade_kimg, level)) for level in levels[1:])
    expected = whole if options.total_kimg is None else round(1000 * options.total_kimg)
    assert schedule.total == expected
    if expected > whole:
        assert schedule.phases[-1].level == max_level
        assert schedule.phases[-1].kind == "stabilise"


@given(schedules(), st.data())
def test_points(
    made: tuple[Schedule, ScheduleOptions, OptimizerOptions, int],
    data: st.DataObject,
) -> None:
    schedule, options, optimizer, _ = made
    clocks = sorted(data.draw(st.lists(st.integers(0, schedule.total + 100), min_size=2, max_size=30)))
    points = [schedule.at(clock) for clock in clocks]
    for clock, point in zip(clocks, points, strict=True):
        assert point == schedule.at(clock), "a pure function"
        assert 0 < point.alpha <= 1
        assert point.fading == (point.phase.kind == "fade")
        if not point.fading:
            assert point.alpha == 1
        if clock <= schedule.total:
            assert point.phase.start <= clock <= point.phase.end
        else:
            assert point == schedule.at(schedule.total)
        assert point.batch_size == per_level(options.batch_size, point.level)
        assert point.g_lr == per_level(optimizer.g_lr, point.level)
        assert point.d_lr == per_level(optimizer.d_lr, point.level)
    for before, after in pairwise(points):
        assert after.level >= before.level
        assert after.phase.index >= before.phase.index
        if before.phase == after.phase:
            assert after.alpha >= before.alpha


@given(schedules())
def test_a_whole_fade_ends_at_one(
    made: tuple[Schedule, ScheduleOptions, OptimizerOptions, int],
) -> None:
    schedule, options, _, _ = made
    for phase in schedule.phases:
        if phase.kind == "fade":
            full = round(1000 * per_level(options.fade_kimg, phase.level))
            assert schedule.at(phase.start).alpha == 1, "its start belongs to the phase before"
            assert schedule.at(phase.start + 1).alpha == pytest.approx(1 / full)
            last = schedule.at(phase.end - 1)
            if phase.end - phase.start > 1:
                assert last.alpha == pytest.approx((phase.end - 1 - phase.start) / full)


@given(schedules(), st.data())
def test_ticks(
    made: tuple[Schedule, ScheduleOptions, OptimizerOptions, int],
    data: st.DataObject,
) -> None:
    schedule, options, _, _ = made
    start = data.draw(st.integers(0, schedule.total))
    n = data.draw(st.integers(1, 64))
    assert schedule.is_tick(start, start + n) or not schedule.phase_ends(start, start + n)
    # Walk through the phase that holds the start: no two ticks lie closer than about half an interval.
    clock, ticks = start, []
    phase = schedule.at(start).phase
    interval = round(1000 * per_level(options.tick_kimg, phase.level))
    while clock < phase.end and schedule.at(clock).phase == phase:
        if schedule.is_tick(clock, clock + n):
            ticks.append(clock + n)
        clock += n
    inside = [tick for tick in ticks if tick < phase.end]
    for tick in inside:
        assert phase.end - tick >= interval / 2
    # None is left out but a last one before the end of the phase, which itself is always one.
    assert all(after - before <= 1.5 * interval + 2 * n for before, after in pairwise([start, *ticks]))
    if clock > start and schedule.at(clock).phase != phase:
        assert ticks[-1] == clock


def test_list_entries_serve_the_levels_above() -> None:
    options = ScheduleOptions(
        stabilise_kimg=(0.1, 0.2), fade_kimg=(9.0, 0.3), batch_size=(16, 8), tick_kimg=(0.05,)
    )
    schedule = Schedule(options, OptimizerOptions(g_lr=(0.001, 0.002, 0.003)), 3)
    assert [(p.level, p.kind, p.end - p.start) for p in schedule.phases] == [
        (0, "stabilise", 100),
        (1, "fade", 300),
        (1, "stabilise", 200),
        (2, "fade", 300),
        (2, "stabilise", 200),
        (3, "fade", 300),
        (3, "stabilise", 200),
    ]
    assert [schedule.at(p.start + 1).batch_size for p in schedule.phases] == [16, *[8] * 6]
    assert [schedule.at(p.end - 1).g_lr for p in schedule.phases] == [0.001, *[0.002] * 2, *[0.003] * 4]
    assert schedule.at(250).alpha == 0.5
    # Batch size and rates of a level hold from the first image of its fade on, not before.
    assert schedule.at(100).level == 0
    assert schedule.at(101).level == 1


def test_phases_of_no_length() -> None:
    options = ScheduleOptions(stabilise_kimg=(0.1, 0.0, 0.1), fade_kimg=(0.0,), batch_size=(8,))
    schedule = Schedule(options, OptimizerOptions(), 2)
    assert [(p.level, p.kind, p.start, p.end) for p in schedule.phases] == [
        (0, "stabilise", 0, 100),
        (1, "stabilise", 100, 100),
        (2, "stabilise", 100, 200),
    ]
    assert [schedule.at(clock).level for clock in (0, 99, 100, 199, 200)] == [0, 0, 2, 2, 2]


def test_total_cuts_a_fade_without_changing_its_speed() -> None:
    options = ScheduleOptions(stabilise_kimg=(0.1,), fade_kimg=(0.2,), total_kimg=0.2)
    schedule = Schedule(options, OptimizerOptions(), 2)
    assert [(p.kind, p.end) for p in schedule.phases] == [("stabilise", 100), ("fade", 200)]
    assert schedule.at(200).alpha == 0.5
    longer = Schedule(options.model_copy(update={"total_kimg": 9.0}), OptimizerOptions(), 2)
    assert longer.at(200) == Schedule(
        options.model_copy(update={"total_kimg": None}), OptimizerOptions(), 2
    ).at(200)
    assert longer.at(9000).level == 2

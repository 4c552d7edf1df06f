"""The schedule as a function of the clock, for any options; test_training_golden has the original tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from progan.config import Config, make_config, per_level
from progan.errors import ConfigError
from progan.training.schedule import Phase, Point, Schedule

PICTURES = 50


def make(max_level: int, *, pictures: int = PICTURES, **branches: dict[str, Any]) -> Schedule:
    """Return the schedule of options laid over the defaults, without minibatch-stddev groups."""
    return Schedule(configuration(**branches), max_level, pictures)


def configuration(**branches: dict[str, Any]) -> Config:
    return make_config({"model": {"discriminator": {"stddev_group": 0}}}, branches)


def shape(schedule: Schedule) -> list[tuple[int, str, int, int]]:
    return [(p.level, p.kind, p.start, p.end) for p in schedule.phases]


def lengths(largest: int) -> st.SearchStrategy[list[float]]:
    """Return lists of lengths in kimg, some of them 0."""
    kimg = st.one_of(st.just(0.0), st.integers(1, largest).map(lambda n: n / 1000))
    return st.lists(kimg, min_size=1, max_size=5)


@st.composite
def configs(draw: st.DrawFn) -> tuple[Config, int]:
    """Draw a configuration whose schedule is valid, and its highest level."""
    max_level = draw(st.integers(0, 4))
    growth = draw(st.sampled_from(["fade", "fade", "morph", "none"]))
    options: dict[str, Any] = {
        "growth": growth,
        "start_level": 0 if growth == "none" else draw(st.integers(0, max_level)),
        "alpha": draw(st.sampled_from(["linear", "smooth"])),
        "total_kimg": draw(st.one_of(st.none(), st.integers(1, 3000).map(lambda n: n / 1000))),
        "batch_size": draw(st.lists(st.integers(1, 64), min_size=1, max_size=4)),
        "fade_delay": draw(st.integers(0, 3)),
    }
    form = draw(st.sampled_from(["kimg", "epochs", "stage"]))
    if form == "stage":
        # Room for the longest delay: 3 iterations of 3 batches of 64.
        options["stage_kimg"] = [0.6 + length for length in draw(lengths(3000))]
        if growth == "fade":
            options["fade_fraction"] = draw(st.floats(0, 0.04))
    else:
        factor = 1 if form == "kimg" else 1000 / PICTURES
        for kind in ("stabilise", "fade") if growth == "fade" else ("stabilise",):
            options[f"{kind}_{form}"] = [factor * length for length in draw(lengths(400))]
    if growth == "morph":
        options["morph_kimg"] = draw(lengths(24))
    rates = st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=3)
    intervals = st.lists(st.integers(1, 200).map(lambda n: n / 1000), min_size=1, max_size=3)
    config = configuration(
        schedule=options,
        loss={"d_steps": draw(st.integers(1, 3))},
        optimizer={"g_lr": draw(rates), "d_lr": draw(rates)},
        run={
            "log_kimg": draw(intervals),
            "snapshot_kimg": draw(st.one_of(st.none(), intervals)),
            "checkpoint_kimg": draw(st.one_of(st.none(), intervals)),
            "stop_after": draw(st.sampled_from(["end", "level", "phase"])),
        },
    )
    return config, max_level


def walk(schedule: Schedule, config: Config) -> list[tuple[int, int, Point]]:
    """Return (before, after, point) of each iteration from 0 to the end."""
    clock, steps = 0, []
    while clock < schedule.total:
        point = schedule.at(clock)
        after = clock + config.loss.d_steps * point.batch_size
        steps.append((clock, after, point))
        clock = after
    return steps


@given(configs())
def test_phases_tile_the_whole(made: tuple[Config, int]) -> None:
    config, max_level = made
    schedule = Schedule(config, max_level, PICTURES)
    phases = schedule.phases
    assert phases[0].start == 0
    assert phases[0].level == (max_level if config.schedule.growth == "none" else config.schedule.start_level)
    assert phases[0].kind == "stabilise"
    assert phases[-1].end == schedule.total
    assert [p.index for p in phases] == list(range(len(phases)))
    for before, after in pairwise(phases):
        assert before.end == after.start
        if after.kind != "stabilise":
            assert after.kind == ("morph" if config.schedule.growth == "morph" else "fade")
            assert after.level == before.level + 1
            assert after.end > after.start
        else:
            assert after.level == before.level + (before.kind == "stabilise")
    assert all(p.level <= max_level for p in phases)
    if config.schedule.total_kimg is not None:
        assert schedule.total == round(1000 * config.schedule.total_kimg)


@given(configs())
def test_lengths_are_those_asked_for(made: tuple[Config, int]) -> None:
    """Everything in full, except where the total cuts or lengthens the last phase."""
    config, max_level = made
    options = config.schedule
    schedule = Schedule(config, max_level, PICTURES)
    for before, phase in zip((None, *schedule.phases), schedule.phases[:-1], strict=False):
        level, length = phase.level, phase.end - phase.start
        delay = options.fade_delay * config.loss.d_steps * per_level(options.batch_size, level)
        if options.stage_kimg is not None:
            stage = round(1000 * per_level(options.stage_kimg, level))
            rise = round(options.fade_fraction * stage)
            if options.growth == "morph":
                rise = round(1000 * per_level(options.morph_kimg, level))
            if phase.kind == "stabilise":
                growing = before is not None and before.kind != "stabilise"
                assert length == stage - (delay + rise if growing else 0)
            else:
                assert length == delay + rise
        elif phase.kind == "morph":
            assert length == delay + round(1000 * per_level(options.morph_kimg, level))
        elif options.stabilise_epochs is not None:
            epochs = options.stabilise_epochs
            if phase.kind == "fade":
                assert options.fade_epochs is not None
                epochs = options.fade_epochs
            assert length == round(PICTURES * per_level(epochs, level)) + delay * (phase.kind == "fade")
        else:
            kimg = options.fade_kimg if phase.kind == "fade" else options.stabilise_kimg
            assert length == round(1000 * per_level(kimg, level)) + delay * (phase.kind == "fade")


@given(configs(), st.data())
def test_points(made: tuple[Config, int], data: st.DataObject) -> None:
    config, max_level = made
    schedule = Schedule(config, max_level, PICTURES)
    clocks = sorted(data.draw(st.lists(st.integers(0, schedule.total + 100), min_size=2, max_size=30)))
    points = [schedule.at(clock) for clock in clocks]
    for clock, point in zip(clocks, points, strict=True):
        assert point == schedule.at(clock), "a pure function"
        assert 0 <= point.alpha <= 1
        assert point.fading == (point.phase.kind == "fade")
        assert point.growing == (point.phase.kind != "stabilise")
        if not point.growing:
            assert point.alpha == 1
        elif config.schedule.fade_delay == 0:
            assert point.alpha > 0
        if clock <= schedule.total:
            assert point.phase.start <= clock <= point.phase.end
        else:
            assert replace(point, update=0) == replace(schedule.at(schedule.total), update=0)
        assert point.batch_size == per_level(config.schedule.batch_size, point.level)
        assert point.g_lr == per_level(config.optimizer.g_lr, point.level)
        assert point.d_lr == per_level(config.optimizer.d_lr, point.level)
    for before, after in pairwise(points):
        assert after.level >= before.level
        assert after.phase.index >= before.phase.index
        if before.phase == after.phase:
            assert after.alpha >= before.alpha


@given(configs())
def test_alpha_waits_then_rises_to_one(made: tuple[Config, int]) -> None:
    config, max_level = made
    options = config.schedule
    schedule = Schedule(config, max_level, PICTURES)
    for phase in schedule.phases[:-1]:
        if phase.kind == "stabilise":
            continue
        assert schedule.at(phase.start).level == phase.level - 1, "its start belongs to the phase before"
        assert schedule.at(phase.start + 1).level == phase.level
        delay = options.fade_delay * config.loss.d_steps * per_level(options.batch_size, phase.level)
        clocks = np.arange(phase.start + 1, phase.end)
        share = np.maximum(0, clocks - phase.start - delay) / (phase.end - phase.start - delay)
        # np.interp and a polynomial of NumPy's own stand for the two formulas
        expected = np.polyval([-2, 3, 0, 0], share) if options.alpha == "smooth" else share
        alphas = [schedule.at(int(clock)).alpha for clock in clocks]
        np.testing.assert_allclose(alphas, expected, rtol=0, atol=1e-12)
        assert alphas[:delay] == [0.0] * len(alphas[:delay])
        assert schedule.at(phase.end).alpha == 1


@given(configs())
def test_updates_of_d_count_from_zero_in_every_phase(made: tuple[Config, int]) -> None:
    """For batch sizes that differ between levels, and iterations that run over the end of their phase."""
    config, max_level = made
    schedule = Schedule(config, max_level, PICTURES)
    counted: dict[Phase, list[int]] = {}
    for before, _, point in walk(schedule, config):
        indices = counted.setdefault(point.phase, [])
        for step in range(config.loss.d_steps):
            indices.append(schedule.at(before + step * point.batch_size).update)
        assert point.update == indices[-config.loss.d_steps]
    for indices in counted.values():
        assert indices == list(range(len(indices)))


@given(configs(), st.data())
def test_updates_count_on_from_any_clock(made: tuple[Config, int], data: st.DataObject) -> None:
    """A run that goes on with other batch sizes stands at clocks that this schedule would not reach."""
    config, max_level = made
    schedule = Schedule(config, max_level, PICTURES)
    steps = walk(schedule, config)
    assume(steps)
    phase = data.draw(st.sampled_from(list(dict.fromkeys(point.phase for _, _, point in steps))))
    inside = [(before, after) for before, after, point in steps if point.phase == phase]
    n = per_level(config.schedule.batch_size, phase.level)
    first, end = inside[0][0], inside[-1][1]
    clock = data.draw(st.integers(first, end - 1))
    index = schedule.at(clock).update
    assert 0 <= index <= (clock - first) / n
    if clock + n < end:
        assert schedule.at(clock + n).update == index + 1


@given(configs(), st.sampled_from(["is_log", "is_snapshot", "is_checkpoint"]))
def test_intervals(made: tuple[Config, int], name: str) -> None:
    """Once an interval in each phase, and at its end, where a point shortly before gives way."""
    config, max_level = made
    run, schedule = config.run, Schedule(config, max_level, PICTURES)
    kimg = {
        "is_log": run.log_kimg,
        "is_snapshot": run.snapshot_kimg or run.log_kimg,
        "is_checkpoint": run.checkpoint_kimg,
    }[name]
    due = getattr(schedule, name)
    for phase in schedule.phases:
        steps = [(before, after) for before, after, point in walk(schedule, config) if point.phase == phase]
        fired = [after for before, after in steps if due(before, after)]
        if kimg is None:
            assert not fired
            continue
        interval = round(1000 * per_level(kimg, phase.level))
        inside = [clock for clock in fired if clock <= phase.end - interval / 2]
        # each multiple of the interval up to there is passed by one iteration, and one may pass several
        marks = [
            mark
            for mark in range(phase.start + interval, phase.end + 1, interval)
            if steps and mark > steps[0][0]
        ]
        passing = {after for before, after in steps for mark in marks if before < mark <= after}
        assert inside == sorted(clock for clock in passing if clock <= phase.end - interval / 2)
        rest = [clock for clock in fired if clock > phase.end - interval / 2]
        ended = bool(steps) and schedule.phase_ends(*steps[-1])
        assert rest == ([steps[-1][1]] if ended and steps[-1][1] not in inside else [])


@given(configs())
def test_stops(made: tuple[Config, int]) -> None:
    config, max_level = made
    schedule = Schedule(config, max_level, PICTURES)
    steps = walk(schedule, config)
    stops = [after for before, after, _ in steps if schedule.stops(before, after)]
    ends = {
        "end": [],
        "level": [b[0] for a, b in pairwise(steps) if a[2].level != b[2].level],
        "phase": [b[0] for a, b in pairwise(steps) if a[2].phase != b[2].phase],
    }
    assert stops == ends[config.run.stop_after]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 200), st.integers(0, 3))
def test_epochs_are_images(epochs: list[int], pictures: int, max_level: int) -> None:
    kimg = [n * pictures / 1000 for n in epochs]
    for kind, other in (("stabilise", "fade"), ("fade", "stabilise")):
        rest: dict[str, Any] = {f"{other}_kimg": 0.07}
        by_epochs = make(max_level, pictures=pictures, schedule={f"{kind}_epochs": epochs, **rest})
        by_kimg = make(max_level, pictures=pictures, schedule={f"{kind}_kimg": kimg, **rest})
        assert by_epochs.phases == by_kimg.phases


def test_epochs_win_over_kimg_and_depend_on_the_pictures() -> None:
    options = {"stabilise_kimg": 9, "fade_kimg": 9, "stabilise_epochs": 2, "fade_epochs": [7, 0.5]}
    few, many = (make(1, pictures=n, schedule=options) for n in (100, 1000))
    assert shape(few) == [(0, "stabilise", 0, 200), (1, "fade", 200, 250), (1, "stabilise", 250, 450)]
    assert many.total == 10 * few.total


def test_list_entries_serve_the_levels_above() -> None:
    schedule = make(
        3,
        schedule={"stabilise_kimg": [0.1, 0.2], "fade_kimg": [9.0, 0.3], "batch_size": [16, 8]},
        optimizer={"g_lr": [0.001, 0.002, 0.003]},
    )
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
    options = {"stabilise_kimg": [0.1, 0.0, 0.1], "fade_kimg": 0, "fade_delay": 5, "batch_size": 8}
    schedule = make(2, schedule=options)
    assert shape(schedule) == [
        (0, "stabilise", 0, 100),
        (1, "stabilise", 100, 100),
        (2, "stabilise", 100, 200),
    ]
    assert [schedule.at(clock).level for clock in (0, 99, 100, 199, 200)] == [0, 0, 2, 2, 2]


def test_total_cuts_a_fade_without_changing_its_speed() -> None:
    options = {"stabilise_kimg": 0.1, "fade_kimg": 0.2}
    schedule = make(2, schedule={**options, "total_kimg": 0.2})
    assert [(p.kind, p.end) for p in schedule.phases] == [("stabilise", 100), ("fade", 200)]
    assert schedule.at(200).alpha == 0.5
    longer = make(2, schedule={**options, "total_kimg": 9.0})
    assert longer.at(200) == make(2, schedule=options).at(200)
    assert longer.at(9000).level == 2
    smooth = make(2, schedule={**options, "total_kimg": 0.15, "alpha": "smooth"})
    assert smooth.at(150).alpha == pytest.approx(3 / 16 - 2 / 64)


def test_without_growth_the_last_level_is_the_only_one() -> None:
    options = {"growth": "none", "stabilise_kimg": [9, 9, 0.3], "batch_size": [16, 8, 4]}
    schedule = make(2, schedule=options, optimizer={"g_lr": [1, 1, 0.5], "d_lr": [1, 1, 0.25]})
    assert shape(schedule) == [(2, "stabilise", 0, 300)]
    assert schedule.phases[0].name == "stabilise level 2"
    point = schedule.at(0)
    assert (point.alpha, point.batch_size, point.g_lr, point.d_lr) == (1.0, 4, 0.5, 0.25)
    assert make(2, schedule={**options, "total_kimg": 5}).total == 5000
    assert make(2, schedule={**options, "stabilise_epochs": 3}).total == 3 * PICTURES
    assert make(2, schedule={**options, "stage_kimg": 0.4}).total == 400


def test_start_level() -> None:
    schedule = make(2, schedule={"start_level": 1, "stabilise_kimg": 0.1, "fade_kimg": 0.05})
    assert shape(schedule) == [(1, "stabilise", 0, 100), (2, "fade", 100, 150), (2, "stabilise", 150, 250)]


def test_stages_hold_delay_rise_and_the_rest() -> None:
    """The fade of a level is delayed by iterations of that level's batches, out of its stage."""
    schedule = make(
        2,
        schedule={
            "stage_kimg": [0.1, 0.2, 0.4],
            "fade_fraction": 0.8,
            "fade_delay": 2,
            "batch_size": [16, 8, 4],
        },
        loss={"d_steps": 2},
    )
    assert shape(schedule) == [
        (0, "stabilise", 0, 100),
        (1, "fade", 100, 100 + 32 + 160),
        (1, "stabilise", 292, 300),
        (2, "fade", 300, 300 + 16 + 320),
        (2, "stabilise", 636, 700),
    ]
    assert [schedule.at(clock).alpha for clock in (101, 132, 212, 292)] == [0, 0, 0.5, 1]
    plain = make(2, schedule={"stage_kimg": 0.2})
    assert [p.end - p.start for p in plain.phases] == [200, 100, 100, 100, 100]


def test_the_delay_lasts_as_many_iterations_as_asked_for() -> None:
    config = configuration(
        schedule={"stabilise_kimg": 0.1, "fade_kimg": 0.1, "fade_delay": 3, "batch_size": 8},
        loss={"d_steps": 2},
    )
    points = [point for _, _, point in walk(Schedule(config, 1, PICTURES), config)]
    assert [point.alpha for point in points if point.fading][:4] == [0, 0, 0, pytest.approx(0.12)]
    assert sum(point.alpha == 0 for point in points) == 3


@pytest.mark.parametrize(("fraction", "delay", "fits"), [(0.8, 5, True), (0.8, 6, False), (1.0, 1, False)])
def test_a_stage_too_short_for_its_fade_is_refused(fraction: float, delay: int, fits: bool) -> None:
    options = {"stage_kimg": [1, 0.2], "fade_fraction": fraction, "fade_delay": delay, "batch_size": 8}
    if fits:
        assert make(1, schedule=options).phases[1].end == 1000 + 200
        return
    with pytest.raises(ConfigError) as caught:
        make(1, schedule=options)
    for words in (
        "schedule.fade_delay",
        "schedule.fade_fraction",
        "208 images of level 1",
        "schedule.stage_kimg is 0.2",
    ):
        assert words in str(caught.value)
    assert make(0, schedule=options).total == 1000, "the first level does not fade"


def test_intervals_by_level_and_what_they_default_to() -> None:
    options = {"stabilise_kimg": 0.1, "fade_kimg": 0, "batch_size": 10}

    def fired(name: str, **run: Any) -> list[int]:
        config = configuration(schedule=options, run={"log_kimg": [0.02, 0.05], **run})
        schedule = Schedule(config, 1, PICTURES)
        return [
            after for before, after, _ in walk(schedule, config) if getattr(schedule, name)(before, after)
        ]

    assert fired("is_log") == [20, 40, 60, 80, 100, 150]
    assert fired("is_snapshot") == fired("is_log")
    assert fired("is_snapshot", snapshot_kimg=[0.04, 0.03]) == [40, 80, 100, 130, 160]
    assert fired("is_checkpoint") == []
    assert fired("is_checkpoint", checkpoint_kimg=0.06) == [60, 100, 160]
    assert fired("stops") == []
    assert fired("stops", stop_after="level") == [100]


def test_stopping_at_phases_and_at_levels() -> None:
    options = {"stabilise_kimg": 0.1, "fade_kimg": 0.1, "batch_size": 10}
    for stop_after, expected in (("phase", [110, 200, 310, 400]), ("level", [110, 310])):
        config = configuration(schedule=options, run={"stop_after": stop_after})
        schedule = Schedule(config, 2, PICTURES)
        stops = [after for before, after, _ in walk(schedule, config) if schedule.stops(before, after)]
        assert stops == expected
        assert schedule.total == 500
    over = make(1, schedule={**options, "total_kimg": 0.105}, run={"stop_after": "phase"})
    assert over.phase_ends(100, 110)
    assert not over.stops(100, 110), "it has come to its end"


def test_update_indices_over_the_end_of_a_phase() -> None:
    schedule = make(
        1,
        schedule={"stabilise_kimg": 0.04, "fade_kimg": 0.04, "batch_size": [16, 4]},
        loss={"d_steps": 2},
    )
    # Iterations begin at 0 and 32; the second runs to 64, past the start of the fade at 40.
    assert [schedule.at(clock).update for clock in (0, 16, 32, 48)] == [0, 1, 2, 3]
    assert [schedule.at(clock).update for clock in (64, 68, 72, 76)] == [0, 1, 2, 3]
    assert [schedule.at(clock).update for clock in (80, 84, 88)] == [0, 1, 2]

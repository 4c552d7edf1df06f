"""How long a run takes: measured, remembered, counted, and corrected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from progan.config import load_config
from progan.data.packed import PackedSet
from progan.performance import forecast
from progan.performance.projection import PhaseTime, Projection, kind_of
from progan.system.progress import format_about
from progan.training.precision import settle
from progan.training.schedule import Phase
from progan.training.spec import ImageSpec, Spec, make_spec
from tiny import options

CPU = torch.device("cpu")


def two_phases(*, measured: bool) -> Projection:
    """100 images of a second each, then 100 of ten seconds each."""
    first, second = Phase(0, 0, "stabilise", 0, 100), Phase(1, 1, "fade", 100, 200)
    return Projection((PhaseTime(first, 100.0, measured), PhaseTime(second, 1000.0, measured)))


def tiny_spec(packed: PackedSet) -> Spec:
    config = settle(load_config("quickstart", options(model={"conditioning": "projection"})), CPU)
    image = ImageSpec(packed.channels, packed.base_shape, packed.max_level, packed.label_names)
    return make_spec(config, image, packed.count)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_what_is_left_of_a_projection() -> None:
    made = two_phases(measured=True)
    assert made.left(0) == pytest.approx(1100)
    assert made.left(50) == pytest.approx(1050)
    assert made.left(150) == pytest.approx(500)
    assert made.left(999) == 0
    assert made.seconds_an_image(99) == pytest.approx(1)
    assert made.seconds_an_image(100) == pytest.approx(10)


def test_a_machine_that_is_twice_as_slow_moves_the_end() -> None:
    clock = Clock()
    foreseen = forecast.Forecast(two_phases(measured=True), 0, clock)
    assert foreseen.left() == pytest.approx(1100)
    assert foreseen.rate() == pytest.approx(1)
    for seen in range(10, 60, 10):
        clock.time += 20
        foreseen.add(seen)
    assert foreseen.left() == pytest.approx(2100), "later levels are as much slower"
    assert foreseen.rate() == pytest.approx(0.5)
    for seen in range(60, 110, 10):  # as fast as expected again: a minute later that is believed
        clock.time += 20
        foreseen.add(seen if seen < 100 else 100)
    clock.time += 100
    foreseen.add(110)
    clock.time += 100
    foreseen.add(120)
    assert foreseen.left() == pytest.approx(800, rel=0.01)
    assert foreseen.rate() == pytest.approx(0.1), "that of the level now, not of the last minute"


def test_nothing_is_promised_of_what_was_not_measured() -> None:
    clock = Clock()
    foreseen = forecast.Forecast(two_phases(measured=False), 0, clock)
    assert foreseen.left() is None
    assert foreseen.rate() is None
    clock.time = 5.0
    foreseen.add(10)
    assert foreseen.left() == pytest.approx(0.5 * 1090)


def test_iterations_are_measured_once_and_levels_beyond_the_budget_counted(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = tiny_spec(blobs)
    made = forecast.expect(spec, blobs, CPU, budget=0)
    assert [each.measured for each in made.phases] == [True] + [False] * (len(made.phases) - 1)
    assert all(each.seconds > 0 for each in made.phases)
    file = tmp_path / "progan" / forecast.CACHE
    ((key, (stage,)),) = json.loads(file.read_text()).items()
    assert stage[:2] == [0, False]
    held = [[*kind_of(each.phase), 0.25] for each in made.phases]
    file.write_text(json.dumps({key: held}))
    again = forecast.expect(spec, blobs, CPU)
    assert again.measured_share == 1
    assert again.seconds == pytest.approx(0.25 * spec.schedule.total), "what is remembered is not measured"


def test_what_is_remembered_of_phases_that_a_schedule_lacks(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that a run begins with were measured in phases that it has not, and not in its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = tiny_spec(blobs)
    forecast.expect(spec, blobs, CPU, budget=0)
    schedule = spec.config.schedule.model_copy(update={"start_level": blobs.max_level})
    config = spec.config.model_copy(update={"schedule": schedule})
    made = forecast.expect(make_spec(config, spec.image, blobs.count), blobs, CPU, budget=0)
    assert [(kind_of(each.phase), each.measured) for each in made.phases] == [
        ((blobs.max_level, False), True)
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 3}', '{"a": [[1]]}', "[" * 100_000])
def test_a_damaged_cache_is_as_good_as_none(
    text: str, tmp_path: Path, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "progan").mkdir()
    (tmp_path / "progan" / forecast.CACHE).write_text(text)
    assert forecast.expect(tiny_spec(blobs), blobs, CPU, budget=0).measured_share > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (59.9, "1 minute"), (90, "1.5 minutes"), (1200, "20 minutes"),
     (3599, "1 hour"), (3.5 * 3600, "3.5 hours"), (86400, "1 day"), (12 * 86400, "12 days")],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert format_about(seconds) == words

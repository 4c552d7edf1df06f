"""A run told in lines: its length, log points, words in between, a later end."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import progan
from progan.api import training
from progan.cli.terminal.training import TerminalReporter
from progan.config import load_config, merge
from progan.data.packed import PackedSet
from progan.errors import ConfigError, Interrupted
from progan.performance.projection import PhaseTime, Projection
from progan.runs import checks
from progan.runs.logs import Stats, read_stats
from progan.runs.reporter import LineReporter, Reporter
from progan.runs.resolve import hints
from progan.runs.run_folder import RunFolder
from progan.training.spec import ImageSpec, Spec, make_spec
from tiny import last_tensors, options, require_equal

STATS: Stats = {
    "images_seen": 1024, "resolution": "1024x1024", "phase": "stabilise", "alpha": 1.0, "D/loss": -12.345,
    "G/loss": 123.456, "images_per_second": 1234.5, "swd/mean": 12.3, "augment_probability": 0.25,
}  # fmt: skip


def quick_spec(**run: float) -> Spec:
    config = load_config("quickstart", {"data": {"resolution": "32x32"}, "run": run})
    return make_spec(config, ImageSpec(3, (4, 4), 3), 100)


def an_image_in(spec: Spec, seconds: float) -> Projection:
    return Projection(tuple(PhaseTime(p, seconds * (p.end - p.start), True) for p in spec.schedule.phases))


class Teller(LineReporter):
    """Keeps its lines; time passes when a test says so."""

    def __init__(self) -> None:
        self.time, self.lines = 0.0, list[str]()
        super().__init__(self.lines.append, lambda: self.time)


def begun(teller: Teller, **run: float) -> Spec:
    spec = quick_spec(**run)
    teller.begin(spec, 0, lambda: an_image_in(spec, 1.0))
    return spec


def test_the_first_lines_say_how_long_it_takes() -> None:
    teller = Teller()
    begun(teller)
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in teller.lines)
    assert "training on 100 pictures, up to 32x32, 58 kimg in 7 phases" in teller.lines[0]
    assert "this takes about 16 hours on this machine; --recipe quickstart" in teller.lines[1]


def test_a_slow_machine_speaks_after_seconds_and_then_every_minute_and_says_that_it_is_slow() -> None:
    teller = Teller()
    spec = begun(teller)
    for seen in range(1, 100):
        teller.time += 2.0
        teller.advance(spec.schedule.at(seen), seen)
    words = [line.split(" ", 1)[1] for line in teller.lines[2:]]
    assert "0.003 of 58 kimg  4x4 stabilise  0.5 images/s  1d 08h left" in words[0]
    assert len([word for word in words if "images/s" in word]) == 4
    (slow,) = (word for word in words if word.startswith("slower"))
    assert "slower than expected: 1.3 days in all instead of 16 hours; the end is now at " in slow


def test_how_often_a_slow_machine_speaks() -> None:
    """With 0, log points alone."""
    told = {}
    for minutes in (0.1, 1.0, 0.0):
        teller = Teller()
        spec = begun(teller, log_minutes=minutes)
        for seen in range(1, 100):
            teller.time += 2.0
            teller.advance(spec.schedule.at(seen), seen)
        told[minutes] = sum("images/s" in line for line in teller.lines)
    assert told[0.1] > told[1.0] > told[0.0]


def test_an_undisturbed_run_of_log_points_says_nothing_in_between() -> None:
    teller = Teller()
    spec = begun(teller)
    for seen in range(1, 100):
        teller.time += 1.0
        teller.advance(spec.schedule.at(seen), seen)
        if seen % 4 == 0:
            teller.tick({**STATS, "images_seen": seen})
    assert len(teller.lines) == 2 + 99 // 4
    assert "D loss -12.345  G loss 123.456" in teller.lines[-1]
    assert teller.lines[-1].endswith("left  augment 0.250  swd 12.3")


def test_rows_fit_sixty_columns() -> None:
    console = Console(file=StringIO(), width=60)
    with TerminalReporter(console) as reporter:
        spec = quick_spec()
        reporter.begin(spec, 0, lambda: an_image_in(spec, 1.0))
        reporter.tick(STATS)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue().splitlines()
    assert max(map(len, shown[-3:])) == 60
    assert shown[-1].split() == ["augment", "0.250", "swd", "12.3"]
    assert "stabilise  -12.345 123.456  1234.5" in shown[-2]


def test_what_a_run_tells_changes_nothing_of_it(blobs: PackedSet, tmp_path: Path) -> None:
    teller = Teller()
    run = progan.train(blobs.path, tmp_path / "run", options=options(), reporter=teller)
    unheard = progan.train(blobs.path, tmp_path / "unheard", options=options(), reporter=Reporter())
    require_equal(last_tensors(run)[1], last_tensors(unheard)[1])
    assert any("this takes about" in line for line in teller.lines)
    assert sum("D loss" in line for line in teller.lines) > 4
    assert not any(line.endswith(" ") or "  left" in line for line in teller.lines)


def test_python_tells_on_stderr_what_it_does(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "LineReporter", LineReporter)
    progan.train(blobs.path, tmp_path / "run", options=options())
    out, err = capsys.readouterr()
    assert out == ""
    assert "training on 48 pictures" in err
    assert "this takes about" in err
    progan.train(blobs.path, tmp_path / "other", options=options(), reporter=progan.Reporter())
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_an_interrupt_as_a_sentence() -> None:
    told = Interrupted("stopped at 64 images, checkpoint written; to go on: ...", 2)
    assert told._render_traceback_() == [f"Interrupted: {told}"]


def test_few_pictures_and_a_recipe_for_larger_ones_are_told() -> None:
    def told(recipe: str, pictures: int, resolution: str = "64x64") -> list[str]:
        config = load_config(recipe, {"data": {"resolution": resolution}})
        level = {"64x64": 4, "128x128": 5, "256x256": 6}[resolution]
        return hints(make_spec(config, ImageSpec(3, (4, 4), level), pictures))

    (few,) = told("paper-light-128", 321, "128x128")
    assert "321 pictures are few" in few
    assert "--recipe small-data-256" in few
    assert told("small-data-256", 1900, "256x256") == []
    assert told("paper-light-128", 30_000, "128x128") == []
    (larger,) = told("paper-celebahq-1024", 30_000)
    assert "up to 1024 pixels a side, and these have 64" in larger
    (often,) = told("paper-light-128", 3000, "128x128")
    assert "each picture is shown about 2,200 times" in often


def test_a_tiny_run_is_planned_for_a_time_and_goes_on_as_it_was_planned(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "expect", lambda spec, *_: an_image_in(spec, 0.002))
    tiny = options()
    tree = {"model": tiny["model"], "run": {"device": "cpu", "threads": 1, "grid": [2, 4]},
            "schedule": {"batch_size": [16, 8]}}  # fmt: skip
    teller = Teller()

    def train(**branches: Any) -> Path:
        laid = merge(tree, branches)
        return progan.train(blobs.path, tmp_path / "run", options=laid, time="4s", reporter=teller)

    with pytest.raises(ConfigError, match=r"--time decides schedule\.fade_kimg"):
        train(schedule={"fade_kimg": 1})
    run = train()
    (said,) = (line for line in teller.lines if "planned for 4 seconds" in line)
    assert "kimg are seen" in said
    config, shown = RunFolder(run).config(), read_stats(RunFolder(run).stats_file)
    total = sum(config.schedule.stabilise_kimg) + sum(config.schedule.fade_kimg[1:])
    assert int(shown[-1]["images_seen"]) >= 1000 * total - 0.5
    assert total == pytest.approx(4 * 0.97 / 0.002 / 1000, abs=0.01)
    assert config.schedule.batch_size == (16, 8), "an option that is given is kept"
    train()
    assert RunFolder(run).config() == config
    assert "goes on as it was planned" in " ".join(teller.lines[-3:])
    with pytest.raises(ConfigError, match=r"--time decides schedule\.total_kimg"):
        progan.resume(run, options={"schedule": {"total_kimg": 9}}, time="4s", reporter=teller)
    progan.resume(run, time="2s", reporter=teller)
    more = read_stats(RunFolder(run).stats_file)[-1]["images_seen"]
    assert int(more) - int(shown[-1]["images_seen"]) == pytest.approx(2 * 0.97 / 0.002, abs=16)
    (said,) = (line for line in teller.lines if "from here on" in line)
    assert "planned for 2 seconds from here on: the last level goes on" in said


def test_a_line_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    LineReporter().say("pictures of tea\x1b[31m\rx")
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.endswith(r"pictures of tea\x1b[31m\rx")

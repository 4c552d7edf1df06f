"""A run told in lines: its length, log points, words in between, a later end."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

import progan
from progan.cli.terminal.training import TerminalReporter
from progan.config import load_config
from progan.data.packed import PackedSet
from progan.performance.projection import PhaseTime, Projection
from progan.runs.logs import Stats
from progan.runs.reporter import LineReporter, Reporter
from progan.training.spec import ImageSpec, Spec, make_spec
from tiny import last_tensors, options, require_equal

STATS: Stats = {
    "images_seen": 1024, "resolution": "1024x1024", "phase": "stabilise", "alpha": 1.0, "D/loss": -12.345,
    "G/loss": 123.456, "images_per_second": 1234.5, "swd/mean": 12.3, "augment_probability": 0.25,
}  # fmt: skip


def quick_spec() -> Spec:
    config = load_config("quickstart", {"data": {"resolution": "32x32"}})
    return make_spec(config, ImageSpec(3, (4, 4), 3), 100)


def a_second_an_image(spec: Spec) -> Projection:
    return Projection(tuple(PhaseTime(p, float(p.end - p.start), True) for p in spec.schedule.phases))


class Teller(LineReporter):
    """Keeps its lines; time passes when a test says so."""

    def __init__(self) -> None:
        self.time, self.lines = 0.0, list[str]()
        super().__init__(self.lines.append, lambda: self.time)


def begun(teller: Teller) -> Spec:
    spec = quick_spec()
    teller.begin(spec, 0, lambda: a_second_an_image(spec))
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
        reporter.begin(spec, 0, lambda: a_second_an_image(spec))
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

"""A run in the terminal: a bar for the whole, a bar for the phase, one line a log point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from progan.cli.terminal.console import Bars, format_bytes, say
from progan.config import format_resolution
from progan.performance.estimate import Estimate
from progan.performance.projection import Projection
from progan.preparation.report import PrepareReport
from progan.runs.checks import Prepared
from progan.runs.logs import Stats
from progan.runs.reporter import (
    LineReporter,
    describe_labels,
    extras,
    length_in_words,
    loss,
    phase_of,
)
from progan.system.progress import format_seconds
from progan.training.schedule import Phase, Point
from progan.training.spec import Spec


@contextmanager
def reporting(console: Console) -> Iterator[LineReporter]:
    """Show a run on a console while the block runs: with bars in a terminal, else in lines with times."""
    if console.is_terminal:
        with TerminalReporter(console) as reporter:
            yield reporter
    else:
        yield LineReporter(lambda line: say(console, line))


class TerminalReporter(LineReporter):
    """Shows a run in a terminal of at least 60 columns: bars, and a row a log point.

    Use it as a context manager, so that the bars are closed whatever happens.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>5.1f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._phase: Phase | None = None

    def preparing(self, _what: str, done: int, total: int) -> None:
        """Move the bar of the preparation."""
        note = f"{done:,} of {total:,} pictures" if done else f"reading {total:,} headers"
        self._bar("preparing", "preparing", done, total, note)

    def prepared(self, report: PrepareReport) -> None:
        """Say what was found and skipped."""
        self._remove("preparing")
        super().prepared(report)

    def begin(self, spec: Spec, images_seen: int, expected: Callable[[], Projection]) -> None:
        """Say what is about to be trained, how long that takes here, and what the columns are."""
        self._remove("preparing")
        super().begin(spec, images_seen, expected)
        self._console.print(
            _row("kimg", "size", "phase", "D loss", "G loss", "img/s", "left"), style="bold", highlight=False
        )

    def advance(self, point: Point, images_seen: int) -> None:
        """Move both bars."""
        super().advance(point, images_seen)
        if self._spec is None or not self._console.is_terminal:
            return
        spec, phase = self._spec, point.phase
        if phase != self._phase:
            self._remove("phase")
            self._phase = phase
        self._bar("all", "all phases", images_seen, spec.schedule.total, self.left())
        size = format_resolution(spec.image.resolution(phase.level))
        alpha = f" {point.alpha:.2f}" if point.growing else ""
        length = max(1, phase.end - phase.start)
        self._bar("phase", f"{size} {phase.kind}{alpha}", images_seen - phase.start, length, self.rate())

    def tick(self, stats: Stats) -> None:
        """Print a row, and what it has beside its columns in the same line if there is room."""
        seconds = None if self._forecast is None else self._forecast.left()
        row = _row(
            f"{int(stats['images_seen']) / 1000:.1f}", str(stats["resolution"]), phase_of(stats),
            loss(stats, "D"), loss(stats, "G"), f"{float(stats['images_per_second']):.1f}",
            "" if seconds is None else format_seconds(seconds),
        )  # fmt: skip
        more = "  ".join(extras(stats))
        fits = len(row) + 2 + len(more) <= self._console.width
        self.say(f"{row}  {more}" if more and fits else f"{row}\n{'':8}{more}" if more else row)

    def say(self, message: str) -> None:
        """Print a message."""
        say(self._console, message)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _between(self, _point: Point, _images_seen: int) -> None:
        """Say nothing between log points: the bars show it."""

    def _bar(self, key: str, description: str, done: int, total: int, note: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(description, total=total, note="")
        self._bars.update(
            self._tasks[key], description=description, completed=min(done, total), total=total, note=note
        )

    def _remove(self, key: str) -> None:
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))


def _row(kimg: str, size: str, phase: str, d: str, g: str, rate: str, left: str) -> str:
    """Return a row of 60 characters."""
    return f"{kimg:>7} {size:>9} {phase:<10}{d:>8}{g:>8}{rate:>8}{left:>8}"


def print_plan(console: Console, run: Prepared, expected: Projection) -> None:
    """Print what a run would do: a row a phase, and the totals.

    Args:
        console: Where to print.
        run: What could start.
        expected: How long it would take, from its beginning.
    """
    spec, folder, seen = run.spec, run.folder.path, run.images_seen
    table = Table(
        title=Text(f"plan of {folder}"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1),
    )
    table.add_column("phase", no_wrap=True)
    table.add_column("size", no_wrap=True)
    rates = {phase.level: _rates(spec.schedule.at(phase.start + 1)) for phase in spec.schedule.phases}
    same = len(set(rates.values())) == 1
    names = ("kimg", "batch", "rate", "params", "memory", "time")
    for name in (name for name in names if name != "rate" or not same):
        table.add_column(name, justify="right", no_wrap=True)
    estimate = Estimate(spec)
    for phase in spec.schedule.phases:
        expected_time = expected.phases[phase.index].seconds
        table.add_row(
            phase.kind,
            format_resolution(spec.image.resolution(phase.level)),
            f"{(phase.end - phase.start) / 1000:,g}",
            str(spec.schedule.at(phase.start + 1).batch_size),
            *([] if same else [rates[phase.level]]),
            f"{sum(estimate.parameters[phase.level]) / 1e6:.1f} M",
            format_bytes(estimate.memory(phase)),
            format_seconds(expected_time) if expected.measured_share else "?",
        )
    console.print(table)
    learning = f"; learning rate {rates[min(rates)]}" if same else ""
    say(
        console,
        f"{spec.pictures:,} pictures{describe_labels(spec)}; {spec.schedule.total:,} images in all"
        f"{learning}; device {run.device}; memory and time are estimated, the time from iterations of "
        f"{measured_levels(expected)}",
    )
    if expected.measured_share:
        left = expected.left(seen)
        done = f"{seen:,} images are done; what is left: " if seen else ""
        say(console, f"{done}{length_in_words(left)}" if left > 0 else f"{done}nothing")


def measured_levels(expected: Projection) -> str:
    """Say at which levels iterations were measured."""
    levels = sorted({each.phase.level for each in expected.phases if each.measured})
    if len(levels) < 2:
        return f"level {levels[0]}" if levels else "no level"
    return f"levels {levels[0]} to {levels[-1]}"


def _rates(point: Point) -> str:
    """Write the learning rates of G and D, or the one that both have."""
    return f"{point.g_lr:g}" if point.g_lr == point.d_lr else f"{point.g_lr:g} / {point.d_lr:g}"

"""A run in the terminal: a bar for the whole, a bar for the phase, one line a log point."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from progan.cli.terminal.console import format_bytes, format_seconds, say
from progan.config import format_resolution
from progan.performance.estimate import Estimate
from progan.preparation.report import PrepareReport
from progan.runs.logs import Stats
from progan.runs.reporter import Reporter
from progan.training.schedule import Phase, Point
from progan.training.spec import Spec


class TerminalReporter(Reporter):
    """Shows a run on a console; bars if it is a terminal, lines alone if it is not.

    Use it as a context manager, so that the bars are closed whatever happens.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>5.1f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._spec: Spec | None = None
        self._estimate: Estimate | None = None
        self._phase: Phase | None = None
        self._speed = Speed()

    def preparing(self, _what: str, done: int, total: int) -> None:
        """Move the bar of the preparation."""
        note = f"{done:,} of {total:,} pictures" if done else f"reading {total:,} headers"
        self._bar("preparing", "preparing pictures", done, total, note)

    def prepared(self, report: PrepareReport) -> None:
        """Say what was found and skipped."""
        self._remove("preparing")
        for line in report.lines():
            self.say(line)

    def begin(self, spec: Spec, images_seen: int) -> None:
        """Say what is about to be trained."""
        self._remove("preparing")
        self._spec = spec
        self._speed = Speed()
        self._estimate = Estimate(spec)
        self._speed.add(images_seen, self._estimate.work(images_seen))
        top = format_resolution(spec.image.resolution(spec.image.max_level))
        self._console.print(
            f"training on {spec.pictures:,} pictures{_labels(spec)}, up to {top}, "
            f"{spec.schedule.total / 1000:,g} kimg in {len(spec.schedule.phases)} phases",
            highlight=False,
        )
        head = f"{'kimg':>9}  {'size':>9}  {'phase':<14}{'D loss':>9}{'G loss':>9}{'images/s':>10}{'left':>9}"
        self._console.print(head, style="bold", highlight=False)

    def advance(self, point: Point, images_seen: int) -> None:
        """Move both bars."""
        if self._spec is None or not self._console.is_terminal:
            return
        spec, phase = self._spec, point.phase
        if phase != self._phase:
            self._remove("phase")
            self._phase = phase
        total = spec.schedule.total
        rate, left = self._speed.rate(), self._left(images_seen)
        self._bar("all", "all phases", images_seen, total, f"{rate:,.0f} images/s, {left} left")
        size = format_resolution(spec.image.resolution(phase.level))
        note = f"alpha {point.alpha:.2f}" if point.growing else f"batch {point.batch_size}"
        length = max(1, phase.end - phase.start)
        self._bar("phase", f"{size} {phase.kind}", images_seen - phase.start, length, note)

    def tick(self, stats: Stats) -> None:
        """Print one line and take the time."""
        seen = int(stats["images_seen"])
        if self._estimate is not None:
            self._speed.add(seen, self._estimate.work(seen))
        phase = str(stats["phase"])
        if phase != "stabilise":
            phase += f" {float(stats['alpha']):.2f}"
        probability = stats.get("augment_probability")
        augmented = "" if probability is None else f"  augment {float(probability):.3f}"
        swd = f"  swd {float(stats['swd/mean']):.1f}" if "swd/mean" in stats else ""
        gap = f"  gap {float(stats['duality_gap/gap']):.3f}" if "duality_gap/gap" in stats else ""
        self.say(
            f"{seen / 1000:>9,.1f}  {stats['resolution']:>9}  {phase:<14}"
            f"{_number(stats.get('D/loss')):>9}{_number(stats.get('G/loss')):>9}"
            f"{float(stats['images_per_second']):>10,.1f}{self._left(seen):>9}{augmented}{swd}{gap}"
        )

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

    def _left(self, images_seen: int) -> str:
        """Return the remaining time as text."""
        assert self._estimate is not None
        seconds = self._speed.seconds(self._estimate.work(images_seen))
        return "" if seconds is None else format_seconds(seconds)

    def _bar(self, key: str, description: str, done: int, total: int, note: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(description, total=total, note="")
        self._bars.update(
            self._tasks[key], description=description, completed=min(done, total), total=total, note=note
        )

    def _remove(self, key: str) -> None:
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))


class Speed:
    """How fast work is done, from the last log points.

    Levels differ in cost by orders of magnitude, so the remaining time follows the remaining operations
    at the latest rate of operations.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, int, float]] = []

    def add(self, images_seen: int, work_left: float) -> None:
        """Note the time of a log point."""
        self._points = [*self._points[-1:], (time.monotonic(), images_seen, work_left)]

    def rate(self) -> float:
        """Return images a second between the last two log points; 0 if unknown."""
        if len(self._points) < 2:
            return 0.0
        (t0, n0, _), (t1, n1, _) = self._points
        return (n1 - n0) / max(t1 - t0, 1e-9)

    def seconds(self, work_left: float) -> float | None:
        """Return the remaining seconds; None if unknown."""
        if len(self._points) < 2:
            return None
        (t0, _, w0), (t1, _, w1) = self._points
        return work_left * (t1 - t0) / max(w0 - w1, 1e-9)


def print_plan(console: Console, spec: Spec, device: str, folder: Path) -> None:
    """Print what a run would do: a row a phase, and the totals.

    Args:
        console: Where to print.
        spec: The run.
        device: Where it would compute.
        folder: Where it would be written.
    """
    table = Table(
        title=Text(f"plan of {folder}"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1),
    )
    table.add_column("phase", no_wrap=True)
    table.add_column("size", no_wrap=True)
    for name in ("kimg", "batch", "learning rate", "G / D params", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    estimate = Estimate(spec)
    for phase in spec.schedule.phases:
        point, (g, d) = spec.schedule.at(phase.start + 1), estimate.parameters[phase.level]
        table.add_row(
            f"{phase.index + 1} {phase.kind}",
            format_resolution(spec.image.resolution(phase.level)),
            f"{(phase.end - phase.start) / 1000:,g}",
            str(point.batch_size),
            f"{point.g_lr:g}" if point.g_lr == point.d_lr else f"{point.g_lr:g} / {point.d_lr:g}",
            f"{g / 1e6:.1f} / {d / 1e6:.1f} M",
            format_bytes(estimate.memory(phase)),
        )
    console.print(table)
    say(
        console,
        f"{spec.pictures:,} pictures{_labels(spec)}; {spec.schedule.total:,} images in all, "
        f"{estimate.operations():.3g} floating-point operations; device {device}; "
        f"memory is estimated for weights, moments and activations",
    )


def _labels(spec: Spec) -> str:
    """Say what the labels are, if there are any."""
    what = "numbers a label" if spec.image.label_form == "vector" else "classes"
    return f", {len(spec.image.label_names)} {what}" if spec.image.label_names else ""


def _number(value: float | str | None) -> str:
    """Write a loss; there is none if float16 skipped every update since the last log point."""
    return "skipped" if value is None else f"{float(value):.3f}"

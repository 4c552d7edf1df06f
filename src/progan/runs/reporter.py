"""What a run tells whoever watches it: nobody, or somebody who reads lines in a pipe, a file, a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from progan.config import format_resolution
from progan.errors import printable
from progan.performance.forecast import Forecast
from progan.performance.projection import Projection
from progan.preparation.report import PrepareReport
from progan.runs.logs import Stats
from progan.system.progress import format_about, format_seconds
from progan.training.schedule import Point
from progan.training.spec import Spec

FIRST = 5.0
"""Seconds until the first word about work that goes on; later ones come at `run.log_minutes`."""

LONG = 4 * 3600.0
"""Seconds from which on a run is told how it could be shorter."""

SLOWER = 1.25
"""How many times as long as was said a run takes when that is said, too."""

EVERY = 60.0
"""Seconds between words about pictures that are prepared, and before a run is called slow."""


class Reporter:
    """Hears everything and says nothing; a subclass overrides what it wants to show."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """So many pictures of the source are prepared."""

    def prepared(self, report: PrepareReport) -> None:
        """The packed set was made."""

    def begin(self, spec: Spec, images_seen: int, expected: Callable[[], Projection]) -> None:
        """Training starts, or goes on, at this clock.

        Args:
            spec: What is trained.
            images_seen: The clock.
            expected: Says how long it takes; measures a few iterations for it, in about two seconds.
        """

    def advance(self, point: Point, images_seen: int) -> None:
        """One iteration is done."""

    def tick(self, stats: Stats) -> None:
        """A log point was written."""

    def say(self, message: str) -> None:
        """Something worth knowing happened."""


class LineReporter(Reporter):
    """Tells a run in lines with the time of day: its length at the start, log points, and words in between.

    Args:
        write: Takes a line without its end; default: prints it to stderr.
        now: Tells the time in seconds.
    """

    def __init__(
        self, write: Callable[[str], None] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._now = write, now
        self._spec: Spec | None = None
        self._forecast: Forecast | None = None
        self._begun = self._said_length = 0.0
        self._due = now() + FIRST

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say how far the preparation is, now and then."""
        if self._now() >= self._due:
            self._due = self._now() + EVERY
            self.say(f"{what}: {done:,} of {total:,}" if total else f"{what}: {done:,}")

    def prepared(self, report: PrepareReport) -> None:
        """Say what was found and skipped."""
        for line in report.lines():
            self.say(line)

    def begin(self, spec: Spec, images_seen: int, expected: Callable[[], Projection]) -> None:
        """Say what is about to be trained, and how long that takes here."""
        self._spec = spec
        top, phases = (
            format_resolution(spec.image.resolution(spec.image.max_level)),
            len(spec.schedule.phases),
        )
        self.say(
            f"training on {spec.pictures:,} pictures{describe_labels(spec)}, up to {top}, "
            f"{spec.schedule.total / 1000:,g} kimg in {phases} phase{'s' * (phases > 1)}"
        )
        projection = expected()
        if projection.measured_share:
            self.say(length_in_words(projection.left(images_seen)))
        self._said_length = projection.left(images_seen) if projection.measured_share else 0.0
        self._forecast, self._begun = Forecast(projection, images_seen, self._now), self._now()
        self._due = self._begun + FIRST

    def advance(self, point: Point, images_seen: int) -> None:
        """Keep the remaining time right; say it if nothing was said for long."""
        if self._spec is None or self._forecast is None:
            return
        self._forecast.add(images_seen)
        minutes = self._spec.config.run.log_minutes
        if minutes and self._now() >= self._due:
            self._due = self._now() + 60 * minutes
            self._between(point, images_seen)
            self._say_if_slower()

    def tick(self, stats: Stats) -> None:
        """Say a log point."""
        assert self._spec is not None
        words = [self._where(int(stats["images_seen"]), str(stats["resolution"]), phase_of(stats))]
        words += [f"{name} loss {loss(stats, name)}" for name in ("D", "G")]
        words += [f"{float(stats['images_per_second']):,.1f} images/s", self.left(), *extras(stats)]
        self.say("  ".join(filter(None, words)))
        self._due = self._now() + 60 * self._spec.config.run.log_minutes

    def say(self, message: str) -> None:
        """Write a message with the time of day."""
        for line in message.split("\n"):  # other ends of lines are names of strange files
            self._line(f"{datetime.now():%H:%M:%S} {line}")

    def left(self) -> str:
        """Return the remaining time in words; nothing if it is not known yet."""
        seconds = None if self._forecast is None else self._forecast.left()
        return "" if seconds is None else f"{format_seconds(seconds)} left"

    def rate(self) -> str:
        """Return the speed in words; nothing if it is not known yet."""
        rate = None if self._forecast is None else self._forecast.rate()
        return "" if rate is None else f"{rate:,.1f} images/s"

    def _line(self, line: str) -> None:
        if self._write is None:
            print(printable(line), file=sys.stderr, flush=True)
        else:
            self._write(line)

    def _where(self, images_seen: int, size: str, phase: str) -> str:
        assert self._spec is not None
        kimg, total = images_seen / 1000, self._spec.schedule.total / 1000
        return f"{kimg:,.{1 if kimg >= 1 else 3}f} of {total:,g} kimg  {size} {phase}"

    def _between(self, point: Point, images_seen: int) -> None:
        """Say how far the run is, between log points."""
        assert self._spec is not None
        size = format_resolution(self._spec.image.resolution(point.level))
        phase = f"{point.phase.kind} {point.alpha:.2f}" if point.growing else point.phase.kind
        self.say("  ".join(filter(None, [self._where(images_seen, size, phase), self.rate(), self.left()])))

    def _say_if_slower(self) -> None:
        """Say a later end than was said, once it is clear; and again if it becomes later still."""
        left = None if self._forecast is None else self._forecast.left()
        length = self._now() - self._begun + (left or 0.0)
        sure = self._now() - self._begun >= EVERY
        if left is None or not sure or not self._said_length or length <= SLOWER * self._said_length:
            return
        end = datetime.now() + timedelta(seconds=left)
        self.say(
            f"slower than expected: {format_about(length)} in all instead of "
            f"{format_about(self._said_length)}; the end is now at {end:%Y-%m-%d %H:%M}"
        )
        self._said_length = length


def length_in_words(seconds: float) -> str:
    """Return how long a run takes on this machine, and what makes it shorter if that is long."""
    shorter = "; --recipe quickstart takes minutes" if seconds > LONG else ""
    return f"this takes about {format_about(seconds)} on this machine{shorter}"


def phase_of(stats: Stats) -> str:
    """Return the phase of a log point in words."""
    phase = str(stats["phase"])
    return phase if phase == "stabilise" else f"{phase} {float(stats['alpha']):.2f}"


def loss(stats: Stats, name: str) -> str:
    """Write the loss of D or G; there is none if float16 skipped every update since the last log point."""
    value = stats.get(f"{name}/loss")
    return "skipped" if value is None else f"{float(value):.3f}"


def extras(stats: Stats) -> list[str]:
    """Return in words what a log point has only in some runs."""
    probability = stats.get("augment_probability")
    words = [] if probability is None else [f"augment {float(probability):.3f}"]
    words += [f"swd {float(stats['swd/mean']):.1f}"] if "swd/mean" in stats else []
    return words + ([f"gap {float(stats['duality_gap/gap']):.3f}"] if "duality_gap/gap" in stats else [])


def describe_labels(spec: Spec) -> str:
    """Say what the labels are, if there are any."""
    what = "numbers a label" if spec.image.label_form == "vector" else "classes"
    return f", {len(spec.image.label_names)} {what}" if spec.image.label_names else ""

"""Images seen -> phase, level, alpha, batch size, learning rates: a pure function, the only clock.

Section 2 and appendix A.1; `TrainingSchedule` of the original train.py. Lengths in epochs and delays in
iterations are turned into images once, when the schedule is made.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from progan.config import Config, per_level
from progan.errors import ConfigError

GENERATORS = 50
"""How many generators are kept of a run, and one for the end of each phase, if nothing else is asked for."""
Kind = Literal["stabilise", "fade", "morph"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one level.

    Attributes:
        index: Position in the schedule, from 0.
        level: The level that is trained; a fade or morph brings this level in.
        kind: 'fade' or 'morph' (alpha rises from 0 to 1, after its delay) or 'stabilise' (alpha is 1).
        start, end: Images seen at its two ends.
    """

    index: int
    level: int
    kind: Kind
    start: int
    end: int

    @property
    def name(self) -> str:
        """What tells it from the other phases of any schedule, such as `fade to level 3`."""
        return f"{self.kind} {'' if self.kind == 'stabilise' else 'to '}level {self.level}"


@dataclass(frozen=True)
class Point:
    """What the schedule says at one value of the clock.

    Attributes:
        phase: The phase it lies in.
        alpha: How far the level has come in: 0 is the function of the level below, 1 this level's own.
        batch_size: Images in a batch.
        g_lr, d_lr: Learning rates.
        update: Index of the update of D that begins here: 0, 1, 2, ... in every phase. All `loss.d_steps`
            updates of an iteration count in the phase in which it began, even where the clock passes the
            end of that phase, or of the schedule, between them.
    """

    phase: Phase
    alpha: float
    batch_size: int
    g_lr: float
    d_lr: float
    update: int

    @property
    def level(self) -> int:
        """The level that is trained."""
        return self.phase.level

    @property
    def growing(self) -> bool:
        """Whether alpha counts: a level is coming in."""
        return self.phase.kind != "stabilise"

    @property
    def fading(self) -> bool:
        """Whether two levels are blended."""
        return self.phase.kind == "fade"


@dataclass(frozen=True)
class _Lengths:
    """What a level asks for, in images: alpha stays 0, alpha rises to 1, alpha is 1."""

    delay: int
    rise: int
    stabilise: int


class Schedule:
    """The plan of a run.

    Args:
        config: The branches schedule, optimizer and run, and `loss.d_steps`.
        max_level: Highest level of the networks, at least `schedule.start_level`.
        pictures: Pictures that are trained on, which is the length of an epoch.

    Raises:
        ConfigError: if delay and rise of alpha ask for more than a stage.

    Attributes:
        phases: All phases that are reached, in order; the last ends at `total`.
        total: Images to see in all.
    """

    def __init__(self, config: Config, max_level: int, pictures: int) -> None:
        self._config = config
        first = max_level if config.schedule.growth == "none" else config.schedule.start_level
        levels = range(first, max_level + 1)
        self._begun = _progress(config) if first else 1.0
        fading = self._begun < 1
        self._stages = {
            level: _stage(config, level, pictures, fades=level > first or fading) for level in levels
        }
        if fading:
            self._stages[first] = _rest_of(self._stages[first], self._begun)
        kind: Kind = "morph" if config.schedule.growth == "morph" else "fade"
        self.phases, self.total = _phases(self._stages, kind, config.schedule.total_kimg)
        self._entries = _entries(config, self.phases)

    def at(self, images_seen: int) -> Point:
        """Return what holds when `images_seen` real images have been shown.

        Beyond the end that is what holds at the end, but for updates, which are counted on.
        """
        clock = min(images_seen, self.total)
        phase = next(p for p in reversed(self.phases) if clock >= _opening(p))
        return point_of(self._config, phase, self._alpha(phase, clock), self._update(images_seen))

    def entry(self, phase: Phase) -> int:
        """Return the clock at which the first iteration of a phase begins, which is at or after its start."""
        return self._entries[phase.index]

    def phase_ends(self, before: int, after: int) -> bool:
        """Whether the next iteration belongs to another phase than the one from `before` to `after` did."""
        return self.at(after).phase != self.at(before).phase

    def is_log(self, before: int, after: int) -> bool:
        """Whether an iteration ends in a log point: at intervals within each phase, and at its end."""
        return self._is_due(self._config.run.log_kimg, before, after)

    def is_snapshot(self, before: int, after: int) -> bool:
        """Whether an iteration ends in a sample grid: at intervals within each phase, and at its end."""
        run = self._config.run
        return self._is_due(run.log_kimg if run.snapshot_kimg is None else run.snapshot_kimg, before, after)

    def is_checkpoint(self, before: int, after: int) -> bool:
        """Whether `run.checkpoint_kimg`, if given, asks for a checkpoint after an iteration."""
        kimg = self._config.run.checkpoint_kimg
        return kimg is not None and self._is_due(kimg, before, after)

    def is_generator(self, before: int, after: int) -> bool:
        """Whether a generator is kept after an iteration: at intervals, and at the ends of phases."""
        kimg = self._config.run.generator_kimg
        if kimg == 0:
            return False
        interval = max(1, self.total // GENERATORS if kimg is None else _images(kimg))
        return (
            before // interval != after // interval or self.phase_ends(before, after) or after >= self.total
        )

    def is_measured(self, before: int, after: int) -> bool:
        """Whether metrics are due after an iteration: at intervals, at the end of phases and of it all."""
        return self._is_due(self._config.monitor.interval_kimg, before, after) or after >= self.total

    def stops(self, before: int, after: int) -> bool:
        """Whether `run.stop_after` asks to stop after an iteration, with more of the schedule to come."""
        if after >= self.total or self._config.run.stop_after == "end":
            return False
        if self._config.run.stop_after == "level":
            return self.at(after).level > self.at(before).level
        return self.phase_ends(before, after)

    def _alpha(self, phase: Phase, clock: int) -> float:
        """Return alpha within a phase, which the total may cut without changing how alpha rises."""
        if phase.kind == "stabilise":
            return 1.0
        stage = self._stages[phase.level]
        share = min(1.0, max(0, clock - phase.start - stage.delay) / stage.rise)
        if phase.index == 0:  # it goes on from where another run has left it
            share = self._begun + (1 - self._begun) * share
        return share if self._config.schedule.alpha == "linear" else share * share * (3 - 2 * share)

    def _update(self, images_seen: int) -> int:
        """Return `Point.update`: whole batches since the first iteration of the phase began."""
        at = bisect_right(self._entries, images_seen) - 1
        batch_size = per_level(self._config.schedule.batch_size, self.phases[at].level)
        return (images_seen - self._entries[at]) // batch_size

    def _is_due(self, kimg: tuple[float, ...], before: int, after: int) -> bool:
        """Whether something done at an interval (per level), and at the end of each phase, is due.

        A point at less than half an interval from the end of its phase gives way to the one at the end.
        """
        if self.phase_ends(before, after):
            return True
        phase = self.at(before).phase
        interval = max(1, _images(per_level(kimg, phase.level)))
        passed = (before - phase.start) // interval != (after - phase.start) // interval
        return passed and phase.end - after >= interval / 2


def point_of(config: Config, phase: Phase, alpha: float, update: int = 0) -> Point:
    """Return what a configuration says within a phase, at an alpha and before an update."""
    optimizer, level = config.optimizer, phase.level
    batch_size = per_level(config.schedule.batch_size, level)
    rates = per_level(optimizer.g_lr, level), per_level(optimizer.d_lr, level)
    return Point(phase, alpha, batch_size, *rates, update)


def _images(kimg: float) -> int:
    """Turn thousands of images into images."""
    return round(kimg * 1000)


def _iteration(config: Config, level: int) -> int:
    """Return the real images that one iteration shows at a level."""
    return per_level(config.schedule.batch_size, level) * config.loss.d_steps


def _stage(config: Config, level: int, pictures: int, *, fades: bool) -> _Lengths:
    """Work out the lengths of a level; one that does not fade, or in no time, has no delay either.

    A ConfigError tells of a delay and a rise that are longer than the stage they belong to.
    """
    options = config.schedule

    def length(kimg: tuple[float, ...], epochs: tuple[float, ...] | None) -> int:
        if epochs is not None:
            return round(per_level(epochs, level) * pictures)
        return _images(per_level(kimg, level))

    whole = None if options.stage_kimg is None else length(options.stage_kimg, None)
    rise = 0
    if fades and options.growth == "morph":
        rise = length(options.morph_kimg, None)
    elif fades:
        by_phase = length(options.fade_kimg, options.fade_epochs)
        rise = by_phase if whole is None else round(options.fade_fraction * whole)
    iteration = _iteration(config, level)
    delay = options.fade_delay * iteration if rise else 0
    if whole is None:
        return _Lengths(delay, rise, length(options.stabilise_kimg, options.stabilise_epochs))
    if delay + rise > whole:
        rises = f"schedule.fade_fraction {options.fade_fraction:g}"
        if options.growth == "morph":
            rises = f"schedule.morph_kimg {per_level(options.morph_kimg, level):g}"
        raise ConfigError(
            f"schedule.fade_delay {options.fade_delay} (iterations of {iteration:,} images) and "
            f"{rises} take {delay + rise:,} images of level "
            f"{level}, whose schedule.stage_kimg is {whole / 1000:g}: lower one, or lengthen the stage"
        )
    return _Lengths(delay, rise, whole - delay - rise)


def _progress(config: Config) -> float:
    """Return how much of the first level's coming in is over at `schedule.start_alpha`."""
    alpha = config.schedule.start_alpha
    # The root in [0, 1] of 3 x^2 - 2 x^3 = alpha.
    return alpha if config.schedule.alpha == "linear" else 0.5 - math.sin(math.asin(1 - 2 * alpha) / 3)


def _rest_of(stage: _Lengths, begun: float) -> _Lengths:
    """Return the lengths of a level of whose coming in a part is over."""
    rest = _Lengths(0 if begun else stage.delay, round(stage.rise * (1 - begun)), stage.stabilise)
    return rest if rest.rise else _Lengths(0, 0, stage.stabilise)


def _phases(
    stages: dict[int, _Lengths], kind: Kind, total_kimg: float | None
) -> tuple[tuple[Phase, ...], int]:
    """Lay the phases end to end, of the given kind where a level comes in; cut or lengthen to the total."""
    phases: list[Phase] = []
    clock = 0
    for level, stage in stages.items():
        if stage.rise:
            end = clock + stage.delay + stage.rise
            phases.append(Phase(len(phases), level, kind, clock, end))
            clock = end
        phases.append(Phase(len(phases), level, "stabilise", clock, clock + stage.stabilise))
        clock += stage.stabilise
    total = clock if total_kimg is None else _images(total_kimg)
    reached = [p for p in phases if p.start < total or p.index == 0]
    last = reached[-1]
    reached[-1] = Phase(last.index, last.level, last.kind, last.start, total)
    return tuple(reached), total


def _opening(phase: Phase) -> int:
    """Return the first value of the clock that belongs to a phase.

    At the very start of a fade or morph alpha would be 0, which is the old level still; so it is open at its
    start, and a level's own batch size and learning rates apply right after it. There is nothing before the
    first phase.
    """
    return phase.start if phase.kind == "stabilise" or phase.index == 0 else phase.start + 1


def _entries(config: Config, phases: tuple[Phase, ...]) -> list[int]:
    """Return the clock at which the first iteration of each phase begins, at or after its opening.

    A phase that one iteration steps over shares its entry with the phase after it.
    """
    entries = [0]
    for phase, following in pairwise(phases):
        iteration = _iteration(config, phase.level)
        left = max(0, _opening(following) - entries[-1])
        entries.append(entries[-1] + math.ceil(left / iteration) * iteration)
    return entries

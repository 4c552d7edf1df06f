"""Images seen -> phase, level, alpha, batch size, learning rates: a pure function, the only clock.

Section 2 and appendix A.1; `TrainingSchedule` of the original train.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from progan.config import OptimizerOptions, ScheduleOptions, per_level

Kind = Literal["stabilise", "fade"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one level.

    Attributes:
        index: Position in the schedule, from 0.
        level: The level that is trained; a fade brings this level in.
        kind: 'fade' (alpha rises from 0 to 1) or 'stabilise' (alpha is 1).
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
        return f"fade to level {self.level}" if self.kind == "fade" else f"stabilise level {self.level}"


@dataclass(frozen=True)
class Point:
    """What the schedule says at one value of the clock.

    Attributes:
        phase: The phase it lies in.
        alpha: 0 shows the level below only, 1 this level only.
        batch_size: Images in a batch.
        g_lr, d_lr: Learning rates.
    """

    phase: Phase
    alpha: float
    batch_size: int
    g_lr: float
    d_lr: float

    @property
    def level(self) -> int:
        """The level that is trained."""
        return self.phase.level

    @property
    def fading(self) -> bool:
        """Whether two levels are blended."""
        return self.phase.kind == "fade"


class Schedule:
    """The plan of a run.

    Args:
        options: Lengths, batch sizes and ticks.
        optimizer: Learning rates per level.
        max_level: Highest level of the networks.

    Attributes:
        phases: All phases that are reached, in order; the last ends at `total`.
        total: Images to see in all.
    """

    def __init__(self, options: ScheduleOptions, optimizer: OptimizerOptions, max_level: int) -> None:
        self._options = options
        self._optimizer = optimizer
        self.phases, self.total = _phases(options, max_level)

    def at(self, images_seen: int) -> Point:
        """Return what holds when `images_seen` real images have been shown (beyond the end: the end)."""
        images_seen = min(images_seen, self.total)
        # At the very start of a fade alpha would be 0, which is the old level still; so a fade is open
        # at its start, and a level's own batch size and learning rates apply right after it.
        phase = next(
            p
            for p in reversed(self.phases)
            if (images_seen > p.start if p.kind == "fade" else images_seen >= p.start)
        )
        alpha = 1.0
        if phase.kind == "fade":
            full = _images(per_level(self._options.fade_kimg, phase.level))
            alpha = min(1.0, (images_seen - phase.start) / full)
        return Point(
            phase=phase,
            alpha=alpha,
            batch_size=per_level(self._options.batch_size, phase.level),
            g_lr=per_level(self._optimizer.g_lr, phase.level),
            d_lr=per_level(self._optimizer.d_lr, phase.level),
        )

    def tick_images(self, images_seen: int) -> int:
        """Return the interval of log points and sample grids, in images, that holds at this clock."""
        return max(1, _images(per_level(self._options.tick_kimg, self.at(images_seen).level)))

    def phase_ends(self, before: int, after: int) -> bool:
        """Whether the next iteration belongs to another phase than the one from `before` to `after` did."""
        return self.at(after).phase != self.at(before).phase

    def is_tick(self, before: int, after: int) -> bool:
        """Whether an iteration ends in a log point: at intervals within each phase, and at its end.

        A point at less than half an interval from the end of its phase gives way to the one at the end.
        """
        if self.phase_ends(before, after):
            return True
        phase, interval = self.at(before).phase, self.tick_images(before)
        passed = (before - phase.start) // interval != (after - phase.start) // interval
        return passed and phase.end - after >= interval / 2


def _images(kimg: float) -> int:
    """Turn thousands of images into images."""
    return round(kimg * 1000)


def _phases(options: ScheduleOptions, max_level: int) -> tuple[tuple[Phase, ...], int]:
    """Lay the phases end to end, and cut or lengthen them to the total."""
    phases: list[Phase] = []
    clock = 0
    for level in range(options.start_level, max_level + 1):
        if level > options.start_level:
            end = clock + _images(per_level(options.fade_kimg, level))
            if end > clock:
                phases.append(Phase(len(phases), level, "fade", clock, end))
            clock = end
        end = clock + _images(per_level(options.stabilise_kimg, level))
        phases.append(Phase(len(phases), level, "stabilise", clock, end))
        clock = end
    total = clock if options.total_kimg is None else _images(options.total_kimg)
    reached = [p for p in phases if p.start < total or p.index == 0]
    last = reached[-1]
    reached[-1] = Phase(last.index, last.level, last.kind, last.start, total)
    return tuple(reached), total

"""How long a whole schedule takes, from what single levels were measured to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from progan.training.schedule import Phase

Stage = tuple[int, bool]
"""A level, and whether it comes in."""


def stage_of(phase: Phase) -> Stage:
    """Return the stage that a phase is: phases of one stage compute the same."""
    return phase.level, phase.kind != "stabilise"


@dataclass(frozen=True)
class PhaseTime:
    """How many seconds one phase takes, and whether its own rate was measured.

    Else it is its floor, as many times as the nearest stage that was measured took its own.
    """

    phase: Phase
    seconds: float
    measured: bool


@dataclass(frozen=True)
class Projection:
    """How long a schedule takes: all of its phases, in order."""

    phases: tuple[PhaseTime, ...]

    @property
    def seconds(self) -> float:
        """The whole length."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def measured_share(self) -> float:
        """Share of the length whose rates were measured; 1 if there is no length."""
        known = sum(phase.seconds for phase in self.phases if phase.measured)
        return known / self.seconds if self.seconds else 1.0

    def cost(self, stage: Stage) -> float:
        """Return the seconds that an image takes at a stage, or at the one of the schedule most like it."""
        costs = {
            stage_of(each.phase): each.seconds / _length(each.phase)
            for each in self.phases
            if each.phase.end > each.phase.start
        }
        return costs[nearest(stage, costs)]

    def left(self, images_seen: int) -> float:
        """Return the seconds that are left at a clock."""
        return sum(
            each.seconds * (each.phase.end - max(each.phase.start, images_seen)) / _length(each.phase)
            for each in self.phases
            if each.phase.end > images_seen
        )

    def seconds_an_image(self, images_seen: int) -> float:
        """Return the seconds that an image takes at a clock."""
        there = [each for each in self.phases if each.phase.end > each.phase.start]
        each = next((each for each in there if each.phase.end > images_seen), there[-1])
        return each.seconds / _length(each.phase)


def project(
    phases: Sequence[Phase], measured: Mapping[Stage, float], floors: Mapping[Stage, float]
) -> Projection | None:
    """Work out how long a schedule takes.

    Args:
        phases: All phases of the schedule.
        measured: Seconds an image of the stages that were measured.
        floors: Seconds an image that a stage takes at least, above 0, for every stage.

    Returns:
        The projection, or None if nothing was measured.
    """
    if not measured:
        return None
    times = []
    for phase in phases:
        stage, images = stage_of(phase), phase.end - phase.start
        rate = measured.get(stage)
        if rate is None:
            like = nearest(stage, measured)
            rate = floors[stage] * measured[like] / floors[like]
        times.append(PhaseTime(phase, images * rate, stage in measured))
    return Projection(tuple(times))


def nearest(stage: Stage, measured: Mapping[Stage, float]) -> Stage:
    """Return the measured stage that is most like another: in level, then in kind; the higher of two."""
    level, fading = stage
    return min(measured, key=lambda other: (abs(other[0] - level), other[1] != fading, -other[0]))


def _length(phase: Phase) -> int:
    return max(1, phase.end - phase.start)

"""How long a whole schedule takes, from what single levels were measured to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from progan.training.schedule import Phase

PhaseKind = tuple[int, bool]
"""A level, and whether it comes in."""


def kind_of(phase: Phase) -> PhaseKind:
    """Return the kind of a phase: phases of one kind compute the same."""
    return phase.level, phase.kind != "stabilise"


@dataclass(frozen=True)
class PhaseTime:
    """How many seconds one phase takes, and whether its own rate was measured.

    Else it is its floor, as many times as the nearest phase that was measured took its own.
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

    def cost(self, kind: PhaseKind) -> float:
        """Return the seconds an image in phases of a kind, or of that of the schedule most like it."""
        costs = {
            kind_of(each.phase): each.seconds / _length(each.phase)
            for each in self.phases
            if each.phase.end > each.phase.start
        }
        return costs[nearest(kind, costs)]

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
    phases: Sequence[Phase], measured: Mapping[PhaseKind, float], floors: Mapping[PhaseKind, float]
) -> Projection | None:
    """Work out how long a schedule takes.

    Args:
        phases: All phases of the schedule.
        measured: Seconds an image of the kinds of phases that were measured.
        floors: Seconds an image that a phase of a kind takes at least, above 0, for every kind.

    Returns:
        The projection, or None if nothing was measured.
    """
    if not measured:
        return None
    times = []
    for phase in phases:
        kind, images = kind_of(phase), phase.end - phase.start
        rate = measured.get(kind)
        if rate is None:
            like = nearest(kind, measured)
            rate = floors[kind] * measured[like] / floors[like]
        times.append(PhaseTime(phase, images * rate, kind in measured))
    return Projection(tuple(times))


def nearest(kind: PhaseKind, measured: Mapping[PhaseKind, float]) -> PhaseKind:
    """Return the measured kind that is most like another: in level, then in kind; the higher of two."""
    level, fading = kind
    return min(measured, key=lambda other: (abs(other[0] - level), other[1] != fading, -other[0]))


def _length(phase: Phase) -> int:
    return max(1, phase.end - phase.start)

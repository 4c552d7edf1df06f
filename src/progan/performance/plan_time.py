"""A schedule for a given time: the level to grow to, and the images of each, so that it ends in time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from progan.errors import ConfigError
from progan.performance.projection import PhaseKind, Projection, kind_of
from progan.system.progress import format_about
from progan.training.schedule import Phase

STABILISE, FADE = (20.0, 16.0, 4.0, 2.0), (6.0, 6.0, 4.0, 4.0)
"""Images of the last level, the one before, ...: the proportions of the recipe quickstart."""

NEEDED_KIMG = 50.0
"""A run to level 3 (32x32 from 4x4) is to see at least as many images, and twice as many a level above,
half as many a level below: a rule of thumb, of the recipe quickstart, which shows 58 kimg."""

RESERVE = 0.03
"""Share of the time that log points, grids and checkpoints get."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class TimePlan:
    """A schedule for a time: its last level, images of each level in kimg, and why in a sentence."""

    level: int
    stabilise_kimg: tuple[float, ...]
    fade_kimg: tuple[float, ...]
    reason: str

    @property
    def kimg(self) -> float:
        """All images, in kimg; entry 0 of the fades is not used."""
        return sum(self.stabilise_kimg) + sum(self.fade_kimg[1:])

    def options(self) -> dict[str, Any]:
        """Return the schedule as options of a configuration, with some 20 log points in all."""
        lengths = {"stabilise_kimg": list(self.stabilise_kimg), "fade_kimg": list(self.fade_kimg)}
        schedule = {**lengths, "total_kimg": None}
        return {"schedule": schedule, "run": {"log_kimg": [max(0.001, round(self.kimg / 20, 3))]}}


def plan_time(
    seconds: float, cost: Mapping[PhaseKind, float], names: Mapping[int, str], *, fixed: bool = False
) -> TimePlan:
    """Choose the last level and the lengths of all phases so that a run takes a given time.

    Args:
        seconds: The time.
        cost: Seconds an image of each kind, of levels 0 to the highest that there may be.
        names: What to call the levels: their sizes.
        fixed: Grow to the highest level, whatever few images that leaves.

    Raises:
        ConfigError: if the time does not even hold some thousand images of level 0.
    """
    highest = max(level for level, _ in cost)
    units = {level: _unit(seconds, cost, level) for level in range(highest + 1)}
    kimg = {level: unit * sum(map(sum, _proportions(level))) for level, unit in units.items()}
    enough = [level for level in kimg if kimg[level] >= NEEDED_KIMG * 2.0 ** (level - 3)]
    if kimg[0] < 1:
        raise ConfigError(
            f"{format_about(seconds)} are too short: not even 1,000 images of {names[0]} would be seen; give "
            f"more time, or smaller networks (--recipe quickstart)"
        )
    level = highest if fixed else max(enough, default=0)
    reason = f"{names[level]}: {kimg[level]:,.0f} kimg are seen"
    if level < highest:
        reason += f"; at {names[level + 1]} it would be only {kimg[level + 1]:,.1f}"
    stabilise, fade = _proportions(level)
    scaled = [tuple(max(0.001, round(units[level] * x, 3)) for x in lengths) for lengths in (stabilise, fade)]
    return TimePlan(level, scaled[0], (0.0, *scaled[1][1:]), reason)


def plan_rest(seconds: float, expected: Projection, images_seen: int) -> tuple[dict[str, Any], float]:
    """Lengthen or shorten what is left of a schedule so that it takes a given time.

    What was trained keeps its length, and so does a fade under way, whose alpha would jump else. All that
    comes after is stretched alike; a schedule that is at its end gets more of its last level.

    Args:
        seconds: The time.
        expected: How long the schedule takes: phases of stabilising and of fading in, from level 0 on.
        images_seen: Where training stands.

    Returns:
        The schedule as options of a configuration, and how many times as long as it was its rest is (infinity
        if nothing was left).

    Raises:
        ConfigError: if the time does not hold what cannot be shortened, or there is nothing to lengthen.
    """
    left, free = seconds * (1 - RESERVE), dict[int, float]()
    phases = [each.phase for each in expected.phases]
    for each in expected.phases:
        start, end = each.phase.start, each.phase.end
        rest = each.seconds * (end - max(start, images_seen)) / max(1, end - start)
        if end > images_seen and (each.phase.kind == "stabilise" or start >= images_seen):
            free[each.phase.index] = rest
        elif end > images_seen:
            left -= rest
    if not (free or phases[-1].kind == "stabilise"):
        raise ConfigError(
            "the schedule ends amid a fade, and --time has no phase to lengthen: give a longer "
            "--schedule.total-kimg first"
        )
    if left <= 0:
        raise ConfigError(
            f"{format_about(seconds)} do not hold the fade that is under way: give more time, or leave "
            f"--time out"
        )
    factor = left / sum(free.values()) if free else math.inf
    images = {phase.index: float(phase.end - phase.start) for phase in phases}
    if not free:  # the last iteration may have gone beyond the end
        images[phases[-1].index] += images_seen - phases[-1].end + left / expected.cost(kind_of(phases[-1]))
    for phase in (phase for phase in phases if phase.index in free):
        done = max(0, images_seen - phase.start)
        images[phase.index] = max(1.0, done + factor * (images[phase.index] - done))
    return _lengths(phases, images), factor


def _lengths(phases: Sequence[Phase], images: Mapping[int, float]) -> dict[str, Any]:
    """Return lengths of phases, by their index, as options of a configuration."""
    stabilise, fade = list[float](), list[float]()
    for phase in phases:
        kimg = round(images[phase.index] / 1000, 3)
        if phase.level == len(fade):
            fade.append(0.0 if phase.kind == "stabilise" else kimg)
        if phase.kind == "stabilise":
            stabilise.append(kimg)
    lengths = {"stabilise_kimg": stabilise, "fade_kimg": fade}
    unset = {"stabilise_epochs": None, "fade_epochs": None}
    return {"schedule": {**lengths, **unset, "total_kimg": round(sum(stabilise) + sum(fade), 3)}}


def parse_duration(text: str) -> float:
    """Return the seconds of a text such as `2h`, `30m`, `1d`, `1h30m` or `90s`.

    Raises:
        ConfigError: if it is none.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ConfigError(f"--time {text!r} is no duration: give one such as 30m, 2h, 1h30m or 1d")
    seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if not 0 < seconds < 1e9:
        raise ConfigError(f"--time {text!r}: give a time above 0 and below 30 years")
    return seconds


def seconds_until(text: str, now: datetime) -> float:
    """Return the seconds until a time of day such as `07:00`, today or tomorrow.

    Raises:
        ConfigError: if it is no time of day.
    """
    try:
        hour, minute = map(int, text.split(":"))
        end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        raise ConfigError(f"--until {text!r} is no time of day: give one such as 07:00") from None
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


def _proportions(level: int) -> tuple[list[float], list[float]]:
    """Return how the images of levels 0 to a last one compare: of stabilising, and of fading in."""
    below = [min(level - each, len(STABILISE) - 1) for each in range(level + 1)]
    return [STABILISE[i] for i in below], [FADE[i] if each else 0.0 for each, i in enumerate(below)]


def _unit(seconds: float, cost: Mapping[PhaseKind, float], level: int) -> float:
    """Return the kimg of a proportion of 1 in a run to a last level."""
    stabilise, fade = _proportions(level)
    whole = sum(share * cost[each, False] for each, share in enumerate(stabilise))
    whole += sum(share * cost[each, True] for each, share in enumerate(fade) if share)
    return seconds * (1 - RESERVE) / whole / 1000

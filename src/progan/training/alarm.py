"""What tells early that a training goes wrong: exploding gradients, scores that run away, lost variation.

Each sign is a number of a log point, compared with its own running median; so it needs no scale of its own,
and no level, loss or data set has other limits than another. A median does not follow a single outlier. The
limits are far from what healthy runs show (docs/reliability.md has the figures): an alarm means that
something is wrong, silence does not mean that all is well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

MEMORY = 16
"""Log points that a running median is taken of."""
NEEDED = 4
"""Log points before there is a median to compare with."""

Point = Mapping[str, float | int | str]
"""The numbers of a log point by name."""


@dataclass(frozen=True)
class _Sign:
    """A number that is watched.

    Attributes:
        text: What has happened, in words, with `{value}` and its median `{usual}`.
        names: Names of numbers of a log point; the largest magnitude of them is watched.
        factor: How many times its median it may be; below 1, what share of its median it must keep.
        floor: Values up to this are never too large.
        help: What usually helps.
    """

    text: str
    names: tuple[str, ...]
    factor: float
    floor: float
    help: str

    def value(self, point: Point) -> float | None:
        """Return the number at a log point, None if it has none."""
        there = [point[name] for name in self.names if name in point]
        values = [abs(float(value)) for value in there if not isinstance(value, str)]
        return max(values, default=None)

    def is_wrong(self, value: float, usual: float) -> bool:
        """Whether a value is too far from its running median."""
        if self.factor < 1:
            return value < self.factor * usual
        return value > max(self.floor, self.factor * usual)


LOWER_RATES = "lower --optimizer.g-lr and --optimizer.d-lr"
SIGNS = (
    _Sign(
        "the gradients of D explode (norm {value:.3g}, usually {usual:.3g})",
        ("D/gradient_norm",),
        20.0,
        1.0,
        f"{LOWER_RATES}, a larger --loss.gp-lambda or --loss.r1-gamma, or --optimizer.clip-norm",
    ),
    _Sign(
        "the gradients of G explode (norm {value:.3g}, usually {usual:.3g})",
        ("G/gradient_norm",),
        20.0,
        1.0,
        f"{LOWER_RATES}, or --optimizer.clip-norm",
    ),
    _Sign(
        "the scores of D run away ({value:.3g}, usually {usual:.3g})",
        ("D/real_score", "D/fake_score"),
        20.0,
        50.0,
        "lower --optimizer.d-lr, a larger --loss.gp-lambda or --loss.r1-gamma, or with wgan a larger "
        "--loss.drift",
    ),
    _Sign(
        "the pictures of G have lost their variation ({value:.3g}, usually {usual:.3g})",
        ("G/variation",),
        0.2,
        0.0,
        "lower --optimizer.g-lr, more --loss.d-steps, or --model.discriminator.stddev-group 4 in a new run",
    ),
)


class Alarm:
    """Watches the log points of a run.

    Args:
        points: Log points of the run so far, oldest first, so that a resumed run is watched as one that was
            not interrupted.
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._seen: list[deque[float]] = [deque(maxlen=MEMORY) for _ in SIGNS]
        self._raised = [False] * len(SIGNS)
        for point in points:
            self.observe(point)

    def observe(self, point: Point) -> list[str]:
        """Take note of a log point.

        Returns:
            What has gone wrong since the one before, with what usually helps: a sentence for each sign. One
            that stays wrong is not told again.
        """
        told = []
        for i, sign in enumerate(SIGNS):
            value = sign.value(point)
            if value is None or not math.isfinite(value):
                continue
            usual = median(self._seen[i]) if len(self._seen[i]) >= NEEDED else None
            wrong = usual is not None and sign.is_wrong(value, usual)
            if wrong and not self._raised[i]:
                told.append(f"{sign.text.format(value=value, usual=usual)}; what usually helps: {sign.help}")
            self._raised[i] = wrong
            self._seen[i].append(value)
        return told

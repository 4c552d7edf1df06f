"""What is told about a run that diverged: enough to reproduce the update, and what to do."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from progan.errors import DivergenceError, StorageError
from progan.system.files import write_text

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


SHOWN = 16
"""Names and pictures that a message lists; the file has all."""


@dataclass(frozen=True)
class Circumstances:
    """What an update was made of; batches are a pure function of it.

    Attributes:
        images_seen: The clock before the update.
        phase, alpha, batch_size, g_lr, d_lr: What the schedule said.
        seed, attempt: What batches are drawn from.
        pictures: Positions in the packed set of the real images.
    """

    images_seen: int
    phase: str
    alpha: float
    batch_size: int
    g_lr: float
    d_lr: float
    seed: int
    attempt: int
    pictures: tuple[int, ...]

    def __str__(self) -> str:
        attempt = f", attempt {self.attempt}" if self.attempt else ""
        return (
            f"at {self.images_seen:,} images: {self.phase}, alpha {self.alpha:g}, batch of "
            f"{self.batch_size}, learning rates {self.g_lr:g} and {self.d_lr:g}, seed {self.seed}{attempt}, "
            f"pictures {_some(self.pictures)}"
        )


def not_finite(names: Sequence[str], at: Circumstances, run: Path, *, saved: bool) -> DivergenceError:
    """Return the error for numbers that are not finite, and write `divergence.json` into the run folder.

    Args:
        names: The terms or tensors that are NaN or infinite.
        at: The update in which that was found.
        run: The run folder.
        saved: Whether there is a checkpoint to go on from.
    """
    file = run / "divergence.json"
    where = f" (all in {file})"
    try:
        write_text(file, json.dumps({"not_finite": list(names), **asdict(at)}, indent=1) + "\n")
    except StorageError:  # what went wrong first is what is told
        where = ""
    return DivergenceError(f"{_some(names)} became NaN or infinite {at}{where}. {advice(run, saved)}")


def advice(run: Path, saved: bool) -> str:
    """Return what to do about a run that was stopped, as sentences."""
    if not saved:
        return (
            "Nothing had been saved yet: begin again in a new run folder, first of all with lower rates: "
            "--optimizer.g-lr ... --optimizer.d-lr ..."
        )
    return (
        f"Nothing of it was saved: the last checkpoint in {run / 'checkpoints'} is whole. Try lower learning "
        f"rates from there: progan train --resume {run} --optimizer.g-lr ... --optimizer.d-lr ...; or let it "
        f"go back by itself and take another way: --on-divergence rollback --run.rollback-lr 0.5; if it "
        f"diverges at once again, delete the newest file there to go further back"
    )


def _some(items: Sequence[object]) -> str:
    """List the first of some items."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more

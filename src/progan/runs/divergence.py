"""A run that diverges: the alarm before, what is told of the update, and the way back to a checkpoint."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from progan.errors import DivergenceError, StorageError, command, option_words
from progan.runs.checkpointing import Saver
from progan.runs.checks import Prepared
from progan.runs.logs import Stats
from progan.system.files import write_text
from progan.training.iteration import Iteration
from progan.training.schedule import Point

MEMORY = 16
"""Log points that a running median is taken of."""

NEEDED = 4
"""Log points before there is a median to compare with."""


@dataclass(frozen=True)
class _Sign:
    """A number that is watched: the largest magnitude of those named `names` at a log point.

    It may be `factor` times its median (below 1: must keep that share of it); values up to `floor` are never
    too large. `text` says what has happened, with `{value}` and its median `{usual}`, `help` what helps.
    """

    text: str
    names: tuple[str, ...]
    factor: float
    floor: float
    help: str

    def value(self, point: Stats) -> float | None:
        """Return the number at a log point, None if it has none."""
        there = [point[name] for name in self.names if name in point]
        values = [abs(float(value)) for value in there if not isinstance(value, str)]
        return max(values, default=None)


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

    It begins with those of the run so far, oldest first, so that a resumed run is watched as one that was not
    interrupted.
    """

    def __init__(self, points: Iterable[Stats] = ()) -> None:
        self._seen: list[deque[float]] = [deque(maxlen=MEMORY) for _ in SIGNS]
        self._raised = [False] * len(SIGNS)
        for point in points:
            self.observe(point)

    def observe(self, point: Stats) -> list[str]:
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
            limit = 0.0 if usual is None else sign.factor * usual
            beyond = value < limit if sign.factor < 1 else value > max(sign.floor, limit)
            wrong = usual is not None and beyond
            if wrong and not self._raised[i]:
                told.append(f"{sign.text.format(value=value, usual=usual)}; what usually helps: {sign.help}")
            self._raised[i] = wrong
            self._seen[i].append(value)
        return told


SHOWN = 16
"""Names and pictures that a message lists; the file has all."""


class Rollbacks:
    """Tells of an update that diverged, and goes back to a checkpoint, from where other batches are drawn.

    All processes of the run go back together; the first writes.
    """

    def __init__(self, run: Prepared, iteration: Iteration, saver: Saver) -> None:
        self._run, self._state, self._batches, self._saver = run, iteration.state, iteration.batches, saver
        self._went_back_to: int | None = None

    def point(self, clock: int) -> Point:
        """Return what the schedule says, with the learning rates that are left after going back."""
        point = self._run.spec.schedule.at(clock)
        factor = self._run.spec.config.run.rollback_lr**self._batches.attempt
        return replace(point, g_lr=point.g_lr * factor, d_lr=point.d_lr * factor)

    def advice(self) -> str:
        """Return what to do about a run that is stopped, as sentences.

        Raises:
            StorageError: if the last checkpoint could not be written.
        """
        run, optimizer = self._run.folder.path, self._run.spec.config.optimizer
        rates = {"optimizer.g_lr": optimizer.g_lr, "optimizer.d_lr": optimizer.d_lr}
        halves = {name: [f"{rate / 2:g}" for rate in values] for name, values in rates.items()}
        lower = command("train", "--resume", run, *(option_words(halves) or ()))
        if not self._saver.has_saved():
            return f"Nothing had been saved yet: begin again, first of all with lower learning rates: {lower}"
        back = command("train", "--resume", run, "--on-divergence", "rollback", "--run.rollback-lr", 0.5)
        return (
            f"Nothing of it was saved: the last checkpoint in {run / 'checkpoints'} is whole. Try lower "
            f"learning rates from there: {lower}; or let it go back by itself and take another way: {back}; "
            f"if it diverges at once again, delete the newest file there to go further back"
        )

    def diverged(self, wrong: Sequence[str], point: Point, clock: int) -> DivergenceError:
        """Return the error for numbers that are not finite, and write `divergence.json` into the run folder.

        Args:
            wrong: The terms or tensors that are NaN or infinite.
            point: What the schedule said of the update in which that was found.
            clock: Images seen before it.
        """
        advice = self.advice()
        seed, attempt = self._run.spec.config.run.seed, self._batches.attempt
        pictures = self._batches.chosen(clock, point.batch_size).tolist()
        made_of = {
            "not_finite": list(wrong),
            "images_seen": clock,
            "phase": point.phase.name,
            "alpha": point.alpha,
            "batch_size": point.batch_size,
            "g_lr": point.g_lr,
            "d_lr": point.d_lr,
            "seed": seed,
            "attempt": attempt,
            "pictures": pictures,
        }
        file = self._run.folder.path / "divergence.json"
        where = f" (all in {file})"
        try:
            self._run.ranks.first_only(lambda: write_text(file, json.dumps(made_of, indent=1) + "\n"))
        except StorageError:  # what went wrong first is what is told
            where = ""
        return DivergenceError(
            f"{_some(wrong)} became NaN or infinite at {clock:,} images: {point.phase.name}, alpha "
            f"{point.alpha:g}, batch of {point.batch_size}, learning rates {point.g_lr:g} and "
            f"{point.d_lr:g}, seed {seed}{f', attempt {attempt}' if attempt else ''}, pictures "
            f"{_some(pictures)}{where}. {advice}"
        )

    def go_back(self, error: DivergenceError) -> None:
        """Go back to the last checkpoint.

        If no checkpoint has been written since the last time, that one was too late, and the one before is
        taken, as far as there is one.

        Raises:
            DivergenceError: the one given, if going back is not asked for, or has been done too often.
        """
        options, batches = self._run.spec.config.run, self._batches
        self._saver.writer.wait()
        self._run.ranks.barrier("going back")
        if options.on_divergence == "stop":
            raise error
        attempt = batches.attempt + 1
        if attempt > options.max_rollbacks:
            raise DivergenceError(
                f"{error}. It has gone back {batches.attempt} times (run.max_rollbacks)"
            ) from error
        record = None
        if self._went_back_to is not None:
            record, _ = self._saver.restore(self._state, self._went_back_to)
        if record is None:
            record, _ = self._saver.restore(self._state)
        if record is None:
            raise error
        batches.attempt, self._went_back_to = attempt, record.images_seen
        factor = options.rollback_lr**attempt
        self._run.reporter.say(
            f"{error}\nback at {record.images_seen:,} images with other batches and learning rates times "
            f"{factor:g} (rollback {attempt} of {options.max_rollbacks})"
        )

    def forget(self) -> None:
        """Take note that a checkpoint is written from which a run may go on."""
        self._went_back_to = None


def _some(items: Sequence[object]) -> str:
    """List the first of some items."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more

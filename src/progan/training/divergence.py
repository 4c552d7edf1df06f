"""What is told about a run that diverged: enough to reproduce the update, and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from progan.errors import DivergenceError, StorageError
from progan.files import write_text

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

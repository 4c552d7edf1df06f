"""The state of a run to its folder and back, in the background; of several processes, by the first."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from progan.errors import CheckpointError
from progan.models import weights
from progan.runs import checkpoint
from progan.runs.callbacks.callback import Callbacks
from progan.runs.checkpoint import Record
from progan.runs.checks import Prepared
from progan.runs.trained.keeping import keeper
from progan.runs.trained.kept_generators import forget_later, halved, write_kept
from progan.system import tensor_file
from progan.system.background import BackgroundWriter
from progan.system.files import flush, storage_errors
from progan.training.state import TrainState
from progan.version import __version__


class Pace:
    """Counts the time of training, without that of waiting, since the checkpoints of a run.

    A checkpoint takes time to be written, while training goes on. So that the work that is in no checkpoint
    stays within the interval, each is begun earlier than an interval after the one before: by twice the time
    that the last took, and the iteration to come; but not before half of the interval is over, or a slow disk
    would do nothing else. Where even that is too late, training has to wait (`is_behind`).

    Args:
        seconds: The interval.
        now: A clock that does not go back, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._waited = self._took = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin to count: what has been trained is on the disk, or nothing has."""
        self._begun = self._safe = self._asked = self._time()
        self._begun_at = self._now()

    def begin(self) -> float:
        """Take note that a checkpoint of the present state is begun; returns when, for `finish`."""
        self._begun, self._begun_at = self._time(), self._now()
        return self._begun

    def finish(self, begun: float) -> None:
        """Take note, in whatever thread, that the checkpoint that was begun then is on the disk."""
        self._took = self._now() - self._begun_at
        self._safe = begun

    def is_due(self) -> bool:
        """Whether it is time to begin a checkpoint; to be asked after each iteration."""
        before, self._asked = self._asked, self._time()
        early = min(2 * self._took + self._asked - before, self._seconds / 2)
        return self._asked - self._begun >= self._seconds - early

    def is_behind(self) -> bool:
        """Whether an interval of work is in no checkpoint on the disk."""
        return self._time() - self._safe >= self._seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave the time within this block out of account: nothing is trained in it."""
        start = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - start

    def _time(self) -> float:
        return self._now() - self._waited


class Saver:
    """Writes checkpoints of a run, each with its averaged generator, and reads them; the first process does.

    Attributes:
        writer: What writes; to be entered while training, and waited for before saying that all is saved.
        pace: Knows when the next is due; to be restarted when training begins.
    """

    def __init__(self, run: Prepared) -> None:
        self._config, self._folder, self._ranks = run.spec.config, run.folder, run.ranks
        self._fingerprint = run.packed.fingerprint
        self.writer, self.pace = BackgroundWriter(), Pace(60 * self._config.run.checkpoint_minutes)
        self._kept: list[Callable[[], None]] = []
        self._written: deque[Path] = deque()

    def save(self, state: TrainState, attempt: int) -> None:
        """Save the state on the first process, once all, which call this, are known to hold the same weights.

        Args:
            state: What to write, which must be finite; it may be changed as soon as this returns.
            attempt: How often the run has gone back.

        Raises:
            StorageError: if the one before could not be written.
            RankError: if processes hold different weights.
        """
        self.compare(state)
        self._ranks.first_only(lambda: self.save_here(state, attempt))

    def save_here(self, state: TrainState, attempt: int) -> None:
        """Copy the state into the CPU's memory and begin to write it, whatever other processes hold.

        It waits for the checkpoint before, so that memory holds one copy at a time.
        """
        with self.pace.waiting():
            self.writer.wait()
        begun = self.pace.begin()
        record = Record(
            images_seen=state.images_seen,
            phase=state.phase,
            level=state.G.level,
            alpha=state.G.alpha,
            config=self._config.model_dump(mode="json"),
            fingerprint=self._fingerprint,
            versions={"progan": __version__, "torch": str(torch.__version__)},
            attempt=attempt,
            generator=weights.describe(state.G_ema)["config"],
        )
        options, tensors = self._config.run, checkpoint.host_copy(state.tensors())
        keep = keeper(self._folder, options.keep_checkpoints, options.best)
        description = weights.describe(state.G_ema)
        average = {name[6:]: value for name, value in tensors.items() if name.startswith("G_ema/")}

        def write() -> None:
            log = self._folder.stats_file
            with storage_errors(log):
                if log.exists():  # the log points before a checkpoint belong to it
                    flush(log)
            self._written.append(checkpoint.save(self._folder.checkpoints, record, tensors, keep))
            self.pace.finish(begun)
            tensor_file.write(self._folder.generator_file, weights.FORMAT, description, average)
            for piece in pieces:
                piece()

        pieces, self._kept = self._kept, []
        self.writer.submit(write)

    def keep(self, state: TrainState) -> None:
        """Write the averaged generator alone, in 16 bits, on the first process, when the writer is free.

        Training does not wait for a checkpoint on a slow disk because of it.
        """
        self._ranks.first_only(lambda: self._keep_here(state))

    def _keep_here(self, state: TrainState) -> None:
        clock, G = state.images_seen, state.G_ema.trimmed()
        self._kept.append(partial(write_kept, self._folder, clock, weights.describe(G)["config"], halved(G)))
        if not self.writer.is_busy:
            self._write_kept()

    def _write_kept(self) -> None:
        """Begin to write the generators that wait for the writer."""
        pieces, self._kept = self._kept, []
        self.writer.submit(lambda: [piece() for piece in pieces])

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            StorageError: if something could not be written.
        """
        self.writer.wait()
        if self._kept:
            self._write_kept()
            self.writer.wait()

    def tell(self, callbacks: Callbacks) -> None:
        """Tell of the checkpoints that have been written since the last time."""
        while self._written:
            path = self._written.popleft()
            callbacks.checkpoint(path, checkpoint.clock_of(path))

    def compare(self, state: TrainState) -> None:
        """Compare the states of all processes, of which the others than the first learn of it later.

        Raises:
            RankError: if they differ.
        """
        what = f"The weights at {state.images_seen:,} images"
        self._ranks.compare(what, lambda: digest(state.tensors()))

    def has_saved(self, clock: int | None = None) -> bool:
        """Whether there is a checkpoint, or the newest is of a clock, once what is being written is whole.

        Raises:
            StorageError: if it could not be written.
        """
        self.writer.wait()
        present = checkpoint.paths(self._folder.checkpoints)
        return bool(present) and clock in (None, int(present[-1].stem))

    def is_due(self) -> bool:
        """Whether it is time to begin a checkpoint, as the process knows that writes them."""
        return bool(self._ranks.first_only(self.pace.is_due))

    def keep_up(self) -> None:
        """Wait for what is being written, if so much work would else be lost by a kill that it has to.

        Raises:
            StorageError: if something could not be written.
        """
        self.writer.check()
        if self._kept and not self.writer.is_busy:
            self._write_kept()
        if self.writer.is_busy and self.pace.is_behind():
            with self.pace.waiting():
                self.writer.wait()

    def restore(self, state: TrainState, before: int | None = None) -> tuple[Record | None, list[str]]:
        """Load the newest readable checkpoint into a state; all processes take it from the first.

        Args:
            state: Where to.
            before: Only look at clocks before this one; None for all.

        Returns:
            Its record (None if there is no checkpoint; the state is as it was) and why newer ones were passed
            over.

        Raises:
            CheckpointError: if there are checkpoints but none fits or can be read.
        """
        self._ranks.at("reading a checkpoint")
        read = self._ranks.first_only(lambda: checkpoint.newest(self._folder.checkpoints, before))
        found, passed_over = read or (None, [])
        facts = self._ranks.broadcast(None if found is None else asdict(found[0]))
        if facts is None:
            return None, passed_over
        record = Record(**facts)
        self._ranks.first_only(lambda: forget_later(self._folder, record.images_seen))
        try:
            enter(state, record, self._ranks.broadcast_tensors({} if found is None else found[1]))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self._folder.path}: the checkpoint does not fit ({error})") from None
        return record, passed_over


def enter(state: TrainState, record: Record, tensors: dict[str, torch.Tensor]) -> None:
    """Bring a state to where a checkpoint has it.

    Raises:
        KeyError, RuntimeError, ValueError: if it is of other networks.
    """
    state.load_tensors(tensors)
    state.set_growth(record.level, record.alpha)
    state.images_seen, state.phase = record.images_seen, record.phase


def digest(tensors: dict[str, torch.Tensor]) -> int:
    """Return a number of 63 bits that another state has by chance only.

    It is made of the sums of the numbers that the bits of each tensor are, and of their squares, modulo 2^64:
    so every tensor is read where it is. Its elements take a multiple of 4 bytes.
    """
    sums = []
    for value in tensors.values():
        bits = value.detach().reshape(-1).view(torch.int32).to(torch.int64)
        sums += [bits.sum().cpu(), (bits * bits).sum().cpu()]
    text = "".join(tensors) + str(torch.stack(sums).tolist())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

"""The state of a run to its folder and back, in the background; of several processes, by the first."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch

from progan.config import Config
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import CheckpointError
from progan.models import weights
from progan.runs import checkpoint
from progan.runs.checkpoint import Record
from progan.runs.run_folder import RunFolder
from progan.system import tensor_file
from progan.system.background import BackgroundWriter
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
    """Writes checkpoints of a run, each with its averaged generator, and reads them.

    Args:
        folder: The run.
        config: Its configuration.
        fingerprint: Of its packed set.
        ranks: The processes of the run; the first reads and writes.

    Attributes:
        writer: What writes; to be entered while training, and waited for before saying that all is saved.
        pace: Knows when the next is due; to be restarted when training begins.
    """

    def __init__(self, folder: RunFolder, config: Config, fingerprint: str, ranks: Ranks = ALONE) -> None:
        self.writer, self.pace = BackgroundWriter(), Pace(60 * config.run.checkpoint_minutes)
        self._ranks = ranks
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def save(self, state: TrainState, attempt: int, *, together: bool = True) -> None:
        """Copy the state, which must be finite, into the CPU's memory and begin to write it.

        All processes call it, and the first writes, once all are known to hold the same weights. It
        waits for the checkpoint before, so that memory holds one copy at a time.

        Args:
            state: What to write; it may be changed as soon as this returns.
            attempt: How often the run has gone back.
            together: False if the first alone calls it, and so cannot know what the others hold.

        Raises:
            StorageError: if the one before could not be written.
            RankError: if processes hold different weights.
        """
        if together:
            self.compare(state)
        if not self._ranks.first:
            return
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
        )
        tensors, keep = checkpoint.host_copy(state.tensors()), self._config.run.keep_checkpoints
        description = weights.describe(state.G_ema)
        average = {name[6:]: value for name, value in tensors.items() if name.startswith("G_ema/")}

        def write() -> None:
            checkpoint.save(self._folder.checkpoints, record, tensors, keep)
            self.pace.finish(begun)
            tensor_file.write(self._folder.generator_file, weights.FORMAT, description, average)

        self.writer.submit(write)

    def compare(self, state: TrainState) -> None:
        """Compare the states of all processes; see `Ranks.compare`."""
        if self._ranks.size > 1:
            self._ranks.compare(f"The weights at {state.images_seen:,} images", digest(state.tensors()))

    def keep_up(self) -> None:
        """Wait for what is being written, if so much work would else be lost by a kill that it has to.

        Raises:
            StorageError: if something could not be written.
        """
        self.writer.check()
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
        found, passed_over = None, list[str]()
        if self._ranks.first:
            found, passed_over = checkpoint.newest(self._folder.checkpoints, before)
        facts = self._ranks.from_first(None if found is None else asdict(found[0]))
        if facts is None:
            return None, passed_over
        record = Record(**facts)
        tensors = self._ranks.tensors_from_first({} if found is None else found[1])
        try:
            state.load_tensors(tensors)
            state.set_growth(record.level, record.alpha)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self._folder.path}: the checkpoint does not fit ({error})") from None
        state.images_seen, state.phase = record.images_seen, record.phase
        return record, passed_over


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

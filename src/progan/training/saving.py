"""The state of a run to its folder and back, in the background."""

from __future__ import annotations

import torch

from progan.config import Config
from progan.errors import CheckpointError
from progan.models import tensor_file, weights
from progan.training import checkpoint
from progan.training.checkpoint import Record
from progan.training.pace import Pace
from progan.training.run_folder import RunFolder
from progan.training.state import TrainState
from progan.training.writer import BackgroundWriter
from progan.version import __version__


class Saver:
    """Writes checkpoints of a run, each with its averaged generator, and reads them.

    Args:
        folder: The run.
        config: Its configuration.
        fingerprint: Of its packed set.

    Attributes:
        writer: What writes; to be entered while training, and waited for before saying that all is saved.
        pace: Knows when the next is due; to be restarted when training begins.
    """

    def __init__(self, folder: RunFolder, config: Config, fingerprint: str) -> None:
        self.writer, self.pace = BackgroundWriter(), Pace(60 * config.run.checkpoint_minutes)
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def save(self, state: TrainState, attempt: int) -> None:
        """Copy the state, which must be finite, into the CPU's memory and begin to write it.

        It waits for the checkpoint before, so that memory holds one copy at a time.

        Args:
            state: What to write; it may be changed as soon as this returns.
            attempt: How often the run has gone back.

        Raises:
            StorageError: if the one before could not be written.
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
        )
        tensors, keep = checkpoint.host_copy(state.tensors()), self._config.run.keep_checkpoints
        description = weights.describe(state.G_ema)
        average = {name[6:]: value for name, value in tensors.items() if name.startswith("G_ema/")}

        def write() -> None:
            checkpoint.save(self._folder.checkpoints, record, tensors, keep)
            self.pace.finish(begun)
            tensor_file.write(self._folder.generator_file, weights.FORMAT, description, average)

        self.writer.submit(write)

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
        """Load the newest readable checkpoint into a state.

        Args:
            state: Where to.
            before: Only look at clocks before this one; None for all.

        Returns:
            Its record (None if there is no checkpoint; the state is as it was) and why newer ones were passed
            over.

        Raises:
            CheckpointError: if there are checkpoints but none fits or can be read.
        """
        found, passed_over = checkpoint.newest(self._folder.checkpoints, before)
        if found is None:
            return None, passed_over
        record, tensors = found
        try:
            state.load_tensors(tensors)
            state.set_growth(record.level, record.alpha)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self._folder.path}: the checkpoint does not fit ({error})") from None
        state.images_seen, state.phase = record.images_seen, record.phase
        return record, passed_over

"""The duality gap of a run on disk, from its newest checkpoint, as a result that is written down once.

`GapOfRun.open(run).measure()` gives the numbers that the run's monitor logs at that clock.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Config, Parts, format_resolution, make_config, per_level
from progan.data.packed import PackedSet
from progan.distributed.work_sharing import Deal, Part, Work, alone
from progan.errors import CheckpointError, ConfigError, DataError
from progan.evaluation.duality_gap import COPIES, NAME, VERSION, DualityGap, require_sizes
from progan.evaluation.results import Result, append_result, find_result, require_appendable, software
from progan.generation.sampling import whole
from progan.runs import checkpoint
from progan.runs.checkpointing import enter
from progan.runs.resolve import restrict
from progan.runs.run_folder import RunFolder
from progan.system.progress import Progress, unheard
from progan.training.precision import settings
from progan.training.spec import ImageSpec
from progan.training.state import TrainState

OTHERS = (
    "Give others, which the run was not trained on, with --data OTHER.packed; they are prepared with progan "
    "prepare PICTURES OTHER.packed --split 0.8,0.1,0.1"
)
"""What to do about a run that is trained and left no pictures to measure it with."""


@dataclass(frozen=True)
class GapOfRun:
    """The duality gap of a run, opened and not measured yet: `wanted` is the result without numbers."""

    wanted: Result
    _found: _Found
    _gap: DualityGap
    _config: Config
    _packed: PackedSet
    _device: torch.device

    @classmethod
    def open(
        cls,
        run: str | Path,
        data: str | Path | None = None,
        *,
        num_images: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        device: torch.device | None = None,
        parts: Parts = Parts(),  # noqa: B008 - frozen
    ) -> GapOfRun:
        """Read the newest checkpoint of a run, and check all that is needed.

        Args:
            run: The run folder. A generator alone will not do: the gap is of G and D.
            data: A packed set with a validation and a test part; None: the one that the run was trained on.
            num_images: Test pictures that are scored, at most; None: `monitor.num_images` of the run.
            seed: Of everything that is drawn; None: that of the run.
            steps: Updates of each copy; None: `monitor.gap_steps` of the run.
            lr: Learning rate of the copies; None: `monitor.gap_lr` of the run.
            device: Where to compute; None for the CPU.
            parts: Parts of one's own; those that the run uses are among them.

        Raises:
            ConfigError, DataError, CheckpointError: if the run has no checkpoint, the pictures are not split
                or were trained on, or a number is out of range.
        """
        folder, device = RunFolder(run), device or torch.device("cpu")
        if not folder.exists():
            raise ConfigError(
                f"{run} is no run folder, and {NAME} is of a generator with its discriminator, which only "
                f"the checkpoints of a run hold: progan evaluate RUN --metrics {NAME}"
            )
        changes = {"gap_steps": steps, "gap_lr": lr}
        given = {name: value for name, value in changes.items() if value is not None}
        old = folder.config(parts)
        config = make_config(old.model_dump(), {"monitor": given}, parts=old.parts)
        seed = config.run.seed if seed is None else whole("seed", seed)
        packed = restrict(PackedSet.open(folder.pictures() if data is None else data), config)
        newest = _Found.of(folder)
        level = newest.record.level
        _require_unseen(folder, config, packed)
        require_sizes(packed, per_level(config.schedule.batch_size, level), OTHERS)
        gap = DualityGap(config, packed, device, seed=seed, num_images=num_images)
        wanted = _blank(folder, newest, config, packed, gap.count(level), seed)
        return cls(wanted, newest, gap, config, packed, device)

    def measure(
        self,
        *,
        out: Path | None = None,
        force: bool = False,
        progress: Progress = unheard,
        deal: Deal = alone,
    ) -> Result:
        """Return the result, measured or as it is known already.

        Args:
            out: File of results: what is in it is not computed again, what is computed is appended.
            force: Compute and append again what is in the file.
            progress: Told how many updates are made, after each that is made here.
            deal: Who trains the copies.

        Raises:
            DataError: if the checkpoint does not fit the pictures.
            DivergenceError: if copies run away.
            ConfigError: if memory does not hold them.
            StorageError: if the result cannot be written.
        """
        known = None if force else find_result(out, self.wanted)
        if known is not None:
            return known
        if out is not None:
            require_appendable(out)
        state = self._state
        start = time.monotonic()
        with settings(self._config.run, self._device):
            found = self._gap.measure(state, progress=progress, deal=deal)
        assert found is not None, "nothing asked it to stop"
        result = replace(self.wanted, numbers=found.numbers(), seconds=time.monotonic() - start)
        if out is not None:
            append_result(out, result)
        return result

    def work(self, progress: Progress = unheard) -> Work:
        """Return the training of the copies, as `measure` deals it; for the other processes.

        Args:
            progress: Told how many updates are made, after each that is made here.
        """

        def make(part: Part) -> NDArray[Any]:
            with settings(self._config.run, self._device):
                return self._gap.work(self._state, progress=progress).make(part)

        return Work(COPIES, make)

    @cached_property
    def _state(self) -> TrainState:
        return self._found.state(self._config, self._packed, self._device)


def definition(config: Config) -> dict[str, Any]:
    """Return everything that decides a duality gap besides networks, pictures and seed."""
    monitor, loss = config.monitor, config.loss
    return {
        "value": f"-discriminator_loss({loss.adversarial}) on the test part, without penalties",
        "worst": "copies trained on the validation part: D with its penalties, G with its own loss",
        "steps": monitor.gap_steps,
        "optimizer": {"name": "adam", "lr": monitor.gap_lr, "betas": [monitor.gap_beta1, monitor.gap_beta2]},
        "batch_size": list(config.schedule.batch_size),
        "loss": loss.model_dump(mode="json"),
        "augment": config.augment.model_dump(mode="json"),
        "mirror": config.data.mirror,
        "precision": config.run.precision,
    }


def _require_unseen(folder: RunFolder, config: Config, packed: PackedSet) -> None:
    """Refuse the run's own pictures, by whatever path, if it was trained on parts other than train."""
    if config.data.part != "train" and packed.fingerprint == folder.dataset().fingerprint:
        raise ConfigError(
            f"{NAME} is measured on pictures that were not trained on, and {folder.path} was trained with "
            f"data.part {config.data.part} of {packed.path}. {OTHERS}"
        )


@dataclass(frozen=True)
class _Found:
    """The newest checkpoint that can be read, and why newer ones cannot."""

    path: Path
    record: checkpoint.Record
    tensors: dict[str, Tensor]
    passed_over: tuple[str, ...]

    @classmethod
    def of(cls, folder: RunFolder) -> _Found:
        found, passed_over = checkpoint.newest(folder.checkpoints)
        if found is None:
            raise CheckpointError(
                f"{folder.path}: holds no checkpoint, and {NAME} needs D, which is in no other file"
            )
        path = checkpoint.paths(folder.checkpoints)[-1 - len(passed_over)]
        return cls(path, *found, tuple(passed_over))

    def state(self, config: Config, packed: PackedSet, device: torch.device) -> TrainState:
        """Return the state it holds; `packed` decides the shapes."""
        try:
            state = TrainState.create(config, ImageSpec.of(packed), device)
            enter(state, self.record, self.tensors)
        except (KeyError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{self.path} does not fit pictures like those of {packed.path}: {str(error).splitlines()[0]}"
            ) from None
        return state


def _blank(
    folder: RunFolder, found: _Found, config: Config, packed: PackedSet, count: int, seed: int
) -> Result:
    """Return the result that is to be measured, still without numbers."""
    record = found.record
    with found.path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    size = format_resolution(packed.resolution(record.level))
    return Result(
        metric=NAME,
        version=VERSION,
        numbers={},
        definition=definition(config),
        num_images=count,
        num_reals=count,
        seed=seed,
        images={"kind": "checkpoint", "weights": weights, "resolution": size, "alpha": record.alpha},
        reals={"kind": "packed", "fingerprint": packed.fingerprint, "parts": ["validation", "test"]},
        about={
            "images": {"path": str(folder.path), "images_seen": record.images_seen},
            "reals": {"path": str(packed.path)},
        },
        notes=found.passed_over,
        software=software(),
    )

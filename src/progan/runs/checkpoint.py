"""The state of a run to disk and back: one checksummed safetensors file, written atomically.

`checkpoints/<images seen, 12 digits>.safetensors` holds all tensors of `TrainState.tensors` and a `Record`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from progan.config import explain
from progan.errors import CheckpointError
from progan.models.averaged import CHECKPOINT_FORMAT
from progan.system import tensor_file
from progan.system.files import storage_errors
from progan.system.tensor_file import NewerVersionError

T = TypeVar("T")
FORMAT = CHECKPOINT_FORMAT
SUFFIX = ".safetensors"
Keep = Callable[[list[int]], set[int]]
"""Takes the clocks of all checkpoints, oldest first; returns those that stay."""
Count = Annotated[int, Field(ge=0, lt=10**12)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Record:
    """The part of a checkpoint that is not tensors; what does not fit raises a pydantic ValidationError.

    The clock, the name of the phase of the last update, how far the networks had grown, the whole
    configuration as plain data, the fingerprint of the packed set, versions of progan and torch, how often
    the run has gone back after a divergence (`Batches.attempt`), and the arguments of the averaged
    generator's constructor, which older checkpoints do not have.
    """

    images_seen: Count
    phase: str
    level: Count
    alpha: Annotated[float, Field(ge=0, le=1)]
    config: dict[str, Any]
    fingerprint: str
    versions: dict[str, str]
    attempt: Count = 0
    generator: dict[str, Any] | None = None


def save(folder: Path, record: Record, tensors: dict[str, Tensor], keep: int | Keep) -> Path:
    """Write a checkpoint, then remove those that are not kept.

    Files of later clocks are removed too: training went on from an earlier one because they are damaged.

    Args:
        folder: Where to.
        record, tensors: The state.
        keep: How many of the newest stay; or what takes the clocks of all, oldest first, and returns those
            that stay.

    Raises:
        StorageError: if there is no space or no permission; older checkpoints are unharmed.
    """
    path = folder / f"{record.images_seen:012d}{SUFFIX}"
    tensor_file.write(path, FORMAT, asdict(record), tensors)
    clocks = [clock for clock in map(clock_of, paths(folder)) if clock <= record.images_seen]
    stay = set(clocks[-keep:]) if isinstance(keep, int) else keep(clocks)
    for other in paths(folder):
        if other != path and clock_of(other) not in stay:
            with storage_errors(other):
                other.unlink(missing_ok=True)
    return path


def clock_of(path: Path) -> int:
    """Return how many images had been seen, as the name of a checkpoint says."""
    return int(path.stem)


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity: such a state must not be saved."""
    finite = torch.stack([torch.isfinite(value).all().cpu() for value in tensors.values()]).tolist()
    return [name for name, good in zip(tensors, finite, strict=True) if not good]


def host_copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies in the memory of the CPU, which training does not change any more."""
    return {
        name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
        for name, value in tensors.items()
    }


def paths(folder: Path) -> list[Path]:
    """Return the checkpoint files of a folder, oldest first; none if there is no such folder.

    Raises:
        CheckpointError: if the folder cannot be read, which must not look as if nothing had been trained.
    """
    try:
        present = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}); make it readable") from None
    name = rf"[0-9]{{12}}{re.escape(SUFFIX)}"
    return sorted(path for path in present if re.fullmatch(name, path.name))


def load(path: Path) -> tuple[Record, dict[str, Tensor]]:
    """Read and verify one checkpoint; the tensors are on the CPU.

    Raises:
        CheckpointError: if it is damaged, foreign, or of another format.
    """
    record, tensors = tensor_file.read(path, FORMAT)
    return _record(path, record), tensors


def newest(
    folder: Path, before: int | None = None
) -> tuple[tuple[Record, dict[str, Tensor]] | None, list[str]]:
    """Find the newest checkpoint that can be read.

    Args:
        folder: Where they are.
        before: Only those of earlier clocks than this; None for all.

    Returns:
        The checkpoint (None if there is none at all) and why newer ones were passed over.

    Raises:
        CheckpointError: if there are checkpoints but none can be read, or if one was written by a newer
            progan: passing over it would lose what that one has done.
    """
    found, passed_over = _first_good(folder, load, before)
    if found is None and passed_over:
        raise CheckpointError("no checkpoint can be read:\n" + "\n".join(passed_over))
    return found, passed_over


def newest_record(folder: Path) -> tuple[Record | None, list[str]]:
    """Read the record of the newest checkpoint whose header can be read, and none of its tensors.

    Returns:
        The record (None if there is none) and why newer ones were passed over.
    """

    def read(path: Path) -> Record:
        try:
            header = tensor_file.read_header(path)
            tensor_file.require_format(path, header, FORMAT)
            return _record(path, header.get("record"))
        except CheckpointError as error:
            raise CheckpointError(f"{path} is not readable ({error})") from None

    return _first_good(folder, read)


def _first_good(
    folder: Path, read: Callable[[Path], T], before: int | None = None
) -> tuple[T | None, list[str]]:
    """Return what is read of the newest checkpoint that can be read, and why newer ones cannot."""
    passed_over: list[str] = []
    for path in reversed(paths(folder)):
        if before is not None and int(path.stem) >= before:
            continue
        try:
            return read(path), passed_over
        except NewerVersionError:
            raise
        except CheckpointError as error:
            passed_over.append(str(error))
    return None, passed_over


def _record(path: Path, tree: object) -> Record:
    """Return the record that a file holds as plain data; a CheckpointError if that is something else."""
    try:
        return Record(**tree if isinstance(tree, dict) else {})
    except ValidationError as error:
        why = explain(error).splitlines()[0]
        raise CheckpointError(f"{path} holds another record than a checkpoint's ({why})") from None

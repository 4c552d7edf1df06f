"""The averaged generator that a checkpoint of a run holds, as what a weight file has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from progan.errors import CheckpointError
from progan.system import tensor_file

CHECKPOINT_FORMAT = "progan-checkpoint-1"
GENERATOR_FILE = "generator.safetensors"
"""Of a run: the averaged generator of its newest checkpoint; beside the folder of checkpoints."""
PART = "G_ema/"
"""What the names of its tensors begin with."""


def is_checkpoint(header: dict[str, Any]) -> bool:
    """Tell whether the header of a file says that it is a checkpoint, of whatever version."""
    return str(header.get("format")).startswith(CHECKPOINT_FORMAT.rstrip("0123456789"))


def read_averaged(path: Path) -> tuple[tensor_file.Record, dict[str, Tensor]]:
    """Return the description of a checkpoint's averaged generator, and its weights.

    Args:
        path: The checkpoint. One that does not describe its generator itself, as older ones do not, is read
            with the help of the run's weight file.

    Raises:
        CheckpointError: if it is damaged, or nothing describes its generator.
    """
    record, tensors = tensor_file.read(path, CHECKPOINT_FORMAT)
    averaged = {name[len(PART) :]: value for name, value in tensors.items() if name.startswith(PART)}
    return {"network": "Generator", "config": averaged_config(path, {"record": record})}, averaged


def averaged_config(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the constructor of a checkpoint's generators.

    Args:
        path: The checkpoint.
        header: Its header.

    Raises:
        CheckpointError: if nothing tells them.
    """
    record = header["record"]
    described = record.get("generator")
    if described is None:
        beside = path.absolute().parent.parent / GENERATOR_FILE
        if not beside.is_file():
            raise CheckpointError(
                f"{path} does not say what its networks are: put it back into the folder of its run, beside "
                f"{GENERATOR_FILE}"
            )
        described = tensor_file.read_header(beside).get("record", {}).get("config")
    if not isinstance(described, dict):
        raise CheckpointError(f"{path} is damaged: it describes no generator")
    return {**described, **{name: record.get(name) for name in ("level", "alpha")}}

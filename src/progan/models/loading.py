"""A network out of its file, whichever of the two it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from progan.errors import CheckpointError
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.hub import locate
from progan.models.weights import Own, build, kind_of, read
from progan.system import tensor_file


def load(path: str | PathLike[str], device: str | torch.device = "cpu", *, own: Own = ()) -> Generator:
    """Load a generator; nothing else than the path is needed.

    Args:
        path: A weight file written by `save`; a run or its folder, or one of its checkpoints; a folder that
            `Generator.save_pretrained` wrote; or `user/name` on the Hugging Face hub.
            (`progan.find_generator` finds an earlier or the best one of a run.)
        device: Where the weights go.
        own: Classes of your own, if the generator is one of them, or Python files that define them, which
            are run.

    Returns:
        The generator (of a run or checkpoint: the averaged one), in evaluation mode.

    Raises:
        CheckpointError: if there is no such file or it is damaged, foreign or not a generator; or if it is
            of a class that is not given.
    """
    network = load_network(locate(path if isinstance(path, str) else Path(path)), device, own)
    if not isinstance(network, Generator):
        raise CheckpointError(f"{path} holds a {type(network).__name__}, not a Generator")
    return network


def load_network(path: Path, device: str | torch.device = "cpu", own: Own = ()) -> Generator | Discriminator:
    """Load the network of a weight file, in evaluation mode and in the device's fastest memory layout.

    It may be one of one's own, which is then among `own`.

    Raises:
        CheckpointError: if the file is damaged, foreign, or of another format.
    """
    record, tensors = read(path)
    return build_network(record, tensors, path, own).place(device)


def build_network(
    record: tensor_file.Record,
    tensors: dict[str, Tensor],
    path: Path,
    own: Own = (),
) -> Generator | Discriminator:
    """Make the network that a description names, on the CPU and in evaluation mode.

    Args:
        record: `network` (`Generator` or `Discriminator`) and `config` (the arguments of its constructor).
        tensors: The state dict.
        path: Where they come from; for messages alone.
        own: Networks of one's own.

    Raises:
        CheckpointError: if the description is none, or the weights do not fit it.
    """
    if kind_of(record, path) == "Generator":
        return build(Generator, record, tensors, path, own)
    return build(Discriminator, record, tensors, path, own)

"""Weight files that explain themselves: safetensors, with the network's description in the header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from progan.errors import CheckpointError
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import at_least_float32
from progan.models.network import Network
from progan.system import tensor_file
from progan.system.files import parse_json

FORMAT = "progan-weights-1"
GENERATOR_FILE = "generator.safetensors"
HUB_FILE = "model.safetensors"
KINDS: dict[str, type[Network]] = {"Generator": Generator, "Discriminator": Discriminator}


def save(network: Network, path: str | Path) -> None:
    """Write a network's float32 weights and description to one checksummed safetensors file, atomically.

    Args:
        network: A `Generator` or `Discriminator`.
        path: The file; its folder is made if missing.

    Raises:
        StorageError: if there is no space or no permission; an older file is then unharmed.
    """
    tensor_file.write(Path(path), FORMAT, describe(network), network.state_dict())


def describe(network: Network) -> tensor_file.Record:
    """Return the description of a network in a weight file, from which `build` makes it again."""
    return {"network": type(network).__name__, "config": network.config()}


def load(path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """Load a generator; nothing else than the path is needed.

    Args:
        path: A weight file written by `save`, a run folder, or a folder written by
            `Generator.save_pretrained`. (For a name on the hub, use `Generator.from_pretrained`.)
        device: Where the weights go.

    Returns:
        The generator (of a run: the averaged one), in evaluation mode.

    Raises:
        CheckpointError: if there is no such file or it is damaged, foreign or not a generator.
    """
    network = load_network(find_weights(Path(path)), device)
    if not isinstance(network, Generator):
        raise CheckpointError(f"{path} holds a {type(network).__name__}, not a Generator")
    return network


def find_weights(path: Path) -> Path:
    """Return the weight file that a path means: itself, or the one inside a run or hub folder.

    Raises:
        CheckpointError: if there is none.
    """
    candidates = [path] if path.is_file() else [path / GENERATOR_FILE, path / HUB_FILE]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise CheckpointError(
            f"{path} holds no {GENERATOR_FILE} (a run writes it with its first checkpoint) and no {HUB_FILE}"
        )
    raise CheckpointError(f"{path}: no such file or folder")


def download(name: str, **options: Any) -> Path:
    """Fetch weights and description from the Hugging Face hub.

    Args:
        name: On the hub: `user/name`.
        options: As in `huggingface_hub.snapshot_download`.

    Returns:
        The folder that holds them, in the hub's cache.

    Raises:
        CheckpointError: if there is no such name or the hub cannot be reached.
    """
    files = ["config.json", GENERATOR_FILE, HUB_FILE]
    try:
        return Path(snapshot_download(name, allow_patterns=files, **options))
    except Exception as error:  # their kinds depend on the version of huggingface_hub
        raise CheckpointError(
            f"{name}: no such file or folder, and it cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def load_network(path: Path, device: str | torch.device = "cpu") -> Network:
    """Load the network of a weight file, in evaluation mode and in the device's fastest memory layout.

    Raises:
        CheckpointError: if the file is damaged, foreign, or of another format.
    """
    record, tensors = _read(path)
    return build(record, tensors, path).place(device)


def build(record: tensor_file.Record, tensors: dict[str, Tensor], path: Path) -> Network:
    """Make a network, on the CPU and in evaluation mode, of a description and its weights.

    Args:
        record: `network` (a key of `KINDS`) and `config` (the arguments of its constructor).
        tensors: The state dict.
        path: Where they come from; for messages alone.

    Raises:
        CheckpointError: if the description is none, or the weights do not fit it.
    """
    kind, config = record.get("network"), record.get("config")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(config, dict):
        raise CheckpointError(f"{path} is no progan weight file (it describes no network)")
    try:
        with torch.device("meta"):
            network = KINDS[kind](**config)
        # Half-precision files of others become the float32 that this library computes with.
        floats = {name: at_least_float32(value) for name, value in tensors.items()}
        network.load_state_dict(floats, assign=True)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: the weights do not fit their description ({error})") from None
    return network.requires_grad_(False).eval()


def kind_of(config: object) -> str:
    """Return which network a bare description is of, told by an option that only one of them has."""
    return "Discriminator" if isinstance(config, dict) and "stddev_group" in config else "Generator"


def _read(path: Path) -> tuple[tensor_file.Record, dict[str, Tensor]]:
    """Read one of our files, or the model.safetensors of a hub folder with the config.json beside it."""
    beside, header = path.with_name("config.json"), tensor_file.read_header(path)
    if str(header.get("format")).startswith("progan-checkpoint"):
        raise CheckpointError(f"{path} is a checkpoint of a run; give the run folder, {path.parent.parent}")
    if path.name != HUB_FILE or not beside.is_file() or header:
        return tensor_file.read(path, FORMAT)
    try:
        config = parse_json(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{beside} cannot be read ({error})") from None
    return {"network": kind_of(config), "config": config}, tensor_file.read_tensors(path)

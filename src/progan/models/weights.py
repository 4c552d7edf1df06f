"""Weight files that explain themselves: safetensors, with the network's description in the header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from progan.config import read_plugins
from progan.errors import CheckpointError, shown
from progan.models.autograd import at_least_float32
from progan.models.averaged import GENERATOR_FILE, is_checkpoint, read_averaged
from progan.models.network import Network
from progan.system import tensor_file
from progan.system.files import parse_json

FORMAT = "progan-weights-1"
HUB_FILE = "model.safetensors"

RECORD = "parts.json"
"""In a run folder: which files define the parts of one's own that the run uses, and their hashes."""

NetworkT = TypeVar("NetworkT", bound=Network)
Own: TypeAlias = Sequence[type[Network] | str | Path]
"""Networks of one's own: classes, or Python files that define them, which are run."""


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
    """Return the description of a network in a weight file, from which it is made again."""
    named = {"own": network.name} if network.is_own else {}
    return {"network": network.kind, "config": {**network.config(), **named}}


def fingerprint(network: Network) -> str:
    """Return a name of a network's weights, from which none of their numbers can be told: SHA-256 of all."""
    return tensor_file.digest(None, {name: value.cpu() for name, value in network.state_dict().items()})


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


def build(
    network: type[NetworkT],
    record: tensor_file.Record,
    tensors: dict[str, Tensor],
    path: Path,
    own: Own = (),
) -> NetworkT:
    """Make a network, on the CPU and in evaluation mode, of its description and its weights.

    Args:
        network: Its kind.
        record: `config` holds the arguments of its constructor.
        tensors: The state dict.
        path: Where they come from; for messages alone.
        own: Networks of one's own, one of which the description may name.

    Raises:
        CheckpointError: if the description is none, or the weights do not fit it.
        ConfigError: if a file of `own` cannot be run.
    """
    _require_flat(record["config"], path)
    config = dict(record["config"])
    kind = _own_class(network, config.pop("own", None), own, path)
    try:
        with torch.device("meta"):
            made = kind(**config)
        # Half-precision files of others become the float32 that this library computes with.
        floats = {name: at_least_float32(value) for name, value in tensors.items()}
        made.load_state_dict(floats, assign=True)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        told = "" if kind is network else f"; is {kind.__qualname__} still the class that it was?"
        raise CheckpointError(f"{path}: the weights do not fit their description ({error}){told}") from None
    return made.requires_grad_(False).eval()


def _own_class(network: type[NetworkT], name: object, own: Own, path: Path) -> type[NetworkT]:
    """Return the class that a description names; the shipped one where it names none."""
    if name is None:
        return network
    classes = [each for each in own if isinstance(each, type)]
    classes += [
        part
        for part in read_plugins([each for each in own if not isinstance(each, type)]).own
        if issubclass(part, Network)
    ]
    for each in classes:
        if each.name == name and issubclass(each, network):
            return each
    given = f", and not {', '.join(each.name for each in classes)}" if classes else ""
    told, file = _defined_in(path, name)
    raise CheckpointError(
        f"{path} holds a {network.__name__.lower()} of somebody's own, {shown(name)}{given}{told}: give "
        f"--plugin {file} (in Python, own=[...] with the file or the class); a plugin is run"
    )


def _defined_in(path: Path, name: object) -> tuple[str, str]:
    """Return where a network was defined, as far as its run wrote that down: in words, and as a file."""
    for folder in (path.absolute().parent, path.absolute().parent.parent):
        try:
            record: Any = parse_json((folder / RECORD).read_text(encoding="utf-8"))
            found = next(one for one in record["parts"] if one["name"] == name)
            file, sha256 = shown(found["defined_in"], 400), shown(found["sha256"])
        except (OSError, ValueError, TypeError, KeyError, StopIteration):
            continue
        if found["sha256"] is None:
            return f", defined in {file}", "the file that defines it"
        return f", defined in {file} (sha256 {sha256})", file
    return "", "the file that defines it"


def _require_flat(config: dict[str, object], path: Path) -> None:
    """Refuse a description that is nested: it may contain itself, and whoever walks it never ends."""
    for name, value in config.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(part is None or isinstance(part, str | int | float) for part in parts):
            raise CheckpointError(
                f"{path}: the weights do not fit their description ({shown(name)} is {shown(value)}; "
                f"expected a number, a text or a list of these)"
            )


def kind_of(record: tensor_file.Record, path: Path) -> str:
    """Return which network a file describes: `Generator` or `Discriminator`.

    Args:
        record: What the file says, from `read`.
        path: The file; for the message alone.

    Raises:
        CheckpointError: if it describes neither.
    """
    kind = record.get("network")
    if kind in ("Generator", "Discriminator") and isinstance(record.get("config"), dict):
        return str(kind)
    raise CheckpointError(f"{path} is no progan weight file (it describes no network)")


def kind_of_config(config: object) -> str:
    """Return which network a bare description is of, told by an option that only one of them has."""
    return "Discriminator" if isinstance(config, dict) and "stddev_group" in config else "Generator"


def read(path: Path) -> tuple[tensor_file.Record, dict[str, Tensor]]:
    """Return what a file says of its network, and its tensors.

    A folder of the hub has the description in config.json; of a checkpoint it is the averaged generator.

    Raises:
        CheckpointError: if it is damaged, foreign, or of another format.
    """
    beside, header = path.with_name("config.json"), tensor_file.read_header(path)
    if is_checkpoint(header):
        return read_averaged(path)
    if path.name != HUB_FILE or not beside.is_file() or header:
        return tensor_file.read(path, FORMAT)
    try:
        config = parse_json(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{beside} cannot be read ({error})") from None
    return {"network": kind_of_config(config), "config": config}, tensor_file.read_tensors(path)

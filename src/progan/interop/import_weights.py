"""Weights of others as networks: pickles of the original TensorFlow code, and state dicts of PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from progan.errors import CheckpointError, ConfigError
from progan.interop import tensorflow
from progan.interop.numpy_pickle import NAMES, NUMPY
from progan.interop.safe_pickle import Machine, Refused
from progan.interop.torch_files import is_torch_file, read_torch
from progan.models.loading import build_network
from progan.models.network import Network
from progan.models.weights import kind_of_config
from progan.system import tensor_file
from progan.system.files import parse_json

Which = Literal["Gs", "G", "D"]
TRIPLE = ("G", "D", "Gs")
"""What the original training saves, in this order; Gs is the averaged generator."""
TENSORS_KEYS = ("state_dict", "weights")


def import_weights(
    path: str | Path, network: Which | None = None, *, like: str | Path | None = None
) -> Network:
    """Read weights of others; nothing that a file names is imported or run.

    Args:
        path: A pickle of the original TensorFlow code: (G, D, Gs), or one of them. Or what `torch.save`
            wrote: a dict with `config` (the arguments of `progan.Generator` or `Discriminator`) and
            `state_dict`, or a state dict of one of them alone.
        network: Which of three to take; None for Gs. Of one network, it is only checked.
        like: What a state dict alone is: a weight file, or a `config.json` of `save_pretrained`.

    Returns:
        The network, on the CPU, in evaluation mode and without gradients; `progan.save` writes it.

    Raises:
        CheckpointError: if the file cannot be read, asks for anything but numbers, or holds something else.
        ConfigError: if `like` is needed and missing, or given and not needed.
    """
    path = Path(path)
    try:
        if is_torch_file(path):
            record, tensors = _from_torch(path, None if like is None else Path(like))
        else:
            _refuse_known(path)
            if like is not None:
                raise ConfigError(f"{path} describes its networks itself: leave out --like")
            record, tensors = _from_pickle(path, network or "Gs")
    except Refused as error:
        raise CheckpointError(f"{path} is not imported: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    bad = next((name for name, value in tensors.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise CheckpointError(f"{path} is not imported: {bad} holds values that are not finite")
    made = build_network(record, tensors, path).place("cpu")
    if network is not None and type(made).__name__[0] != network[0]:
        raise CheckpointError(f"{path} holds a {type(made).__name__}; {network} is something else")
    return made


def _refuse_known(path: Path) -> None:
    """Refuse what is a file of another kind, saying what to do with it."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start[8:9] == b"{":
        raise Refused("it is a safetensors file; `progan generate` and `progan info` read those of progan")
    if b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." in start:
        raise Refused("it was written by PyTorch before 1.6; load it there and save it with a newer one")


def _from_pickle(path: Path, which: Which) -> tuple[tensor_file.Record, dict[str, Tensor]]:
    """Read a pickle of the original code."""
    machine = Machine(path.read_bytes(), NUMPY, names=NAMES, instances=tensorflow.CLASSES)
    found = machine.run()
    if isinstance(found, tuple | list) and len(found) == len(TRIPLE):
        found = found[TRIPLE.index(which)]
    return tensorflow.convert(found)


def _from_torch(path: Path, like: Path | None) -> tuple[tensor_file.Record, dict[str, Tensor]]:
    """Read a state dict, described by the file itself or by `like`."""
    found = read_torch(path)
    if not isinstance(found, dict):
        raise Refused("it holds no state dict; write one with torch.save(network.state_dict(), path)")
    weights = next((found[key] for key in TENSORS_KEYS if isinstance(found.get(key), dict)), None)
    config = found.get("config")
    if weights is None or not isinstance(config, dict):
        weights, config = found, None
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise Refused("it holds no state dict: there are other things than tensors in it")
    if config is not None and like is not None:
        raise ConfigError(f"{path} describes its network itself: leave out --like")
    if config is not None:
        record: tensor_file.Record = {"network": kind_of_config(config), "config": _plain(config)}
    elif like is not None:
        record = _description(like)
    else:
        raise ConfigError(
            f"{path} holds weights, but not the network they are of: give --like, a weight file or "
            f"config.json of the same architecture; or save {{'config': G.config(), 'state_dict': "
            f"G.state_dict()}} instead"
        )
    return record, {
        name: value.float() if value.is_floating_point() else value for name, value in weights.items()
    }


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Refuse a description that is not flat, before anybody writes it out: it may contain itself."""
    for value in config.values():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(part is None or isinstance(part, str | int | float) for part in parts):
            raise Refused("its config has other entries than numbers, text and lists of these")
    return config


def _description(like: Path) -> tensor_file.Record:
    """Return what a weight file, or the config.json of a hub folder, says of its network."""
    if like.suffix.lower() != ".json":
        record = tensor_file.read_header(like).get("record")
        if not isinstance(record, dict):
            raise CheckpointError(f"{like} describes no network")
        return record
    try:
        config = parse_json(like.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{like} cannot be read ({error})") from None
    return {"network": kind_of_config(config), "config": config}

"""State dicts of progan's own networks that `torch.save` wrote, with their description or without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from progan.errors import CheckpointError, ConfigError
from progan.interop.systems.layers import Foreign, Network, State
from progan.models.weights import kind_of_config
from progan.system import tensor_file
from progan.system.files import parse_json
from progan.system.safe_pickle import Refused

TENSORS_KEYS = ("state_dict", "weights")
NAMES = ({"to_rgb.0.weight", "dense.weight"}, {"from_rgb.0.weight", "dense0.weight"})


def matches(found: object) -> bool:
    """Tell whether an unpickled object is a state dict of ours, bare or beside its `config`."""
    if not isinstance(found, dict):
        return False
    return _weights(found) is not None or any(names <= found.keys() for names in NAMES)


def _weights(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the state dict that is beside a description."""
    if not isinstance(found.get("config"), dict):
        return None
    return next((found[key] for key in TENSORS_KEYS if isinstance(found.get(key), dict)), None)


class Checkpoint(Foreign):
    """A state dict.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
        path: Where it lies; for messages.
        like: What a state dict without a description is of: a weight file, or a `config.json`.

    Raises:
        ConfigError: if `like` is needed and missing, or given and not needed.
        CheckpointError: if it describes no network.
    """

    def __init__(self, found: Mapping[str, Any], budget: int, path: Path, like: Path | None) -> None:
        weights = _weights(found)
        if weights is not None and like is not None:
            raise ConfigError(f"{path} describes its network itself: leave out --like")
        if weights is None and like is None:
            raise ConfigError(
                f"{path} holds weights, but not the network they are of: give --like, a weight file or "
                f"config.json of the same architecture; or save {{'config': G.config(), 'state_dict': "
                f"G.state_dict()}} instead"
            )
        self._given, self._budget, self._described = (
            found if weights is None else weights,
            budget,
            like is None,
        )
        if like is None:
            self._record: tensor_file.Record = {
                "network": kind_of_config(found["config"]),
                "config": _plain(found["config"]),
            }
        else:
            self._record = _description(like)
        self.names = [str(self._record.get("network"))[:1]]

    def describe(self) -> str:
        """Return what it is, in words."""
        return f"a state dict of progan {'with' if self._described else 'without'} its description"

    def network(self, _: str) -> Network:
        """Return the network, as it is."""
        return Network(self._record, State(self._given, self._budget).rest())


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

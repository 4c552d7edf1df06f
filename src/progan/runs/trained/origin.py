"""Trained networks that a new run begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.config import Config, format_resolution, make_config, merge
from progan.errors import CheckpointError, ConfigError
from progan.interop.import_weights import import_all
from progan.interop.systems import varabei
from progan.models import weights
from progan.models.averaged import GENERATOR_FILE, averaged_config, is_checkpoint
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.hub import is_hub_name, locate
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.runs.trained.transfer import Transfer, transfer
from progan.system import tensor_file
from progan.training.optimizer import level_of
from progan.training.spec import ImageSpec
from progan.training.state import TrainState, build_networks, frozen

Part = tuple[dict[str, Any], dict[str, Tensor]]
"""Arguments of a network's constructor, and its state dict."""
SHOWN = 12
"""Layers that are named one by one as new."""


@dataclass(frozen=True)
class Origin:
    """What was read.

    Attributes:
        file: The file.
        sha256: Of its contents.
        parts: `G`, `D` and `G_ema`, as far as it has them.
        model: Options of the networks, as a tree of the configuration.
        images_seen: How many images its run had seen; None if it does not say.
        told: What the file of another system is, and what was assumed of it.
    """

    file: Path
    sha256: str
    parts: dict[str, Part]
    model: dict[str, Any]
    images_seen: int | None
    told: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of the constructor of whichever network is there."""
        return next(iter(self.parts.values()))[0]


def read_origin(source: str | Path) -> Origin:
    """Read the networks of a run (its newest checkpoint), checkpoint, weight file or name on the hub.

    A weight file may be of another system: then what it has of G, D and the average is taken.

    Raises:
        CheckpointError: if there are none.
    """
    if _is_of_others(source):
        return _read_others(Path(source))
    file = _file(source)
    header = tensor_file.read_header(file)
    sha256 = str(header.get("sha256") or "")
    if is_checkpoint(header):
        record, tensors = checkpoint.load(file)
        config, options = averaged_config(file, header), record.config["model"]
        kept = {name: value for name, value in config.items() if name in _SHARED and name != "depth"}
        of_d = {**options["discriminator"], **kept, "conditioning": options.get("conditioning")}
        parts = {
            name: (of_d if name == "D" else config, _part(tensors, name)) for name in ("G", "D", "G_ema")
        }
        model = {name: options[name] for name in ("generator", "discriminator")}
        return Origin(file, sha256, parts, model, record.images_seen)
    found, tensors = weights.read(file)
    kind, config = weights.kind_of(found, file), found["config"]
    name, branch = ("G", "generator") if kind == "Generator" else ("D", "discriminator")
    seen = found.get("images_seen")
    return Origin(file, sha256, {name: (config, tensors)}, {branch: _options(config)}, seen)


def _is_of_others(source: str | Path) -> bool:
    """Tell whether a source is a file, or a folder of arrays, and none of progan's."""
    path = Path(source)
    if path.is_dir():
        return not RunFolder(path).exists() and varabei.matches(path)
    return path.is_file() and not tensor_file.is_tensor_file(path)


def _read_others(path: Path) -> Origin:
    """Read the networks of another system."""
    found, told = import_all(path)
    names = {"Gs": "G_ema", "G": "G", "D": "D"}
    parts: dict[str, Part] = {names[name]: (made.config(), made.state_dict()) for name, made in found.items()}
    model = {
        "discriminator" if name == "D" else "generator": _options(config)
        for name, (config, _) in parts.items()
    }
    everything = {
        f"{name}/{key}": value for name, (_, state) in parts.items() for key, value in state.items()
    }
    return Origin(path, tensor_file.digest(None, everything), parts, model, None, tuple(told))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options among the arguments of a network's constructor."""
    return {key: value for key, value in config.items() if key not in (*_SHARED, "conditioning")}


_SHARED = (
    "channels", "base_shape", "max_level", "label_size", "label_form", "label_names", "growth", "level",
    "alpha", "depth",
)  # fmt: skip


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _file(source: str | Path) -> Path:
    folder = RunFolder(source)
    if not folder.exists():
        return locate(source)
    states = checkpoint.paths(folder.checkpoints)
    if states:
        return states[-1]
    if not (folder.path / GENERATOR_FILE).is_file():
        raise CheckpointError(f"{source} has trained nothing yet that a run could begin with")
    return folder.path / GENERATOR_FILE


@dataclass(frozen=True)
class Beginning:
    """A configuration that has been read together with the source that it names.

    Attributes:
        config: With the options of the source's networks, unless others were given.
        origin: What was read; None if there is no source, or the run is begun already and knows it.
        start_given: Whether `schedule.start_level` was given.
    """

    config: Config
    origin: Origin | None
    start_given: bool

    def filled(self, config: Config, image: ImageSpec) -> Config:
        """Return a resolved configuration with what the source decides."""
        if self.origin is None:
            return config
        return filled(config, image, self.origin, start_given=self.start_given)


Load = Callable[[dict[str, Any]], Config]
"""Reads a configuration again, over options `generator` and `discriminator` of its networks."""


def beginning(config: Config, folder: RunFolder, load: Load) -> Beginning:
    """Read the source that a configuration names, unless the run is begun and does not need it any more.

    Args:
        config: As it was read.
        folder: Of the run.
        load: Reads it again, laid over options of networks.

    Raises:
        CheckpointError: if the source cannot be read.
    """
    start_given = "start_level" in config.schedule.model_fields_set
    config = _named(config)
    source = config.init.source
    if source is None:
        return Beginning(config, None, start_given)
    old = folder.config() if folder.exists() else None
    if old is not None and old.init.source == source:
        return Beginning(_as_before(old, _named(load(_networks(old))), start_given), None, start_given)
    origin = read_origin(source)
    if old is not None and old.init.sha256 == origin.sha256:  # it has been moved
        return Beginning(_as_before(old, _named(load(_networks(old))), start_given), None, start_given)
    return Beginning(_named(load(origin.model)), origin, start_given)


def _networks(config: Config) -> dict[str, Any]:
    return config.model.model_dump(mode="json", include={"generator", "discriminator"})


def _as_before(old: Config, config: Config, start_given: bool) -> Config:
    """Fill in what the source decided when the run was begun."""
    init = config.init.model_copy(
        update={name: getattr(old.init, name) for name in ("sha256", "level", "new")}
    )
    schedule = config.schedule
    if not start_given:
        start = {name: getattr(old.schedule, name) for name in ("start_level", "start_alpha")}
        schedule = schedule.model_copy(update=start)
    return config.model_copy(update={"init": init, "schedule": schedule})


def _named(config: Config) -> Config:
    """Name the source by its whole path, so that a run can go on from another folder."""
    source = config.init.source
    if source is None or is_hub_name(source):
        return config
    init = config.init.model_copy(update={"source": str(Path(source).resolve())})
    return config.model_copy(update={"init": init})


def filled(config: Config, image: ImageSpec, origin: Origin, *, start_given: bool) -> Config:
    """Fill in what the source decides: its hash, its level, where training begins, and what is new.

    Training begins in the phase that the source had reached: a level that was coming in goes on doing so; one
    above the source's last comes in; otherwise the source's own level is stabilised.

    Args:
        config: Resolved but for that.
        image: Shapes of the new networks.
        origin: The source.
        start_given: Whether `schedule.start_level` was given, and so stays.

    Raises:
        ConfigError: if nothing would be trained.
    """
    there = origin.config
    level, alpha, top = int(there["level"]), float(there["alpha"]), int(there["max_level"])
    known = min(level, image.max_level)
    schedule: dict[str, Any] = {}
    if not start_given and config.schedule.growth != "none":
        if level <= image.max_level and alpha < 1:
            schedule = {"start_level": level, "start_alpha": alpha}
        elif level == top and level < image.max_level:
            schedule = {"start_level": level + 1, "start_alpha": 0.0}
        else:
            schedule = {"start_level": known}
    with torch.device("meta"):
        G, D = build_networks(config, image)
    pairs: list[tuple[str, Generator | Discriminator]] = [("G", G), ("D", D)]
    new = [
        f"{name}.{done.name}"
        for name, network in pairs
        for done in _moved(network, origin, name, config)
        if done.why and level_of(done.name) <= known
    ]
    init = {"sha256": origin.sha256, "level": known, "new": new}
    tree = merge(config.model_dump(mode="json"), {"schedule": schedule, "init": init})
    whole = make_config(tree, parts=config.parts)
    if whole.init.freeze_g and not {name for name, _ in G.named_parameters()} - frozen(whole, G):
        raise ConfigError("init.freeze_g leaves nothing of G to train: all of it comes from the source")
    return whole


def begin_with(state: TrainState, config: Config) -> list[str]:
    """Put the networks of the source into a state before its first update.

    Args:
        state: Changed in place.
        config: Filled in.

    Returns:
        What was taken and what is new, in words.

    Raises:
        CheckpointError: if the source is not what it was when the run was begun.
    """
    init = config.init
    assert init.source is not None
    origin = read_origin(init.source)
    if origin.sha256 != init.sha256:
        raise CheckpointError(
            f"{origin.file} is not what this run was begun with (another checksum), and it has no checkpoint "
            f"yet: begin anew with another --out"
        )
    told = [*origin.told, _heading(origin)]
    for name, network in (("G", state.G), ("D", state.D), ("G_ema", state.G_ema)):
        done = _moved(network, origin, name, config)
        taken = sum(not each.why for each in done)
        told.append(f"  {name}: {taken} of {len(done)} parameters")
        if name != "G_ema":
            told += _new_ones(done)
    state.set_growth(init.level or 0, 1.0)
    return told


def _moved(network: Any, origin: Origin, name: str, config: Config) -> list[Transfer]:
    """Transfer what a source has for a network: for G and its average, either."""
    order = {"G": ("G", "G_ema"), "G_ema": ("G_ema", "G"), "D": ("D",)}[name]
    found = next((origin.parts[part] for part in order if part in origin.parts), None)
    if found is None:
        return [Transfer(each, "the source has none") for each, _ in network.named_parameters()]
    return transfer(network, *found, labels="labels" not in config.init.skip)


def _heading(origin: Origin) -> str:
    there = origin.config
    height, width = (side << int(there["level"]) for side in there["base_shape"])
    seen = "" if origin.images_seen is None else f", after {origin.images_seen:,} images"
    return f"begins with {origin.file} ({format_resolution((height, width))}{seen}):"


def _new_ones(done: list[Transfer]) -> list[str]:
    """Name the layers that are new, by the reason; of many, the first."""
    reasons: dict[str, list[str]] = {}
    for each in done:
        if each.why:
            layers = reasons.setdefault(f"{'partly ' if each.partly else ''}new ({each.why})", [])
            layers += [layer for layer in [each.name.rpartition(".")[0] or each.name] if layer not in layers]
    return [
        f"    {reason}: {', '.join(layers[:SHOWN])}"
        + (f" and {len(layers) - SHOWN} more" if layers[SHOWN:] else "")
        for reason, layers in reasons.items()
    ]

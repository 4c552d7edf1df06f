"""What a folder or file of progan is, and how far it got, in words."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from progan.config import Config, format_resolution, level_resolution, parse_resolution, split_resolution
from progan.data.packed import PackedSet, is_packed
from progan.errors import CheckpointError, DataError, listed
from progan.generation.label_arguments import describe_labels
from progan.models.averaged import GENERATOR_FILE
from progan.models.hub import locate
from progan.models.loading import load_network
from progan.models.weights import HUB_FILE, Own
from progan.preparation.pictures import PICTURE_SUFFIXES
from progan.runs import checkpoint
from progan.runs.logs import read_stats
from progan.runs.run_folder import Dataset, RunFolder
from progan.runs.trained.kept_generators import kept
from progan.system.tensor_file import read_header
from progan.training.schedule import Schedule
from progan.training.spec import ImageSpec

Facts = dict[str, str]

_LOOKED_AT = 10_000
"""Entries of a folder that are looked at to say what it holds."""

_NAMED = 5


def describe(path: str | Path, own: Own = ()) -> Facts:
    """Return facts about a run folder, weight file, checkpoint or packed set, by name.

    Args:
        path: The folder or file.
        own: Networks of one's own, one of which it may be.

    Raises:
        ProganError: if the path is none of these or cannot be read.
    """
    path = Path(path)
    if path.is_dir() and RunFolder(path).exists():
        return _run(RunFolder(path), own)
    if path.is_dir() and is_packed(path):
        return _packed(PackedSet.open(path))
    if path.is_dir() and not any((path / name).is_file() for name in (GENERATOR_FILE, HUB_FILE)):
        raise CheckpointError(
            f"{path} is no run folder (it holds no config.yaml), no packed set (no manifest.json) and holds "
            f"no weight file ({GENERATOR_FILE} or {HUB_FILE}){_hint(path)}"
        )
    weights = locate(path)
    if read_header(weights).get("format") == checkpoint.FORMAT:
        return _checkpoint(weights, own)
    return _weights(weights, own)


def print_facts(console: Console, facts: Facts) -> None:
    """Print facts as two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table, markup=False, highlight=False)


def _run(folder: RunFolder, own: Own) -> Facts:
    config, dataset = folder.config(), folder.dataset()
    facts = {"kind": "run", "path": str(folder.path), "pictures": dataset.source}
    if (init := config.init).source is not None:
        facts["begun with"] = f"{init.source}, level {init.level}, sha256 {(init.sha256 or '')[:16]}"
        if init.new:
            facts["new beside it"] = listed(list(init.new), 8)
        if left := [f"the first {init.freeze_d} levels of D"] * bool(init.freeze_d) + ["G"] * init.freeze_g:
            facts["not trained of it"] = " and ".join(left)
    record, damaged = checkpoint.newest_record(folder.checkpoints)
    if damaged:
        facts["damaged"] = "; ".join(damaged)
    if record is None:
        return {**facts, "progress": "no checkpoint can be read" if damaged else "no checkpoint yet"}
    facts["progress"] = _progress(config, dataset, record)
    facts |= _losses(folder)
    facts["trained with"] = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    if earlier := kept(folder):
        clocks = f"{earlier[0].images_seen:,} to {earlier[-1].images_seen:,} images (--kimg)"
        facts["kept generators"] = f"{len(earlier)}, after {clocks}"
    return facts | _generator(folder.generator_file, own)


def _generator(path: Path, own: Own) -> Facts:
    """Return facts about the generator of a run or checkpoint."""
    try:
        found = _weights(path, own)
    except CheckpointError as error:
        return {"generator": str(error)}
    return {f"generator {name}": value for name, value in found.items() if name != "path"}


def _losses(folder: RunFolder) -> Facts:
    """Return the losses of the newest log point, as far as it has them."""
    try:
        stats = read_stats(folder.stats_file)
    except DataError as error:
        return {"damaged log": str(error)}
    last = {name: stats[-1].get(f"{name}/loss") for name in ("D", "G")} if stats else {}
    told = [f"{name} {value:.3f}" for name, value in last.items() if isinstance(value, int | float)]
    return {"last losses": ", ".join(told)} if told else {}


def _progress(config: Config, dataset: Dataset, record: checkpoint.Record) -> str:
    """Say how far a run got, and of how much."""
    try:
        epochs = config.schedule.stabilise_epochs or config.schedule.fade_epochs
        pictures = len(PackedSet.open(dataset.packed).indices(config.data.part)) if epochs else 0
    except DataError as error:
        return f"{_grown(record)}; how much there is cannot be told: {error}"
    # The configuration of a run is resolved, so the resolution is never missing.
    resolution = parse_resolution(config.data.resolution or "")
    shape, max_level = split_resolution(resolution, config.model.base_shape)
    schedule = Schedule(config, max_level, pictures)
    point = schedule.at(record.images_seen)
    size = format_resolution(level_resolution(shape, point.level))
    where = f"{point.phase.kind} {point.alpha:.2f}" if point.growing else point.phase.kind
    done = min(record.images_seen, schedule.total)
    # Rounded down, so that 100% is the end; the last batch may go beyond it.
    return (
        f"{record.images_seen:,} of {schedule.total:,} images ({100 * done // max(schedule.total, 1)}%), "
        f"phase {point.phase.index + 1} of {len(schedule.phases)}: {size} {where}"
        + ("; complete" if done == schedule.total else "")
    )


def _grown(record: checkpoint.Record) -> str:
    return f"{record.images_seen:,} images, level {record.level}, alpha {record.alpha:.2f}"


def _hint(path: Path) -> str:
    """Say what a folder is or holds instead of what was looked for, as the rest of a message."""
    path = path if path.name not in ("", "..") else path.resolve()  # `.` does not know its parent
    if RunFolder(path.parent).exists():
        return f"; it is the {path.name} folder of the run {path.parent}: give the run"
    entries = [entry for entry in _entries(path) if os.access(entry, os.X_OK) or not entry.is_dir()]
    for names, what in (
        ([entry.name for entry in entries if RunFolder(entry).exists()], "run"),
        ([entry.name for entry in entries if is_packed(entry)], "packed set"),
        ([entry.name for entry in entries if entry.suffix == ".safetensors"], "safetensors file"),
    ):
        if names:
            return f"; it holds {_count(names, what)}: give one of them"
    below = itertools.chain.from_iterable(map(_entries, entries))
    if any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in itertools.chain(entries, below)):
        return "; it holds pictures: `progan prepare` packs them, `progan train` learns from them"
    return ""


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder, up to a limit; nothing if it is none or cannot be read."""
    with contextlib.suppress(OSError):
        yield from itertools.islice(folder.iterdir(), _LOOKED_AT)


def _count(names: Iterable[str], what: str) -> str:
    """Return `2 runs (a, b)`; of many, the first few."""
    names = sorted(names)
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({', '.join(names[:_NAMED])}{more})"


def _weights(path: Path, own: Own) -> Facts:
    network = load_network(path, own=own)
    config = network.config()
    level, alpha = config["level"], config["alpha"]
    size = format_resolution(network.resolution())
    facts = {
        "kind": type(network).__name__,
        "path": str(path),
        "images": f"{size}, {network.channels} channels (level {level} of {network.max_level})",
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
    }
    if alpha < 1:
        facts["coming in"] = f"alpha {alpha:.2f}"
    if network.label_size:
        facts["labels"] = describe_labels(network.label_form, network.label_names, network.label_size)
    known = {field.name for field in fields(ImageSpec)} | {"label_size", "level", "alpha"}
    facts["options"] = ", ".join(f"{k} {v}" for k, v in config.items() if k not in known)
    return facts


def _checkpoint(path: Path, own: Own) -> Facts:
    record, tensors = checkpoint.load(path)
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "progress": _grown(record),
        "tensors": f"{len(tensors)}, {sum(t.nbytes for t in tensors.values()):,} bytes, checksum right",
        "versions": json.dumps(record.versions),
    }
    return facts | _generator(path, own)


def _packed(packed: PackedSet) -> Facts:
    sizes = ", ".join(format_resolution(packed.resolution(i)) for i in range(packed.max_level + 1))
    splits = {name: len(packed.indices(name)) for name in ("train", "validation", "test")}
    facts = {
        "kind": "packed set",
        "path": str(packed.path),
        "pictures": f"{packed.count:,} (" + ", ".join(f"{v:,} {k}" for k, v in splits.items() if v) + ")",
        "levels": sizes,
        "channels": str(packed.channels),
        "fingerprint": packed.fingerprint,
    }
    if packed.label_size:
        facts["labels"] = describe_labels(packed.label_form, packed.label_names, packed.label_size)
    return facts

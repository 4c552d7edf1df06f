"""The generators of a run, from its beginning to its end: which there are, which is meant, which is best."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.config import parse_resolution
from progan.errors import CheckpointError, ConfigError, DataError, command
from progan.evaluation.results import FILE, read_results
from progan.models import weights
from progan.models.generator import Generator
from progan.runs import checkpoint
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder
from progan.system import tensor_file
from progan.system.files import storage_errors

Kimg = float | str
"""Thousands of images, or `best`."""
BEST = "best"
HIGHER_IS_BETTER = ("is", "pr")
"""Metrics of which the largest number is best; of the others it is the smallest."""


@dataclass(frozen=True)
class Kept:
    """A generator of a run.

    Attributes:
        file: Where it is: a weight file, or a checkpoint.
        images_seen: How many images the run had seen.
    """

    file: Path
    images_seen: int


@dataclass(frozen=True)
class Found:
    """The generator that is meant.

    Attributes:
        file: What `progan.load` takes.
        images_seen: How many images its run had seen; None if it is of no run.
        run: The folder of its run, or None.
        told: What was decided for the user, in words; empty if nothing was.
    """

    file: Path
    images_seen: int | None = None
    run: RunFolder | None = None
    told: str = ""


def find_generator(place: str | Path, kimg: Kimg | None = None) -> Found:
    """Find out which generator is meant.

    Args:
        place: A run folder, weight file, checkpoint, hub folder or name on the hub.
        kimg: Of a run: the kept generator nearest to so many thousand images, or `best` by the metric of
            `run.best`. None for its newest.

    Raises:
        ConfigError: if `kimg` is given and means nothing here.
        CheckpointError: if the run has no generator yet.
    """
    path = Path(place)
    folder = RunFolder(path)
    if kimg is None:
        return _newest(folder) if folder.exists() else _file(path)
    found = _all(folder)
    if kimg == BEST:
        return _best(folder, found)
    wanted = round(_number(kimg) * 1000)
    nearest = min(found, key=lambda each: (abs(each.images_seen - wanted), each.images_seen))
    told = "" if nearest.images_seen == wanted else f", the nearest that is kept to {wanted:,}"
    return _found(folder, nearest, f"the generator after {nearest.images_seen:,} images{told}")


def find_all(run: str | Path) -> list[Found]:
    """Return every generator of a run that is kept, oldest first.

    Raises:
        ConfigError: if that is no run folder.
        CheckpointError: if it has no generator yet.
    """
    folder = RunFolder(run)
    return [_found(folder, each) for each in _all(folder)]


def kept(folder: RunFolder) -> list[Kept]:
    """Return all generators of a run, oldest first; where a checkpoint has one too, it is taken from there.

    Raises:
        CheckpointError: if its folders cannot be read.
    """
    files = {int(path.stem): path for path in paths(folder.generators)}
    files |= {int(path.stem): path for path in checkpoint.paths(folder.checkpoints)}
    return [Kept(files[clock], clock) for clock in sorted(files)]


def paths(generators: Path) -> list[Path]:
    """Return the files of generators that are kept, oldest first; none if there is no such folder."""
    if not generators.is_dir():
        return []
    found = [path for path in generators.iterdir() if re.fullmatch(r"\d{9,12}\.safetensors", path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def measured(folder: RunFolder, name: str) -> dict[int, float]:
    """Return a number that was measured in a run, by images seen, as far as the values can be compared.

    That is: at one resolution, the highest, and with one definition and number of images: those of
    `progan evaluate` or of the log, whichever has more.

    Args:
        folder: The run.
        name: Of the number, such as `swd/mean`.
    """
    groups: dict[tuple[int, str], dict[int, float]] = {}
    for line in read_stats(folder.stats_file):
        value, height_width = line.get(name), str(line.get("resolution", "1x1"))
        if isinstance(value, int | float):
            groups.setdefault((_area(height_width), "log"), {})[int(line["images_seen"])] = float(value)
    for result in read_results(folder.path / FILE):
        seen, size = result.about.get("images", {}).get("images_seen"), result.images.get("resolution")
        if name in result.numbers and isinstance(seen, int) and isinstance(size, str):
            how = [result.version, result.definition, result.num_images, result.num_reals, result.seed]
            key = json.dumps([*how, result.images.get("label"), result.reals], sort_keys=True)
            groups.setdefault((_area(size), key), {})[seen] = result.numbers[name]
    if not groups:
        return {}
    return groups[max(groups, key=lambda key: (key[0], len(groups[key]), key[1] != "log"))]


def best(folder: RunFolder, among: Iterable[Kept], name: str) -> tuple[Kept, float] | None:
    """Return the best generator of a run by a number, and that number; None if none was measured."""
    values = measured(folder, name)
    candidates = [(each, values[each.images_seen]) for each in among if each.images_seen in values]
    sign = -1 if is_higher_better(name) else 1
    return min(candidates, key=lambda found: (sign * found[1], found[0].images_seen), default=None)


def is_higher_better(name: str) -> bool:
    """Tell whether the largest number of that name, such as `pr/recall`, is best."""
    return name.split("/")[0] in HIGHER_IS_BETTER


def _all(folder: RunFolder) -> list[Kept]:
    """Return what is kept, which is something."""
    if not folder.exists():
        raise ConfigError(f"{folder.path} is no run folder; only a run has several generators to choose from")
    found = kept(folder)
    if not found:
        raise CheckpointError(
            f"{folder.path} has no generator yet: its first checkpoint has not been written"
        )
    return found


def _newest(folder: RunFolder) -> Found:
    record, _ = checkpoint.newest_record(folder.checkpoints)
    return Found(folder.path, None if record is None else record.images_seen, folder)


def _file(path: Path) -> Found:
    """Return what is known of a file: in a run, its name says how many images had been seen."""
    folder = RunFolder(path.absolute().parent.parent)
    is_kept = path.parent.name in (folder.checkpoints.name, folder.generators.name)
    if is_kept and path.stem.isdigit() and folder.exists():
        return _found(folder, Kept(path, int(path.stem)))
    return Found(path)


def _found(folder: RunFolder, chosen: Kept, told: str = "") -> Found:
    return Found(chosen.file, chosen.images_seen, folder, told)


def _best(folder: RunFolder, found: list[Kept]) -> Found:
    """Return the best of a run by `run.best`.

    Raises:
        ConfigError: if nothing was measured.
    """
    name = folder.config().run.best
    chosen = best(folder, found, name)
    if chosen is None:
        raise ConfigError(
            f"{folder.path}: {name} (run.best) was measured of none of its {len(found)} kept generators; do "
            f"so with {command('evaluate', folder.path, '--all', '--metrics', name.split('/')[0])}"
        )
    told = f"the best by {name} ({chosen[1]:.4g}): the generator after {chosen[0].images_seen:,} images"
    return _found(folder, chosen[0], told)


def _number(kimg: Kimg) -> float:
    try:
        value = float(kimg)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise ConfigError(f"--kimg {kimg}: expected thousands of images, such as 500, or {BEST}")
    return value


def _area(resolution: str) -> int:
    """Return how many pixels a resolution has; 0 for what is none."""
    try:
        height, width = parse_resolution(resolution)
    except (ConfigError, DataError, ValueError):
        return 0
    return height * width


def halved(G: Generator) -> dict[str, Tensor]:
    """Return copies of a generator's weights in the CPU's memory, in 16 bits as far as those hold them."""
    state = {name: value.detach().to("cpu", copy=True) for name, value in G.state_dict().items()}
    halves = {name: value.half() for name, value in state.items()}
    whole = all(bool(torch.isfinite(value).all()) for value in halves.values())
    return halves if whole else state


def write_kept(folder: RunFolder, clock: int, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a generator that is kept: `generators/<images seen, 9 digits>.safetensors`."""
    record = {"network": "Generator", "config": config, "images_seen": clock}
    tensor_file.write(folder.generators / f"{clock:09d}.safetensors", weights.FORMAT, record, tensors)


def forget_later(folder: RunFolder, clock: int) -> None:
    """Remove generators of later clocks: training goes on from here, and may come to others."""
    for path in paths(folder.generators):
        if int(path.stem) > clock:
            with storage_errors(path):
                path.unlink(missing_ok=True)

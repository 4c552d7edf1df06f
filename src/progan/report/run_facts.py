"""Everything that a run folder says of itself, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from progan.config import Config, differing_keys, flatten, load_config
from progan.config.recipes import recipe_names
from progan.data.packed import read_manifest
from progan.errors import ConfigError, ProganError
from progan.evaluation.results import FILE, Result, read_results
from progan.runs import checkpoint
from progan.runs.divergence import Alarm
from progan.runs.logs import Stats, read_stats
from progan.runs.run_folder import RunFolder

_NOT_OF_A_RECIPE = ("data.", "run.", "monitor.")
"""Branches that say where and how a run was carried out; the others are compared with recipes."""


@dataclass(frozen=True)
class LevelCost:
    """What one level took.

    Attributes:
        resolution: Of its images.
        images: Shown.
        seconds: By the rates that were logged; interruptions are not in it.
    """

    resolution: str
    images: int
    seconds: float


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        name: Of its folder.
        folder: Where it is.
        config: Its options.
        stats: Log points, oldest first.
        grids: Sample grids by images seen, oldest first.
        reals: The grid of real pictures, or None.
        results: What `progan evaluate` wrote.
        alarms: Images seen, and what was wrong there.
        rollbacks: How often it went back.
    """

    name: str
    folder: RunFolder
    config: Config
    stats: Sequence[Stats]
    grids: Sequence[tuple[int, Path]]
    reals: Path | None
    results: Sequence[Result]
    alarms: Sequence[tuple[int, str]]
    rollbacks: int

    @property
    def images_seen(self) -> int:
        """Images seen at the newest log point."""
        return int(self.stats[-1]["images_seen"]) if self.stats else 0

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Return the log points that have a number: images seen, and the numbers."""
        points = [(int(line["images_seen"]), float(line[key])) for line in self.stats if key in line]
        return [clock for clock, _ in points], [value for _, value in points]

    def keys(self, pattern: str) -> list[str]:
        """Return the names of numbers that match a regular expression, in the order of their appearance."""
        found = {key: None for line in self.stats for key in line if re.fullmatch(pattern, key)}
        return list(found)

    def growths(self) -> list[tuple[int, str]]:
        """Return where each level but the first began to come in, and its resolution."""
        marks = []
        for before, after in pairwise(self.stats):
            if before["level"] != after["level"]:
                marks.append((int(before["images_seen"]), str(after["resolution"])))
        return marks

    def costs(self) -> list[LevelCost]:
        """Return what each level took."""
        found: dict[str, LevelCost] = {}
        clock = 0
        for line in self.stats:
            seen, rate, size = (
                int(line["images_seen"]),
                float(line["images_per_second"]),
                str(line["resolution"]),
            )
            known = found.get(size, LevelCost(size, 0, 0.0))
            took = (seen - clock) / rate if rate > 0 else 0.0
            found[size] = LevelCost(size, known.images + seen - clock, known.seconds + took)
            clock = seen
        return list(found.values())

    def recipe(self) -> tuple[str, list[tuple[str, Any, Any]]]:
        """Return the shipped recipe that is nearest, and the options that differ: name, there, here."""
        best: tuple[str, list[tuple[str, Any, Any]]] | None = None
        here = flatten(self.config.model_dump(mode="json"))
        for name in recipe_names():
            try:
                other = load_config(name)
            except (ConfigError, ValidationError):  # it asks for what only pictures decide
                continue
            there = flatten(other.model_dump(mode="json"))
            keys = [k for k in differing_keys(other, self.config) if not k.startswith(_NOT_OF_A_RECIPE)]
            found = [(key, there.get(key), here.get(key)) for key in keys]
            if best is None or len(found) < len(best[1]):
                best = (name, found)
        return best or ("", [])

    def source(self) -> str:
        """Say what it was trained on, without where that is on this machine."""
        try:
            dataset = self.folder.dataset()
            count = f"{read_manifest(Path(dataset.packed)).count:,} pictures of "
        except ProganError:
            return "pictures that are not there any more"
        name = dataset.source if dataset.source.startswith("builtin:") else Path(dataset.source).name
        return f"{count}{name}"


def describe_machine(facts: Mapping[str, Any]) -> str:
    """Say what a line of `RunFolder.machines` means."""
    processes = facts.get("processes", 1)
    many = f"{processes} processes, each on " if isinstance(processes, int) and processes > 1 else ""
    device = facts.get("device", "")
    threads = f", {facts.get('threads')} threads" if device == "cpu" else ""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "cuda", "progan") if facts.get(name))
    return f"{many}{facts.get('name', 'an unnamed machine')} ({device}{threads}); {versions}"


def read_run(path: str | Path) -> RunFacts:
    """Read a run.

    Raises:
        ConfigError: if the folder holds no run.
        CheckpointError, DataError: if a file of it cannot be read.
    """
    folder = RunFolder(path)
    if not folder.exists():
        raise ConfigError(f"{folder.path} is no run folder (it holds no config.yaml); give a run")
    stats = read_stats(folder.stats_file)
    grids = sorted(
        (int(match[1]), file)
        for file in folder.samples.glob("*.png")
        if (match := re.fullmatch(r"(\d{9,12})_\d+x\d+\.png", file.name))
    )
    reals = folder.samples / "reals.png"
    watch, alarms = Alarm(), list[tuple[int, str]]()
    for line in stats:
        alarms += [(int(line["images_seen"]), text) for text in watch.observe(line)]
    record, _ = checkpoint.newest_record(folder.checkpoints)
    return RunFacts(
        folder.path.resolve().name, folder, folder.config(), stats, grids, reals if reals.is_file() else None,
        read_results(folder.path / FILE), alarms, 0 if record is None else record.attempt,
    )  # fmt: skip

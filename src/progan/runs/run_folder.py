"""The folder of a run: what lies where, and whether it belongs to a configuration.

config.yaml             the resolved configuration
dataset.json            where the pictures came from and where the packed set is
stats.jsonl             one line a log point
machines.jsonl          what has computed, a line whenever that was another machine or version
events.out.tfevents.*   the same as TensorBoard events, which name a run by its folder
samples/                grids of fixed latents, and reals.png
checkpoints/            the newest few states
parts.json              parts of one's own, and the files that define them
changes.json            options that were changed since, with their first values
generators/             averaged generators from the beginning on, in 16 bits
generator.safetensors   the averaged generator of the newest checkpoint
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from progan.config import Config, Parts, differing_keys, flatten, make_config, to_yaml
from progan.config.recipes import read_recipe
from progan.data.packed import read_manifest
from progan.errors import CheckpointError, ConfigError, DataError, command, option_words
from progan.models.averaged import GENERATOR_FILE
from progan.runs.parts.record import PartsRecord
from progan.system.files import (
    file_lock,
    flush,
    is_leftover,
    make_folder,
    parse_json,
    remove_leftovers,
    storage_errors,
    write_text,
)

FREE_KEYS = (
    "run.device",
    "run.compile",
    "run.cuda_graphs",
    "run.fused_kernels",
    "run.deterministic",
    "run.threads",
    "run.micro_batch",
    "run.memory_fraction",
    "run.timeout_minutes",
    "run.grid_channels",
    "run.log_kimg",
    "run.log_minutes",
    "run.snapshot_kimg",
    "run.checkpoint_kimg",
    "run.checkpoint_minutes",
    "run.keep_checkpoints",
    "run.generator_kimg",
    "run.best",
    "run.grid",
    "run.stop_after",
    "run.on_divergence",
    "run.max_rollbacks",
    "run.on_alarm",
    "data.cache",
    "data.in_memory",
    "data.on_device",
    "init.source",
)
"""Options that may differ whenever a run goes on, like those of the monitor: they change nothing of it."""
FIXED_BRANCHES = ("data.", "model.", "init.", "run.seed", "schedule.growth")
"""Options that may never change within a run."""


@dataclass(frozen=True)
class Dataset:
    """Where the pictures of a run are: what the user named as their source, and the folder of the packed set.

    The fingerprint is that of the packed set.
    """

    source: str
    packed: str
    fingerprint: str


class RunFolder:
    """Paths of a run, and its configuration on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.dataset_file = self.path / "dataset.json"
        self.stats_file = self.path / "stats.jsonl"
        self.machines_file = self.path / "machines.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.generators = self.path / "generators"
        self.generator_file = self.path / GENERATOR_FILE
        self.parts = PartsRecord(self.path)
        self.changes_file = self.path / "changes.json"
        self.lock_file = self.path / ".lock"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config_file.is_file()

    def is_foreign(self) -> bool:
        """Whether something lies here that is neither a run nor what is left of one killed as it began."""
        if self.exists() or not self.path.exists():
            return False
        if not self.path.is_dir():
            return True
        ours = {self.dataset_file, self.lock_file}
        return any(path not in ours and not is_leftover(path) for path in self.path.iterdir())

    @contextlib.contextmanager
    def lock(self, say: Callable[[str], None]) -> Iterator[None]:
        """Keep other processes from training in this folder; the lock ends with the process that holds it.

        Args:
            say: Told what the file system cannot do.

        Raises:
            ConfigError: if another process holds it.
            StorageError: if the folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with storage_errors(self.path):
                make_folder(self.path)
                unlocked = partial(
                    say, f"warning: the file system of {self.path} has no locks: see that no other process "
                    f"trains in this folder",
                )  # fmt: skip
                if not stack.enter_context(file_lock(self.lock_file, wait=False, unlocked=unlocked)):
                    raise ConfigError(
                        f"another process is training in {self.path}; wait until it has stopped"
                    )
                if not flush(self.path):
                    say(f"warning: the file system of {self.path} does not flush files when it is told to: "
                        f"a power failure may cost checkpoints that seem to be written")  # fmt: skip
            yield

    def remove_leftovers(self) -> None:
        """Remove what writing has left behind that a kill ended."""
        for place in (self.path, self.checkpoints, self.generators, self.samples):
            remove_leftovers(place)

    def require_nothing_trained(self) -> None:
        """Refuse to begin where a generator, which is only written with a checkpoint, would be replaced.

        Raises:
            CheckpointError: if there is one.
        """
        if self.generator_file.exists():
            raise CheckpointError(
                f"{self.checkpoints} holds no checkpoint any more, and {self.generator_file} is of a "
                f"training that cannot go on without; put one back, or begin a new run in another folder"
            )

    def begin(self, config: Config, dataset: Dataset) -> None:
        """Write configuration and dataset, before the first step or when a run goes on with changes.

        Raises:
            StorageError: if the folder cannot be written.
        """
        places = {**asdict(dataset), **self._near(dataset)}
        write_text(self.dataset_file, json.dumps(places, indent=2) + "\n")
        if self.exists() and (changed := self._changes(self.config(), config)):
            write_text(self.changes_file, json.dumps(changed, indent=2) + "\n")
        self.parts.write(config)
        write_text(self.config_file, to_yaml(config))

    def note_machine(self, images_seen: int, facts: Mapping[str, Any]) -> None:
        """Write down what computes from here on, unless that is what did before.

        Args:
            images_seen: The clock.
            facts: Names and versions, as `performance.peak_rates.describe` returns them.

        Raises:
            StorageError: if it cannot be written.
        """
        known = self.machines()
        line = {"images_seen": images_seen, **facts}
        if known and {**known[-1], "images_seen": images_seen} == line:
            return
        write_text(self.machines_file, "".join(json.dumps(each) + "\n" for each in [*known, line]))

    def machines(self) -> list[dict[str, Any]]:
        """Return what `note_machine` wrote, oldest first; runs of older versions have nothing."""
        try:
            lines = self.machines_file.read_text(encoding="utf-8").splitlines()
            found = [parse_json(line) for line in lines]
        except (OSError, ValueError):
            return []
        return [line for line in found if isinstance(line, dict) and isinstance(line.get("images_seen"), int)]

    def _near(self, dataset: Dataset) -> dict[str, str]:
        """Return where the pictures are from here, by which they are found when all is moved together."""
        near = {}
        for name in ("source", "packed"):
            place = Path(getattr(dataset, name))
            if place.is_absolute():
                near[f"{name}_from_here"] = os.path.relpath(place, self.path.resolve())
        return near

    def _changes(self, old: Config, new: Config) -> dict[str, Any]:
        """Return the values that options had when the run was begun, of those that were changed since."""
        before = flatten(old.model_dump(mode="json"))
        return {**{key: before.get(key) for key in _bound_keys(old, new)}, **self.changes()}

    def changes(self) -> dict[str, Any]:
        """Return the options that `--resume` has changed, with the values that the run was begun with."""
        try:
            tree = parse_json(self.changes_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def as_changed(self, config: Config) -> Config:
        """Give options that `--resume` has changed their present values, where the first ones are given."""
        begun, given = self.changes(), flatten(config.model_dump(mode="json"))
        present = self.config() if begun else config
        for key, value in begun.items():
            branch, _, name = key.partition(".")
            if given.get(key) == value and "." not in name:
                kept = {name: getattr(getattr(present, branch), name)}
                config = config.model_copy(update={branch: getattr(config, branch).model_copy(update=kept)})
        return config

    def config(self, parts: Parts = Parts()) -> Config:  # noqa: B008 - frozen
        """Read the configuration.

        Args:
            parts: Parts of one's own, which it then has the definitions of.

        Raises:
            CheckpointError: if this is no run folder or its configuration cannot be read.
        """
        if not self.exists():
            what = "is no run folder (it holds no config.yaml)" if self.path.is_dir() else "does not exist"
            raise CheckpointError(f"{self.path} {what}")
        try:
            return make_config(read_recipe(self.config_file), parts=self.parts.parts() + parts)
        except ConfigError as error:
            raise CheckpointError(f"{self.config_file} cannot be read: {error}") from None

    def dataset(self) -> Dataset:
        """Read where the pictures are.

        Raises:
            CheckpointError: if that file is missing or damaged.
        """
        try:
            tree = parse_json(self.dataset_file.read_text(encoding="utf-8"))
            if not isinstance(tree, dict) or not all(isinstance(value, str) for value in tree.values()):
                raise TypeError("expected texts by name")
            near = {name: tree.pop(f"{name}_from_here", "") for name in ("source", "packed")}
            dataset = Dataset(**tree)
            if not self._is_there(dataset.packed):
                moved = {name: str(self.path.resolve() / place) for name, place in near.items() if place}
                there = {name: os.path.normpath(place) for name, place in moved.items()}
                dataset = replace(
                    dataset, **{k: place for k, place in there.items() if self._is_there(place)}
                )
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{self.dataset_file} cannot be read: {error}") from None
        return dataset

    def source_when_begun(self) -> str:
        """Return where the source was when that was written down last."""
        return str(parse_json(self.dataset_file.read_text(encoding="utf-8"))["source"])

    @staticmethod
    def _is_there(place: str) -> bool:
        try:
            return Path(place).exists()
        except (OSError, ValueError):
            return False

    def pictures(self) -> Path:
        """Return the packed set that the run was trained on.

        Raises:
            DataError: if it is not there any more, or is another one now.
        """
        dataset = self.dataset()
        packed = Path(dataset.packed)
        try:
            if read_manifest(packed).fingerprint == dataset.fingerprint:
                return packed
            why = f"{packed} holds other pictures now"
        except DataError as error:
            why = str(error)
        raise DataError(
            f"{self.path}: the pictures it was trained on cannot be used ({why}); give a set with --data"
        )


def require_same(folder: RunFolder, old: Config, new: Config, unless: tuple[str, ...] = ()) -> None:
    """Refuse to go on with a run under another configuration than its own.

    Args:
        folder: The run.
        old, new: Its configuration, and the other one.
        unless: Options that are not compared, besides those that may always differ.

    Raises:
        ConfigError: naming each option that differs, with both values.
    """
    keys = [key for key in _bound_keys(old, new) if key not in unless]
    if keys:
        raise ConfigError(
            f"{folder.path} belongs to a run of another configuration:\n{_differences(old, new, keys)}\n"
            f"Choose another --out; or go on with that run {_ways_on(folder, new, keys)}"
        )


def _ways_on(folder: RunFolder, new: Config, keys: list[str]) -> str:
    """Return the commands that go on with a run: as it is, and with other options, where they may change."""
    as_it_is = f"as it is: {command('train', '--resume', folder.path)}"
    values = flatten(new.model_dump(mode="json"))
    changes = option_words({key: values.get(key) for key in keys})
    if changes is None or any(key.startswith(FIXED_BRANCHES) for key in keys):
        return as_it_is
    return f"{as_it_is}; or with those options: {command('train', '--resume', folder.path, *changes)}"


def require_resumable(folder: RunFolder, old: Config, new: Config) -> None:
    """Refuse changes that a run cannot take on: of the data, the architecture or the seed.

    Raises:
        ConfigError: naming each such option, with both values.
    """
    keys = [key for key in _bound_keys(old, new) if key.startswith(FIXED_BRANCHES)]
    if keys:
        raise ConfigError(
            f"{folder.path} cannot go on with these changes:\n{_differences(old, new, keys)}\n"
            f"Options of data and model, run.seed and schedule.growth are fixed for a run. Go on without "
            f"them, {command('train', '--resume', folder.path)}, or begin a new run with them."
        )


def _bound_keys(old: Config, new: Config) -> list[str]:
    """Return the options that differ and decide what is computed."""
    free = {*FREE_KEYS}
    if Path(old.data.labels).is_absolute() and Path(new.data.labels).is_absolute():
        free.add("data.labels")  # a file that was moved: what it holds is in the fingerprint of the pictures
    return [
        key
        for key in differing_keys(old, new)
        if key not in free and not key.startswith(("monitor.", "track."))
    ]


def _differences(old: Config, new: Config, keys: list[str]) -> str:
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return "\n".join(f"  {key}: {before.get(key)} there, {after.get(key)} here" for key in keys)

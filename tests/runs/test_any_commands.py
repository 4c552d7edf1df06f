"""Any sequence of commands and accidents does to a run what the documentation says: a model of it is beside.

Accidents are exceptions amid training here, which cost no second each; real kills are those of `make faults`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import progan
from progan.errors import CheckpointError, ConfigError, DataError, ProganError
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.logs import read_stats
from progan.runs.loop import Trainer
from progan.runs.run_folder import RunFolder
from tiny import last_tensors, options, require_equal

TREE = options(
    schedule={"stabilise_kimg": [0.032], "fade_kimg": [0.032], "batch_size": [16, 8]},
    run={"checkpoint_kimg": [0.032], "log_kimg": [0.032], "grid": [1, 2]},
    data={"limit": 24},
)
REMOVABLE = ("generator.safetensors", "stats.jsonl", "samples", ".lock", "newest checkpoint", "config.yaml")
ITERATIONS = st.integers(1, 12)


class Killed(BaseException):
    """What ends a training amid it."""


class Folder:
    """Where all machines work, and the run that is left alone."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="any-commands-"))
        self.packed = synthetic(self.path / "blobs", count=24, resolution=16, labelled=True).path
        self.whole = progan.train(
            self.packed, out=self.path / "whole", options=TREE, reporter=progan.Reporter()
        )
        self.count = 0


def killed_after(iterations: int | None, work: Callable[[], object]) -> bool:
    """Do some training, or only so many iterations of it; tell whether it was ended."""
    iterate, made = Trainer._iterate, 0

    def counted(self: Trainer, point: Any) -> None:
        nonlocal made
        if made == iterations:
            raise Killed
        made += 1
        iterate(self, point)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_iterate", counted)
        try:
            work()
        except Killed:
            return True
    return False


class Commands(RuleBasedStateMachine):
    """The model: whether there is a run, how far it is for certain, and whether it is still the same run."""

    folder: Folder

    @initialize()
    def begin(self) -> None:
        self.folder.count += 1
        self.run = self.folder.path / f"{self.folder.count}" / "run"
        self.clock, self.same, self.moves = 0, True, 0

    @property
    def clocks(self) -> list[int]:
        return [checkpoint.clock_of(path) for path in checkpoint.paths(self.run / "checkpoints")]

    def train_it(self, iterations: int | None, more: dict[str, Any] | None = None) -> None:
        """Train by the same command, or by `resume` with other options; no work that was safe is lost."""

        def work() -> None:
            if more is None:
                progan.train(self.folder.packed, out=self.run, options=TREE, reporter=progan.Reporter())
            else:
                progan.resume(self.run, options=more, reporter=progan.Reporter())

        ended = killed_after(iterations, work)
        found = self.clocks[-1] if self.clocks else 0
        assert found >= self.clock
        assert ended or found == last_tensors(self.folder.whole)[0].images_seen
        self.clock = found

    @rule(iterations=ITERATIONS)
    def train(self, iterations: int) -> None:
        """The same command again goes on where the run is, unless an option was changed since."""
        if self.same:
            self.train_it(iterations)
        else:
            self.train_it(iterations, {})

    @precondition(lambda self: self.clock > 0)
    @rule(iterations=ITERATIONS, rate=st.sampled_from([0.0005, 0.002]))
    def resume_with_another_rate(self, iterations: int, rate: float) -> None:
        """Options of training may change; from then on it is another run."""
        self.same = False
        self.train_it(iterations, {"optimizer": {"g_lr": rate}})

    @precondition(lambda self: self.clock > 0)
    @rule(more=st.sampled_from([{"model": {"generator": {"fmap_max": 4}}}, {"run": {"seed": 5}}]))
    def resume_with_what_cannot_change(self, more: dict[str, Any]) -> None:
        """It is refused in words, and nothing is touched."""
        before = {path: path.read_bytes() for path in self.run.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match="progan train --resume"):
            progan.resume(self.run, options=more, reporter=progan.Reporter())
        assert before == {path: path.read_bytes() for path in self.run.rglob("*") if path.is_file()}

    @precondition(lambda self: self.run.exists())
    @rule(copied=st.booleans())
    def move_or_copy(self, copied: bool) -> None:
        """A run is its folder, wherever that is."""
        self.moves += 1
        new = self.run.with_name(f"run{self.moves}")
        if copied:
            shutil.copytree(self.run, new)
        else:
            self.run.rename(new)
        self.run = new

    @precondition(lambda self: self.clock > 0)
    @rule(name=st.sampled_from(REMOVABLE))
    def delete(self, name: str) -> None:
        """What is gone is made again, or the command says what is missing; put back, all is well."""
        path = self.run / name
        if name == "newest checkpoint":
            if len(self.clocks) < 2:
                return
            path = checkpoint.paths(self.run / "checkpoints")[-1]
            self.clock = self.clocks[-2]
        if not path.exists():
            return
        kept = path.with_name("kept-aside")
        path.rename(kept)
        said = None
        try:
            self.train_it(1, None if self.same else {})
        except ProganError as error:
            said = str(error)
        if said is not None:
            kept.rename(path)
            assert str(self.run) in said
        elif kept.is_dir():
            shutil.rmtree(kept)
        else:
            kept.unlink()

    @precondition(lambda self: self.run.exists())
    @rule(n=st.integers(1, 4))
    def generate(self, n: int) -> None:
        """There is a whole generator as soon as there is a checkpoint; a seed's pictures do not change."""
        if not (self.run / "generator.safetensors").exists():
            with pytest.raises(CheckpointError):
                progan.load(self.run)
            return
        G = progan.load(self.run)
        pictures = np.concatenate(list(progan.generate(G, 5, seed=1)))
        assert np.array_equal(np.concatenate(list(progan.generate(G, n, seed=1))), pictures[:n])

    @precondition(lambda self: self.run.exists())
    @rule()
    def evaluate(self) -> None:
        """A generator that is there is measured, the same each time; its results are kept and read again."""
        if not (self.run / "generator.safetensors").exists():
            with pytest.raises(ProganError):
                progan.evaluate(self.run, self.folder.packed, ["swd"], n=8)
            return
        G, out = progan.load(self.run), self.run / "metrics.jsonl"
        if G.resolution() < (16, 16):
            with pytest.raises(DataError, match="16"):
                progan.evaluate(self.run, self.folder.packed, ["swd"], n=8, out=out)
            return
        (first,) = progan.evaluate(self.run, self.folder.packed, ["swd"], n=8, out=out)
        kept = out.read_bytes()
        (again,) = progan.evaluate(self.run, self.folder.packed, ["swd"], n=8, out=out)
        assert first.numbers == again.numbers
        assert first.numbers["swd/mean"] > 0
        assert out.read_bytes() == kept

    def teardown(self) -> None:
        """In the end it is the run that was left alone, unless options were changed."""
        if not hasattr(self, "run"):
            return
        self.train_it(None, None if self.same else {})
        clocks = [int(line["images_seen"]) for line in read_stats(self.run / "stats.jsonl")]
        assert clocks == sorted(set(clocks))
        assert RunFolder(self.run).config().model.generator.fmap_max == 8
        if self.same:
            require_equal(last_tensors(self.run)[1], last_tensors(self.folder.whole)[1])
        shutil.rmtree(self.run.parent)


def machine(examples: int, steps: int, *, derandomize: bool) -> None:
    """Try sequences of commands."""
    Commands.folder = Folder()
    try:
        chosen = settings(
            max_examples=examples, stateful_step_count=steps, derandomize=derandomize, deadline=None,
            database=None, suppress_health_check=list(HealthCheck), print_blob=False,
        )  # fmt: skip
        run_state_machine_as_test(Commands, settings=chosen)
    finally:
        shutil.rmtree(Commands.folder.path)


def test_a_few_commands() -> None:
    machine(4, 6, derandomize=True)


@pytest.mark.slow
def test_many_commands() -> None:
    machine(60, 15, derandomize=False)

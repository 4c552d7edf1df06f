"""A run killed at any instant and resumed ends in the same bits as one never killed: real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from progan.config import merge
from progan.data.packed import PackedSet
from progan.training import checkpoint
from progan.training.checkpoint import Record
from progan.training.logs import read_stats
from progan.training.run_folder import RunFolder
from tiny import command, environment, last_tensors, options, progan, require_equal, words

TREE = options(
    schedule={"stabilise_kimg": [0.08], "fade_kimg": [0.16], "batch_size": [8], "total_kimg": 0.96},
    run={"checkpoint_minutes": 0.001, "log_kimg": [0.04]},
)
TOTAL = 960
"""Images of the run: so many that on a busy machine it is not over before a signal arrives."""


def heed_signals() -> None:
    """Undo what a shell that runs the tests in the background has had them ignore."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        preexec_fn=heed_signals,
    )  # fmt: skip


def train_words(blobs: PackedSet, run: Path) -> list[object]:
    return ["train", blobs.path, "--out", run, *words(TREE)]


def images(run: Path) -> int:
    """The clock of the newest checkpoint."""
    found = checkpoint.paths(RunFolder(run).checkpoints)
    return int(found[-1].stem) if found else 0


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> bool:
    """Wait until something happened, or the process ended; tells whether it still runs."""
    deadline = time.monotonic() + 90
    while process.poll() is None and not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process.poll() is None


@pytest.fixture(scope="module", name="undisturbed")
def run_that_is_left_alone(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    result = progan(*train_words(blobs, run))
    assert (result.returncode, result.stderr) == (0, "")
    assert images(run) == TOTAL
    return run


def require_same_run(run: Path, undisturbed: Path) -> None:
    ours, expected = last_tensors(run), last_tensors(undisturbed)
    assert ours[0] == expected[0]
    require_equal(ours[1], expected[1])
    for name in ("generator.safetensors", "config.yaml"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert [path.name for path in run.rglob(".*")] == [".lock"], "no temporary files are left"
    clocks = [int(line["images_seen"]) for line in read_stats(run / "stats.jsonl")]
    assert clocks == sorted(set(clocks))
    # Each log point of the undisturbed run is there, with the same picture of the same latents.
    expected_clocks = [int(line["images_seen"]) for line in read_stats(undisturbed / "stats.jsonl")]
    assert set(expected_clocks) <= set(clocks)
    for path in (undisturbed / "samples").iterdir():
        assert (run / "samples" / path.name).read_bytes() == path.read_bytes(), path.name


def test_killed_again_and_again(blobs: PackedSet, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL as the run begins, in the middle of each fade, and at a moment that nothing chose."""
    run, said = tmp_path / "run", ""
    seen: list[Record] = []
    kills: list[tuple[Callable[[], bool], float]] = [
        (run.exists, 0.0),
        (lambda: images(run) >= 120, 0.0),
        (lambda: images(run) >= 360, 0.0),
        (lambda: images(run) > seen[-1].images_seen, random.uniform(0, 0.1)),
    ]
    for number, (happened, delay) in enumerate(kills):
        # The same command and --resume, in turn; before config.yaml is there, only the former can work.
        process = start(*train_words(blobs, run)) if number != 2 else start("train", "--resume", run)
        assert wait_for(process, happened), process.communicate()
        time.sleep(delay)
        process.kill()
        said, _ = process.communicate(timeout=90)
        assert process.returncode in (-signal.SIGKILL, 0)
        records = [checkpoint.load(path)[0] for path in checkpoint.paths(run / "checkpoints")]
        # Each is whole, and only the newest three are kept, or four where the kill came before the removal.
        assert len(records) <= 4
        if number > 0:
            seen.append(records[-1])
        if number > 1:
            assert f"going on from {seen[-2].images_seen:,} images" in said
    assert [(record.level, 0 < record.alpha < 1) for record in seen[:2]] == [(1, True), (2, True)]
    assert seen[0].images_seen < seen[1].images_seen <= seen[2].images_seen
    result = progan(*train_words(blobs, run))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"going on from {seen[-1].images_seen:,} images" in result.stdout
    require_same_run(run, undisturbed)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"d_steps": 2}, "data": {"mirror": True}, "optimizer": {"reset": "never", "beta1": 0.5}},
        {"run": {"micro_batch": 4}, "optimizer": {"reset": "level"}, "data": {"labels": "none"}},
    ],
)
def test_killed_at_random_instants(blobs: PackedSet, tmp_path: Path, changes: dict[str, Any]) -> None:
    """SIGKILL at moments that only chance chose, under options that the other tests do not resume."""
    tree = merge(TREE, merge(changes, {"run": {"checkpoint_minutes": 0.005}}))
    arguments = ["train", blobs.path, *words(tree), "--out"]
    begun = time.monotonic()
    assert progan(*arguments, tmp_path / "undisturbed").returncode == 0
    duration = time.monotonic() - begun
    for _ in range(4):
        delay = random.uniform(0, duration)
        print(f"kill after {delay:.3f} of {duration:.3f} s")
        process = start(*arguments, tmp_path / "run")
        time.sleep(delay)
        process.kill()
        process.communicate(timeout=90)
        assert process.returncode in (-signal.SIGKILL, 0)
    result = progan(*arguments, tmp_path / "run")
    assert (result.returncode, result.stderr) == (0, "")
    require_same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_signals_stop_without_loss(blobs: PackedSet, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*train_words(blobs, run))
    for number, code, clock in (
        (signal.SIGTERM, 143, 120),
        (signal.SIGHUP, 129, 200),
        (signal.SIGINT, 130, 300),
    ):
        # Not at a checkpoint: the stop has to write one.
        assert wait_for(process, lambda clock=clock: images(run) >= clock), process.communicate()  # type: ignore[misc]
        time.sleep(0.03)
        process.send_signal(number)
        out, err = process.communicate(timeout=90)
        assert process.returncode == code, err
        record, _ = last_tensors(run)
        assert clock <= record.images_seen < TOTAL
        assert err.strip() == (
            f"stopped at {record.images_seen:,} images, checkpoint written; to go on: "
            f"progan train --resume {run}"
        )
        assert "Traceback" not in out
        assert read_stats(run / "stats.jsonl")[-1]["images_seen"] == record.images_seen
        process = start("train", "--resume", run)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    require_same_run(run, undisturbed)


def test_a_second_interrupt_ends_at_once_and_loses_nothing_saved(blobs: PackedSet, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*train_words(blobs, run))
    assert wait_for(process, lambda: images(run) >= 80), process.communicate()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert checkpoint.newest(run / "checkpoints")[1] == []

"""The real command under torchrun: the same training, and what happens when processes are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ports import free_port
from progan.config import merge
from progan.data.packed import PackedSet
from progan.generation.save_samples import save_samples
from progan.models.loading import load
from rank_process import variables
from tiny import OPTIONS, TOTAL, command, last_tensors, options, progan, require_equal, words
from torchrun_runs import FAULTS, LOG, finish, logged, start, torchrun

MORPH = merge({**OPTIONS, "schedule": {**OPTIONS["schedule"], "growth": "morph", "morph_kimg": [0.048]}}, LOG)


del MORPH["schedule"]["fade_kimg"]


@pytest.fixture(scope="module", name="two")
def run_of_two(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of two processes."""
    run = tmp_path_factory.mktemp("runs") / "two"
    arguments = ["--nproc-per-node", 2, "-m", "progan", "train", blobs.path, "--out", run, *words(MORPH)]
    code, said = finish(start(torchrun(*arguments)))
    assert code == 0, said
    assert said.count("training on 48 pictures") == 1, "the first process reports"
    return run


def test_killed_in_a_step_a_growth_and_a_checkpoint(two: Path, blobs: PackedSet, tmp_path: Path) -> None:
    """Three times, restarted by torchrun each time: the same bits in the end; each loss is told."""
    faults, run = ["kill:step:1:1", "kill:growth:0:0", "kill:checkpoint:0:3"], tmp_path / "run"
    code, said = finish(
        start(
            torchrun("--nproc-per-node", 2, "--max-restarts", 3, FAULTS, tmp_path, *faults, "--", "train",
                     blobs.path, "--out", run, *words(MORPH))
        )
    )  # fmt: skip
    assert code == 0, said
    assert all((tmp_path / fault.replace(":", "-")).exists() for fault in faults)
    assert "rank 0 stops: rank 1 was lost (rank 1 was in " in said
    assert said.count("rank 1 stops: rank 0 was lost (rank 0 was in ") == 2
    assert "rank 1: the update of " in said or "rank 1: growth" in said
    assert said.count("going on from ") == 2
    assert "Traceback" not in said
    require_equal(last_tensors(run)[1], last_tensors(two)[1])
    assert logged(run) == logged(two)
    for path in (two, run):
        assert not [p for p in path.rglob(".*") if p.name != ".lock"]


def test_resumed_by_one_process_and_stopped_by_a_signal(two: Path, blobs: PackedSet, tmp_path: Path) -> None:
    """`--devices 2` stops with a checkpoint at SIGTERM; one process goes on, with the same samples.

    The signal comes in the fifth iteration, so that it stops after the sixth, at a log point of the
    undisturbed run: a stop writes one, and anywhere else the log would have one more.
    """
    run, held = tmp_path / "run", tmp_path / "stop-step-0-4"
    words_of_run = ["train", blobs.path, "--devices", 2, "--out", run, *words(MORPH)]
    process = start([sys.executable, *map(str, [FAULTS, tmp_path, "stop:step:0:4", "--", *words_of_run])])
    while process.poll() is None and not held.exists():
        time.sleep(0.01)
    process.terminate()
    code, said = finish(process)
    assert code == 128 + signal.SIGTERM, said
    seen = last_tensors(run)[0].images_seen
    assert f"stopped at {seen:,} images, checkpoint written" in said
    assert seen in [line["images_seen"] for line in logged(two)[:-1]]
    result = progan("train", "--resume", run)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert f"going on from {seen:,} images" in result.stdout
    for line, other in zip(logged(run), logged(two), strict=True):
        assert line["images_seen"] == other["images_seen"]
        for name, value in other.items():
            near = value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-4)
            assert line[name] == near, name
    expected = last_tensors(two)[1]
    for name, value in last_tensors(run)[1].items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=name)


def two_processes(second: list[str], *first: str) -> list[tuple[int, str]]:
    """Start two processes by hand, each with its own words; returns code and output of each."""
    port = free_port()
    processes = [
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=variables(rank, 2, port),
        )
        for rank, words in enumerate((list(first), second))
    ]  # fmt: skip
    return [finish(process) for process in processes]


def test_processes_that_differ_are_refused(blobs: PackedSet, tmp_path: Path) -> None:
    same = ["train", blobs.path, "--out", tmp_path / "run"]
    one = command(*same, *words(options()))
    other = command(*same, *words(options(run={"seed": 7})))
    (code, said), (other_code, other_said) = two_processes(other, *one)
    assert (code, other_code, other_said) == (2, 2, "")
    assert (
        "error: the processes of a run must be the same, and differ:\n  run.seed: 0 on rank 0, 7 on" in said
    )
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "config.yaml").exists(), "nothing was begun"


def test_the_first_process_lacks_its_pictures(blobs: PackedSet, tmp_path: Path) -> None:
    """It saves by itself what is trained, while the other waits for it in an update; then both end."""
    run = tmp_path / "run"
    arguments = ["train", blobs.path, "--out", run, *words(options())]
    fault = [sys.executable, str(FAULTS), str(tmp_path), "lack:batch:0:5", "--", *map(str, arguments)]
    (code, said), (other_code, other_said) = two_processes(fault, *fault)
    assert (code, other_code, other_said) == (2, 2, ""), said
    record, _ = last_tensors(run)
    assert 0 < record.images_seen < TOTAL
    assert "error: the pictures are gone for this test\n" in said
    assert f"stopped at {record.images_seen:,} images, checkpoint written" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_process_that_stands_still(blobs: PackedSet, tmp_path: Path) -> None:
    """One waits for ever: after run.timeout_minutes both end and say where each of them was."""
    tree = options(run={"timeout_minutes": 0.5})
    arguments = ["train", blobs.path, "--out", tmp_path / "run", *words(tree)]
    fault = [sys.executable, str(FAULTS), str(tmp_path), "sleep:step:1:1", "--", *map(str, arguments)]
    (code, said), (other_code, _) = two_processes(fault, *fault)
    assert (code, other_code) == (1, 1), said
    assert "no process has moved for" in said
    assert "rank 1: the update of G at 16 images (stabilise level 0)" in said


def test_pictures_are_made_together(two: Path, tmp_path: Path) -> None:
    """The same bytes as one process makes, and a folder that is completed."""
    G = load(two)
    for count in (9, 21):
        save_samples(G, tmp_path / "one", count, seed=5, batch_size=4)
        asked = ["generate", two, "--n", count, "--out", tmp_path / "both", "--batch-size", 4, "--seed", 5]
        code, said = finish(start(torchrun("--nproc-per-node", 2, "-m", "--", "progan", *asked)))
        assert code == 0, said
        assert said.count(f"{count} pictures: ") == 1
        one, both = ({p.name: p.read_bytes() for p in (tmp_path / x).glob("*")} for x in ("one", "both"))
        assert one == both
        assert len(one) == count + 1

"""A run killed at any instant and resumed ends in the same bits as one never killed: real processes.

The short form of the crash matrix (`make faults`), and the real command without any hooks in it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import require_same_run
from progan.config import merge
from progan.data.packed import PackedSet
from progan.runs import checkpoint
from tiny import command, environment, last_tensors, options, progan, words

TREE = options(
    schedule={"stabilise_kimg": [0.08], "fade_kimg": [0.16], "batch_size": [8], "total_kimg": 1e6},
    run={"checkpoint_minutes": 0.001, "log_kimg": [0.04]},
)
"""It does not end by itself."""


def matrix(*arguments: str) -> str:
    """Run the crash matrix and return what it prints."""
    script = Path(__file__).parents[1] / "helpers" / "faults.py"
    path = environment()["PYTHONPATH"]
    result = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=600,
        env={**environment(), "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_killed_again_and_again() -> None:
    """At instants that another seed chooses each time; it is told if it fails."""
    said = matrix("--kills", "8", "--no-disk")
    assert "kills: 8 in" in said
    assert "signals that stopped a run: 5" in said


@pytest.mark.slow
def test_disks_that_fail() -> None:
    said = matrix("--kills", "0")
    for kind in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "read-only folder", "flipped byte", "missing file"):
        assert f"'{kind}': " in said


def test_the_command_itself(blobs: PackedSet, tmp_path: Path) -> None:
    """Killed as a user's process is, without hooks, and resumed by another form of the command."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ["train", blobs.path, *words(TREE), "--out", run]
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    while process.poll() is None and not checkpoint.paths(run / "checkpoints"):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = last_tensors(run)[0].images_seen
    total = (kept + 240) / 1000
    result = progan("train", "--resume", run, "--schedule.total-kimg", total)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"going on from {kept:,} images" in result.stdout
    shorter = merge(TREE, {"schedule": {"total_kimg": total}})
    result = progan("train", blobs.path, *words(shorter), "--out", whole)
    assert (result.returncode, result.stderr) == (0, "")
    require_same_run(run, whole)

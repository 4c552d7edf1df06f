"""Faults of the system around a run, as real processes: the short form of `make faults`' second part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from power_loss import Disk
from tiny import environment


def faults(*names: str) -> str:
    """Let faults happen and return what was found."""
    script = Path(__file__).parents[1] / "helpers" / "system_faults.py"
    result = subprocess.run(
        [sys.executable, str(script), "--short", *names], capture_output=True, text=True, timeout=600,
        env={**environment(), "OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_power_failure_loses_no_confirmed_checkpoint_and_a_bare_file_system_is_told() -> None:
    said = faults("power", "bare")
    assert "none without the last confirmed checkpoint; 1 of them trained to the same end" in said
    assert "no locks and no flushing: said, killed, resumed, the same run" in said


@pytest.mark.slow
def test_clock_memory_disks_and_processes() -> None:
    said = faults("clock", "freeze", "EIO", "memory", "generate", "inodes")
    for words in (
        "set back",
        "stopped for 0.5 s",
        "EIO",
        "no memory for an update",
        "times whole",
        "inodes",
    ):
        assert words in said


def test_what_a_disk_holds() -> None:
    """A file that is renamed before it was flushed is empty; a name is there when its folder was flushed."""
    disk = Disk()
    disk.apply("make", "run")
    disk.apply("create", "run/.x")
    disk.apply("rename", "run/.x", "run/x")
    assert disk.after("names kept") == {"run": "", "run/x": "empty"}
    assert disk.after("names lost") == {}
    disk.apply("flush", "run/x", "content")
    disk.apply("flush names", "run")
    assert disk.after("names lost") == {}
    disk.apply("flush names", ".")
    assert disk.after("names lost") == {"run": "", "run/x": "content"}
    disk.apply("remove", "run/x")
    assert disk.after("names lost") == {"run": "", "run/x": "content"}
    assert disk.after("only removals kept") == {"run": ""}

"""A run so small that it ends in a second, and the real command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import progan as package
from progan.config import merge
from progan.runs import checkpoint
from progan.runs.reporter import Reporter
from progan.runs.run_folder import RunFolder

OPTIONS: dict[str, Any] = {
    "model": {
        "generator": {"fmap_base": 64, "fmap_max": 8, "latent_size": 6},
        "discriminator": {"fmap_base": 64, "fmap_max": 8},
    },
    "schedule": {
        "stabilise_kimg": [0.048],
        "fade_kimg": [0.048],
        "batch_size": [16, 8],
    },
    "run": {"device": "cpu", "threads": 1, "precision": "tf32", "grid": [2, 4], "log_kimg": [0.032]},
}
TOTAL = 240
"""Images of all phases on three levels."""


def options(**branches: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a tiny run with branches laid over them."""
    return merge(OPTIONS, branches)


def words(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """Return options as words of a command line."""
    result: list[str] = []
    for key, value in tree.items():
        name = f"{prefix}{key.replace('_', '-')}"
        if isinstance(value, dict):
            result += words(value, f"{name}.")
        elif value is True:
            result.append(f"--{name}")
        else:
            values = value if isinstance(value, list | tuple) else [value]
            result += [f"--{name}", *map(str, values)]
    return result


class Listener(Reporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def environment() -> dict[str, str]:
    """Return the environment of a process with one thread that finds the same package."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(Path(package.__file__).parent.parent),
    }


def command(*arguments: object) -> list[str]:
    """Return the words that start progan as a process of its own."""
    return [sys.executable, "-m", "progan", *map(str, arguments)]


def progan(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), cwd=cwd, timeout=600
    )


def last_tensors(run: Path) -> tuple[checkpoint.Record, dict[str, torch.Tensor]]:
    """Return the newest checkpoint of a run, which must be readable."""
    return checkpoint.load(checkpoint.paths(RunFolder(run).checkpoints)[-1])


def require_equal(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare two states bit by bit."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype, name
        assert ours[name].shape == value.shape, name
        assert ours[name].numpy().tobytes() == value.numpy().tobytes(), name

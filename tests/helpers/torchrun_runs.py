"""The real command under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny import environment

LOG = {"run": {"log_kimg": [0.016], "checkpoint_kimg": [0.032]}}


FAULTS = Path(__file__).with_name("rank_fault.py")


def torchrun(*arguments: object) -> list[str]:
    """Return the words of torchrun for this Python."""
    return [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def logged(run: Path) -> list[dict[str, Any]]:
    """Return the log points without those numbers that are of the time it took."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]

"""One update of D runs through few files and functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny import environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trace_step.py"
FRAMES, MODULES = 10, 9


def test_an_update_is_ten_calls_from_the_command() -> None:
    """Outside models, data and config, and as the benchmark counts."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--json"], capture_output=True, text=True, env=environment()
    )
    assert result.returncode == 0, result.stderr
    traced = json.loads(result.stdout)
    assert traced["frames"][-1] == ["training/optimizer.py", "Optimizer.step"]
    assert {"data/batches.py", "models/discriminator.py", "models/generator.py"} <= set(traced["inside"])
    assert len(traced["frames"]) <= FRAMES, traced["frames"]
    assert len(traced["outside"]) <= MODULES, traced["outside"]

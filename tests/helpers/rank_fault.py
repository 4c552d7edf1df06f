"""The command with faults, for torchrun: `rank_fault.py FOLDER FAULT ... -- WORDS`.

A fault is `kind:event:rank:count`: at the event of that number (from 0) the process of that rank kills itself
(`kill`), stands still, with signs of life (`sleep`), or until it has been asked to stop (`stop`), or lacks
its pictures (`lack`). Each happens once: a file `kind-event-rank-count` in FOLDER remembers it. Where the
command starts the processes itself (`--devices`), the faults are theirs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from progan.__main__ import main
from progan.data.batches import Batches
from progan.errors import DataError
from progan.models import morph
from progan.system import tensor_file
from stop_requests import tell_stop_requests

COUNTS: Counter[str] = Counter()
ASKED = threading.Event()
"""Whether this process has been asked to stop."""


def happen(folder: Path, fault: str, event: str) -> None:
    """Let a fault happen if this is its event."""
    kind, name, rank, count = fault.split(":")
    if name != event or rank != os.environ["RANK"] or COUNTS[event] != int(count):
        return
    done = folder / fault.replace(":", "-")
    if done.exists():
        return
    done.touch()
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "sleep":
        time.sleep(600)
    elif kind == "stop":
        while not ASKED.is_set():
            time.sleep(0.02)
    else:
        raise DataError("the pictures are gone for this test")


def hooked(folder: Path, faults: list[str], event: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that may meet a fault before it does what it did."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        for fault in faults:
            happen(folder, fault, event)
        COUNTS[event] += 1
        return call(*arguments, **named)

    return wrapped


def python_with_faults(folder: Path, words: list[str]) -> Path:
    """Return a program that runs the command with faults when it is to run `-m progan`."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nshift 2\nexec {shlex.join([sys.executable, *words])} -- "$@"\n')
    program.chmod(0o755)
    return program


def start() -> None:
    """Run the command."""
    folder, middle = Path(sys.argv[1]), sys.argv.index("--")
    faults = sys.argv[2:middle]
    if "RANK" not in os.environ:
        sys.executable = str(python_with_faults(folder, sys.argv[:middle]))
    tell_stop_requests(ASKED.set)
    replace: dict[str, tuple[Any, str]] = {
        "batch": (Batches, "discriminator"),
        "step": (Batches, "generator"),
        "growth": (morph, "grow"),
        "checkpoint": (tensor_file, "save_file"),
    }
    for event, (place, name) in replace.items():
        setattr(place, name, hooked(folder, faults, event, getattr(place, name)))
    sys.argv[1:] = sys.argv[middle + 1 :]
    main()


if __name__ == "__main__":
    start()

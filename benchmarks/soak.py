"""Whether a long run stays as it is: memory, file handles, threads and speed over time, on the small network.

python benchmarks/soak.py                 an hour, with a checkpoint every ten seconds
python benchmarks/soak.py --minutes 5     shorter

Prints a line for each of thirty equal times, and whether each column is flat; exits with 1 if one is not. The
first third is left out of that: caches fill up, and the allocator finds its size. Speed is images in the
processor's time that a fixed computation beside the training takes, so that other programs on the machine,
which slow down both, do not count.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import combinations
from pathlib import Path

import psutil
import torch

import progan
from progan.errors import Interrupted
from progan.runs.logs import Stats
from progan.runs.reporter import Reporter

ROWS = 30
OPTIONS = {
    "data": {"resolution": 16},
    "schedule": {"growth": "none", "total_kimg": 1e9, "batch_size": 16},
    "run": {"device": "cpu", "threads": 1, "log_kimg": 0.1, "checkpoint_minutes": 1 / 6, "grid": [4, 4]},
    "monitor": {"metrics": []},
}
LIMITS = {"memory": 0.02, "handles": 0.0, "threads": 0.0, "speed": 0.05}
"""By what share of its median a column may change, by its slope, over the time that is judged."""


@dataclass(frozen=True)
class Row:
    """What was measured between two times.

    Attributes:
        minutes: Since the start.
        memory: Resident set, MiB.
        handles: Open files.
        threads: Threads.
        speed: Images in the time of `reference` times 100.
    """

    minutes: float
    memory: float
    handles: float
    threads: float
    speed: float


def reference() -> float:
    """Return the processor's time in seconds that a fixed computation takes now."""
    images, weight = torch.ones(16, 32, 16, 16), torch.ones(32, 32, 3, 3)
    begun = time.process_time()
    for _ in range(10):
        torch.nn.functional.conv2d(images, weight, padding=1)
    return time.process_time() - begun


class Soak(Reporter):
    """Measures at log points, and ends the run after a time.

    Args:
        minutes: How long.
    """

    def __init__(self, minutes: float) -> None:
        self.rows: list[Row] = []
        self._minutes, self._process = minutes, psutil.Process()
        self._begun = time.monotonic()
        self._points: list[tuple[float, int, int]] = []
        self._reference: list[float] = []
        self._cpu, self._images = time.process_time(), 0

    def tick(self, stats: Stats) -> None:
        """Measure; close a row when its time is over."""
        process, seen = self._process, int(stats["images_seen"])
        minutes = (time.monotonic() - self._begun) / 60
        self._reference.append(reference())
        self._points.append((process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()))
        if minutes < (len(self.rows) + 1) * self._minutes / ROWS:
            return
        cpu, unit = time.process_time(), statistics.median(self._reference)
        trained = cpu - self._cpu - sum(self._reference)
        speed = (seen - self._images) / max(trained, 1e-9) * 100 * unit
        self._cpu, self._images, self._reference = cpu, seen, []
        memory, handles, threads = (float(max(values)) for values in zip(*self._points, strict=True))
        self._points = []
        self.rows.append(Row(minutes, memory, handles, threads, speed))
        print("{:8.1f} {:10.1f} {:8.0f} {:8.0f} {:10.1f}".format(*astuple(self.rows[-1])), flush=True)
        if len(self.rows) >= ROWS:
            os.kill(os.getpid(), signal.SIGTERM)


def slope(x: list[float], y: list[float]) -> float:
    """Return the median slope of all pairs of points (Theil 1950; Sen 1968), which outliers do not move."""
    return statistics.median((y[j] - y[i]) / (x[j] - x[i]) for i, j in combinations(range(len(x)), 2))


def is_flat(name: str, rows: list[Row]) -> bool:
    """Print how a column changed, and return whether that is within its limit; more speed is no fault."""
    minutes, values = [row.minutes for row in rows], [float(getattr(row, name)) for row in rows]
    usual = statistics.median(values)
    change = slope(minutes, values) * (minutes[-1] - minutes[0]) / usual
    flat = change >= -LIMITS[name] if name == "speed" else change <= LIMITS[name]
    print(f"{name}: median {usual:.1f}, change {change:+.2%} over {minutes[-1] - minutes[0]:.1f} minutes: "
          f"{'flat' if flat else 'NOT FLAT'}")  # fmt: skip
    return flat


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    torch.set_num_threads(1)
    print("{:>8} {:>10} {:>8} {:>8} {:>10}".format("minutes", "RSS MiB", "handles", "threads", "speed"))
    soak = Soak(minutes)
    with tempfile.TemporaryDirectory() as folder, suppress(Interrupted):  # it ends itself
        progan.train("builtin:synthetic", Path(folder) / "run", recipe="quickstart", options=OPTIONS,
                     reporter=soak)  # fmt: skip
    judged = soak.rows[len(soak.rows) // 3 :]
    flat = [is_flat(name, judged) for name in LIMITS]  # each of them prints
    return 0 if all(flat) else 1


if __name__ == "__main__":
    sys.exit(main())

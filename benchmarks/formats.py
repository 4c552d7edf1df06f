"""How fast pictures are prepared from each form that is read, and how much memory that takes.

    python benchmarks/formats.py [--count 2000] [--side 64] [--workers 1] [--forms folder lmdb ...]

Each form is written by its own library (`tests/helpers/foreign_sources.py`), then prepared in a process of
its own; the time is that of `progan.prepare` alone. Memory is the most that the process tree had resident
(what several processes share is counted in each), sampled every 50 ms; files that are mapped count as far as
they are in memory. Beside the rate stands its ratio to that of the folder of PNG files in the same run.

With a large `--count` and a few `--forms` it tells whether memory stays flat:

    python benchmarks/formats.py --forms tar.gz idx --side 16 --count 2000
    python benchmarks/formats.py --forms tar.gz idx --side 16 --count 200000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from prepare import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from foreign_sources import SOURCES, Any4D


def draw(count: int, side: int) -> Any4D:
    """Return pictures [N, side, side, 3] that compress about as photographs do."""
    random = np.random.default_rng(0)
    pictures = np.empty((count, side, side, 3), np.uint8)
    for one in pictures:
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        one[:] = (smooth + random.integers(-8, 9, (side, side, 1))).clip(0, 255)
    return pictures


def main() -> None:
    """Read the command line, measure each form, and print a row of a table for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--forms", nargs="+", choices=SOURCES, default=list(SOURCES))
    given = parser.parse_args()
    print(f"{given.count:,} pictures of {given.side}x{given.side}, {given.workers} worker(s)")
    print("| form | pictures/s | of the folder's | memory, MiB |\n| --- | --- | --- | --- |", flush=True)
    reference = None
    for form in given.forms:
        side = 32 if form == "cifar" else given.side
        with tempfile.TemporaryDirectory() as folder:
            source = SOURCES[form][0](Path(folder) / "source", draw(given.count, side))
            seconds, rss, _ = measure(source, Path(folder) / "set", side, given.workers, quiet=True)
        rate = given.count / seconds
        reference = reference or (rate if form == "folder" else None)
        ratio = f"{rate / reference:.2f}" if reference else ""
        print(f"| {form} | {rate:,.0f} | {ratio} | {rss / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()

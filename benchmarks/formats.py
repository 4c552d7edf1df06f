"""How fast pictures are prepared from each form that is read, and how much memory that takes.

    python benchmarks/formats.py [--count 2000] [--side 64] [--turns 3] [--workers 1] [--forms ...]

Each form is written by its own library (`tests/helpers/foreign_sources.py`), then prepared in a process of
its own; the time is that of `progan.prepare` alone. Memory is the most that the process tree had resident
(what several processes share is counted in each), sampled every 50 ms; files that are mapped count as far as
they are in memory. The forms take turns; beside the median rate stands the median of its ratios to the first
form in the same turn, and the smallest and largest of them.

With a large `--count` and a few `--forms` it tells whether memory stays flat:

    python benchmarks/formats.py --forms tar.gz idx --side 16 --turns 1 --count 2000
    python benchmarks/formats.py --forms tar.gz idx --side 16 --turns 1 --count 200000
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

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
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--forms", nargs="+", choices=SOURCES, default=list(SOURCES))
    given = parser.parse_args()
    sides = {form: 32 if form == "cifar" else given.side for form in given.forms}
    rates: dict[str, list[float]] = {form: [] for form in given.forms}
    memory = dict.fromkeys(given.forms, 0)
    with tempfile.TemporaryDirectory() as folder:
        places = {
            form: SOURCES[form][0](Path(folder) / form.replace(".", "-"), draw(given.count, side))
            for form, side in sides.items()
        }
        for turn in range(given.turns):
            for form, source in places.items():
                packed = Path(folder) / f"{turn}-{form}"
                seconds, rss, _ = measure(source, packed, sides[form], given.workers, quiet=True)
                shutil.rmtree(packed)
                rates[form].append(given.count / seconds)
                memory[form] = max(memory[form], rss)
    print(f"{given.count:,} pictures of {given.side}x{given.side}, {given.workers} worker(s)")
    print("| form | pictures/s | of the first form's | memory, MiB |\n| --- | --- | --- | --- |")
    first = rates[given.forms[0]]
    for form, found in rates.items():
        ratios = [rate / other for rate, other in zip(found, first, strict=True)]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {form} | {median(found):,.0f} | {ratio} | {memory[form] / 2**20:.0f} |")


if __name__ == "__main__":
    main()

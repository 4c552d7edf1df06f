"""How long preparing 2,000 photographs takes and how much memory the whole process tree needs.

    python benchmarks/prepare.py [--count 2000] [--side 500] [--resolution 128]

Makes JPEG files of textured noise, then prepares them in a fresh process with one and with two workers.
Memory is sampled every 50 ms: `rss` sums the resident pages of parent and workers (pages that they share are
counted more than once), `pss` shares them out (Linux only).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

PREPARE = """
import sys
import time
from pathlib import Path
from progan.config import DataOptions
from progan.preparation.source import prepare
source, destination, resolution, workers = sys.argv[1:]
started = time.perf_counter()
report = prepare(source, Path(destination), DataOptions(resolution=resolution), workers=int(workers))
print(*report.lines(), time.perf_counter() - started, sep="\\n")
"""


def make_pictures(folder: Path, count: int, side: int) -> None:
    random = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        coarse = random.integers(0, 256, (side // 20, side // 20, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        grain = random.integers(-12, 13, (side, side, 1))
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.jpg", quality=90)


def memory(parent: psutil.Process) -> tuple[int, int]:
    rss = pss = 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            info = process.memory_full_info()
        except psutil.Error:
            continue
        rss += info.rss
        pss += getattr(info, "pss", 0)
    return rss, pss


def measure(
    source: Path | str, destination: Path, resolution: int, workers: int, *, quiet: bool = False
) -> tuple[float, int, int]:
    command = [sys.executable, "-c", PREPARE, str(source), str(destination), str(resolution), str(workers)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(child.pid)
    peak_rss = peak_pss = 0
    while child.poll() is None:
        try:
            rss, pss = memory(watched)
        except psutil.NoSuchProcess:
            break
        peak_rss, peak_pss = max(peak_rss, rss), max(peak_pss, pss)
        time.sleep(0.05)
    told, _ = child.communicate()
    if child.returncode != 0:
        raise SystemExit("preparing failed")
    *lines, seconds = told.splitlines()
    if not quiet:
        print(*lines, sep="\n")
    return float(seconds), peak_rss, peak_pss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--side", type=int, default=500)
    parser.add_argument("--resolution", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pictures"
        make_pictures(source, options.count, options.side)
        for workers in (1, 2):
            seconds, rss, pss = measure(source, Path(folder) / f"set{workers}", options.resolution, workers)
            print(
                f"{workers} workers: {seconds:.1f} s, {options.count / seconds:.0f} pictures/s, "
                f"peak rss {rss / 2**20:.0f} MiB, pss {pss / 2**20:.0f} MiB"
            )


if __name__ == "__main__":
    main()

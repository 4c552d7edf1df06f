"""What decoding large JPEG files at a reduced size (`--draft`) changes: time, and the distance of the sets.

    python benchmarks/draft.py [--count 512] [--side 2048] [--resolution 128] [--folder PICTURES]

Photographs are drawn, or taken from `--folder`; they are prepared with reduced and with full decoding, in
turns. The sliced Wasserstein distance between both sets (of each size of the Laplacian pyramid, as
`progan compare` tells it) stands beside that of two halves of the full set: what chance alone gives.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.metrics.swd.distance import SlicedWasserstein, sliced_wasserstein, sliced_wasserstein_floor
from progan.preparation.source import prepare

Pixels = NDArray[np.uint8]


def draw(folder: Path, count: int, side: int) -> None:
    """Write photographs of textures at all scales, with hard edges, as JPEG."""
    random = np.random.default_rng(0)
    for i in range(count):
        pixels = np.zeros((side, side, 3), np.float32)
        coarse = 4
        while coarse <= side:
            layer = random.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8)
            scaled = Image.fromarray(layer).resize((side, side), Image.Resampling.BICUBIC)
            pixels += (np.asarray(scaled, np.float32) - 128) * (4 / coarse) ** 0.8
            coarse *= 2
        down, right = np.mgrid[:side, :side] / side - random.random((2, 1, 1))
        pixels[np.hypot(down, right) < random.uniform(0.1, 0.4)] += random.uniform(-80, 80, 3)
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{i:05d}.jpg", quality=92)


def prepared(
    source: Path, destination: Path, resolution: int, draft: bool
) -> tuple[NDArray[np.uint8], float]:
    """Return the pictures of a set, and the seconds that it took."""
    started = time.perf_counter()
    options = PictureOptions(resolution=str(resolution), draft=draft)
    made = PackedSet.open(prepare(source, destination, options, workers=1).path)
    return made.read(made.max_level, np.arange(made.count)).astype(np.uint8), time.perf_counter() - started


def told(found: SlicedWasserstein) -> str:
    """Return a distance, a size each."""
    parts = (f"{size}: {value:.2f}" for size, value in zip(found.resolutions, found.distances, strict=True))
    return "  ".join(parts)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = given.folder or Path(temporary) / "pictures"
        if given.folder is None:
            source.mkdir()
            draw(source, given.count, given.side)
        times: dict[bool, list[float]] = {True: [], False: []}
        sets: dict[bool, Pixels] = {}
        for turn in range(3):
            for draft in (True, False):
                sets[draft], seconds = prepared(
                    source, Path(temporary) / f"{turn}{draft}", given.resolution, draft
                )
                times[draft].append(seconds)
    ratios = sorted(full / quick for quick, full in zip(times[True], times[False], strict=True))
    print(f"full decoding takes {ratios[1]:.2f} times as long ({ratios[0]:.2f} to {ratios[2]:.2f})")
    change = np.abs(sets[True].astype(int) - sets[False])
    print(f"values differ by {change.mean():.2f} of 255 on average, {change.max()} at most")
    print("SWD, reduced against full:", told(sliced_wasserstein([sets[False]], [sets[True]])))
    print("SWD, halves of full:      ", told(sliced_wasserstein_floor([sets[False]])))


if __name__ == "__main__":
    main()

"""Time and memory of the sliced Wasserstein distance and MS-SSIM, and their speed against plain NumPy.

    python benchmarks/metrics.py [--images 16384] [--resolution 128] [--device cpu] [--plain-images 256]

Each metric measures as many reals as fakes, which stream, in a process of its own; its peak memory is told
with that of the process before the first image. The floor of the reals is measured beside the distance, as
always.

Then `--plain-images` of each set are measured in turns with the algorithms of the original code written
plainly: scipy.ndimage filters whole batches, patches are gathered by flat indices, all patches are normalised
and projected as copies, scipy.signal convolves by Fourier transform. How many times as fast is told for
the median turn of five, and for the slowest and fastest.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal

from progan.metrics.metric import Metric
from progan.metrics.ms_ssim import WEIGHTS, MsSsim, gaussian_window, ms_ssim
from progan.metrics.swd.distance import SlicedWassersteinMetric, sliced_wasserstein

BATCH = 64
TURNS = 5
KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, None].astype(np.float32) / 256

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


def pictures(seed: int, count: int, side: int) -> Iterator[Pixels]:
    """Batches of soft shapes with some noise, made of a small stock, so that making them takes no time."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (BATCH, 3, side // 8, side // 8), dtype=np.uint8)
    stock = coarse.repeat(8, 2).repeat(8, 3) + rng.integers(0, 56, (BATCH, 3, side, side), dtype=np.uint8)
    for start in range(0, count, BATCH):
        shifts = rng.integers(0, side, 2)
        yield np.roll(stock, shifts, (2, 3))[: count - start]


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(name: str, count: int, side: int, device: str) -> str:
    """Feed one metric and return a line about it."""
    target = torch.device(device)
    metrics: dict[str, Callable[[], Metric]] = {
        "swd": lambda: SlicedWassersteinMetric(device=target),
        "ms_ssim": lambda: MsSsim(device=target),
    }
    metric, empty, begin, busy = metrics[name](), peak(), time.perf_counter(), time.process_time()
    for batch in pictures(1, count, side):
        metric.add_reals(batch)
    for batch in pictures(2, count, side):
        metric.add_fakes(batch)
    fed = time.perf_counter()
    numbers = metric.compute()
    end = time.perf_counter()
    times = f"{end - begin:.1f} s ({fed - begin:.1f} s feeding, {end - fed:.1f} s computing; "
    times += f"{time.process_time() - busy:.1f} s of processors)"
    found = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    return f"{name}: {times}, peak {peak():.2f} GiB (before the first image {empty:.2f}); {found}"


def evaluate(reals: list[Pixels], fakes: list[Pixels]) -> float:
    """Our distance with the floor beside it."""
    metric = SlicedWassersteinMetric()
    for batch in reals:
        metric.add_reals(batch)
    for batch in fakes:
        metric.add_fakes(batch)
    return metric.compute()["swd/mean"]


def plain_swd(reals: list[Pixels], fakes: list[Pixels], *, whole: bool = False) -> float:
    """The original's sliced Wasserstein distance, mean over the levels.

    Its evaluation as a whole also measures the reals against themselves, where the floor would be.
    """
    rng = np.random.RandomState(0)
    levels = int(np.log2(reals[0].shape[-1])) - 3
    a, b = (plain_descriptors(batches, levels, rng) for batches in (reals, fakes))
    if whole:
        assert not any(plain_distance(patches, patches, rng) for patches in a)
    return float(np.mean([plain_distance(*both, rng) for both in zip(a, b, strict=True)])) * 1e3


def plain_descriptors(batches: list[Pixels], levels: int, rng: np.random.RandomState) -> list[Floats]:
    found: list[list[Floats]] = [[] for _ in range(levels)]
    for batch in batches:
        for level, images in enumerate(plain_pyramid(batch.astype(np.float32), levels)):
            n, channels, h, w = images.shape
            patch, channel, dx, dy = np.ogrid[0 : 128 * n, 0:3, -3:4, -3:4]
            x = dx + rng.randint(3, w - 3, size=(128 * n, 1, 1, 1))
            y = dy + rng.randint(3, h - 3, size=(128 * n, 1, 1, 1))
            found[level].append(images.flat[((patch // 128 * channels + channel) * h + y) * w + x])
    sets = [np.concatenate(parts) for parts in found]
    for patches in sets:
        patches -= patches.mean(axis=(0, 2, 3), keepdims=True)
        patches /= patches.std(axis=(0, 2, 3), keepdims=True)
    return [patches.reshape(len(patches), -1) for patches in sets]


def plain_pyramid(images: Floats, levels: int) -> list[Floats]:
    pyramid = [images]
    for _ in range(levels - 1):
        smaller = ndimage.convolve(pyramid[-1], KERNEL, mode="mirror")[:, :, ::2, ::2]
        widened = np.zeros_like(pyramid[-1])
        widened[:, :, ::2, ::2] = smaller
        pyramid[-1] = pyramid[-1] - ndimage.convolve(widened, 4 * KERNEL, mode="mirror")
        pyramid.append(smaller)
    return pyramid


def plain_distance(a: Floats, b: Floats, rng: np.random.RandomState) -> float:
    found = []
    for _ in range(4):
        directions = rng.randn(a.shape[1], 128)
        directions = (directions / np.sqrt((directions**2).sum(axis=0))).astype(np.float32)
        found.append(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())
    return float(np.mean(found))


def plain_ms_ssim(batches: list[Pixels]) -> float:
    """The original's MS-SSIM, channels last as there."""
    found = []
    for batch in batches:
        images = batch.transpose(0, 2, 3, 1).astype(np.float32)
        a, b = images[0::2], images[1::2]
        product = np.ones(len(a))
        for scale, weight in enumerate(WEIGHTS):
            similarity, contrast = plain_ssim(a, b)
            factor = similarity if scale == len(WEIGHTS) - 1 else contrast
            product *= factor.clip(0) ** weight
            a, b = (_halved(x) for x in (a, b))
        found.append(product.mean() * len(product))
    return float(sum(found)) / sum(len(batch) // 2 for batch in batches)


def _halved(x: Floats) -> Floats:
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) * np.float32(0.25)


def plain_ssim(a: Floats, b: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.array(gaussian_window(min(11, *a.shape[1:3])))
    window = np.outer(axis, axis)[None, :, :, None]
    maps = (signal.fftconvolve(x, window, mode="valid") for x in (a, b, a * a, b * b, a * b))
    mean_a, mean_b, square_a, square_b, product = maps
    covariance = 2 * (product - mean_a * mean_b) + 58.5225
    variances = square_a - mean_a**2 + square_b - mean_b**2 + 58.5225
    luminance = (2 * mean_a * mean_b + 6.5025) / (mean_a**2 + mean_b**2 + 6.5025)
    contrast = covariance / variances
    return (luminance * contrast).mean(axis=(1, 2, 3)), contrast.mean(axis=(1, 2, 3))


def race(name: str, ours: Callable[[], float], plain: Callable[[], float]) -> None:
    """Run both in turns and print how they compare; where others are busy, processor time compares better."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    busy: dict[str, list[float]] = {"ours": [], "plain": []}
    values = {}
    for _ in range(TURNS):
        for who, run in (("ours", ours), ("plain", plain)):
            begin, begin_busy = time.perf_counter(), time.process_time()
            values[who] = run()
            times[who].append(time.perf_counter() - begin)
            busy[who].append(time.process_time() - begin_busy)
    ratios, work = (
        sorted(plain / ours for plain, ours in zip(found["plain"], found["ours"], strict=True))
        for found in (times, busy)
    )
    best = {who: min(found) for who, found in times.items()}
    print(
        f"{name}: ours {best['ours']:.2f} s ({values['ours']:.5g}), plain {best['plain']:.2f} s "
        f"({values['plain']:.5g}): {ratios[TURNS // 2]:.1f} times as fast ({ratios[0]:.1f} to "
        f"{ratios[-1]:.1f}), {work[TURNS // 2]:.1f} times in processor time",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain-images", type=int, default=256, help="of each set; 0 leaves the race out")
    options = parser.parse_args()
    print(
        f"{options.images} reals and as many fakes of {options.resolution}x{options.resolution}, "
        f"{options.device}, {torch.get_num_threads()} threads"
    )
    for name in ("ms_ssim", "swd"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            line = pool.submit(measure, name, options.images, options.resolution, options.device).result()
        print(line, flush=True)
    if options.plain_images:
        print(f"{options.plain_images} of each, in turns with the plain algorithm:")
        reals, fakes = (list(pictures(seed, options.plain_images, options.resolution)) for seed in (1, 2))
        race("swd distance", lambda: sliced_wasserstein(reals, fakes).mean, lambda: plain_swd(reals, fakes))
        race("swd evaluation", lambda: evaluate(reals, fakes), lambda: plain_swd(reals, fakes, whole=True))
        race("ms_ssim", lambda: ms_ssim(fakes), lambda: plain_ms_ssim(fakes))


if __name__ == "__main__":
    main()

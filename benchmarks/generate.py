"""Whether making pictures is bound by the network or by writing them, for each form they are written in.

    python benchmarks/generate.py [--n 512] [--rounds 3] [--width 1024 128] [--resolution 128]

The network (fmap_base and fmap_max are `--width`; its weights are random) takes turns alone and with each
form. Then the same pictures are written without a network: how fast that is with all cores, and of one core.
Where a network makes more pictures a second than `of one core` times the cores, writing is the bound.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from progan.generation.image_files import save_folder, save_npy, save_zip
from progan.generation.sampling import generate
from progan.generation.save_samples import save_samples
from progan.models.generator import Generator

FORMS = ("x.npy", "x.zip", "folder")
BATCH = 64


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that pass, and those that all cores together compute."""
    wall, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cores


def make(G: Generator, n: int, seed: int) -> None:
    deque(generate(G, n, seed=seed), maxlen=0)


def write(pictures: np.ndarray, path: Path) -> None:
    batches = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    if path.suffix == ".npy":
        save_npy(batches, path, pictures.shape)
    elif path.suffix == ".zip":
        save_zip(batches, path)
    else:
        save_folder(batches, path)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def with_network(G: Generator, n: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each round, of the network alone (``) and with each form."""
    times: dict[str, list[float]] = {form: [] for form in ("", *FORMS)}
    for turn in range(rounds):
        for form in times:
            if not form:
                taken, _ = seconds(partial(make, G, n, turn))
            else:
                path = folder / form
                taken, _ = seconds(partial(save_samples, G, path, n, seed=turn))
                remove(path)
            times[form].append(taken)
    return times


def without_network(pictures: np.ndarray, rounds: int, folder: Path) -> dict[str, tuple[float, float, float]]:
    """Return pictures a second with all cores and of one, and the size beside the pixels', of each form."""
    found = {}
    for form in FORMS:
        path, taken = folder / form, []
        for _ in range(rounds):
            taken.append(seconds(partial(write, pictures, path)))
            share = size(path) / pictures.nbytes
            remove(path)
        wall, cores = (median(each) for each in zip(*taken, strict=True))
        found[form] = len(pictures) / wall, len(pictures) / cores, share
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, nargs=2, default=[1024, 128])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(0)
    base, most = given.width
    level = (given.resolution // 4).bit_length() - 1
    G = Generator(max_level=level, fmap_base=base, fmap_max=most, latent_size=most).place(given.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = with_network(G, given.n, given.rounds, folder)
        _, computed = seconds(partial(make, G, given.n, 0))
        pictures = np.concatenate(list(generate(G, given.n)))
        written = without_network(pictures, given.rounds, folder)
    cores = os.cpu_count()
    print(f"{given.n} pictures of {given.resolution}x{given.resolution}, {cores} cores, on {given.device}")
    print(
        f"network alone: {given.n / median(times['']):,.0f} pictures/s, of one core {given.n / computed:,.0f}"
    )
    for form in FORMS:
        ratio = median(a / b for a, b in zip(times[""], times[form], strict=True))
        rate, one, share = written[form]
        print(
            f"{form}: {given.n / median(times[form]):,.0f} pictures/s, {ratio:.2f} of the network alone; "
            f"writing alone {rate:,.0f} pictures/s, of one core {one:,.0f}; {share:.2f} of the pixels' size"
        )


if __name__ == "__main__":
    main()

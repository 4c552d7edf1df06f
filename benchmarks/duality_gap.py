"""What the duality gap says of runs that converge and of runs that are made to collapse, as curves.

    python benchmarks/duality_gap.py [--out runs/duality_gap] [--picture docs/images/duality_gap.png]

Small networks learn 1,024 gray pictures of 8x8 (soft blobs, split 0.6,0.2,0.2) on one core, with the logistic
and the wgan loss and otherwise the default rates. When a run has converged it forks: one branch goes on as it
was, the other with both learning rates a hundred-fold. A third run has the hundred-fold rates from the start.
The gap is measured with the default 400 steps a copy. A table is printed; the figures are kept in
figures.json, and only drawn again if that file is there. About six minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from progan.config import merge
from progan.data.builtin import synthetic
from progan.errors import DivergenceError
from progan.training.logs import Stats, read_stats
from progan.training.run import resume, train
from progan.training.run_folder import RunFolder

KIMG = {"logistic": 16.0, "wgan": 36.0}
"""Loss -> length until a run forks; all are measured eight times until then."""
RATE = 0.001
FACTOR = 100
NETWORK = {"fmap_base": 64, "fmap_max": 16}
BRANCHES = ("as it was", f"rates x {FACTOR} when converged", f"rates x {FACTOR} from the start")
FOLDERS = ("healthy", "forked", "wild")
NAMES = ("gap", "minmax", "maxmin", "value")
Curve = list[dict[str, float]]


def options(loss: str, kimg: float, rate: float, interval: float) -> dict[str, Any]:
    return {
        "model": {"generator": {**NETWORK, "latent_size": 16}, "discriminator": NETWORK},
        "schedule": {"growth": "none", "total_kimg": kimg, "batch_size": 16},
        "loss": {"adversarial": loss},
        "optimizer": {"g_lr": rate, "d_lr": rate},
        "run": {"device": "cpu", "threads": 1, "log_kimg": interval, "checkpoint_minutes": 60},
        "monitor": {"duality_gap": True, "interval_kimg": interval},
    }


def curve(run: Path) -> Curve:
    """Return the points of a run at which the gap was measured."""

    def point(line: Stats) -> dict[str, float]:
        wanted = {name: float(line[f"duality_gap/{name}"]) for name in (*NAMES, "share")}
        return {"kimg": float(line["images_seen"]) / 1000, **wanted}

    return [point(line) for line in read_stats(RunFolder(run).stats_file) if "duality_gap/gap" in line]


def measure(loss: str, pictures: Path, out: Path) -> dict[str, Curve]:
    """Train the three runs of a loss; one that ends in NaN has the points up to there."""
    kimg, interval = KIMG[loss], KIMG[loss] / 8
    healthy, forked, wild = (out / f"{loss}-{name}" for name in FOLDERS)
    train(pictures, healthy, options=options(loss, kimg, RATE, interval))
    shutil.copytree(healthy, forked)
    longer, fast = {"schedule": {"total_kimg": 1.25 * kimg}}, {"g_lr": RATE * FACTOR, "d_lr": RATE * FACTOR}
    often = {"monitor": {"interval_kimg": interval / 2}}
    resume(healthy, options=merge(longer, often))
    for run in (forked, wild):
        try:
            if run == wild:
                train(pictures, wild, options=options(loss, kimg, RATE * FACTOR, kimg / 4))
            else:
                resume(forked, options=merge(longer, often, {"optimizer": fast}))
        except DivergenceError as error:
            print(f"{run.name}: {error}")
    return dict(zip(BRANCHES, map(curve, (healthy, forked, wild)), strict=True))


def print_tables(figures: dict[str, dict[str, Curve]]) -> None:
    for loss, branches in figures.items():
        for branch, points in branches.items():
            print(f"\n{loss}, {branch}\n{'kimg':>8}" + "".join(f"{name:>10}" for name in NAMES))
            for point in points:
                print(f"{point['kimg']:8.1f}" + "".join(f"{point[name]:10.3f}" for name in NAMES))
        share = branches[BRANCHES[0]][7]["share"]
        print(f"share of the time that the gap took until the fork: {100 * share:.0f} %")


def draw(figures: dict[str, dict[str, Curve]], out: Path, picture: Path) -> None:
    """Draw the gap of all branches, what it is made of where nothing collapses, and samples at their ends."""
    figure, axes = plt.subplots(3, len(figures), figsize=(10, 9), squeeze=False)
    for (loss, branches), (above, middle, below) in zip(figures.items(), axes.T, strict=True):
        for branch, points in branches.items():
            shown = [p for p in points if p["kimg"] >= KIMG[loss] or branch != BRANCHES[1]]
            _line(above, shown, "gap", branch)
        for name in ("minmax", "value", "maxmin"):
            _line(middle, branches[BRANCHES[0]], name, name)
        above.axvline(KIMG[loss], color="gray", linewidth=0.8, linestyle=":")
        above.set_title(f"{loss}: duality gap (points below 0 are left out)")
        above.set_yscale("log")
        middle.set_title(f"{loss}, as it was: what the gap is made of")
        for plot in (above, middle):
            plot.set_xlabel("kimg")
            plot.legend(fontsize=8)
        strips = [_samples(out / f"{loss}-{name}", "*_*.png") for name in FOLDERS]
        strips.append(_samples(out / f"{loss}-{FOLDERS[0]}", "reals.png"))
        below.imshow(np.concatenate(strips), cmap="gray", vmin=0, vmax=255)
        places = [len(strips[0]) * (row + 0.5) for row in range(len(strips))]
        below.set_yticks(places, ["as it was", "x 100 late", "x 100 early", "pictures"])
        below.set_xticks([])
        below.set_title(f"{loss}: averaged generators at the end")
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def _line(axes: Axes, points: Curve, name: str, label: str) -> None:
    axes.plot([p["kimg"] for p in points], [p[name] for p in points], marker="o", markersize=3, label=label)


def _samples(run: Path, pattern: str) -> NDArray[np.uint8]:
    """Return the first row of the last grid of a run."""
    with Image.open(max(RunFolder(run).samples.glob(pattern))) as grid:
        gray = np.asarray(grid.convert("L"))
    return gray[: len(gray) // 6]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/duality_gap"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/duality_gap.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = arguments.out / "figures.json"
    if not known.exists():
        start = time.monotonic()
        shutil.rmtree(arguments.out, ignore_errors=True)  # of a call that did not end
        pictures = arguments.out / "blobs"
        synthetic(pictures, count=1024, resolution=8, channels=1, split=(0.6, 0.2, 0.2))
        made = {loss: measure(loss, pictures, arguments.out) for loss in KIMG}
        known.write_text(json.dumps(made, indent=1), encoding="utf-8")
        print(f"{time.monotonic() - start:.0f} s")
    figures: dict[str, dict[str, Curve]] = json.loads(known.read_text(encoding="utf-8"))
    print_tables(figures)
    draw(figures, arguments.out, arguments.picture)


if __name__ == "__main__":
    main()

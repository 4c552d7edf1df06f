"""What the duality gap says of runs that converge and of runs that are made to collapse, as curves.

    python benchmarks/duality_gap.py [--out runs/duality_gap] [--picture docs/images/duality_gap.png]

Small networks learn 4,096 gray pictures of 8x8 (soft blobs, split 0.5,0.25,0.25) on one core, with the
logistic and the wgan loss and two seeds. At a fixed clock, when the samples look like the pictures, a run
forks: one branch goes on as it was, the other with both learning rates a hundred-fold. The gap is measured
with the default 400 steps a copy. Tables are printed; the figures are kept in figures.json, and only drawn
again if that file is there. About eight minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from progan.config import make_config
from progan.data.packed import PackedSet, is_packed
from progan.data.pixels import to_uint8
from progan.errors import DivergenceError
from progan.evaluation.duality_gap import DualityGap
from progan.preparation.builtin_sets import synthetic
from progan.runs.resolve import resolve
from progan.training.iteration import Iteration
from progan.training.spec import ImageSpec, make_spec

LOSSES: dict[str, dict[str, Any]] = {
    # With the usual R1 of 10 networks this small learn more slowly.
    "logistic": {"adversarial": "logistic", "r1_gamma": 1.0},
    "wgan": {"adversarial": "wgan"},
}
SEEDS = (1, 2)
RATE, FACTOR = 0.002, 100
NETWORK = {"fmap_base": 128, "fmap_max": 32}
BEFORE = (1.0, 2.0, 4.0, 8.0, 16.0, 26.0)
"""Clocks in kimg at which the gap is measured; at the last one the run forks."""
AFTER = (27.0, 30.0)
NAMES = ("gap", "minmax", "maxmin", "value")
USUAL, WILD = "as it was", f"rates x {FACTOR}"
COLOURS = {USUAL: "tab:blue", WILD: "tab:orange"}
SHOWN = 10
"""Samples of each run that are drawn."""


@dataclass
class Curve:
    """What was measured of a run.

    Attributes:
        loss, seed, branch: Which run.
        points: Of each clock, `kimg` and the numbers of the gap.
        samples: [SHOWN, 8, 8] of the averaged generator at the end, 0..255.
        ended: What ended it early; empty if it came to its end.
    """

    loss: str
    seed: int
    branch: str
    points: list[dict[str, float]] = field(default_factory=list)
    samples: list[list[list[int]]] = field(default_factory=list)
    ended: str = ""


class Game:
    """A run of the small networks, without a folder.

    Args:
        pictures: Split into three parts.
        loss: Of `LOSSES`.
        seed: Of the run.
        rate: Both learning rates.
    """

    def __init__(self, pictures: PackedSet, loss: str, seed: int, rate: float) -> None:
        tree = {
            "model": {"generator": {**NETWORK, "latent_size": 16}, "discriminator": NETWORK},
            "schedule": {"growth": "none", "total_kimg": AFTER[-1], "batch_size": 16},
            "loss": LOSSES[loss],
            "optimizer": {"g_lr": rate, "d_lr": rate, "ema_decay": 0.99},
            "run": {"seed": seed},
        }
        config, image = resolve(make_config(tree), pictures), ImageSpec(1, pictures.base_shape, 1)
        device = torch.device("cpu")
        spec = make_spec(config, image, len(pictures.indices("train")))
        self.updates = Iteration(spec, pictures, device, print)
        self._gap = DualityGap(config, pictures, device)

    def begin_at(self, other: Game) -> None:
        """Take over the networks, their moments and the clock of another run."""
        state, known = self.updates.state, other.updates.state
        state.load_tensors(known.tensors())
        state.images_seen, state.phase = known.images_seen, known.phase

    def follow(self, curve: Curve, clocks: tuple[float, ...]) -> None:
        """Train on, and add the gap at each of these clocks; what diverges ends there."""
        updates, state = self.updates, self.updates.state
        try:
            for kimg in clocks:
                while state.images_seen < 1000 * kimg:
                    updates(updates.spec.schedule.at(state.images_seen))
                found = self._gap.measure(state)
                assert found is not None
                curve.points.append({"kimg": kimg, **{name: getattr(found, name) for name in NAMES}})
        except DivergenceError as error:
            curve.ended = str(error)
        latents = torch.randn(SHOWN, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            curve.samples = to_uint8(state.G_ema(latents))[:, 0].tolist()


def measure(pictures: PackedSet, loss: str, seed: int) -> list[Curve]:
    """Train a run of a loss and a seed up to the fork, and both branches from there."""
    usual, wild = Curve(loss, seed, USUAL), Curve(loss, seed, WILD)
    run, fork = Game(pictures, loss, seed, RATE), Game(pictures, loss, seed, RATE * FACTOR)
    run.follow(usual, BEFORE)
    fork.begin_at(run)
    wild.points.append(usual.points[-1])
    run.follow(usual, AFTER)
    fork.follow(wild, AFTER)
    return [usual, wild]


def print_tables(curves: list[Curve]) -> None:
    for curve in curves:
        print(f"\n{curve.loss}, seed {curve.seed}, {curve.branch}. {curve.ended}")
        print(f"{'kimg':>8}" + "".join(f"{name:>12}" for name in NAMES))
        for point in curve.points:
            print(f"{point['kimg']:8.0f}" + "".join(f"{point[name]:12.3f}" for name in NAMES))


def draw(curves: list[Curve], pictures: PackedSet, file: Path) -> None:
    """Draw the gap of both branches, what it is made of where nothing collapses, and samples at the ends."""
    figure, axes = plt.subplots(
        3, len(LOSSES), figsize=(11, 10), height_ratios=(4, 3, 3), squeeze=False, layout="constrained"
    )
    for loss, (above, middle, below) in zip(LOSSES, axes.T, strict=True):
        mine = [curve for curve in curves if curve.loss == loss]
        for curve in mine:
            _line(above, curve, "gap", COLOURS[curve.branch], curve.branch)
        for name, colour in (("minmax", "tab:red"), ("value", "tab:gray"), ("maxmin", "tab:purple")):
            for curve in mine:
                if curve.branch == USUAL:
                    _line(middle, curve, name, colour, name)
        above.set_title(f"{loss}: duality gap, a line for each seed")
        above.set_yscale("log")
        middle.set_title(f"{loss}, as it was: what the gap is made of")
        for plot in (above, middle):
            plot.axvline(BEFORE[-1], color="gray", linewidth=0.8, linestyle=":")
            plot.set_xlabel("kimg")
            plot.legend(fontsize=8)
        _draw_samples(below, mine, pictures)
        below.set_title(f"{loss}: averaged generators at the end")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _line(axes: Axes, curve: Curve, name: str, colour: str, label: str) -> None:
    """Draw a thin line; only that of the first seed has a label."""
    x, y = ([point[key] for point in curve.points] for key in ("kimg", name))
    shown = label if curve.seed == SEEDS[0] else None
    axes.plot(x, y, marker="o", markersize=3, linewidth=0.9, color=colour, label=shown)


def _draw_samples(axes: Axes, curves: list[Curve], pictures: PackedSet) -> None:
    """Draw a row of samples for each curve, and one of pictures."""
    rows = [(f"{curve.branch}, seed {curve.seed}", np.array(curve.samples)) for curve in curves]
    rows.append(("pictures", pictures.read(1, pictures.indices("test")[:SHOWN])[:, 0]))
    axes.imshow(np.concatenate([_strip(images) for _, images in rows]), cmap="gray", vmin=0, vmax=255)
    axes.set_yticks([10 * k + 5 for k in range(len(rows))], [name for name, _ in rows])
    axes.set_xticks([])


def _strip(images: NDArray[Any]) -> NDArray[Any]:
    """Put images [N, 8, 8] side by side with a light gray pixel around each: [10, 10 * N]."""
    return np.concatenate(list(np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=210)), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/duality_gap"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/duality_gap.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known, place = arguments.out / "figures.json", arguments.out / "blobs"
    if is_packed(place):
        pictures = PackedSet.open(place)
    else:
        pictures = synthetic(place, count=4096, resolution=8, channels=1, split=(0.5, 0.25, 0.25))
    if not known.exists():
        start = time.process_time()
        made = [curve for loss in LOSSES for seed in SEEDS for curve in measure(pictures, loss, seed)]
        known.write_text(json.dumps([asdict(curve) for curve in made]), encoding="utf-8")
        print(f"{time.process_time() - start:.0f} s of a CPU core")
    curves = [Curve(**each) for each in json.loads(known.read_text(encoding="utf-8"))]
    print_tables(curves)
    draw(curves, pictures, arguments.picture)


if __name__ == "__main__":
    main()

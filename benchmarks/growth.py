"""Fading against morphing: the same pictures, seeds and number of images, the distance as it falls.

    python benchmarks/growth.py [--out runs/growth] [--seeds 0 1 2] [--sets glyphs crops] [--factors]
                                [--kimg 1.0] [--plot docs/images/growth.png]

Trains the networks of the quickstart recipe to 32x32 on one core (36 kimg; `--kimg 0.5` halves all lengths):
each level for as many images either way, of which a fade takes half, a morph 0.75 kimg, and a slow morph 3. A
run goes on where it stopped. Measured is the sliced Wasserstein distance (x 1e3) of 1,024 samples of the
averaged generator at 16x16 and 32x32, after every kimg. A table is printed, and the curves are drawn.

glyphs: the embedded set. crops: 6,000 crops of six photographs that ship with scikit-image, halved to 32x32.
--factors: also with other weights to factor the old map into, with the short morph: hardly more than the map
itself ('map only'), and features in pairs of opposite signs ('pairs').
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image
from rich.console import Console
from rich.table import Table

import progan
from progan.cli.terminal.training import TerminalReporter
from progan.models import morph
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "retina")
STAGES = (2.0, 6.0, 12.0, 16.0)
"""Images of each level, in kimg."""
MORPHS = {"morph": 0.75, "slow morph": 3.0}
"""Lengths of a morph, in kimg; other variants have the first."""
GROWTHS = ("fade", *MORPHS)
FACTORS = ("map only", "pairs")
Curve = dict[float, float]
"""Distance by images seen, in kimg."""


def crops(folder: Path, count: int = 6000, side: int = 64) -> Path:
    """Write crops of photographs, if they are not there; returns their folder."""
    target = folder / "crops"
    if target.exists():
        return target
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photographs = [photograph(name) for name in PHOTOGRAPHS]
    for i in range(count):
        picture = photographs[i % len(photographs)]
        top, left = (int(rng.integers(length - side + 1)) for length in (picture.height, picture.width))
        crop = picture.crop((left, top, left + side, top + side))
        crop.resize((side // 2, side // 2), Image.Resampling.BOX).save(target / f"{i:05d}.png")
    return target


def photograph(name: str) -> Image.Image:
    if name == "motorcycle_left":
        path = Path(skimage.data.__file__).parent / "motorcycle_left.png"
        return Image.open(path).convert("RGB")
    return Image.fromarray(np.asarray(getattr(skimage.data, name)())[..., :3])


def grow_from(weights: str) -> Callable[[Generator | Discriminator, int], morph.Condition]:
    """Return `morph.grow` for other fresh weights: 'map only' or 'pairs'."""
    original = morph.grow

    @torch.no_grad()
    def grow(network: Generator | Discriminator, level: int) -> morph.Condition:
        inwards = isinstance(network, Discriminator)
        side, names = ("from", ("conv0", "conv1_down")) if inwards else ("to", ("conv1", "conv0_up"))
        state = network.state_dict()
        rgb = state[f"{side}_rgb.{level}.weight"]
        near, far = (state[f"blocks.{level - 1}.{name}.weight"] for name in names)
        change = map_only if weights == "map only" else paired
        change(*((weight.transpose(0, 1) if inwards else weight) for weight in (rgb, near, far)))
        return original(network, level)

    return grow


def map_only(rgb: torch.Tensor, near: torch.Tensor, far: torch.Tensor) -> None:
    """Leave of random weights what images pass through, at its size, and a hundredth of all else.

    So the three maps share the old one evenly, as when its singular values are dealt to them.
    """
    matrix, centre = rgb[:, :, 0, 0], near.shape[-1] // 2
    seen = torch.linalg.pinv(matrix) @ matrix @ near[:, :, centre, centre]
    near.mul_(0.01)
    near[:, :, centre, centre] += seen
    far.mul_(0.01)


def paired(rgb: torch.Tensor, near: torch.Tensor, far: torch.Tensor) -> None:
    """Make the second half of the features the negative of the first, and read their difference."""
    rgb.copy_(halved(rgb, 1))
    near.copy_(halved(halved(near, 0), 1))
    far.copy_(halved(far, 0))


def halved(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Make the second half of the filters along an axis the negative of the first."""
    one, other = weight.chunk(2, axis)
    return torch.cat([(one - other) / 2, (other - one) / 2], axis)


def schedule(growth: str, scale: float) -> dict[str, Any]:
    if growth == "fade":
        half = [scale * length / 2 for length in STAGES]
        rest = [scale * STAGES[0], *half[1:]]
        return {"growth": "fade", "stabilise_kimg": rest, "fade_kimg": [0.0, *half[1:]]}
    length = scale * MORPHS.get(growth, MORPHS["morph"])
    rest = [scale * STAGES[0], *(scale * stage - length for stage in STAGES[1:])]
    return {"growth": "morph", "morph_kimg": length, "stabilise_kimg": rest}


def train(folder: Path, source: str | Path, name: str, growth: str, seed: int, scale: float) -> Curve:
    """Train one run, or go on with it; returns the distances at the level of each moment."""
    options = {
        "schedule": schedule(growth, scale),
        "data": {"cache": str(folder / "sets")},
        "run": {"seed": seed, "log_kimg": 4.0 * scale},
        "monitor": {"metrics": ["swd"], "interval_kimg": scale, "num_images": 1024},
    }
    console = Console()
    console.rule(f"{name}, {growth}, seed {seed}")
    grow = grow_from(growth) if growth in FACTORS else morph.grow
    with TerminalReporter(console) as reporter, patch.object(morph, "grow", grow):
        out = folder / f"{name}-{growth.replace(' ', '-')}-{seed}"
        run = progan.train(source, out, recipe="quickstart", options=options, reporter=reporter)
    lines = [line for line in read_stats(RunFolder(run).stats_file) if "swd/mean" in line]
    return {float(line["images_seen"]) / 1000: float(line["swd/mean"]) for line in lines}


def levels(scale: float) -> dict[str, tuple[float, float]]:
    """Return where the measured levels begin and end, in kimg."""
    bounds = [scale * sum(STAGES[:level]) for level in (2, 3, 4)]
    return dict(zip(("16x16", "32x32"), pairwise(bounds), strict=True))


def moments(start: float, end: float, scale: float) -> list[float]:
    """Return the moments of a level at which its variants are compared."""
    return [start + k * scale for k in range(1, round((end - start) / scale) + 1)]


def at(curve: Curve, clock: float) -> float:
    """Return the distance at a moment, between the measurements beside it."""
    return float(np.interp(clock, list(curve), list(curve.values())))


def facts(curve: Curve, scale: float) -> dict[str, float]:
    """Distances just after each growth, half through, at the end (median of three), and on average."""
    result = {}
    for name, (start, end) in levels(scale).items():
        inside = moments(start, end, scale)
        values = [at(curve, clock) for clock in inside]
        result[f"{name}, 1 kimg in"] = values[0]
        result[f"{name}, 3 kimg in"] = values[2]
        result[f"{name}, half through"] = values[len(values) // 2 - 1]
        result[f"{name}, end"] = median(values[-3:])
        result[f"{name}, mean"] = mean(values)
    return result


def reached(curve: Curve, goal: float, start: float, end: float, scale: float) -> float | None:
    """Return when three measurements in a row have a median of at most the goal; None if never."""
    inside = moments(start, end, scale)
    for i in range(len(inside) - 2):
        if median(at(curve, clock) for clock in inside[i : i + 3]) <= goal:
            return inside[i]
    return None


def report(console: Console, name: str, curves: dict[tuple[str, int], Curve], scale: float) -> None:
    """Print the mean over the seeds with each seed's number, and how many images each way needs."""
    seeds = sorted({seed for _, seed in curves})
    growths = list(dict.fromkeys(growth for growth, _ in curves))
    table = Table("distance x 1e3", *growths, title=name)
    found = {key: facts(curve, scale) for key, curve in curves.items()}
    for row in next(iter(found.values())):
        cells = []
        for growth in growths:
            values = [found[growth, seed][row] for seed in seeds]
            cells.append(f"{mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})")
        table.add_row(row, *cells)
    for level, (start, end) in levels(scale).items():
        goals = {seed: 1.05 * found["fade", seed][f"{level}, end"] for seed in seeds}
        cells = []
        for growth in growths:
            clocks = [reached(curves[growth, seed], goals[seed], start, end, scale) for seed in seeds]
            cells.append(", ".join("never" if clock is None else f"{clock - start:.0f}" for clock in clocks))
        table.add_row(f"{level}, kimg until 1.05 x fade's end", *cells)
    console.print(table)


def plot(path: Path, curves: dict[str, dict[tuple[str, int], Curve]], scale: float) -> None:
    """Draw one panel a set: every seed thin, the mean thick, the growths as lines."""
    figure = Figure(figsize=(5.6 * len(curves), 4.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(curves)))
    for axes, (name, runs) in zip(panels, curves.items(), strict=True):
        growths = list(dict.fromkeys(growth for growth, _ in runs))
        for i, growth in enumerate(growths):
            mine = [curve for (kind, _), curve in runs.items() if kind == growth]
            for curve in mine:
                axes.plot(list(curve), list(curve.values()), color=f"C{i}", linewidth=0.7, alpha=0.4)
            clocks = [clock for bounds in levels(scale).values() for clock in moments(*bounds, scale)]
            means = [mean(at(curve, clock) for curve in mine) for clock in clocks]
            axes.plot(clocks, means, color=f"C{i}", linewidth=2.2, label=growth)
        for size, (start, _) in levels(scale).items():
            axes.axvline(start, color="0.6", linewidth=0.8, linestyle="--")
            place = (start, 0.98)
            axes.annotate(f" {size}", place, xycoords=("data", "axes fraction"), va="top", color="0.4")
        axes.set(title=name, xlabel="images seen (kimg)", ylabel="sliced Wasserstein distance x 1e3")
        axes.set_yscale("log")
        for axis_of in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_of(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.legend(loc="upper right")
    figure.savefig(path, dpi=110)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("runs/growth"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=("glyphs", "crops"), default=["glyphs", "crops"])
    parser.add_argument("--factors", action="store_true")
    parser.add_argument("--kimg", type=float, default=1.0, help="all lengths are multiplied by it")
    parser.add_argument("--plot", type=Path, default=None)
    given = parser.parse_args()
    curves: dict[str, dict[tuple[str, int], Curve]] = {}
    for name in given.sets:
        source = "builtin:glyphs" if name == "glyphs" else crops(given.out)
        curves[name] = {
            (growth, seed): train(given.out, source, name, growth, seed, given.kimg)
            for seed in given.seeds
            for growth in (*GROWTHS, *(FACTORS if given.factors else ()))
        }
    for name, runs in curves.items():
        report(Console(), name, runs, given.kimg)
    if given.plot is not None:
        plot(given.plot, curves, given.kimg)


if __name__ == "__main__":
    main()

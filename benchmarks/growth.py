"""Fading against morphing: the same pictures, seeds and number of images, the distance as it falls.

    python benchmarks/growth.py [--out runs/growth] [--seeds 0 1 2] [--sets glyphs crops] [--factors]
                                [--kimg 1.0] [--plot docs/images/growth.png]

Trains the networks of the quickstart recipe to 32x32 on one core (36 kimg; `--kimg 0.5` halves all lengths):
each level for as many images either way, of which a fade takes half and a morph 0.75 kimg. A run goes on
where it stopped. Measured is the sliced Wasserstein distance (x 1e3) of 1,024 samples of the averaged
generator at 16x16 and 32x32, after every kimg. A table is printed, and the curves are drawn.

glyphs: the embedded set. crops: 6,000 crops of six photographs that ship with scikit-image, halved to 32x32.
--factors: also with other weights to factor the old map into: hardly more than the map itself ('map only'),
and features in pairs of opposite signs ('pairs').
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

import progan
from progan.models import morph
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.logs import read_stats
from progan.training.progress import TerminalReporter
from progan.training.run_folder import RunFolder

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "retina")
STAGES = (2.0, 6.0, 12.0, 16.0)
"""Images of each level, in kimg."""
MORPH = 0.75
GROWTHS = ("fade", "morph")
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
        crop = picture.crop((left, top, left + side, top + side)).resize(
            (side // 2, side // 2), Image.Resampling.BOX
        )
        crop.save(target / f"{i:05d}.png")
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
        generator, block = isinstance(network, Generator), network.blocks[level - 1]
        if weights == "map only":
            for parameter in block.parameters():
                parameter.mul_(0.03)
        else:
            state = network.state_dict()
            names = (
                ("conv1.weight", "conv0_up.weight") if generator else ("conv0.weight", "conv1_down.weight")
            )
            rgb, near, far = (
                state[name]
                for name in (
                    f"{'to' if generator else 'from'}_rgb.{level}.weight",
                    *(f"blocks.{level - 1}.{name}" for name in names),
                )
            )
            inner, outer = (1, 0) if generator else (0, 1)
            rgb.copy_(halved(rgb, inner))
            near.copy_(halved(halved(near, 0), 1))
            far.copy_(halved(far, outer))
        return original(network, level)

    return grow


def halved(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Make the second half of the filters along an axis the negative of the first."""
    one, other = weight.chunk(2, axis)
    return torch.cat([(one - other) / 2, (other - one) / 2], axis)


def schedule(growth: str, scale: float) -> dict[str, Any]:
    if growth == "fade":
        half = [scale * length / 2 for length in STAGES]
        return {
            "growth": growth,
            "stabilise_kimg": [scale * STAGES[0], *half[1:]],
            "fade_kimg": [0.0, *half[1:]],
        }
    morph = MORPH * scale
    rest = [scale * STAGES[0], *(scale * length - morph for length in STAGES[1:])]
    return {"growth": "morph", "morph_kimg": morph, "stabilise_kimg": rest}


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
    lines = read_stats(RunFolder(run).stats_file)
    return {
        float(line["images_seen"]) / 1000: float(line["swd/mean"]) for line in lines if "swd/mean" in line
    }


def starts(scale: float) -> list[float]:
    """Where 16x16 and 32x32 begin."""
    return [scale * sum(STAGES[:level]) for level in (2, 3)]


def facts(curve: Curve, scale: float) -> dict[str, float]:
    """Distances one kimg after each growth that is measured, at the end of each level, and at the best."""
    first, second = starts(scale)
    after = [min(clock for clock in curve if clock >= start + 0.9 * scale) for start in (first, second)]
    before = max(clock for clock in curve if clock <= second + 0.1 * scale)
    return {
        "16x16, 1 kimg in": curve[after[0]],
        "16x16, end": curve[before],
        "32x32, 1 kimg in": curve[after[1]],
        "32x32, end": curve[max(curve)],
    }


def saved(fade: Curve, morph: Curve, scale: float) -> dict[str, float]:
    """Images of a level, in kimg, that morphing needs less to reach where fading ends; negative if more."""
    result = {}
    for name, start, end in zip(
        ("16x16", "32x32"), starts(scale), [*starts(scale)[1:], scale * sum(STAGES)], strict=True
    ):
        inside = [clock for clock in sorted(fade) if start < clock <= end + 0.1 * scale]
        goal = fade[inside[-1]]
        reached = [
            clock for clock in sorted(morph) if start < clock <= end + 0.1 * scale and morph[clock] <= goal
        ]
        result[name] = inside[-1] - reached[0] if reached else float("nan")
    return result


def report(console: Console, name: str, curves: dict[tuple[str, int], Curve], scale: float) -> None:
    """Print the mean over the seeds, and each seed's number."""
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
    console.print(table)
    for level in ("16x16", "32x32"):
        less = [saved(curves["fade", seed], curves["morph", seed], scale)[level] for seed in seeds]
        sooner = ", ".join(f"{kimg:.1f}" for kimg in less)
        console.print(f"{level}: morphing is where fading ends this many kimg sooner: {sooner}")


def plot(path: Path, curves: dict[str, dict[tuple[str, int], Curve]], scale: float) -> None:
    """Draw one panel a set: every seed thin, the mean thick, the growths as lines."""
    figure = Figure(figsize=(5.2 * len(curves), 3.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(curves)))
    for axes, (name, runs) in zip(panels, curves.items(), strict=True):
        for growth, colour in zip(GROWTHS, ("tab:blue", "tab:orange"), strict=True):
            mine = [curve for (kind, _), curve in runs.items() if kind == growth]
            for curve in mine:
                axes.plot(list(curve), list(curve.values()), color=colour, linewidth=0.7, alpha=0.5)
            clocks = sorted(set.intersection(*(set(curve) for curve in mine)))
            means = [mean(curve[clock] for curve in mine) for clock in clocks]
            axes.plot(clocks, means, color=colour, linewidth=2.2, label=growth)
        for start, size in zip(starts(scale), ("16x16", "32x32"), strict=True):
            axes.axvline(start, color="0.6", linewidth=0.8, linestyle="--")
            axes.annotate(
                f" {size}", (start, 0.98), xycoords=("data", "axes fraction"), va="top", color="0.4"
            )
        axes.set(
            title=name, xlabel="images seen (kimg)", ylabel="sliced Wasserstein distance x 1e3", yscale="log"
        )
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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

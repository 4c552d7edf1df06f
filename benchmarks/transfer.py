"""Trained networks as a beginning (`--init`): other pictures, and the next resolution.

    python benchmarks/transfer.py [--out runs/transfer] [--seeds 0 1] [--sets others letters-64] [--kimg 1.0]

Trains the networks of the quickstart recipe on ten capitals (builtin:glyphs, 32x32) from 4x4 up, 15 kimg.
Then, with each seed, 6 kimg on ten other characters at 32x32: from those networks; from fresh weights, all at
32x32; and from fresh weights grown from 4x4. Then 2 kimg on the first ten capitals at 64x64: the next level
of those networks comes in, against fresh weights, all at 64x64. Measured is the sliced Wasserstein distance
(x 1e3) of 1,024 samples of the averaged generator to the pictures at full size. A run goes on where it
stopped; `--kimg 0.5` halves all lengths.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

import progan
from progan.cli.terminal.training import TerminalReporter
from progan.data.packed import is_packed
from progan.preparation.builtin_sets import glyphs
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder

OTHERS = "BCDFHLNPQU"
SETS: dict[str, dict[str, Any]] = {
    "letters": {"resolution": 32},
    "others": {"resolution": 32, "characters": OTHERS},
    "letters-64": {"resolution": 64},
}
GROWN = {"stabilise_kimg": [1.0, 1.0, 2.0, 5.0], "fade_kimg": [0.0, 1.0, 2.0, 3.0]}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "others": {
        "--init": {"stabilise_kimg": 6.0},
        "fresh": {"start_level": 3, "stabilise_kimg": 6.0},
        "fresh, grown": {"stabilise_kimg": [0.4, 0.4, 0.8, 2.0], "fade_kimg": [0.0, 0.4, 0.8, 1.2]},
    },
    "letters-64": {
        "--init": {"fade_kimg": 1.0, "stabilise_kimg": 1.0},
        "fresh": {"start_level": 4, "stabilise_kimg": 2.0},
    },
}
EVERY = {"letters": 15.0, "others": 1.0, "letters-64": 0.5}
"""How often the distance is measured, in kimg."""
Curve = dict[float, float]
"""Distance by images seen, in kimg."""


def pictures(folder: Path, name: str) -> Path:
    """Draw a set, if it is not there; returns its folder."""
    place = folder / "sets" / name
    if not is_packed(place):
        glyphs(place, count=6000, labelled=False, **SETS[name])
    return place


def scaled(schedule: dict[str, Any], scale: float) -> dict[str, Any]:
    """Return a schedule whose lengths are multiplied."""

    def times(value: Any) -> Any:
        return [scale * one for one in value] if isinstance(value, list) else scale * value

    return {key: times(value) if key.endswith("_kimg") else value for key, value in schedule.items()}


def train(
    folder: Path, name: str, out: str, schedule: dict[str, Any], scale: float, seed: int, init: Path | None
) -> tuple[Path, Curve]:
    """Train one run, or go on with it; returns it, and its distances at the size of the pictures."""
    size = SETS[name]["resolution"]
    options = {
        "data": {"max_resolution": size},
        "schedule": scaled(schedule, scale),
        "run": {"seed": seed, "log_kimg": scale * min(EVERY[name], 1)},
        "monitor": {
            "metrics": ["swd"],
            "interval_kimg": scale * EVERY[name],
            "num_images": 1024,
        },
        **({} if init is None else {"init": {"source": str(init)}}),
    }
    console = Console()
    console.rule(out)
    with TerminalReporter(console) as reporter:
        run = progan.train(
            pictures(folder, name), folder / out, recipe="quickstart", options=options, reporter=reporter
        )
    lines = [line for line in read_stats(RunFolder(run).stats_file) if f"swd/{size}" in line]
    return run, {float(line["images_seen"]) / 1000: float(line["swd/mean"]) for line in lines}


def report(console: Console, name: str, curves: dict[tuple[str, int], Curve]) -> None:
    """Print the mean over the seeds, with each seed's number, at every moment."""
    ways = list(dict.fromkeys(way for way, _ in curves))
    table = Table("kimg", *ways, title=f"{name}: distance x 1e3")
    for clock in sorted({clock for curve in curves.values() for clock in curve}):
        cells = []
        for way in ways:
            values = [curve[clock] for (mine, _), curve in curves.items() if mine == way and clock in curve]
            each = ", ".join(f"{value:.0f}" for value in values)
            cells.append(f"{mean(values):.0f} ({each})" if values else "")
        table.add_row(f"{clock:.1f}", *cells)
    console.print(table)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--sets", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--kimg", type=float, default=1.0, help="all lengths are multiplied by it")
    given = parser.parse_args()
    sources = {
        seed: train(given.out, "letters", f"letters-{seed}", GROWN, given.kimg, seed, None)[0]
        for seed in given.seeds
    }
    console = Console()
    for name in given.sets:
        curves = {}
        for way, schedule in VARIANTS[name].items():
            for seed, source in sources.items():
                out = f"{name}-{way.strip('-').replace(', ', '-')}-{seed}"
                init = source if way == "--init" else None
                curves[way, seed] = train(given.out, name, out, schedule, given.kimg, seed, init)[1]
        report(console, name, curves)


if __name__ == "__main__":
    main()

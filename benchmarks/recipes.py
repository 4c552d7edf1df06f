"""Which options draw the best pictures in a given time: variants of a recipe at equal processor time.

    python benchmarks/recipes.py FILE.yaml [--sets glyphs crops icons=FOLDER] [--seconds 240] [--seeds 0 1]
                                 [--only NAME ...] [--extractor FILE --resize RULE --normalise RULE]
                                 [--side 32] [--out runs/recipes]

FILE names variants of a recipe: `options`, laid over those of `base`; `shares`, the parts of the time that
the levels get, the last at the end, so that training begins with the level of the first; and `fades`, the
part of a level's time in which it comes in. One thread trains. Before that, the processor time of an
iteration of each phase is measured, the least of several, since other programs make it longer; it then
stands in a file, so that variants of equal cost see as many images, whatever else the machine does, and a
run can be repeated.

glyphs: the embedded set, with its classes. crops: 6,000 crops of six photographs that ship with scikit-image.
NAME=SOURCE: any other pictures, such as icons=emoji/.

Measured on the averaged generator: the sliced Wasserstein distance (x 1e3, 1,024 samples, beside that
between two halves of the reals, the floor) and, given an extractor, Fréchet distance, precision and recall
(1,000 samples); and the sliced Wasserstein distance with averages of other half-lives, which are kept on
the side. A line of JSON is written for each run, with a grid of samples; what has its line is not done
again. Without --seeds nothing is trained: the table of what is there is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml
from growth import crops
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import progan
from progan.config import merge
from progan.data.packed import PackedSet
from progan.metrics.metric import Metric
from progan.metrics.registry import ExtractorFile, make_metrics
from progan.models.generator import Generator
from progan.runs.checks import Prepared, check
from progan.runs.reporter import Reporter
from progan.system.malloc import keep_freed_memory
from progan.system.signals import StopRequest
from progan.training.iteration import Iteration
from progan.training.optimizer import update_average
from progan.training.precision import settings

SWD_IMAGES, FEATURE_IMAGES = 1024, 1000
HALF_LIVES = (1.0, 2.0, 4.0, 8.0)
"""Of the averages kept on the side, in kimg; never more than a fifth of the images seen."""
ROUNDS = 5
"""How often some iterations of a phase are timed."""


@dataclass(frozen=True)
class Variant:
    """Options over those of the base, the levels' parts of the time, and the part of each that is a fade."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    shares: tuple[float, ...] = (0.02, 0.1, 0.3, 0.58)
    fades: float = 0.2
    levels: int = 4

    def schedule(self, kimg: dict[str, float]) -> dict[str, Any]:
        """Return the lengths of phases, by their names, as options; levels below the first get none."""
        first, count = self.first, len(self.shares)
        stabilise = [kimg.get(f"stabilise level {level}", 0.0) for level in range(first + count)]
        fade = [kimg.get(f"fade to level {level}", 0.0) for level in range(first + count)]
        lengths = {"start_level": first, "stabilise_kimg": stabilise, "fade_kimg": fade}
        return merge(self.options, {"schedule": {**lengths, "total_kimg": None}})

    @property
    def first(self) -> int:
        """The level that training begins with; 4x4 is level 0."""
        return self.levels - len(self.shares)

    @property
    def phases(self) -> list[str]:
        """The names of its phases, in order."""
        levels = range(self.first, self.levels)
        names = [(f"fade to level {level}", f"stabilise level {level}") for level in levels]
        return [name for pair in names for name in pair][1:] if self.fades else [pair[1] for pair in names]

    @property
    def decides_cost(self) -> dict[str, Any]:
        """The options that decide what an image costs."""
        batch = self.options.get("schedule", {}).get("batch_size")
        own = {name: self.options.get(name) for name in ("model", "loss", "augment", "run")}
        return own | {"batch_size": batch}

    def seconds(self, phase: str, budget: float) -> float:
        """Return the time that a phase gets."""
        kind, level = phase.split()[0], int(phase.split()[-1])
        share = budget * self.shares[level - self.first] / sum(self.shares)
        if level == self.first:
            return share
        return share * (self.fades if kind == "fade" else 1 - self.fades)


def read_variants(file: Path, levels: int) -> tuple[str, list[Variant]]:
    """Return the recipe that the variants of a file are laid over, and the variants, for so many levels."""
    tree = yaml.safe_load(file.read_text())
    base = tree.get("base", {})
    variants = []
    for name, given in tree["variants"].items():
        whole = merge(base, given or {})
        variants.append(
            Variant(
                name,
                whole.get("options", {}),
                tuple(whole["shares"][-levels:]),
                float(whole["fades"]),
                levels,
            )
        )
    return tree["recipe"], variants


def prepared(
    source: str, out: Path, recipe: str, options: dict[str, Any], labelled: bool, levels: int
) -> Prepared:
    """Check a run that is not going to be one: its pictures are packed, its schedule made."""
    data = {
        "resolution": 2 << levels,
        "cache": str(out / "sets"),
        "labels": "folders" if labelled else "none",
    }
    whole = merge(options, {"data": data, "run": {"device": "cpu", "threads": 1}})
    return check(source, out / "none", recipe, whole, Reporter(), StopRequest(), hinted=False)


def costs(run: Prepared) -> dict[str, float]:
    """Measure the processor time of an image in each phase, in seconds: the least of several iterations."""
    found, interval = {}, max(4, run.spec.config.loss.penalty_interval)
    with settings(run.spec.config.run, run.device):
        iteration = Iteration(run.spec, run.packed, run.device, lambda _: None)
        for phase in run.spec.schedule.phases:
            iteration.state.images_seen = run.spec.schedule.entry(phase)
            iteration(run.spec.schedule.at(iteration.state.images_seen))
            rounds = [timed(iteration, interval) for _ in range(ROUNDS + 1)][1:]
            found[phase.name] = min(rounds)
        iteration.batches.rest()
    return found


def timed(iteration: Iteration, count: int) -> float:
    """Make some iterations, and return the processor time of an image."""
    before, start = iteration.state.images_seen, time.process_time()
    for _ in range(count):
        iteration(iteration.spec.schedule.at(iteration.state.images_seen))
    return (time.process_time() - start) / (iteration.state.images_seen - before)


def train(run: Prepared) -> tuple[dict[str, Generator], float]:
    """Train, and return the averages by name, and the processor time that it took."""
    config, schedule = run.spec.config, run.spec.schedule
    with settings(config.run, run.device):
        iteration = Iteration(run.spec, run.packed, run.device, lambda _: None)
        state = iteration.state
        sides = {half_life: copy.deepcopy(state.G_ema) for half_life in HALF_LIVES}
        spent = 0.0
        while state.images_seen < schedule.total:
            before, start = state.images_seen, time.process_time()
            point = schedule.at(before)
            iteration(point)
            spent += time.process_time() - start
            for half_life, average in sides.items():
                average.set_growth(point.level, point.alpha)
                life = min(half_life, 0.2 * state.images_seen / 1000)
                update_average(average, state.G, 0.5 ** ((state.images_seen - before) / 1000 / life))
        iteration.batches.rest()
    state.G_ema.set_growth(schedule.phases[-1].level, 1.0)
    for average in sides.values():
        average.set_growth(schedule.phases[-1].level, 1.0)
    averages = {f"{half_life:g}": average for half_life, average in sides.items()}
    return {"own": state.G_ema, **averages}, spent


def in_batches(pictures: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pictures), 64):
        yield pictures[start : start + 64]


class Measures:
    """Metrics that hold the reals of a set; fed with generators one after the other."""

    def __init__(self, packed: PackedSet, extractor: ExtractorFile | None) -> None:
        names = ["swd"] if extractor is None else ["swd", "fid", "pr"]
        self._metrics = [
            each for each in make_metrics(names, extractor=extractor) if isinstance(each, Metric)
        ]
        mixed = np.random.default_rng(0).permutation(packed.count)
        for metric in self._metrics:
            chosen = mixed[: 2 * SWD_IMAGES if metric.name == "swd" else FEATURE_IMAGES]
            for part in np.array_split(chosen, max(1, len(chosen) // 64)):
                metric.add_reals(np.asarray(packed.read(packed.max_level, part), np.uint8))

    def of(self, generator: Generator, *, features: bool) -> dict[str, float]:
        """Measure a generator; without features, by the sliced Wasserstein distance alone."""
        numbers: dict[str, float] = {}
        for metric in self._metrics:
            if metric.name == "swd" or features:
                count = SWD_IMAGES if metric.name == "swd" else FEATURE_IMAGES
                metric.forget_fakes()
                for images in progan.generate(generator, count, seed=1):
                    metric.add_fakes(images)
                numbers |= metric.compute()
        return numbers


def short(numbers: dict[str, float]) -> dict[str, float]:
    """Return the numbers of a table: distance, floor, and what features say."""
    ends = {"precision": "precision", "recall": "recall"}
    found = {"swd": numbers["swd/mean"], "floor": numbers.get("swd_floor/mean", float("nan"))}
    for name, value in numbers.items():
        if name.startswith("fid"):
            found["fid"] = value
        found |= {key: value for key, end in ends.items() if name.endswith(end)}
    return found


class Experiment:
    """What has been measured, line by line, and what an image costs in each phase."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out, self.seconds = out, seconds
        out.mkdir(parents=True, exist_ok=True)
        self._lines, self._costs = out / "lines.jsonl", out / "costs.json"

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines."""
        if not self._lines.exists():
            return []
        return [json.loads(line) for line in self._lines.read_text().splitlines()]

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with self._lines.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def lengths(self, variant: Variant, source: str, recipe: str, labelled: bool) -> dict[str, float]:
        """Return the kimg of each phase, by costs that are measured once for all that cost the same."""
        known = json.loads(self._costs.read_text()) if self._costs.exists() else {}
        key = json.dumps([recipe, labelled, variant.levels, variant.decides_cost], sort_keys=True)
        if key not in known:
            whole = replace(variant, shares=(1.0,) * variant.levels, fades=0.5)
            tried = whole.schedule(dict.fromkeys(whole.phases, 1.0))
            known[key] = costs(prepared(source, self.out, recipe, tried, labelled, variant.levels))
            self._costs.write_text(json.dumps(known, indent=1))
        return {
            phase: round(variant.seconds(phase, self.seconds) / known[key][phase] / 1000, 3)
            for phase in variant.phases
        }

    def carry_out(
        self,
        variant: Variant,
        named: tuple[str, str],
        recipe: str,
        seed: int,
        extractor: ExtractorFile | None,
        measures: dict[str, Measures],
    ) -> dict[str, Any]:
        """Train and measure a variant on a set, unless it was done; returns its line."""
        name, source = named
        key = {
            "set": name,
            "side": 2 << variant.levels,
            "variant": variant.name,
            "seconds": self.seconds,
            "seed": seed,
        }
        for line in self.lines():
            if line.items() >= key.items():
                return line
        kimg = self.lengths(variant, source, recipe, name == "glyphs")
        options = merge(variant.schedule(kimg), {"run": {"seed": seed}})
        run = prepared(source, self.out, recipe, options, name == "glyphs", variant.levels)
        averages, spent = train(run)
        if name not in measures:
            measures[name] = Measures(run.packed, extractor)
        line = {**key, "kimg": round(sum(kimg.values()), 1), "spent": round(spent, 1)}
        line |= short(measures[name].of(averages["own"], features=True))
        line["averages"] = {
            life: measures[name].of(average, features=False)["swd/mean"]
            for life, average in averages.items()
            if life != "own"
        }
        grid = np.concatenate(list(progan.generate(averages["own"], 80, seed=0)))
        progan.save_grid(
            grid,
            self.out / f"{name}-{2 << variant.levels}-{variant.name}-{seed}-{self.seconds:g}.png",
            columns=10,
        )
        self.add(line)
        return line


def table(lines: list[dict[str, Any]]) -> Table:
    """Return a table: a row for each set, size, time and variant, with the number of each seed."""
    columns = ("set", "side", "s", "variant", "kimg", "SWD", "floor", "distance", "recall", "averages")
    shown = Table(*columns)
    of = {key: [line for line in lines if key_of(line) == key] for key in map(key_of, lines)}
    for (name, side, seconds, variant), mine in of.items():
        cells = [f"{mine[0]['kimg']:g}", " ".join(f"{line['swd']:.1f}" for line in mine)]
        cells.append(f"{mean(line['floor'] for line in mine):.1f}")
        cells.append(" ".join(f"{line['fid']:.0f}" for line in mine if "fid" in line))
        cells.append(" ".join(f"{line['recall']:.2f}" for line in mine if "recall" in line))
        lives = {life: mean(line["averages"][life] for line in mine) for life in mine[0]["averages"]}
        cells.append(" ".join(f"{life}: {distance:.1f}" for life, distance in lives.items()))
        shown.add_row(name, str(side), f"{seconds:g}", variant, *cells)
    return shown


def key_of(line: dict[str, Any]) -> tuple[str, int, float, str]:
    """Return what the lines of different seeds have in common."""
    return line["set"], line["side"], line["seconds"], line["variant"]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("variants", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--sets", nargs="+", default=["glyphs"])
    parser.add_argument("--side", type=int, default=32, choices=(8, 16, 32, 64, 128))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", help="some of the variants")
    parser.add_argument("--extractor", type=Path, help="TorchScript file; default: no features")
    parser.add_argument("--resize", default="bicubic-antialias:112")
    parser.add_argument("--normalise", default="-1..1")
    given = parser.parse_args()
    keep_freed_memory()
    warnings.filterwarnings("ignore", message="fid_")
    experiment, console = Experiment(given.out, given.seconds), Console(width=160)
    recipe, variants = read_variants(given.variants, given.side.bit_length() - 2)
    extractor = given.extractor and ExtractorFile(given.extractor, given.resize, given.normalise)
    measures: dict[str, Measures] = {}
    for name in given.sets:
        place = {"glyphs": "builtin:glyphs", "crops": ""}.get(name, name.partition("=")[2])
        named = (name.partition("=")[0], place or str(crops(given.out)))
        for seed in given.seeds:
            for variant in variants:
                if given.only is None or variant.name in given.only:
                    line = experiment.carry_out(variant, named, recipe, seed, extractor, measures)
                    console.print_json(json.dumps(line), indent=None)
    console.print(table(experiment.lines()))


if __name__ == "__main__":
    main()

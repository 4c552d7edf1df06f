"""Images a second of one iteration (D, average, G), default against plain; and what loading a batch costs.

    python benchmarks/step.py [--level 3] [--rounds 12] [--threads N]

The network is the light one of the speed target: 32x32, fmap_base 512, fmap_max 64, batch 16, WGAN-GP.
The variants take turns within one process, so that noise of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from progan.config import make_config
from progan.data.builtin import synthetic
from progan.training.plan import make_plan
from progan.training.schedule import Point
from progan.training.state import ImageSpec
from progan.training.updates import Updates

OPTIONS = {"fmap_base": 512, "fmap_max": 64}


@dataclass
class Variant:
    """One way to compute the same iteration, and its times in seconds."""

    name: str
    changes: str
    updates: Updates
    steps: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def iterate(self, point: Point) -> None:
        """Do one iteration and note its time, and that of loading its batches alone."""
        clock, n, level = self.updates.state.images_seen, point.batch_size, point.level
        start = time.perf_counter()
        self.updates.batches.discriminator(clock, n, level, None)
        self.updates.batches.generator(clock, n, level, None)
        loaded = time.perf_counter()
        self.updates.iterate(point)
        self.steps.append(time.perf_counter() - loaded)
        self.loads.append(loaded - start)


def make_variant(
    name: str, changes: str, folder: Path, *, fused: bool = True, channels_last: bool = True,
    precision: str = "float32",
) -> Variant:  # fmt: skip
    networks = {"generator": OPTIONS, "discriminator": OPTIONS}
    config = make_config({"model": networks, "run": {"precision": precision}})
    packed = synthetic(folder / name, count=1024, resolution=32)
    plan = make_plan(config, ImageSpec(packed.channels, packed.base_shape, packed.max_level), 1024)
    updates = Updates(plan, packed, torch.device("cpu"), print)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (updates.state.G, updates.state.D, updates.state.G_ema):
        network.to(memory_format=layout)  # type: ignore[call-overload]
        network.use_fused(fused)
    return Variant(name, changes, updates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variants = [
            make_variant("plain", "NCHW, not fused", folder, fused=False, channels_last=False),
            make_variant("fused", "NCHW, fused up/down", folder, channels_last=False),
            make_variant("default", "fused, channels_last", folder),
            make_variant("bfloat16", "as default, run.precision bfloat16", folder, precision="bfloat16"),
        ]
        point = variants[0].updates.plan.schedule.at(0)
        point = replace(point, phase=replace(point.phase, level=arguments.level))
        for turn in range(arguments.rounds + 2):
            for variant in variants:
                variant.iterate(point)
                if turn < 2:  # warming up
                    variant.steps.clear()
                    variant.loads.clear()
    report(variants, point)


def report(variants: list[Variant], point: Point) -> None:
    base, n, side = statistics.median(variants[0].steps), point.batch_size, 4 << point.level
    title = f"one iteration at {side}x{side}, batch {n}, {torch.get_num_threads()} threads"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for column in ("variant", "what", "ms", "images/s", "ratio", "loading"):
        table.add_column(column)
    for variant in variants:
        step = statistics.median(variant.steps)
        # Rounds are paired: the ratio of neighbours in time is steadier than that of the medians.
        ratio = statistics.median(a / b for a, b in zip(variants[0].steps, variant.steps, strict=True))
        table.add_row(
            variant.name,
            variant.changes,
            f"{1000 * step:.1f}",
            f"{n / step:.1f}",
            f"{ratio:.2f}" if step != base else "1",
            f"{statistics.median(variant.loads) / step:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

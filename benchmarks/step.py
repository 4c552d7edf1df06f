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
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from progan.config import Config, make_config
from progan.data.batches import Batches
from progan.data.builtin import synthetic
from progan.training.optimizer import update_average
from progan.training.state import ImageSpec, TrainState
from progan.training.step import Growth, discriminator_step, generator_step

BATCH = 16
OPTIONS = {"fmap_base": 512, "fmap_max": 64}


@dataclass
class Variant:
    """One way to compute the same step, and its times in seconds."""

    name: str
    fused: bool
    channels_last: bool
    state: TrainState
    batches: Batches
    steps: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def iterate(self, config: Config, level: int) -> None:
        """Do one iteration and note its times."""
        start = time.perf_counter()
        clock = self.state.images_seen
        d_batch = self.batches.discriminator(clock, BATCH, level, None)
        g_batch = self.batches.generator(clock, BATCH)
        loaded = time.perf_counter()
        growth, networks = Growth(level, None), (self.state.G, self.state.D)
        discriminator_step(networks, self.state.d_adam, d_batch, growth, config, 1e-3)
        update_average(self.state.G_ema, self.state.G, 0.999)
        generator_step(networks, self.state.g_adam, g_batch, growth, config, 1e-3)
        self.state.images_seen += BATCH
        self.loads.append(loaded - start)
        self.steps.append(time.perf_counter() - start)


def make_variant(name: str, config: Config, folder: Path, *, fused: bool, channels_last: bool) -> Variant:
    packed = synthetic(folder / name, count=1024, resolution=32)
    spec = ImageSpec(packed.channels, packed.base_shape, packed.max_level)
    state = TrainState.create(config, spec, torch.device("cpu"))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (state.G, state.D, state.G_ema):
        network.to(memory_format=layout)  # type: ignore[call-overload]
        network.use_fused(fused)
    batches = Batches(
        packed,
        packed.indices(),
        seed=0,
        latent_size=state.G.latent_size,
        mirror=False,
        channels_last=channels_last,
    )
    return Variant(name, fused, channels_last, state, batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = make_config({"model": {"generator": OPTIONS, "discriminator": OPTIONS}})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variants = [
            make_variant("plain", config, folder, fused=False, channels_last=False),
            make_variant("fused", config, folder, fused=True, channels_last=False),
            make_variant("default", config, folder, fused=True, channels_last=True),
        ]
        for turn in range(arguments.rounds + 2):
            for variant in variants:
                variant.iterate(config, arguments.level)
                if turn < 2:  # warming up
                    variant.steps.clear()
                    variant.loads.clear()
    report(variants, 4 << arguments.level)


def report(variants: list[Variant], side: int) -> None:
    base = statistics.median(variants[0].steps)
    title = f"one iteration at {side}x{side}, batch {BATCH}, {torch.get_num_threads()} threads"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for column in ("variant", "fused up/down", "layout", "ms", "images/s", "ratio", "loading"):
        table.add_column(column)
    for variant in variants:
        step = statistics.median(variant.steps)
        # Rounds are paired: the ratio of neighbours in time is steadier than that of the medians.
        ratio = statistics.median(a / b for a, b in zip(variants[0].steps, variant.steps, strict=True))
        table.add_row(
            variant.name,
            "yes" if variant.fused else "no",
            "channels_last" if variant.channels_last else "NCHW",
            f"{1000 * step:.1f}",
            f"{BATCH / step:.1f}",
            f"{ratio:.2f}" if step != base else "1",
            f"{statistics.median(variant.loads) / step:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

"""Several processes against one: images a second, the time of adding gradients up, and a model of many GPUs.

    python benchmarks/distributed.py [--level 3] [--rounds 8] [--paper]

The variants take turns, so that noise of the machine hits all of them. With --paper: what a step sends at
each level of the paper's network, and how long that takes on 8 and 64 GPUs by stated rates; nothing is run.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from progan.config import load_config, make_config, per_level
from progan.data.packed import PackedSet
from progan.distributed.ranks import Ranks, join
from progan.performance.estimate import Estimate
from progan.preparation.builtin_sets import synthetic
from progan.training.iteration import Iteration
from progan.training.spec import ImageSpec, make_spec

NETWORKS = {
    "generator": {"fmap_base": 512, "fmap_max": 64},
    "discriminator": {"fmap_base": 512, "fmap_max": 64},
}
ITERATIONS = 6
"""Iterations of a turn."""

RATE = 100e12
"""Operations a second that one H100 is taken to reach: a tenth of its bfloat16 peak; an assumption."""
LINKS = {"NVLink": 300e9, "8 ports of 400 Gbit/s": 200e9, "1 port of 100 Gbit/s": 6e9}
"""Bytes a second at which an all-reduce passes through its slowest link: two thirds of NVLink's 450e9, half
of what the ports of a machine carry together; assumptions."""
LATENCY = 30e-6
"""Seconds that an all-reduce takes at least; an assumption."""


@dataclass
class Variant:
    """Processes that do the same iterations, and the seconds of their turns."""

    name: str
    processes: list[subprocess.Popen[str]]
    turns: list[float] = field(default_factory=list)
    reduces: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)

    def take(self, what: str = "iterate") -> list[list[float]]:
        """Let all processes do something; returns the numbers that each prints."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        return [[float(word) for word in line.split()] for line in lines]


def start(name: str, count: int, threads: int, folder: Path, level: int) -> Variant:
    """Start the processes of a variant."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = []
    for rank in range(count):
        named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": threads}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--worker", str(folder), "--level", str(level)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **{key: str(value) for key, value in {**named, **place}.items()}},
            )
        )  # fmt: skip
    return Variant(name, processes)


class Worker:
    """One process of a variant: does what it is told by lines."""

    def __init__(self, ranks: Ranks, folder: Path, level: int) -> None:
        config = make_config({"model": NETWORKS, "run": {"precision": "float32"}})
        packed = PackedSet.open(folder)
        spec = make_spec(
            config, ImageSpec(packed.channels, packed.base_shape, packed.max_level), packed.count
        )
        self.ranks, self.updates = ranks, Iteration(spec, packed, torch.device("cpu"), print, ranks)
        point = spec.schedule.at(0)
        self.point = replace(point, phase=replace(point.phase, level=level))
        self.reducing = 0.0
        reduce: Any = ranks.all_reduce

        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            result = reduce(*arguments)
            self.reducing += time.perf_counter() - begun
            return result

        self.ranks.__dict__["all_reduce"] = timed

    def iterate(self) -> list[float]:
        """Return the seconds of some iterations, those in adding up, with waiting, and those of the cores."""
        self.reducing, begun, work = 0.0, time.perf_counter(), time.process_time()
        for _ in range(ITERATIONS):
            self.updates(self.point)
        return [time.perf_counter() - begun, self.reducing, time.process_time() - work]

    def flat(self) -> list[float]:
        """Return the seconds of a backward pass of D and one flat reduction."""
        state = self.updates.state

        def after() -> None:
            gradients = state.d_optimizer.gradients(self.point.level, fading=False)
            self.ranks.all_reduce(gradients, {}, ("loss",))

        return self._backward(state.D, after)

    def ddp(self) -> list[float]:
        """Return the seconds of the same backward pass, with the hooks of DistributedDataParallel."""
        D = self.updates.state.D
        if not hasattr(self, "_wrapped"):
            self._wrapped = DistributedDataParallel(D, find_unused_parameters=True)
        return self._backward(self._wrapped, lambda: None)

    def _backward(self, D: nn.Module, after: Any) -> list[float]:
        level = self.point.level
        batch = self.updates.batches.discriminator(0, self.point.batch_size, level, None)
        begun = time.perf_counter()
        scores, _ = D(batch.reals, batch.labels, level=level, alpha=None)
        scores.mean().backward()
        after()
        seconds = time.perf_counter() - begun
        self.updates.state.d_optimizer.drop_gradients()
        return [seconds]


def work(folder: Path, level: int) -> None:
    """Do what the lines of the input say, until they end."""
    with join() as ranks:
        # A copy: `ALONE` is shared.
        worker = Worker(ranks if ranks.size > 1 else Ranks(), folder, level)
        for line in sys.stdin:
            print(*getattr(worker, line.strip())(), flush=True)


def measure(level: int, rounds: int) -> None:
    """Let the variants take turns, and print what they took."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = synthetic(Path(temporary) / "set", count=1024, resolution=64).path
        variants = [
            start("1 process, 1 thread", 1, 1, folder, level),
            start("1 process, 2 threads", 1, 2, folder, level),
            start("2 processes, 1 thread each", 2, 1, folder, level),
        ]
        for turn in range(rounds + 1):
            for variant in variants:
                took = variant.take()
                if turn:  # the first warms up
                    variant.turns.append(max(took)[0])
                    variant.reduces.append(max(took)[1])
                    variant.work.append(sum(each[2] for each in took))
            for way in ("flat", "ddp"):
                seconds = max(variants[-1].take(way))[0]
                if turn:
                    variants[-1].others.setdefault(way, []).append(seconds)
        processes = [process for variant in variants for process in variant.processes]
        for process in processes:  # first all: they leave together
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            process.wait()
    report(level, variants)


def report(level: int, variants: Sequence[Variant]) -> None:
    """Print the table of the variants."""
    table = Table(
        title=f"{4 << level}x{4 << level}, batch 16, load {os.getloadavg()[0]:.1f}", box=box.SIMPLE_HEAD
    )
    for column in ("variant", "images/s", "of one process", "core seconds", "of one", "adding up, waiting"):
        table.add_column(column)
    one = variants[0]
    for variant in variants:
        ratio = statistics.median(a / b for a, b in zip(one.turns, variant.turns, strict=True))
        share = statistics.median(a / b for a, b in zip(variant.reduces, variant.turns, strict=True))
        table.add_row(
            variant.name,
            f"{16 * ITERATIONS / statistics.median(variant.turns):.1f}",
            f"{ratio:.2f}",
            f"{statistics.median(variant.work):.2f}",
            f"{statistics.median(a / b for a, b in zip(one.work, variant.work, strict=True)):.0%}",
            f"{share:.1%}",
        )
    Console().print(table)
    for way, seconds in variants[-1].others.items():
        print(f"a backward pass of D on half a batch, and {way}: {1000 * statistics.median(seconds):.1f} ms")


def paper() -> None:
    """Print what each level of the paper's network sends, and how long that takes by the assumptions."""
    config = load_config("paper-celebahq-1024-v2-8gpus")
    estimate = Estimate(make_spec(config, ImageSpec(3, (4, 4), 8), 30000))
    for gpus, larger, link in (
        (8, 1, "NVLink"),
        (64, 8, "8 ports of 400 Gbit/s"),
        (64, 8, "1 port of 100 Gbit/s"),
    ):
        title = f"{gpus} GPUs, {link}, batches of the recipe for 8 GPUs times {larger}"
        table = Table(title=title, box=box.SIMPLE_HEAD)
        for column in ("size", "batch", "groups", "G MB", "D MB", "compute ms", "reduce ms", "efficiency"):
            table.add_column(column, justify="right")
        for level, cost in enumerate(estimate.levels):
            n = larger * per_level(config.schedule.batch_size, level)
            groups = n // min(n, config.model.discriminator.stddev_group or 1)
            work = n * cost.flops_per_image / RATE
            compute = work * -(-groups // gpus) / groups
            parts = [4 * count for count in estimate.parameters[level]]
            reduce = sum(LATENCY + 2 * (gpus - 1) / gpus * part / LINKS[link] for part in parts)
            table.add_row(
                f"{4 << level}", str(n), str(groups), *(f"{part / 1e6:.1f}" for part in parts),
                f"{1000 * compute:.2f}", f"{1000 * reduce:.2f}", f"{work / gpus / (compute + reduce):.0%}",
            )  # fmt: skip
        Console().print(table)
    g, d = estimate.parameters[-1]
    print(
        f"moments of Adam: {8 * (g + d) / 1e6:.0f} MB; the whole state: {estimate.state_bytes / 1e6:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--worker", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.level)
    elif arguments.paper:
        paper()
    else:
        measure(arguments.level, arguments.rounds)


if __name__ == "__main__":
    main()

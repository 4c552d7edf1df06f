"""How much memory training really takes beside what is counted: peaks of whole processes on the CPU.

    python benchmarks/memory.py [--level 6] [--batch 8] [--micro-batch N] [--precision float32 bfloat16]

Makes two iterations (the second has Adam's moments) of a network with few filters while its level fades in,
each in a fresh process, and compares what the process grew by with what `progan bench --count-only` says.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GIB = 2**30


def peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def configuration(level: int, batch: int, micro_batch: int | None, precision: str) -> dict[str, Any]:
    network = {"fmap_base": 2 ** (level + 5), "fmap_max": 64}  # 16 filters at the largest level
    return {
        "data": {"resolution": str(4 * 2**level)},
        "model": {"generator": network, "discriminator": network},
        "schedule": {"batch_size": batch},
        "run": {"threads": 1, "precision": precision, "micro_batch": micro_batch, "device": "cpu"},
    }


def measure(options: dict[str, Any], level: int, folder: Path) -> None:
    """Print what is counted and what the process grew by, in bytes."""
    import torch

    from progan.config import make_config
    from progan.performance.bench import shapes
    from progan.performance.iteration_cost import Costs
    from progan.preparation.builtin_sets import synthetic
    from progan.system.malloc import keep_freed_memory
    from progan.training.iteration import Iteration
    from progan.training.precision import settings, settle
    from progan.training.spec import make_spec

    keep_freed_memory()  # as the command line does
    device = torch.device("cpu")
    config = settle(make_config(options), device)
    image = shapes(config)
    counted = Costs(config, image).iteration(level, fading=True).memory
    packed = synthetic(folder / "set", count=16, resolution=4 * 2**level)
    spec = make_spec(config, image, packed.count)
    phase = next(each for each in spec.schedule.phases if each.level == level)
    with settings(config.run, device):
        small = torch.ones(1, 8, 16, 16, requires_grad=True)
        torch.autograd.backward(torch.conv2d(small, torch.ones(8, 8, 3, 3)).sum())  # loads what computes
        before = peak()
        updates = Iteration(spec, packed, device, print)
        for _ in range(2):
            updates.state.images_seen = spec.schedule.entry(phase)
            updates(spec.schedule.at(updates.state.images_seen))
    print(json.dumps([counted, peak() - before]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.measure:
            measure(json.loads(given.measure), given.level, Path(folder))
            return
        for precision in given.precision:
            options = configuration(given.level, given.batch, given.micro_batch, precision)
            command = [__file__, "--level", str(given.level), "--measure", json.dumps(options)]
            done = subprocess.run(
                [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )  # fmt: skip
            counted, grown = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{precision}: counted {counted / GIB:.2f} GiB, measured {grown / GIB:.2f} GiB, "
                f"{grown / counted:.2f} times"
            )


if __name__ == "__main__":
    main()

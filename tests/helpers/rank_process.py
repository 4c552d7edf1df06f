"""Processes that train the same tiny networks: `rank_process.py WHAT SET FOLDER SIZE ...`, for tests.

WHAT is `cases`: train each of `CASES` in float64, through a growth, on groups of so many processes, and save
what each ends with. Or `resume`: begin a run on the first number of processes, go on with copies of it on
each of the others, and train one without a break on one. A single program starts all processes, because to
import PyTorch takes longer than all they do.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ports import free_port
from progan.config import make_config, merge
from progan.data.batches import Batches
from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks, join
from progan.runs import resolve
from progan.runs import run as training
from progan.training import iteration
from progan.training.spec import ImageSpec, make_spec
from tiny import environment, options

POLICY = ["color", "translation", "cutout"]
PLAIN, NO_GROUPS, ONE_GROUP = "wgan, gp, drift, labels, fade", "no stddev", "a group of all"
PAIRS = "pairs, two features, adamw, one-sided gp"
CASES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "micro-batches": {"run": {"micro_batch": 4}},
    NO_GROUPS: {"model": {"discriminator": {"stddev_group": 0}}, "run": {"micro_batch": 3}},
    ONE_GROUP: {"model": {"discriminator": {"stddev_group": 64}}},
    PAIRS: {
        "model": {"discriminator": {"stddev_group": 2, "stddev_features": 2, "downscale": "strided"}},
        "optimizer": {"name": "adamw", "weight_decay": 0.1},
        "loss": {"gp_sides": "one", "gp_target": 0.05},
    },
    "smaller batches, more updates of D, averages": {
        "schedule": {"batch_size": [16, 8]},
        "loss": {"d_steps": 2},
        "optimizer": {"ema_half_life_kimg": 0.1, "ema_warmup": 0.5, "reset": "level"},
    },
    "least squares": {"loss": {"adversarial": "least_squares", "target_noise_per": "sample"}},
    "least squares, one noise, gp": {"loss": {"adversarial": "least_squares", "gp_lambda": 1.0}},
    "logistic, r2, clipped": {
        "loss": {"adversarial": "logistic", "r2_gamma": 3.0},
        "optimizer": {"clip_norm": 0.5},
    },
    "logistic, r1, adaptive augmentation, clipped micro-batches": {
        "loss": {"adversarial": "logistic"},
        "augment": {"policy": POLICY, "adaptive": True, "probability": 0.5, "adapt_kimg": 0.256},
        "optimizer": {"clip_norm": 0.1},
        "run": {"micro_batch": 4},
    },
    "hinge, augmentation": {
        "loss": {"adversarial": "hinge"},
        "augment": {"policy": POLICY, "probability": 0.7},
    },
    "hinge, r2 alone": {"loss": {"adversarial": "hinge", "gp_lambda": 0.0, "r2_gamma": 2.0}},
    "relativistic, projection": {
        "loss": {"adversarial": "relativistic"},
        "model": {"conditioning": "projection"},
    },
    "relativistic, augmentation": {
        "loss": {"adversarial": "relativistic"},
        "augment": {"policy": POLICY, "probability": 0.7},
    },
    "simultaneous, wgan, projection": {
        "loss": {"updates": "simultaneous"},
        "model": {"conditioning": "projection"},
    },
    "simultaneous, logistic, r2, labels, augmentation, micro-batches": {
        "loss": {"updates": "simultaneous", "adversarial": "logistic", "r2_gamma": 3.0},
        "augment": {"policy": POLICY, "probability": 0.7},
        "run": {"micro_batch": 4},
    },
    "morph": {"schedule": {"growth": "morph"}, "loss": {"penalty_interval": 2}},
}
ITERATIONS = 7
BEGUN, ENDED = 0.032, 0.16
"""Clocks at which runs are interrupted and end, in kimg: amid the first level, amid the second."""
CPU = torch.device("cpu")


@contextmanager
def float64() -> Iterator[None]:
    """Make networks, alpha and everything that begins as a number of Python float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def train(
    packed: PackedSet, case: str, ranks: Ranks = ALONE, **changes: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Some iterations through a growth; returns the whole state, and the terms of all updates.

    Args:
        packed: The pictures.
        case: Of `CASES`.
        ranks: Who shares the batches.
        changes: Branches of options that are laid over those of the case.
    """
    tree = options(
        data={"mirror": True},
        schedule={"stabilise_kimg": 0.048, "fade_kimg": 0.048, "batch_size": [16]},
        run={"seed": 3},
    )
    config = resolve.resolve(make_config(tree, merge(CASES[case], changes)), packed)
    with float64():
        spec = make_spec(config, ImageSpec(3, (4, 4), 2, packed.label_names), packed.count)
        made = iteration.Iteration(spec, packed, CPU, lambda _: None, ranks)
        made.batches.dtype = torch.float64
        result: dict[str, torch.Tensor] = {}
        levels = set()
        for i in range(ITERATIONS):
            point = spec.schedule.at(made.state.images_seen)
            levels.add(point.level)
            for k, terms in enumerate(made(point)):
                result |= {f"{i}.{k} {name}": value for name, value in terms.items()}
    assert levels == {0, 1}
    return result | made.state.tensors()


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun would tell a process."""
    named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**environment(), **{name: str(value) for name, value in named.items()}, **place}


def start(what: str, packed: PackedSet, out: Path, sizes: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start this program."""
    words = [sys.executable, __file__, what, str(packed.path), str(out), *map(str, sizes)]
    return subprocess.Popen(words, env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)})


def ends(out: Path, size: int) -> list[dict[str, torch.Tensor]]:
    """Return what each of a group of processes has ended its cases with."""
    return [load_file(out / f"{size}-{rank}") for rank in range(size)]


def together(size: int, work: Callable[[], None]) -> None:
    """Do some work in a group of processes, as torchrun would start them."""
    port = free_port()

    def begin(rank: int) -> None:
        os.environ.update(variables(rank, size, port))
        work()

    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=begin, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"{size} processes ended with {[process.exitcode for process in processes]}")


def train_cases(packed: PackedSet, out: Path) -> None:
    """Train all cases as one of several processes."""
    results: dict[str, torch.Tensor] = {}
    with join() as ranks:
        for case in CASES:
            ended = train(packed, case, ranks)
            results |= {
                f"{case}|{k}": v.clone(memory_format=torch.contiguous_format) for k, v in ended.items()
            }
        save_file(results, out / f"{ranks.size}-{ranks.rank}")


def train_run(run: Path, packed: PackedSet | None, kimg: float) -> None:
    """Begin a run in float64, or go on with it; to a clock."""
    tree = options(schedule={"batch_size": [32, 16]}, run={"log_kimg": [0.016]})
    until = {"schedule": {"total_kimg": kimg}}
    with float64(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(iteration, "Batches", partial(Batches, dtype=torch.float64))
        if packed is None:
            training.resume(run, options=until)
        else:
            training.train(packed.path, run, options=merge(tree, until))


def main() -> None:
    """Start the processes."""
    torch.set_num_threads(1)
    what, packed, out, sizes = sys.argv[1], PackedSet.open(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    if what == "cases":
        for size in map(int, sizes):
            together(size, partial(train_cases, packed, out))
        return
    begun, *others = map(int, sizes)
    together(begun, partial(train_run, out / "begun", packed, BEGUN))
    for size in others:
        shutil.copytree(out / "begun", out / str(size))
        together(size, partial(train_run, out / str(size), None, ENDED))
    together(1, partial(train_run, out / "whole", packed, ENDED))


if __name__ == "__main__":
    main()

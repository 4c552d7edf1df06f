"""A process of several that train the same tiny networks: what `test_distributed.py` starts.

Trains in float64, through a growth, each of `CASES`, and saves all weights and the last means of the terms.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from progan.config import Config, make_config
from progan.data.batches import Batches
from progan.data.packed import PackedSet
from progan.models import morph
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.augment import DRAWS
from progan.training.distributed import ALONE, Ranks, join
from progan.training.objective import Conditions
from progan.training.optimizer import Optimizer, update_average
from progan.training.schedule import Schedule
from progan.training.state import ImageSpec, build_networks
from progan.training.step import discriminator_step, generator_step
from tiny import environment, options

CASES: dict[str, dict[str, Any]] = {
    "wgan, gp, drift, labels, fade": {},
    "micro-batches": {"run": {"micro_batch": 4}},
    "no stddev": {"model": {"discriminator": {"stddev_group": 0}}, "run": {"micro_batch": 3}},
    "a group of all": {"model": {"discriminator": {"stddev_group": 64}}},
    "least squares": {"loss": {"adversarial": "least_squares", "target_noise_per": "sample"}},
    "logistic, r2, clipped": {
        "loss": {"adversarial": "logistic", "r2_gamma": 3.0},
        "optimizer": {"clip_norm": 0.5},
    },
    "hinge, augmentation": {
        "loss": {"adversarial": "hinge"},
        "augment": {"policy": ["color", "translation", "cutout"]},
    },
    "relativistic, projection": {
        "loss": {"adversarial": "relativistic"},
        "model": {"conditioning": "projection"},
    },
    "morph": {"schedule": {"growth": "morph"}, "loss": {"penalty_interval": 2}},
}
ITERATIONS = 7


def train(packed: PackedSet, choices: dict[str, Any], ranks: Ranks = ALONE) -> dict[str, torch.Tensor]:
    """Some iterations through a growth in float64; returns all weights and the last means of the terms."""
    tree = options(
        data={"mirror": True},
        schedule={"stabilise_kimg": 0.048, "fade_kimg": 0.048, "batch_size": [16]},
        run={"seed": 3},
    )
    config = make_config(tree, choices)
    torch.manual_seed(config.run.seed)
    spec = ImageSpec(3, (4, 4), 2, packed.label_names)
    (G, D), (G_ema, _) = build_networks(config, spec), build_networks(config, spec)
    G.double(), D.double(), G_ema.double().requires_grad_(False)
    draws = DRAWS if config.augment.policy else 0
    batches = Batches(
        packed, config, latent_size=G.latent_size, draws=draws, dtype=torch.float64, rank=ranks.rank,
        ranks=ranks.size,
    )  # fmt: skip
    optimizers = Optimizer(G, config.optimizer), Optimizer(D, config.optimizer)
    means = _iterate(config, Schedule(config, 2, packed.count), (G, D, G_ema), optimizers, batches, ranks)
    networks = {"G": G, "D": D, "G_ema": G_ema}
    return means | {f"{x}/{k}": v for x, network in networks.items() for k, v in network.state_dict().items()}


def _iterate(
    config: Config,
    schedule: Schedule,
    networks: tuple[Generator, Discriminator, Generator],
    optimizers: tuple[Optimizer, Optimizer],
    batches: Batches,
    ranks: Ranks,
) -> dict[str, torch.Tensor]:
    """Train; returns the last means of the terms."""
    G, D, G_ema = networks
    probability = torch.tensor(0.7, dtype=torch.float64) if config.augment.policy else None
    micro_batch = None if config.run.micro_batch is None else config.run.micro_batch[0]
    kinds, n = set(), 16
    for i in range(ITERATIONS):
        point = schedule.at(n * i)
        kinds.add((point.level, point.phase.kind))
        if point.level > G.level and config.schedule.growth == "morph":
            for network in networks:
                morph.grow(network, point.level)
        for network in networks:
            network.set_growth(point.level, point.alpha)
        alpha = torch.tensor(point.alpha, dtype=torch.float64) if point.growing else None
        at = Conditions(point.level, alpha, probability, i % config.loss.penalty_interval == 0)
        faded = alpha if point.fading else None
        d_batch = batches.discriminator(n * i, n, point.level, faded)
        d = discriminator_step(
            (G, D), optimizers[1], d_batch, at, config, point.d_lr, micro_batch, None, n, ranks
        )
        update_average(G_ema, G, 0.9)
        g_batch = batches.generator(n * i, n, point.level, faded)
        g = generator_step(
            (G, D), optimizers[0], g_batch, at, config, point.g_lr, micro_batch, None, n, ranks
        )
    assert {level for level, _ in kinds} == {0, 1}
    return {f"D {k}": v for k, v in d.items()} | {f"G {k}": v for k, v in g.items()}


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun would tell a process."""
    named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**environment(), **{name: str(value) for name, value in named.items()}, **place}


def run_all(packed: PackedSet, out: Path, size: int) -> list[dict[str, torch.Tensor]]:
    """Train all cases on so many processes; returns what each of them ends with."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(packed.path), str(out / f"{size}-{rank}")],
            env={**variables(rank, size, port), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for rank in range(size)
    ]
    assert [process.wait(200) for process in processes] == [0] * size
    return [load_file(out / f"{size}-{rank}") for rank in range(size)]


def main() -> None:
    """Train all cases as one of several processes."""
    torch.set_num_threads(1)
    packed, out = PackedSet.open(sys.argv[1]), sys.argv[2]
    results: dict[str, torch.Tensor] = {}
    with join() as ranks:
        for case, choices in CASES.items():
            results |= {f"{case}|{k}": v.clone() for k, v in train(packed, choices, ranks).items()}
    save_file(results, out)


if __name__ == "__main__":
    main()

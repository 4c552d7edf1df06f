"""Sharding changes nothing: micro-batches of whole stddev groups give the update of the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from progan.config import make_config, merge
from progan.data.batches import Batches
from progan.data.packed import PackedSet
from progan.training.augment import DRAWS
from progan.training.objective import Conditions
from progan.training.optimizer import Optimizer, update_average
from progan.training.schedule import Schedule
from progan.training.state import ImageSpec, build_networks
from progan.training.step import discriminator_step, generator_step
from tiny import options

ITERATIONS = 9


def train(
    blobs: PackedSet, micro_batch: int | None, group: int, choices: dict[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """Some iterations through a growth in float64; returns all weights and the last means of the losses."""
    tree = options(
        data={"mirror": True},
        model={"discriminator": {"stddev_group": group}},
        schedule={"stabilise_kimg": 0.048, "fade_kimg": 0.048, "batch_size": [16]},
        run={"seed": 3},
    )
    config = make_config(merge(tree, choices or {}))
    schedule = Schedule(config, 2, blobs.count)
    torch.manual_seed(config.run.seed)
    spec = ImageSpec(3, (4, 4), 2, blobs.label_names)
    (G, D), (G_ema, _) = build_networks(config, spec), build_networks(config, spec)
    G.double(), D.double(), G_ema.double().requires_grad_(False)
    g_optimizer, d_optimizer = Optimizer(G, config.optimizer), Optimizer(D, config.optimizer)
    draws = DRAWS if config.augment.policy else 0
    batches = Batches(blobs, config, latent_size=G.latent_size, draws=draws, dtype=torch.float64)
    probability = torch.tensor(0.7, dtype=torch.float64) if draws else None
    kinds = set()
    for i in range(ITERATIONS):
        point = schedule.at(16 * i)
        kinds.add((point.level, point.phase.kind))
        alpha = torch.tensor(point.alpha, dtype=torch.float64) if point.fading else None
        at, n = Conditions(point.level, alpha, probability), point.batch_size
        d_batch = batches.discriminator(16 * i, n, point.level, alpha)
        d = discriminator_step((G, D), d_optimizer, d_batch, at, config, point.d_lr, micro_batch)
        update_average(G_ema, G, 0.9)
        g_batch = batches.generator(16 * i, n, point.level, alpha)
        g = generator_step((G, D), g_optimizer, g_batch, at, config, point.g_lr, micro_batch)
    assert kinds == {(0, "stabilise"), (1, "fade"), (1, "stabilise")}
    means = {f"D {k}": v for k, v in d.items()} | {f"G {k}": v for k, v in g.items()}
    networks = {"G": G, "D": D, "G_ema": G_ema}
    return means | {f"{x}/{k}": v for x, network in networks.items() for k, v in network.state_dict().items()}


@pytest.mark.parametrize(("group", "micro_batches"), [(4, (4, 8, 12, 16, 64)), (0, (1, 5)), (2, (6,))])
def test_micro_batches_give_the_same_update(
    blobs: PackedSet, group: int, micro_batches: tuple[int, ...]
) -> None:
    whole = train(blobs, None, group)
    assert any(name.startswith("D label") for name in whole)
    for micro_batch in micro_batches:
        parts = train(blobs, micro_batch, group)
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-10, msg=name)


def test_the_group_matters(blobs: PackedSet) -> None:
    """The comparison would notice a wrong grouping: other groups give other weights."""
    four, two = train(blobs, None, 4), train(blobs, None, 2)
    difference = max(float((four[name] - two[name]).abs().max()) for name in four)
    assert difference > 1e-6


CHOICES: list[dict[str, Any]] = [
    {"loss": {"adversarial": "least_squares", "target_noise_per": "sample"}},
    {"loss": {"adversarial": "logistic", "r2_gamma": 3.0}, "optimizer": {"clip_norm": 0.5}},
    {"loss": {"adversarial": "hinge"}, "augment": {"policy": ["color", "translation", "cutout"]}},
    {"loss": {"adversarial": "relativistic"}, "model": {"conditioning": "projection"}},
    {"model": {"discriminator": {"stddev_features": 2, "downscale": "strided"}}},
]


@pytest.mark.parametrize(
    "choices", CHOICES, ids=lambda c: "-".join(str(v) for b in c.values() for v in b.values())
)
def test_with_every_loss(blobs: PackedSet, choices: dict[str, Any]) -> None:
    whole, parts = train(blobs, None, 4, choices), train(blobs, 8, 4, choices)
    assert parts.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-10, msg=name)

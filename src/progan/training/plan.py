"""The plan of a run, worked out without training: phases, sizes, memory, operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from progan.config import Config, per_level
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.errors import ConfigError
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.morph import require_morphable
from progan.training.augment import DRAWS
from progan.training.objective import Conditions, Terms, discriminator_terms, generator_terms, total
from progan.training.schedule import Phase, Schedule
from progan.training.state import ImageSpec, build_networks

FIXED_WORK = 40e6
"""What an image costs besides its floating-point operations, counted as such operations.

The time of small layers goes into starting them. The value fits the four levels of the quickstart recipe on
one CPU core, and only serves the estimate of the remaining time.
"""

WORKSPACE = 1.4
"""Peak memory over what is counted, for the temporaries of single operations; measured on a CPU: 1.3 to 1.45
for levels 2 to 5 of the recipe paper-light-128."""


@dataclass(frozen=True)
class LevelCost:
    """What one level asks for.

    Attributes:
        g_parameters, d_parameters: Parameters in use, with the level fading in.
        activation_bytes: Kept for the backward passes of the larger of the D and G steps, estimated, in
            float32; smaller types need less.
        flops_per_image: Floating-point operations for each real image shown: of D's step, its penalties as
            often as they are due, and G's step, which comes once in `loss.d_steps`.
    """

    g_parameters: int
    d_parameters: int
    activation_bytes: int
    flops_per_image: float


@dataclass(frozen=True)
class Plan:
    """Everything that is known about a run before its first step.

    Attributes:
        config: Resolved configuration.
        spec: Shapes.
        schedule: Phases and points.
        costs: One entry a level.
        pictures: Pictures that are trained on.
        state_bytes: Weights, average, gradients and moments of the whole networks.
    """

    config: Config
    spec: ImageSpec
    schedule: Schedule
    costs: tuple[LevelCost, ...]
    pictures: int
    state_bytes: int

    def memory(self, phase: Phase) -> int:
        """Return the estimated peak memory of a phase in bytes."""
        return round(WORKSPACE * (self.state_bytes + self.costs[phase.level].activation_bytes))

    def operations(self) -> float:
        """Return the floating-point operations of the whole run."""
        return sum((p.end - p.start) * self.costs[p.level].flops_per_image for p in self.schedule.phases)

    def work(self, images_seen: int) -> float:
        """Return the work that is left after `images_seen` images, in floating-point operations."""
        return sum(
            max(0, phase.end - max(phase.start, images_seen))
            * (self.costs[phase.level].flops_per_image + FIXED_WORK)
            for phase in self.schedule.phases
        )


def make_plan(config: Config, spec: ImageSpec, pictures: int) -> Plan:
    """Work out the plan of a run; nothing is allocated on any device.

    Args:
        config: Resolved configuration.
        spec: Shapes.
        pictures: Pictures that are trained on.

    Raises:
        ConfigError: if networks cannot grow as the schedule asks, or as in `Schedule`.
    """
    with torch.device("meta"):
        G, D = build_networks(config, spec)
        if config.schedule.growth == "morph":
            _require_morphable(config, G, D)
    levels = range(spec.max_level + 1)
    g, d = (sum(p.numel() for p in network.parameters()) for network in (G, D))
    return Plan(
        config=config,
        spec=spec,
        schedule=Schedule(config, spec.max_level, pictures),
        costs=tuple(_cost(G, D, config, level) for level in levels),
        pictures=pictures,
        # float32: weights, gradients and two moments of G and D, and the average of G
        state_bytes=4 * (4 * (g + d) + g),
    )


def _require_morphable(config: Config, *networks: Generator | Discriminator) -> None:
    """Check that each level can grow out of the one below, before anything is trained."""
    for network in networks:
        for level in range(config.schedule.start_level + 1, network.max_level + 1):
            try:
                require_morphable(network, level)
            except ValueError as error:
                raise ConfigError(str(error)) from None


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of convolutions and matrix products.

    PyTorch's own FlopCounterMode follows modules with hooks that `autograd.grad` does not allow.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def _cost(G: Generator, D: Discriminator, config: Config, level: int) -> LevelCost:
    """Run one step of a level on meta tensors, counting operations and what autograd keeps."""
    n = per_level(config.schedule.batch_size, level)
    group = min(D.stddev_group, n) or 1
    if config.run.micro_batch is not None:
        n = min(n, max(group, per_level(config.run.micro_batch, level) // group * group))
    one = torch.ones((), device="meta")
    augmented = bool(config.augment.policy)
    at = Conditions(level, one if level else None, one if augmented else None)
    shapes: dict[str, tuple[int, ...]] = {
        "reals": (n, G.channels, *G.resolution(level)),
        "labels": (n, G.label_size),
        "latents": (n, G.latent_size),
        "mixing": (n,),
        "noise": (n, 2),
        "draws": (n, DRAWS),
    }
    reals, labels, latents, mixing, noise, draws = (torch.empty(s, device="meta") for s in shapes.values())
    d_batch = DiscriminatorBatch(reals, labels, latents, mixing, noise, draws, draws)
    partners = reals if config.loss.adversarial == "relativistic" else None
    g_batch = GeneratorBatch(latents, labels, partners, draws, draws)
    with_penalties, d_bytes = _counted(lambda: discriminator_terms(G, D, d_batch, at, config), config)
    operations = float(with_penalties)
    if config.loss.penalty_interval > 1:
        lazy = replace(at, penalize=False)
        without, _ = _counted(lambda: discriminator_terms(G, D, d_batch, lazy, config), config)
        operations = without + (with_penalties - without) / config.loss.penalty_interval
    g_operations, g_bytes = _counted(lambda: generator_terms(G, D, g_batch, at, config), config)
    operations += g_operations / config.loss.d_steps
    used = [sum(p.numel() for p in network.parameters() if p.grad is not None) for network in (G, D)]
    G.zero_grad()
    D.zero_grad()
    return LevelCost(used[0], used[1], max(d_bytes, g_bytes), operations / n)


def _counted(terms_of: Callable[[], Terms], config: Config) -> tuple[int, int]:
    """Return the operations of terms and their gradients, and the bytes that autograd keeps between."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        return tensor

    with _Operations() as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.autograd.backward(total(terms_of(), config).sum())
    return counter.total, sum(kept.values())

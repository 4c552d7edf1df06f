"""What one iteration of training asks of a machine, counted from the shapes: operations, bytes, memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from progan.config import Config, per_level
from progan.data.batches import Batch, DiscriminatorBatch, GeneratorBatch
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.performance.op_counter import Counter, OpCounts
from progan.training.augment import draws_of
from progan.training.losses import Conditions, Objective
from progan.training.optimizer import Optimizer, is_used, level_of
from progan.training.precision import SMALL_TYPES
from progan.training.spec import ImageSpec
from progan.training.state import build_networks
from progan.training.step import Step, Trained, Update, trained_by, updates_of

FLOAT32 = 4
ADAM = OpCounts(operations=12, least_bytes=7 * FLOAT32, bytes=7 * FLOAT32)
"""Of each parameter: two moments (3 and 4 operations) and the weight (5); weight, gradient and moments are
read, all but the gradient written."""

AVERAGE = OpCounts(operations=3, least_bytes=3 * FLOAT32, bytes=3 * FLOAT32)
"""Of each parameter: lerp; both are read, one written."""


@dataclass(frozen=True)
class Counted:
    """What one update of one network asks for, without its optimizer: the work of the whole batch.

    The peak is in bytes of tensors at once, at most: activations, gradients, the batch.
    """

    work: OpCounts
    peak: int


@dataclass(frozen=True)
class IterationCost:
    """What one iteration asks for: `loss.d_steps` updates of D and of the average, and one of G.

    Where both networks are updated at once, `d` is that update, and `g` nothing.

    Attributes:
        level: The level.
        fading: Whether it comes in.
        images: Real images shown: batch times `loss.d_steps`.
        d: D's updates without penalties and optimizer, with the fakes that G makes for them.
        penalty: What the penalties of D's gradients add, as often as they are due on average.
        g: G's update without optimizer.
        optimizer: Adam and the average.
        state_bytes: Weights of both networks and of the average, and Adam's moments of what is trained.
        activation_bytes: Most bytes of tensors that the larger update has at once: activations, gradients,
            the batch.
    """

    level: int
    fading: bool
    images: int
    d: OpCounts
    penalty: OpCounts
    g: OpCounts
    optimizer: OpCounts
    state_bytes: int
    activation_bytes: int

    @property
    def work(self) -> OpCounts:
        """Everything together."""
        return self.d + self.penalty + self.g + self.optimizer

    @property
    def flops_per_image(self) -> float:
        """Floating-point operations for each real image shown, without those of the optimizer."""
        return (self.d + self.penalty + self.g).operations / self.images

    @property
    def memory(self) -> int:
        """Bytes of all tensors at once, at most."""
        return self.state_bytes + self.activation_bytes


LAUNCH = 4e-6
"""Seconds from the beginning of one operator to that of the next, at least: assumed, of recorded updates."""


@dataclass(frozen=True)
class Ceiling:
    """What a machine can do at most: floating-point operations, and bytes read or written, a second."""

    operations: float
    bandwidth: float

    def floor(self, work: OpCounts) -> float:
        """Return the seconds that work takes at least: those of its operations or of its bytes."""
        return max(work.operations / self.operations, work.least_bytes / self.bandwidth)

    def one_by_one(self, work: OpCounts) -> float:
        """Return a model of the seconds that work takes, each operator or compiled kernel for itself.

        Convolutions and products take the longer of computing and moving; everything else moves its inputs
        and results; and no operator is begun sooner than `LAUNCH` after the one before.
        """
        rest = (work.bytes - work.least_bytes) / self.bandwidth
        return max(self.floor(work) + rest, LAUNCH * work.operators)


class Costs:
    """Counts what the iterations of a configuration ask for; nothing is allocated on any device.

    Up- and downscaling is counted in its fused form. What loading a batch costs is not counted. G and D are
    the networks, without numbers.
    """

    def __init__(self, config: Config, image: ImageSpec) -> None:
        self._config = config
        with torch.device("meta"):
            G, D = build_networks(config, image)
        kernels = config.run.fused_kernels
        self.G, self.D = G.place("meta").use_kernels(kernels), D.place("meta").use_kernels(kernels)
        self._fake: FakeTensorMode | None = None
        if config.run.precision in SMALL_TYPES:
            # Mixed precision casts what is on a device; `meta` is none, but a fake tensor says that it is.
            self._fake = FakeTensorMode(allow_non_fake_inputs=True)
            with self._fake:
                self.G.to_empty(device="cpu")
                self.D.to_empty(device="cpu")
        self._counted = lru_cache(maxsize=None)(self._count)

    def iteration(self, level: int, fading: bool) -> IterationCost:
        """Count one iteration at a level.

        Args:
            level: The level.
            fading: Whether it comes in, faded or morphed; at level 0 that makes no difference.
        """
        config, fading = self._config, fading and level > 0
        n, d_steps = per_level(config.schedule.batch_size, level), config.loss.d_steps
        first, *rest = dict.fromkeys(updates_of(config))
        plain = self.update(first, level, fading=fading, penalize=False)
        whole = self.update(first, level, fading=fading)
        g = self.update("G", level, fading=fading) if rest else Counted(OpCounts(), 0)
        return IterationCost(
            level=level,
            fading=fading,
            images=n * d_steps,
            d=plain.work * d_steps,
            penalty=(whole.work - plain.work) * (d_steps / config.loss.penalty_interval),
            g=g.work,
            optimizer=self._optimizer(level, fading),
            state_bytes=self._state_bytes(level, fading),
            activation_bytes=max(whole.peak, g.peak),
        )

    def update(self, update: Update, level: int, *, fading: bool, penalize: bool = True) -> Counted:
        """Count one update, with or without the penalties of D's gradients, and without its optimizer."""
        penalties = any(penalty.slope for penalty in Objective.of(self._config).penalties)
        return self._scaled(update, level, fading, update != "G" and penalize and penalties)

    def largest_part(self, memory: float, level: int, *, fading: bool) -> int:
        """Return how many images of a batch can be computed at once: all, or whole minibatch-stddev groups.

        Args:
            memory: Bytes that there are.
            level: The level.
            fading: Whether it comes in.

        Returns:
            0 if not even one group fits.
        """
        n, fading = per_level(self._config.schedule.batch_size, level), fading and level > 0
        group = min(self.D.stddev_group, n) or 1
        room = memory - self._state_bytes(level, fading)

        def excess(groups: int) -> float:
            count = groups * group
            updates = updates_of(self._config)
            peaks = (self._counted(each, level, fading, each != "G", count).peak for each in updates)
            return max(peaks) - room

        if excess(n // group) <= 0:
            return n
        return group * bisect_right(range(1, n // group), 0.0, key=excess)

    def used_parameters(self, level: int, *, fading: bool) -> tuple[int, int]:
        """Return how many parameters of G and of D a level trains."""
        g, d = (sum(sizes.values()) for sizes in (_used(net, level, fading) for net in (self.G, self.D)))
        return g, d

    def _scaled(self, kind: Update, level: int, fading: bool, penalize: bool) -> Counted:
        """Count one part of the batch, as large as computed at once, and multiply by the number of parts."""
        n, part = batch_and_part(self._config, self.D.stddev_group, level)
        counted = self._counted(kind, level, fading and level > 0, penalize, part)
        return Counted(counted.work * (n / part), counted.peak)

    def _count(self, kind: Update, level: int, fading: bool, penalize: bool, n: int) -> Counted:
        """Count the losses of an update, of n images, and its gradients."""
        config = self._config
        self.D.requires_grad_(kind != "G")
        with self._shapes_only(), Counter() as counter:
            at = empty_conditions(config, level, fading=fading, penalize=penalize)
            networks: dict[Trained, nn.Module] = {"G": self.G, "D": self.D}
            optimizers = {each: Optimizer(networks[each], config.optimizer) for each in trained_by(kind)}
            step = Step((self.G, self.D), optimizers, config)
            for gradients, _ in step.eager(empty_batch(kind, self.G, config, n, level), at, n):
                step.add(gradients)
            for optimizer in optimizers.values():
                optimizer.drop_gradients()
        return Counted(counter.work, counter.peak)

    def _optimizer(self, level: int, fading: bool) -> OpCounts:
        """Return what Adam and the average ask for, of the parameters that are trained."""
        g, d = (_used(network, level, fading) for network in (self.G, self.D))
        d_steps = self._config.loss.d_steps
        # PyTorch calls two operators for each group of parameters, one a level; and one for the average.
        calls = OpCounts(operators=2 * (len(g) + d_steps * len(d)) + d_steps)
        updated, averaged = sum(g.values()) + d_steps * sum(d.values()), d_steps * sum(g.values())
        return ADAM * updated + AVERAGE * averaged + calls

    def _state_bytes(self, level: int, fading: bool) -> int:
        weights = [sum(p.numel() for p in network.parameters()) for network in (self.G, self.G, self.D)]
        moments = 2 * sum(self.used_parameters(level, fading=fading))
        return FLOAT32 * (sum(weights) + moments)

    @contextmanager
    def _shapes_only(self) -> Iterator[None]:
        """Make tensors without numbers while the block runs."""
        if self._fake is None:
            with torch.device("meta"):
                yield
        else:
            with self._fake, torch.device("cpu"):
                yield


def batch_and_part(config: Config, group: int, level: int) -> tuple[int, int]:
    """Return the batch size of a level, and how many of it are computed at once, in whole groups."""
    n = per_level(config.schedule.batch_size, level)
    group = min(group, n) or 1
    if config.run.micro_batch is None:
        return n, n
    return n, min(n, max(group, per_level(config.run.micro_batch, level) // group * group))


def empty_conditions(config: Config, level: int, *, fading: bool, penalize: bool) -> Conditions:
    """Return the conditions of an update, in tensors without numbers."""
    return Conditions(
        level=level,
        alpha=torch.empty(()) if fading else None,
        probability=torch.empty(()) if config.augment.policy else None,
        penalize=penalize,
    )


def empty_batch(kind: Update, G: Generator, config: Config, n: int, level: int) -> Batch:
    """Return a batch of n images of an update, in tensors without numbers."""
    draws, shape = torch.empty(n, draws_of(config)), (n, G.channels, *G.resolution(level))
    images = torch.empty(shape, memory_format=torch.channels_last)
    latents, labels = torch.empty(n, G.latent_size), torch.empty(n, G.label_size)
    if kind != "G":
        return DiscriminatorBatch(
            reals=images,
            labels=labels,
            latents=latents,
            mixing=torch.empty(n),
            noise=torch.empty(n, 2),
            augment_real=draws,
            augment_fake=draws,
        )
    return GeneratorBatch(
        latents=latents,
        labels=labels,
        reals=images if config.loss.facts.paired else None,
        augment_real=draws,
        augment_fake=draws,
    )


def _used(network: Generator | Discriminator, level: int, fading: bool) -> dict[int, int]:
    """Return how many parameters are trained at a level, by the level at which they begin to train."""
    sizes: dict[int, int] = {}
    for name, parameter in network.named_parameters():
        if is_used(name, level, fading=fading and network.growth == "fade"):
            sizes[level_of(name)] = sizes.get(level_of(name), 0) + parameter.numel()
    return sizes

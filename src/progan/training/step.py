"""One update of D or of G, given a batch: no randomness and no files here.

A batch is dealt to processes, and each computes its share in parts, of whole minibatch-stddev groups;
gradients add up to those of the whole batch. When a GPU's memory does not hold a part, smaller ones are
tried, and the update stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import torch

from progan.config import Config, per_level
from progan.data.batches import DiscriminatorBatch, GeneratorBatch, micro_batches
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import ConfigError
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.gradients import Found, Function
from progan.training.objective import (
    TERM_NAMES,
    Conditions,
    Stage,
    Terms,
    discriminator_stages,
    generator_stages,
    joined,
    total,
)
from progan.training.optimizer import Optimizer
from progan.training.precision import autocast

Batch = TypeVar("Batch", DiscriminatorBatch, GeneratorBatch)


def discriminator_step(
    networks: tuple[Generator, Discriminator],
    optimizer: Optimizer,
    batch: DiscriminatorBatch,
    at: Conditions,
    config: Config,
    lr: float,
    largest: int | None = None,
    function: Function[DiscriminatorBatch] | None = None,
    n: int | None = None,
    ranks: Ranks = ALONE,
) -> Terms:
    """Update D once; G makes the fakes and is not changed.

    Args:
        networks: G and D.
        optimizer: D's.
        batch: This process's share of the batch.
        at: Level, alpha and what else holds.
        config: Losses and precision.
        lr: Learning rate.
        largest: Most samples that are computed at once; None for all.
        function: Computes the gradients of a part; None for the plain way, operation by operation.
        n: Samples in the whole batch; None if the share is all of it.
        ranks: The processes that share it.

    Returns:
        The mean of each term over the whole batch, and of the `loss`: 0-d tensors on the device, detached.
        Nothing if float16 overflowed: the update was left out then, and the next one is scaled down.
    """
    G, D = networks
    whole = Whole(len(batch) if n is None else n, at, G.growth == "fade", ranks)

    def gradients(part: DiscriminatorBatch) -> Terms:
        if function is not None:
            return _add(function(part, at, whole.n), optimizer)
        return _backward(lambda: discriminator_stages(G, D, part, at, config), optimizer, config, whole.n)

    return _update(gradients, optimizer, batch, whole, D.stddev_group, lr, largest)


def generator_step(
    networks: tuple[Generator, Discriminator],
    optimizer: Optimizer,
    batch: GeneratorBatch,
    at: Conditions,
    config: Config,
    lr: float,
    largest: int | None = None,
    function: Function[GeneratorBatch] | None = None,
    n: int | None = None,
    ranks: Ranks = ALONE,
) -> Terms:
    """Update G once; D is not changed, and its weights get no gradients. See `discriminator_step`."""
    G, D = networks
    whole = Whole(len(batch) if n is None else n, at, G.growth == "fade", ranks)

    def gradients(part: GeneratorBatch) -> Terms:
        if function is not None:
            return _add(function(part, at, whole.n), optimizer)
        return _backward(lambda: generator_stages(G, D, part, at, config), optimizer, config, whole.n)

    D.requires_grad_(False)
    try:
        return _update(gradients, optimizer, batch, whole, D.stddev_group, lr, largest)
    finally:
        D.requires_grad_(True)


def _backward(stages_of: Callable[[], list[Stage]], optimizer: Optimizer, config: Config, n: int) -> Terms:
    """Add the gradients of a part of a batch of `n`, stage by stage; returns its terms and the loss."""

    def backward(stage: Stage) -> Terms:
        with autocast(config.run.precision, optimizer.device):
            terms = stage()
            losses = total(terms, config)
        optimizer.backward(losses.sum() / n)
        # Nothing of the stage is kept: what it had in memory is for the next.
        return {name: values.detach() for name, values in {**terms, "loss": losses}.items()}

    with autocast(config.run.precision, optimizer.device):
        stages = stages_of()
    return reduce(joined, map(backward, stages))


def _add(found: Found, optimizer: Optimizer) -> Terms:
    """Add gradients that a function has found to those of the parts before; returns the terms."""
    gradients, terms = found
    optimizer.add(gradients)
    return terms


@dataclass(frozen=True)
class Whole:
    """The whole batch that a share belongs to.

    Attributes:
        n: Its samples.
        at: What holds during the update.
        fade: Whether networks grow by fading.
        ranks: The processes that share it.
    """

    n: int
    at: Conditions
    fade: bool
    ranks: Ranks

    def reduce(self, optimizer: Optimizer, means: Terms) -> Terms:
        """Add up gradients and means over the processes, so that all hold those of the whole batch."""
        if self.ranks.size == 1:
            return means
        gradients = optimizer.gradients(self.at.level, fading=self.fade and self.at.alpha is not None)
        return self.ranks.reduce(gradients, means, TERM_NAMES)


def _update(
    gradients: Callable[[Batch], Terms],
    optimizer: Optimizer,
    batch: Batch,
    whole: Whole,
    group: int,
    lr: float,
    largest: int | None,
) -> Terms:
    """Add up the gradients of all parts of a batch, and step."""
    means: Terms = {}
    for positions in micro_batches(len(batch), group, largest):
        for name, values in gradients(batch.take(positions)).items():
            share = values.detach().sum() / whole.n
            means[name] = means[name] + share if name in means else share
    means = whole.reduce(optimizer, means)
    try:
        return means if optimizer.step(lr) else {}
    except RuntimeError as error:
        if whole.ranks.size == 1 or not is_out_of_memory(error):
            raise
        # The others have made this update, so it cannot be begun again in smaller parts.
        raise ConfigError(
            f"memory does not hold the optimizer's part of the update ({str(error).split('. ')[0]}); compute "
            f"fewer images at once with --run.micro-batch"
        ) from None


OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "unable to find an engine to execute")
"""What errors say that are no `torch.OutOfMemoryError` but mean it: those of cuDNN, cuBLAS and MPS."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that the device's memory does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


class TooLittleMemoryError(ConfigError):
    """Memory does not hold a single minibatch-stddev group.

    Args:
        message: What to do about it, where training is concerned.
        reason: What the device said.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PartSizes:
    """How many samples are computed at once at each level: as configured, halved when memory runs out.

    Args:
        config: The micro-batches asked for.
        say: Told once a level that it was halved.
    """

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._configured = config.run.micro_batch
        self._group = config.model.discriminator.stddev_group
        self._found: dict[int, int] = {}
        self._say = say

    def largest(self, level: int, n: int) -> int:
        """Return the most samples to compute at once at a level, of shares of batches of `n`."""
        asked = n if self._configured is None else per_level(self._configured, level)
        return min(n, self._found.get(level, asked))

    def fit(self, update: Callable[[int], Terms], optimizer: Optimizer, level: int, n: int) -> Terms:
        """Make an update in parts as large as memory allows.

        Args:
            update: Makes the update, given the most samples to compute at once.
            optimizer: What an abandoned attempt has left in it is dropped.
            level: The level.
            n: Samples in this process's share of the batch.

        Returns:
            What `update` returns.

        Raises:
            TooLittleMemoryError: if memory does not hold a single minibatch-stddev group.
        """
        while True:
            size = self.largest(level, n)
            try:
                return update(size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                optimizer.drop_gradients()
                reason = str(error).split(". ")[0]
            # Outside the handler: while it runs, the error keeps the failed attempt's tensors alive.
            self._halve(level, size, n, reason)

    def _halve(self, level: int, size: int, n: int, reason: str) -> None:
        group = min(self._group, n) or 1
        smaller = size // 2 // group * group
        if smaller < group and size > group:
            smaller = group
        if smaller < group:
            raise TooLittleMemoryError(
                f"level {level}: memory does not hold {size} images at once ({reason}), and they "
                f"cannot be divided further; lower model.*.fmap_base and fmap_max, the resolution, or "
                f"model.discriminator.stddev_group",
                reason,
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if level not in self._found:
            self._say(
                f"level {level}: memory does not hold {size} images at once, so batches are computed in "
                f"parts from here on ({smaller} at first); the updates stay the same. To begin with that: "
                f"--run.micro-batch {smaller}"
            )
        self._found[level] = smaller

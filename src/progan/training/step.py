"""One update of D or of G, given a batch: its gradients, operation by operation, and the step of Adam.

There is no randomness here, and there are no files. A batch is dealt to processes, and each computes its
share in parts, of whole minibatch-stddev groups; gradients add up to those of the whole batch. When a GPU's
memory does not hold a part, smaller ones are tried, and the update stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from progan.config import Config, per_level
from progan.data.batches import Batch, micro_batches
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import ConfigError, memory_reason, says_out_of_memory
from progan.models.autograd import autocast
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.losses import (
    Conditions,
    Objective,
    Stage,
    Terms,
    discriminator_stages,
    generator_stages,
    joined,
    total,
)
from progan.training.optimizer import Optimizer, is_used
from progan.training.precision import SMALL_TYPES

Trained = Literal["G", "D"]
"""The network that an update trains."""

Networks = tuple[Generator, Discriminator]
Found = tuple[dict[str, Tensor], Terms]
"""Gradients by the names of parameters, and every term and the `loss`, per sample."""

GradientFunction = Callable[[Batch, Conditions, int], Iterable[Found]]
"""Finds the gradients of a part of a batch, given what holds and the number of samples in the whole batch.

They are of the mean loss over the whole batch times `Conditions.scale`, and come stage after stage of the
loss, so that no more than one stage is in memory; they add up.
"""

STAGES: dict[Trained, Callable[..., list[Stage]]] = {"D": discriminator_stages, "G": generator_stages}
"""The loss of each network, in the stages in which it is computed."""


class _Loss(nn.Module):
    """The loss of a batch as a module, so that its weights can be replaced by others."""

    def __init__(self, networks: Networks, trained: Trained, config: Config) -> None:
        super().__init__()
        self.G, self.D = networks
        device = next(self.D.parameters()).device
        # Where there are shapes alone, operations are counted that have no casts of their own.
        self.of, self._device = Objective.of(config), torch.device("cpu") if device.type == "meta" else device
        self._type = SMALL_TYPES.get(config.run.precision)
        self._stages_of: Callable[..., list[Stage]] = STAGES[trained]

    def stages(self, batch: Batch, at: Conditions) -> list[Stage]:
        """Return the stages of the loss; each computes with the weights that are there when it is called."""
        with autocast(self._type, self._device):
            return self._stages_of(self.G, self.D, batch, at, self.of)

    def forward(self, stage: Stage) -> tuple[Tensor, Terms]:
        """Return the sum of the losses of a stage, and its terms with the `loss`, per sample."""
        with autocast(self._type, self._device):
            terms = stage()
            losses = total(terms, self.of)
        return losses.sum(), {**terms, "loss": losses}


class EagerGradients:
    """Finds the gradients of one of the networks G and D (`trained`) operation by operation."""

    def __init__(self, networks: Networks, trained: Trained, config: Config) -> None:
        self._objective = _Loss(networks, trained, config)
        self._trained: Trained = trained

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterator[Found]:
        """Yield the gradients of each stage of the loss, of those parameters that it depends on.

        Args:
            batch: The part.
            at: Level, alpha and what else holds.
            n: Samples in the whole batch, over which the mean is taken.

        Yields:
            Gradients of the loss times `at.scale`, in tensors that nobody else holds; and every term and the
            `loss` of the part, per sample, detached.
        """
        used = self._used(at)
        for stage in self._objective.stages(batch, at):
            losses, terms = self._objective(stage)
            loss = losses / n if isinstance(at.scale, float) else losses / n * at.scale
            # The slope does not depend on the last bias, for example.
            found = torch.autograd.grad(loss, list(used.values()), allow_unused=True)
            terms = {name: value.detach() for name, value in terms.items()}
            del losses, loss  # nothing of the stage is kept: what it had in memory is for the next
            yield {name: one for name, one in zip(used, found, strict=True) if one is not None}, terms

    @property
    def term_names(self) -> tuple[str, ...]:
        """Every term there can be, and the loss, in an order that all processes have."""
        return self._objective.of.term_names

    def _used(self, at: Conditions) -> dict[str, nn.Parameter]:
        network: Generator | Discriminator = getattr(self._objective, self._trained)
        fading = at.alpha is not None and network.growth == "fade"
        return used_parameters(network, at.level, fading=fading)


def used_parameters(
    network: Generator | Discriminator, level: int, *, fading: bool
) -> dict[str, nn.Parameter]:
    """Return the parameters of a network that take part in what a level computes, by name.

    Args:
        network: G or D.
        level: The level.
        fading: Whether it fades in, so that the toRGB or fromRGB below takes part, too.
    """
    named: Mapping[str, nn.Parameter] = dict(network.named_parameters())
    return {name: value for name, value in named.items() if is_used(name, level, fading=fading)}


class Step:
    """Updates one of the networks, G or D; the other one is not changed, and its weights get no gradients.

    `sizes` says how many samples are computed at once; None for what the configuration says. Ranks are the
    processes that share each batch.
    """

    def __init__(
        self,
        trained: Trained,
        networks: Networks,
        optimizer: Optimizer,
        config: Config,
        sizes: PartSizes | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._trained: Trained = trained
        self._networks, self.optimizer, self._ranks = networks, optimizer, ranks
        self._sizes = PartSizes(config, lambda _: None) if sizes is None else sizes
        self.eager = EagerGradients(networks, trained, config)

    def __call__(
        self,
        batch: Batch,
        at: Conditions,
        lr: float,
        n: int | None = None,
        gradients: GradientFunction | None = None,
    ) -> Terms:
        """Find the gradients of a batch, and step.

        Args:
            batch: This process's share of the batch.
            at: Level, alpha and what else holds; the loss is scaled as the optimizer asks.
            lr: Learning rate.
            n: Samples in the whole batch; None if the share is all of it.
            gradients: Finds the gradients of a part; None for the plain way, operation by operation.

        Returns:
            The mean of each term over the whole batch, and of the `loss`: 0-d tensors on the device,
            detached. Nothing if float16 overflowed: the update was left out then, and the next one is scaled
            down.

        Raises:
            TooLittleMemoryError: if memory does not hold a single minibatch-stddev group.
        """
        n, gradients = len(batch) if n is None else n, gradients or self.eager
        at = replace(at, scale=self.optimizer.scale)
        while True:
            size = self._sizes.largest(at.level, len(batch))
            try:
                means = self._gather(batch, at, n, size, gradients)
                with self._not_begun_again():
                    return means if self.optimizer.step(lr) else {}
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.optimizer.drop_gradients()
                reason = memory_reason(error)
            # Outside the handler: while it runs, the error keeps the failed attempt's tensors alive.
            self._sizes.halve(at.level, size, len(batch), reason)

    def _gather(self, batch: Batch, at: Conditions, n: int, size: int, gradients: GradientFunction) -> Terms:
        """Add up the gradients of all parts on all processes; returns the means of the terms."""
        G, D = self._networks
        means: Terms = {}
        with _constant(G if self._trained == "D" else D):
            contiguous = D.stddev_contiguous
            for positions in micro_batches(len(batch), D.stddev_group, size, contiguous=contiguous):
                terms: Terms = {}
                for found, more in gradients(batch.take(positions), at, n):
                    self.optimizer.add(found)
                    terms = joined(terms, more)
                for name, values in terms.items():
                    share = values.sum() / n
                    means[name] = means[name] + share if name in means else share
        if self._ranks.size == 1:
            return means
        fading = at.alpha is not None and G.growth == "fade"
        return self._ranks.all_reduce(
            self.optimizer.gradients(at.level, fading=fading), means, self.eager.term_names
        )

    @contextmanager
    def _not_begun_again(self) -> Iterator[None]:
        """Let a lack of memory end a run of several processes: the others have made this update by now."""
        try:
            yield
        except RuntimeError as error:
            if self._ranks.size == 1 or not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"memory does not hold the optimizer's part of the update ({memory_reason(error)}); "
                f"compute fewer images at once with --run.micro-batch"
            ) from None


@contextmanager
def _constant(network: torch.nn.Module) -> Iterator[None]:
    """Look at a network as a constant, so that nothing is kept for the gradients of its weights."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


NO_ENGINE = "unable to find an engine to execute"
"""What cuDNN says where it has no kernel for a convolution, and where no workspace of one has room."""

SCARCE = 1 / 8
"""Share of a device's memory that is free, at most, where a workspace may have had no room."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that the device's memory does not suffice."""
    return says_out_of_memory(error) or (NO_ENGINE in str(error) and _is_scarce())


def _is_scarce() -> bool:
    """Return whether little of the present CUDA device's memory is free."""
    if not torch.cuda.is_available():
        return False
    free, total = torch.cuda.mem_get_info()
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # free, but for PyTorch's keeping it
    return free + kept < SCARCE * total


class TooLittleMemoryError(ConfigError):
    """Memory does not hold a single minibatch-stddev group.

    The message says what to do about it, where training is concerned; the reason is what the device said.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PartSizes:
    """How many samples are computed at once at each level: as configured, halved when memory runs out.

    `say` is told once a level that it was halved.
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

    def halve(self, level: int, size: int, n: int, reason: str) -> None:
        """Take note that memory does not hold a part.

        Args:
            level: The level.
            size: Samples that were computed at once.
            n: Samples in this process's share of the batch.
            reason: What the device said.

        Raises:
            TooLittleMemoryError: if it was a single minibatch-stddev group.
        """
        group = min(self._group, n) or 1
        smaller = size // 2 // group * group
        if smaller < group and size > group:
            smaller = group
        if smaller < group:
            raise TooLittleMemoryError(
                f"level {level}: memory does not hold {size} images at once ({reason}), and they "
                f"cannot be divided further; lower --model.generator.fmap-base and "
                f"--model.discriminator.fmap-base (and their fmap-max), --schedule.batch-size, --resolution "
                f"or --model.discriminator.stddev-group",
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

"""One update of D, of G, or of both, given a batch: gradients, operation by operation, and steps of Adam.

There is no randomness here, and there are no files. A batch is dealt to processes, and each computes its
share in parts, of whole minibatch-stddev groups; gradients add up to those of the whole batch. When a GPU's
memory does not hold a part, smaller ones are tried, and the update stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from progan.config import Config, per_level
from progan.data.batches import Batch, DiscriminatorBatch, micro_batches
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import ConfigError, memory_reason, says_out_of_memory
from progan.models.autograd import autocast
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.losses import (
    Conditions,
    Objective,
    Shared,
    Stage,
    Terms,
    discriminator_stages,
    generator_stages,
    joined,
    shared_losses,
    total,
)
from progan.training.optimizer import Optimizer, is_used
from progan.training.precision import SMALL_TYPES

T = TypeVar("T")
Trained = Literal["G", "D"]
"""A network that an update trains."""

Update = Literal["D", "G", "both"]
"""What an update trains: one of the networks, or both from the same fakes."""

Networks = tuple[Generator, Discriminator]
Found = tuple[dict[str, Tensor], Terms]
"""Gradients by `G.` or `D.` and the names of parameters; terms and the `loss`, per sample, by `G/` or `D/`
and their names."""

GradientFunction = Callable[[Batch, Conditions, int], Iterable[Found]]
"""Finds the gradients of a part of a batch, given what holds and the number of samples in the whole batch.

They are of the mean loss over the whole batch times the network's scale (`Conditions`), and come stage after
stage of the loss, so that no more than one stage is in memory; they add up.
"""

STAGES: dict[Trained, Callable[..., list[Stage]]] = {"D": discriminator_stages, "G": generator_stages}
"""The loss of each network, in the stages in which it is computed."""


def updates_of(config: Config) -> list[Update]:
    """Return the updates of an iteration, in their order."""
    if config.loss.updates == "simultaneous":
        return ["both"]
    d_steps: list[Update] = ["D"] * config.loss.d_steps
    return [*d_steps, "G"]


def trained_by(update: Update) -> tuple[Trained, ...]:
    """Return the networks that an update trains."""
    return ("D", "G") if update == "both" else (update,)


class _Losses(nn.Module):
    """What computes the losses of a batch as a module, so that its weights can be replaced by others."""

    def __init__(self, networks: Networks, config: Config) -> None:
        super().__init__()
        self.G, self.D = networks
        device = next(self.D.parameters()).device
        # Where there are shapes alone, operations are counted that have no casts of their own.
        self.of, self._device = Objective.of(config), torch.device("cpu") if device.type == "meta" else device
        self._type = SMALL_TYPES.get(config.run.precision)

    def forward(self, compute: Callable[[], T]) -> T:
        """Compute something of the networks, with the weights that are there when it is called."""
        with autocast(self._type, self._device):
            return compute()

    def stages(self, trained: Trained, batch: Batch, at: Conditions) -> list[Stage]:
        """Return the stages of the loss of a network."""
        stages: list[Stage] = self(lambda: STAGES[trained](self.G, self.D, batch, at, self.of))
        return stages

    def shared(self, batch: Batch, at: Conditions) -> Shared:
        """Return the losses of both networks, of the fakes of a batch of D."""
        return shared_losses(self.G, self.D, cast(DiscriminatorBatch, batch), at, self.of)

    def summed(self, trained: Trained, terms: Terms, at: Conditions, n: int) -> tuple[Tensor, Terms]:
        """Return the loss of some terms of a network, and all of them with the `loss`, per sample, detached.

        The loss is the mean over the `n` samples of the whole batch, times the network's scale.
        """
        losses = self(lambda: total(terms, self.of))
        loss, scale = losses.sum() / n, at.d_scale if trained == "D" else at.g_scale
        told = {f"{trained}/{name}": value.detach() for name, value in {**terms, "loss": losses}.items()}
        return loss if isinstance(scale, float) else loss * scale, told


class EagerGradients:
    """Finds the gradients of an update of the networks G and D operation by operation."""

    def __init__(self, networks: Networks, update: Update, config: Config) -> None:
        self._losses, self._update = _Losses(networks, config), update

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterator[Found]:
        """Yield the gradients of each stage of the loss, of those parameters that it depends on.

        Args:
            batch: The part; of D, for an update of both.
            at: Level, alpha and what else holds.
            n: Samples in the whole batch, over which the mean is taken.

        Yields:
            Gradients of the loss times its scale, in tensors that nobody else holds; and every term and the
            `loss` of the part, per sample, detached.
        """
        trained: Trained = "D"
        if self._update == "both":
            shared = self._losses.shared(batch, at)
            fakes = self._losses(shared.make)
            yield from self._of_both(shared, fakes, at, n)
            stages = self._losses(partial(shared.between, fakes.detach()))
        else:
            trained, stages = self._update, self._losses.stages(self._update, batch, at)
        for stage in stages:
            yield self._of_stage(trained, stage, at, n)

    def _of_stage(self, trained: Trained, stage: Stage, at: Conditions, n: int) -> Found:
        """Return what a stage finds; nothing of it is kept: what it had in memory is for the next."""
        loss, terms = self._losses.summed(trained, self._losses(stage), at, n)
        used = self._used(trained, at)
        # The slope does not depend on the last bias, for example.
        return _named(used, torch.autograd.grad(loss, list(used.values()), allow_unused=True)), terms

    def _of_both(self, shared: Shared, made: Tensor, at: Conditions, n: int) -> Iterator[Found]:
        """Yield the gradients of both networks, at the weights that they have now, of fakes that G made.

        D's loss and G's are computed of the fakes as they are. The gradient of G's with respect to them goes
        back through G; where it is that of D's with the other sign, D is passed back through once.
        """
        fakes, d, g = made.detach().requires_grad_(), self._used("D", at), self._used("G", at)
        d_terms, g_terms = self._losses(partial(shared.judge, fakes))
        d_loss, told = self._losses.summed("D", d_terms, at, n)
        g_loss, more = self._losses.summed("G", g_terms, at, n)
        grad = partial(torch.autograd.grad, allow_unused=True)
        if shared.mirrored:
            *d_found, slope = grad(d_loss, [*d.values(), fakes])
            found, slope = _named(d, d_found), mirrored(slope, at)
        else:
            found = _named(d, grad(d_loss, list(d.values()), retain_graph=True))
            *direct, slope = grad(g_loss, [*g.values(), fakes])
            found |= _named(g, direct)  # penalties of one's own may have G make more
        yield found, told | more
        yield _named(g, grad(made, list(g.values()), slope)), {}

    @property
    def term_names(self) -> tuple[str, ...]:
        """Every term there can be, and the loss, in an order that all processes have."""
        names = self._losses.of.term_names
        return tuple(f"{trained}/{name}" for trained in trained_by(self._update) for name in names)

    def _used(self, trained: Trained, at: Conditions) -> dict[str, nn.Parameter]:
        """Return the parameters of a network that take part, by `G.` or `D.` and their names."""
        network: Generator | Discriminator = getattr(self._losses, trained)
        fading = at.alpha is not None and network.growth == "fade"
        used = used_parameters(network, at.level, fading=fading)
        return {f"{trained}.{name}": parameter for name, parameter in used.items()}


def mirrored(slope: Tensor, at: Conditions) -> Tensor:
    """Return the gradient of G's scaled loss with respect to the fakes, given that of D's, its mirror."""
    plain = isinstance(at.d_scale, float) and isinstance(at.g_scale, float)
    return -slope if plain else slope * (-at.g_scale / at.d_scale)


def _named(used: Mapping[str, Tensor], found: Iterable[Tensor | None]) -> dict[str, Tensor]:
    return {name: one for name, one in zip(used, found, strict=True) if one is not None}


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
    """Updates one of the networks, G or D, or both at once, each at the weights that both have before.

    The network whose optimizer is not given is not changed, and its weights get no gradients. `sizes` says
    how many samples are computed at once; None for what the configuration says. Ranks are the processes
    that share each batch.
    """

    def __init__(
        self,
        networks: Networks,
        optimizers: Mapping[Trained, Optimizer],
        config: Config,
        sizes: PartSizes | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._networks, self.optimizers, self._ranks = networks, optimizers, ranks
        self._sizes = PartSizes(config, lambda _: None) if sizes is None else sizes
        update: Update = "both" if len(optimizers) > 1 else next(iter(optimizers))
        self.eager = EagerGradients(networks, update, config)

    def __call__(
        self,
        batch: Batch,
        at: Conditions,
        lr: Mapping[Trained, float],
        n: int | None = None,
        gradients: GradientFunction | None = None,
    ) -> Terms:
        """Find the gradients of a batch, and step.

        Args:
            batch: This process's share of the batch; of D, where both networks are trained.
            at: Level, alpha and what else holds; the losses are scaled as the optimizers ask.
            lr: Learning rate of each network.
            n: Samples in the whole batch; None if the share is all of it.
            gradients: Finds the gradients of a part; None for the plain way, operation by operation.

        Returns:
            The mean of each term over the whole batch, and of the `loss`, as `D/...` and `G/...`: 0-d tensors
            on the device, detached. Nothing of a network whose gradients overflowed float16: its update was
            left out then, and the next one is scaled down.

        Raises:
            TooLittleMemoryError: if memory does not hold a single minibatch-stddev group.
        """
        n, gradients = len(batch) if n is None else n, gradients or self.eager
        scales = {name: adam.scale for name, adam in self.optimizers.items()}
        at = replace(at, d_scale=scales.get("D", 1.0), g_scale=scales.get("G", 1.0))
        while True:
            size = self._sizes.largest(at.level, len(batch))
            try:
                means = self._gather(batch, at, n, size, gradients)
                with self._not_begun_again():
                    for optimizer in self.optimizers.values():
                        optimizer.get_ready()  # where memory runs out, no network has moved
                    made = [f"{name}/" for name, adam in self.optimizers.items() if adam.step(lr[name])]
                    return {name: mean for name, mean in means.items() if name.startswith(tuple(made))}
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                for optimizer in self.optimizers.values():
                    optimizer.drop_gradients()
                reason = memory_reason(error)
            # Outside the handler: while it runs, the error keeps the failed attempt's tensors alive.
            self._sizes.halve(at.level, size, len(batch), reason)

    def _gather(self, batch: Batch, at: Conditions, n: int, size: int, gradients: GradientFunction) -> Terms:
        """Add up the gradients of all parts on all processes; returns the means of the terms."""
        G, D = self._networks
        means: Terms = {}
        with ExitStack() as constant:
            for name, network in (("G", G), ("D", D)):
                if name not in self.optimizers:
                    constant.enter_context(_constant(network))
            contiguous = D.stddev_contiguous
            for positions in micro_batches(len(batch), D.stddev_group, size, contiguous=contiguous):
                terms: Terms = {}
                for found, more in gradients(batch.take(positions), at, n):
                    self.add(found)
                    terms = joined(terms, more)
                for name, values in terms.items():
                    share = values.sum() / n
                    means[name] = means[name] + share if name in means else share
        if self._ranks.size == 1:
            return means
        fading = at.alpha is not None and G.growth == "fade"
        held = [one for adam in self.optimizers.values() for one in adam.gradients(at.level, fading=fading)]
        return self._ranks.all_reduce(held, means, self.eager.term_names)

    def add(self, found: dict[str, Tensor]) -> None:
        """Give each optimizer the gradients of its network, to add up."""
        for trained, optimizer in self.optimizers.items():
            prefix = f"{trained}."
            optimizer.add({k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)})

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

"""The gradients of one network for a part of a batch: operation by operation, or compiled into one graph.

The gradient of a gradient cannot be taken through a compiled module, but it can within one compiled
function: so what is compiled is written as a function of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from progan.config import Config
from progan.data.batches import Batch
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.objective import (
    Conditions,
    Stage,
    Terms,
    discriminator_stages,
    generator_stages,
    joined,
    total,
)
from progan.training.optimizer import is_used
from progan.training.precision import autocast

GRAPHS = 1000
"""Graphs of one function that are allowed; a run to level 8 has some hundred."""

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


class _Objective(nn.Module):
    """The loss of a batch as a module, so that its weights can be replaced by others."""

    def __init__(self, networks: Networks, trained: Trained, config: Config) -> None:
        super().__init__()
        self.G, self.D = networks
        device = next(self.D.parameters()).device
        # Where there are shapes alone, operations are counted that have no casts of their own.
        self._config, self._device = config, torch.device("cpu") if device.type == "meta" else device
        self._stages_of: Callable[..., list[Stage]] = STAGES[trained]

    def stages(self, batch: Batch, at: Conditions) -> list[Stage]:
        """Return the stages of the loss; each computes with the weights that are there when it is called."""
        with autocast(self._config.run.precision, self._device):
            return self._stages_of(self.G, self.D, batch, at, self._config)

    def forward(self, stage: Stage) -> tuple[Tensor, Terms]:
        """Return the sum of the losses of a stage, and its terms with the `loss`, per sample."""
        with autocast(self._config.run.precision, self._device):
            terms = stage()
            losses = total(terms, self._config)
        return losses.sum(), {**terms, "loss": losses}


class EagerGradients:
    """Finds the gradients of one network operation by operation.

    Args:
        networks: G and D.
        trained: Which of them the gradients are of.
        config: Losses and precision.
    """

    def __init__(self, networks: Networks, trained: Trained, config: Config) -> None:
        self._objective = _Objective(networks, trained, config)
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

    def _used(self, at: Conditions) -> dict[str, nn.Parameter]:
        network: Generator | Discriminator = getattr(self._objective, self._trained)
        fading = at.alpha is not None and network.growth == "fade"
        return used_parameters(network, at.level, fading=fading)


class CompiledGradients(EagerGradients):
    """Finds the gradients of one network, compiled for each level, phase and batch size it meets.

    The arguments are those of `EagerGradients`; all stages come as one.
    """

    @cached_property
    def _compiled(self) -> Callable[..., Found]:
        return torch.compile(self._gradients, fullgraph=True, dynamic=False)

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterator[Found]:
        """Yield the gradients of the whole loss, with zeros where it does not depend on a parameter."""
        prefix = f"{self._trained}."
        weights = {f"{prefix}{name}": parameter.detach() for name, parameter in self._used(at).items()}
        with torch.no_grad(), _many_graphs():
            gradients, terms = self._compiled(weights, batch, at, n)
        yield {name.removeprefix(prefix): value for name, value in gradients.items()}, terms

    def _gradients(self, weights: dict[str, Tensor], batch: Batch, at: Conditions, n: int) -> Found:
        def gradients_of(stage: Stage) -> Found:
            def loss(weights: dict[str, Tensor]) -> tuple[Tensor, Terms]:
                losses, terms = torch.func.functional_call(self._objective, weights, (stage,))
                return losses / n * at.scale, terms

            gradients, (_, terms) = torch.func.grad_and_value(loss, has_aux=True)(weights)
            return gradients, terms

        return summed(map(gradients_of, self._objective.stages(batch, at)))


def summed(stages: Iterable[Found]) -> Found:
    """Return what all stages of a loss have found together."""
    gradients: dict[str, Tensor] = {}
    terms: Terms = {}
    for more, found in stages:
        terms = joined(terms, found)
        if both := [name for name in more if name in gradients]:
            added = torch._foreach_add([gradients[name] for name in both], [more[name] for name in both])
            more = {**more, **dict(zip(both, added, strict=True))}
        gradients = {**gradients, **more}
    return gradients, terms


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


def _many_graphs() -> AbstractContextManager[None]:
    """Lift PyTorch's limit of graphs a function for a while.

    It is meant for functions that are compiled again by accident. Ours has a graph for each network, level,
    kind of phase and part of a batch, with and without penalties.
    """
    from torch._dynamo import config as settings  # takes seconds to import

    # The name that the setting had before PyTorch 2.7.
    name = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"
    change: AbstractContextManager[None] = settings.patch({name: GRAPHS, f"accumulated_{name}": GRAPHS})
    return change

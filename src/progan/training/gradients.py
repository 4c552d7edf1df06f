"""The gradients of a part of a batch as a function: compiled into one graph, or operation by operation.

The gradient of a gradient cannot be taken through a compiled module, but it can within one compiled
function: so the loss, its penalties and their gradients are written as a function of the weights here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from progan.config import Config
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.objective import Conditions, Stage, Terms, joined, total
from progan.training.optimizer import is_used
from progan.training.precision import autocast

GRAPHS = 1000
"""Graphs of one function that are allowed; a run to level 8 has some hundred."""

Trained = Literal["G", "D"]
"""The network that an update trains."""

Batch = TypeVar("Batch", DiscriminatorBatch, GeneratorBatch)
Found = tuple[dict[str, Tensor], Terms]
"""Gradients by the names of parameters, and every term and the `loss`, per sample."""

Function = Callable[[Batch, Conditions, int], Found]
"""Computes them of a part of a batch, given the number of samples in the whole."""

StagesOf = Callable[[Generator, Discriminator, Batch, Conditions, Config], list[Stage]]
"""The stages of a loss, in whose order it is computed."""


class _Objective(nn.Module, Generic[Batch]):
    """The loss of a batch as a module, so that its weights can be replaced by others."""

    def __init__(self, G: Generator, D: Discriminator, config: Config, stages_of: StagesOf[Batch]) -> None:
        super().__init__()
        self.G, self.D = G, D
        self._config, self._device = config, next(D.parameters()).device
        self._stages_of: StagesOf[Batch] = stages_of

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


class EagerGradients(Generic[Batch]):
    """Computes the gradients of one network operation by operation.

    Args:
        networks: G and D.
        trained: Which of them the gradients are of.
        config: Losses and precision.
        stages_of: Its loss.
    """

    def __init__(
        self,
        networks: tuple[Generator, Discriminator],
        trained: Trained,
        config: Config,
        stages_of: StagesOf[Batch],
    ) -> None:
        self._objective: _Objective[Batch] = _Objective(*networks, config, stages_of)
        self._trained: Trained = trained

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Found:
        """Return the gradients of a part of a batch.

        Args:
            batch: The part.
            at: Level, alpha and what else holds.
            n: Samples in the whole batch, over which the mean is taken.

        Returns:
            Gradients by the names of the network's parameters, of the loss times `at.scale`; and every term
            and the `loss` of the part, per sample.
        """
        used = used_parameters(self._objective.G, self._objective.D, self._trained, at)

        def gradients_of(stage: Stage) -> Found:
            loss, terms = self._objective(stage)
            # The slope does not depend on the last bias, for example.
            gradients = torch.autograd.grad(loss / n * at.scale, list(used.values()), materialize_grads=True)
            return dict(zip(used, gradients, strict=True)), {k: value.detach() for k, value in terms.items()}

        return _in_turn(gradients_of, self._objective.stages(batch, at))


class CompiledGradients(EagerGradients[Batch]):
    """Computes the gradients of one network, compiled for each level, phase and batch size it meets.

    The arguments are those of `EagerGradients`.
    """

    @cached_property
    def _compiled(self) -> Callable[..., Found]:
        return torch.compile(self._gradients, fullgraph=True, dynamic=False)

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Found:
        """Return gradients and terms; see `EagerGradients.__call__`."""
        prefix = f"{self._trained}."
        used = used_parameters(self._objective.G, self._objective.D, self._trained, at)
        weights = {f"{prefix}{name}": parameter.detach() for name, parameter in used.items()}
        with torch.no_grad(), _many_graphs():
            gradients, terms = self._compiled(weights, batch, at, n)
        return {name.removeprefix(prefix): value for name, value in gradients.items()}, terms

    def _gradients(self, weights: dict[str, Tensor], batch: Batch, at: Conditions, n: int) -> Found:
        def gradients_of(stage: Stage) -> Found:
            def loss(weights: dict[str, Tensor]) -> tuple[Tensor, Terms]:
                losses, terms = torch.func.functional_call(self._objective, weights, (stage,))
                return losses / n * at.scale, terms

            gradients, (_, terms) = torch.func.grad_and_value(loss, has_aux=True)(weights)
            return gradients, terms

        return _in_turn(gradients_of, self._objective.stages(batch, at))


def _in_turn(gradients_of: Callable[[Stage], Found], stages: list[Stage]) -> Found:
    """Compute stage after stage, so that only one of them is in memory, and add up what is found."""
    gradients, terms = gradients_of(stages[0])
    for stage in stages[1:]:
        more, found = gradients_of(stage)
        added = torch._foreach_add(list(gradients.values()), list(more.values()))
        gradients, terms = dict(zip(gradients, added, strict=True)), joined(terms, found)
    return gradients, terms


def used_parameters(
    G: Generator, D: Discriminator, trained: Trained, at: Conditions
) -> dict[str, nn.Parameter]:
    """Return the parameters of one network that take part in an update, by name."""
    network: nn.Module = G if trained == "G" else D
    fading = at.alpha is not None and G.growth == "fade"
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if is_used(name, at.level, fading=fading)
    }


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

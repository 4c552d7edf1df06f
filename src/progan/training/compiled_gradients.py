"""The gradients of one network for a part of a batch: operation by operation, or compiled into one graph.

The gradient of a gradient cannot be taken through a compiled module, but it can within one compiled
function: so what is compiled is written as a function of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from torch import Tensor

from progan.data.batches import Batch
from progan.training.losses import (
    Conditions,
    Stage,
    Terms,
    joined,
)
from progan.training.step import EagerGradients, Found

GRAPHS = 1000
"""Graphs of one function that are allowed; a run to level 8 has some hundred."""


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

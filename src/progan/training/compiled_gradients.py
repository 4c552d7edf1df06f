"""The gradients of an update for a part of a batch: operation by operation, or compiled into one graph.

The gradient of a gradient cannot be taken through a compiled module, but it can within one compiled
function: so what is compiled is written as a function of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from progan.config import Config, Precision
from progan.data.batches import Batch
from progan.errors import ConfigError
from progan.models.conv2d_graph_pass import weight_gradients_asked_for
from progan.training.losses import Conditions, Shared, Stage, Terms, joined
from progan.training.precision import SMALL_TYPES, reason_of
from progan.training.step import (
    EagerGradients,
    Found,
    GradientFunction,
    Trained,
    mirrored,
    trained_by,
)

GRAPHS = 1000
"""Graphs of one function that are allowed; a run to level 8 has some hundred."""


LARGEST_ERROR = 0.05
"""Of gradients that the same operations give in another way, or with TF32, relative to theirs."""

LARGEST_ERROR_SMALL = 0.25
"""The same where a compiler decides what is rounded to a small type. Those of the operations in
bfloat16 were off from those in float32 by 0.04 to 0.09 by rounding alone, and of a mistaken derivative
by 0.45."""

LARGEST_ERROR_FLOAT32 = 1e-3
"""The same where nothing is rounded to less than float32."""


class CompiledGradients(EagerGradients):
    """Finds the gradients of an update, compiled for each level, phase and batch size it meets.

    The arguments are those of `EagerGradients`; all stages come as one.
    """

    @cached_property
    def _compiled(self) -> Callable[..., Found]:
        return torch.compile(self._gradients, fullgraph=True, dynamic=False)

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterator[Found]:
        """Yield the gradients of the whole loss, with zeros where it does not depend on a parameter."""
        weights: dict[Trained, dict[str, Tensor]] = {
            trained: {name: parameter.detach() for name, parameter in self._used(trained, at).items()}
            for trained in trained_by(self._update)
        }
        with torch.no_grad(), _many_graphs(), weight_gradients_asked_for():
            yield self._compiled(weights, batch, at, n)

    def _gradients(
        self, weights: dict[Trained, dict[str, Tensor]], batch: Batch, at: Conditions, n: int
    ) -> Found:
        if self._update != "both":
            trained = self._update
            stages = self._losses.stages(trained, batch, at)
            return summed(self._of(trained, stage, weights[trained], at, n) for stage in stages)
        shared = self._losses.shared(batch, at)
        fakes, first = self._of_shared(shared, weights["D"], weights["G"], at, n)
        stages = self._losses(partial(shared.between, fakes))
        return summed([first, *(self._of("D", stage, weights["D"], at, n) for stage in stages)])

    def _of(
        self, trained: Trained, stage: Stage, weights: dict[str, Tensor], at: Conditions, n: int
    ) -> Found:
        """Return the gradients of a stage of one network's loss."""

        def loss(weights: dict[str, Tensor]) -> tuple[Tensor, Terms]:
            terms = torch.func.functional_call(self._losses, weights, (stage,))
            return self._losses.summed(trained, terms, at, n)

        gradients, (_, terms) = torch.func.grad_and_value(loss, has_aux=True)(weights)
        return gradients, terms

    def _of_shared(
        self, shared: Shared, d: dict[str, Tensor], g: dict[str, Tensor], at: Conditions, n: int
    ) -> tuple[Tensor, Found]:
        """Return the fakes, and the gradients of both networks; of two passes through D what is not used of
        each is not computed, as the compiler leaves it out."""

        def make(g: dict[str, Tensor]) -> Tensor:
            fakes: Tensor = torch.func.functional_call(self._losses, g, (shared.make,))
            return fakes

        def losses(d: dict[str, Tensor], fakes: Tensor, g: dict[str, Tensor]) -> tuple[Any, Terms]:
            judged = partial(shared.judge, fakes)
            d_terms, g_terms = torch.func.functional_call(self._losses, {**d, **g}, (judged,))
            d_loss, told = self._losses.summed("D", d_terms, at, n)
            g_loss, more = self._losses.summed("G", g_terms, at, n)
            return (d_loss, g_loss), {**told, **more}

        fakes, back_through_g, *_ = torch.func.vjp(make, g)
        (d_loss, g_loss), back, *told = torch.func.vjp(losses, d, fakes, g, has_aux=True)
        d_found, slope, _ = back((torch.ones_like(d_loss), torch.zeros_like(g_loss)))
        if shared.mirrored:
            (g_found,) = back_through_g(mirrored(slope, at))
        else:
            _, slope, direct = back((torch.zeros_like(d_loss), torch.ones_like(g_loss)))
            (through,) = back_through_g(slope)
            g_found = {name: direct[name] + value for name, value in through.items()}
        return fakes, ({**d_found, **g_found}, told[0])


class CheckedGradients:
    """Finds gradients by a compiled function that has given those of the operations themselves.

    In each phase, the first part of each kind is computed both ways and compared.

    Args:
        compiled: The function.
        plain: What it stands for.
        config: The precision says how near the two must be; and with run.compile always, what is in the way
            of compiling is raised.
        say: Told else, if the compiled function is of no use; from then on the plain one is called.
    """

    def __init__(
        self,
        compiled: GradientFunction,
        plain: GradientFunction,
        config: Config,
        say: Callable[[str], None],
    ) -> None:
        self._compiled, self._plain, self._say = compiled, plain, say
        self._forced = config.run.compile == "always"
        self._largest_error = largest_error(config.run.precision)
        self._phase: tuple[int, bool] | None = None
        self._compared: set[tuple[object, ...]] = set()
        self._failed = False

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterable[Found]:
        """Return the gradients of a part of a batch."""
        if self._failed:
            return self._plain(batch, at, n)
        phase = at.level, at.alpha is None
        if phase != self._phase:
            self._phase, self._compared = phase, set()
        key = at.penalize, at.probability is None, len(batch), n
        try:
            found = summed(self._compiled(batch, at, n))
            if key not in self._compared and self._are_equal(found, batch, at, n):
                self._compared.add(key)
        except torch.OutOfMemoryError:
            raise
        # The compiler's errors are of many kinds, and libraries may have no kernel for what it made.
        except Exception as error:
            if self._forced:
                raise
            self._failed = True
            self._say(f"going on without compiling: {reason_of(error)}")
            return self._plain(batch, at, n)
        return [found]

    def _are_equal(self, found: Found, batch: Batch, at: Conditions, n: int) -> bool:
        """Compare gradients with those of the operations, as far as they are finite: float16 may overflow.

        Raises:
            ConfigError: if they are others.
        """
        error = relative_error(found[0], summed(self._plain(batch, at, n))[0])
        if error > self._largest_error:
            raise ConfigError(
                f"the compiled update finds gradients that differ by {error:.2g} of their norm from those of "
                f"the operations; leave run.compile always out"
            )
        return not math.isnan(error)


def largest_error(precision: Precision) -> float:
    """Return how far compiled gradients may be off from those of the operations, relative to their norm."""
    if precision in SMALL_TYPES:
        return LARGEST_ERROR_SMALL
    return LARGEST_ERROR if precision == "tf32" else LARGEST_ERROR_FLOAT32


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the difference of a network's gradients, relative to theirs: the worse network's.

    Args:
        found: Gradients by name, whose first word is the network; 0 where there is none.
        expected: What they should be; of the names of `found`, or fewer.
    """
    networks: dict[str, dict[str, Tensor]] = {}
    for name, value in found.items():
        networks.setdefault(name.partition(".")[0], {})[name] = value
    errors = [_relative_error(part, expected) for part in networks.values()]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    zero = torch.zeros(())
    pairs = [
        (value.double(), expected.get(name, zero.to(value.device)).double()) for name, value in found.items()
    ]
    off = torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
    norm = torch.stack([b.square().sum() for _, b in pairs]).sum()
    return float((off / norm.clamp_min(torch.finfo(torch.float64).tiny)).sqrt())


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

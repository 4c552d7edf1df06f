"""What the parts of an iteration take, each measured alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from statistics import median

import torch

from progan.data.batches import Batch
from progan.performance.peak_rates import seconds
from progan.training.iteration import Iteration
from progan.training.losses import Objective
from progan.training.optimizer import update_average
from progan.training.schedule import Point
from progan.training.step import Trained, used_parameters


@dataclass(frozen=True)
class Parts:
    """Seconds that the parts of an iteration take, each waited for.

    `d` are D's updates without what follows: what the penalties of D's gradients add to them, as often as
    they are due on average; G's update; Adam of both networks, and the average; making the batches.
    """

    d: float
    penalty: float
    g: float
    optimizer: float
    loader: float

    def shares(self) -> list[float]:
        """Return the share of each in their sum, in the order of the attributes."""
        values = [getattr(self, each.name) for each in fields(self)]
        return [value / sum(values) for value in values]


@dataclass(frozen=True)
class _Times:
    """Seconds of single calls."""

    load: float
    d_plain: float
    d_penalized: float
    g: float
    d_adam: float
    g_adam: float
    average: float


def measure_parts(iteration: Iteration, point: Point, rounds: int) -> Parts:
    """Measure the parts of an iteration, which finds gradients as the last one did.

    Args:
        iteration: What has made an iteration at this point.
        point: Where the schedule stands.
        rounds: How often; medians count.
    """
    timer = _Timer(iteration, point)
    timer.take()  # what is done for the first time is recorded or compiled
    times = [timer.take() for _ in range(rounds)]
    loss = iteration.spec.config.loss

    def d_part(each: _Times) -> float:
        return loss.d_steps * (each.d_plain - each.d_adam)

    def adam(each: _Times) -> float:
        return loss.d_steps * (each.d_adam + each.average) + each.g_adam

    due = loss.d_steps / loss.penalty_interval
    # Differences of two measurements may fall below zero by noise.
    return Parts(
        d=max(0.0, median(map(d_part, times))),
        penalty=max(0.0, median(due * (each.d_penalized - each.d_plain) for each in times)),
        g=max(0.0, median(each.g - each.g_adam for each in times)),
        optimizer=median(map(adam, times)),
        loader=median(each.load for each in times),
    )


class _Timer:
    """Calls the parts of an iteration one by one."""

    def __init__(self, iteration: Iteration, point: Point) -> None:
        self._iteration, self._point = iteration, point
        self._loss, self._device = iteration.spec.config.loss, iteration.batches.device

    def take(self) -> _Times:
        """Measure each part once."""
        state = self._iteration.state
        penalties = any(penalty.slope for penalty in Objective.of(self._iteration.spec.config).penalties)
        load = self._seconds(self._load)
        d_plain = self._update("D", penalize=False)
        return _Times(
            load=load,
            d_plain=d_plain,
            d_penalized=self._update("D", penalize=True) if penalties else d_plain,
            g=self._update("G", penalize=False),
            d_adam=self._adam("D"),
            g_adam=self._adam("G"),
            average=self._seconds(lambda: update_average(state.G_ema, state.G, 0.999)),
        )

    def _seconds(self, work: Callable[[], object]) -> float:
        return seconds(work, self._device)

    def _draw(self, trained: Trained) -> Batch:
        """Return the batch of an update."""
        iteration, point = self._iteration, self._point
        batches, clock = iteration.batches, iteration.state.images_seen
        draw = batches.discriminator if trained == "D" else batches.generator
        faded = iteration.conditions(point).alpha if point.fading else None
        return draw(clock, point.batch_size, point.level, faded)

    def _load(self) -> None:
        """Load the batches of an iteration, the pictures in their order."""
        for _ in range(self._loss.d_steps):
            self._draw("D")
            self._draw("G")
            self._iteration.state.images_seen += self._point.batch_size

    def _update(self, trained: Trained, *, penalize: bool) -> float:
        """Measure an update, given its batch."""
        iteration, point = self._iteration, self._point
        batch, at = self._draw(trained), replace(iteration.conditions(point), penalize=penalize)
        step, gradients = iteration.steps[trained], iteration.gradients[trained]
        lr = point.d_lr if trained == "D" else point.g_lr
        return self._seconds(lambda: step(batch, at, lr, gradients=gradients))

    def _adam(self, trained: Trained) -> float:
        """Measure a step of Adam, with gradients of zero."""
        state, point = self._iteration.state, self._point
        network = state.D if trained == "D" else state.G
        used = used_parameters(network, point.level, fading=point.fading)
        optimizer = self._iteration.steps[trained].optimizer
        optimizer.add({name: torch.zeros_like(parameter) for name, parameter in used.items()})
        return self._seconds(lambda: optimizer.step(point.d_lr))

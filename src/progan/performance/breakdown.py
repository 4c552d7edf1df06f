"""What the parts of an iteration take, each measured alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import median

import torch

from progan.data.batches import Batch
from progan.performance.peak_rates import seconds
from progan.training.iteration import Iteration
from progan.training.losses import Objective
from progan.training.optimizer import update_average
from progan.training.schedule import Point
from progan.training.step import Trained, Update, trained_by, used_parameters


@dataclass(frozen=True)
class Parts:
    """Seconds that the parts of an iteration take, each waited for.

    `d` are D's updates without what follows: what the penalties of D's gradients add to them, as often as
    they are due on average; G's update; Adam of both networks, and the average; making the batches. Where
    both are updated at once, `d` is that update, and `g` nothing.
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
    """Seconds of single calls: of the update of D, or of both, and of that of G, if it is apart."""

    load: float
    first_plain: float
    first_penalized: float
    first_adam: float
    g: float
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
        return loss.d_steps * (each.first_plain - each.first_adam)

    def adam(each: _Times) -> float:
        return loss.d_steps * (each.first_adam + each.average) + each.g_adam

    due = loss.d_steps / loss.penalty_interval
    # Differences of two measurements may fall below zero by noise.
    return Parts(
        d=max(0.0, median(map(d_part, times))),
        penalty=max(0.0, median(due * (each.first_penalized - each.first_plain) for each in times)),
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
        apart = "G" in self._iteration.steps
        first: Update = "D" if apart else "both"
        plain = self._update(first, penalize=False)
        return _Times(
            load=load,
            first_plain=plain,
            first_penalized=self._update(first, penalize=True) if penalties else plain,
            first_adam=self._adam(first),
            g=self._update("G", penalize=False) if apart else 0.0,
            g_adam=self._adam("G") if apart else 0.0,
            average=self._seconds(lambda: update_average(state.G_ema, state.G, 0.999)),
        )

    def _seconds(self, work: Callable[[], object]) -> float:
        return seconds(work, self._device)

    def _draw(self, update: Update) -> Batch:
        """Return the batch of an update."""
        iteration, point = self._iteration, self._point
        batches, clock = iteration.batches, iteration.state.images_seen
        draw = batches.generator if update == "G" else batches.discriminator
        faded = iteration.conditions(point).alpha if point.fading else None
        return draw(clock, point.batch_size, point.level, faded)

    def _load(self) -> None:
        """Load the batches of an iteration, the pictures in their order."""
        for _ in range(self._loss.d_steps):
            for update in self._iteration.steps:
                self._draw(update)
            self._iteration.state.images_seen += self._point.batch_size

    def _update(self, update: Update, *, penalize: bool) -> float:
        """Measure an update, given its batch."""
        iteration, point = self._iteration, self._point
        batch, at = self._draw(update), replace(iteration.conditions(point), penalize=penalize)
        step, gradients = iteration.steps[update], iteration.gradients[update]
        rates: dict[Trained, float] = {"D": point.d_lr, "G": point.g_lr}
        return self._seconds(lambda: step(batch, at, rates, gradients=gradients))

    def _adam(self, update: Update) -> float:
        """Measure the steps of Adam in an update, with gradients of zero."""
        state, point, taken = self._iteration.state, self._point, 0.0
        for trained in trained_by(update):
            used = used_parameters(state.D if trained == "D" else state.G, point.level, fading=point.fading)
            optimizer = self._iteration.steps[update].optimizers[trained]
            optimizer.add({name: torch.zeros_like(parameter) for name, parameter in used.items()})
            taken += self._seconds(partial(optimizer.step, point.d_lr))
        return taken

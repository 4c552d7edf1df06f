"""What the parts of an iteration take, each measured alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import median

import torch
from torch import nn

from progan.config import Config, per_level
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.performance.peak_rates import seconds
from progan.training.gradients import Trained, used_parameters
from progan.training.iteration import Updates
from progan.training.objective import Conditions
from progan.training.optimizer import Optimizer, update_average
from progan.training.schedule import Point
from progan.training.step import discriminator_step, generator_step


@dataclass(frozen=True)
class Parts:
    """Seconds that the parts of an iteration take, each waited for.

    Attributes:
        d: D's updates, without what follows.
        penalty: What the penalties of D's gradients add to them, as often as they are due on average.
        g: G's update.
        optimizer: Adam of both networks, and the average.
        loader: Making the batches.
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


def measure_parts(updates: Updates, point: Point, rounds: int) -> Parts:
    """Measure the parts of an iteration, which computes gradients as the last one did.

    Args:
        updates: What has made an iteration at this point.
        point: Where the schedule stands.
        rounds: How often; medians count.
    """
    timer = _Timer(updates, point)
    timer.take()  # what is done for the first time is recorded or compiled
    times = [timer.take() for _ in range(rounds)]
    loss = updates.spec.config.loss

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

    def __init__(self, updates: Updates, point: Point) -> None:
        self._updates, self._point = updates, point
        self._config: Config = updates.spec.config
        self._device = updates.batches.device
        parts = self._config.run.micro_batch
        self._largest = None if parts is None else per_level(parts, point.level)

    def take(self) -> _Times:
        """Measure each part once."""
        config, state = self._config, self._updates.state
        loss = config.loss
        penalties = loss.gp_lambda + loss.r1_gamma + loss.r2_gamma > 0
        load = seconds(self._load_all, self._device)
        d_batch, g_batch = self._load()
        d_plain = self._d_step(d_batch, penalize=False)
        return _Times(
            load=load,
            d_plain=d_plain,
            d_penalized=self._d_step(d_batch, penalize=True) if penalties else d_plain,
            g=self._g_step(g_batch),
            d_adam=self._adam("D", state.d_optimizer),
            g_adam=self._adam("G", state.g_optimizer),
            average=seconds(lambda: update_average(state.G_ema, state.G, 0.999), self._device),
        )

    def _load(self) -> tuple[DiscriminatorBatch, GeneratorBatch]:
        batches, point = self._updates.batches, self._point
        clock, n, level = self._updates.state.images_seen, point.batch_size, point.level
        alpha = torch.full((), point.alpha, device=self._device) if point.fading else None
        return batches.discriminator(clock, n, level, alpha), batches.generator(clock, n, level, alpha)

    def _load_all(self) -> None:
        """Load the batches of an iteration, the pictures in their order."""
        state = self._updates.state
        for _ in range(self._config.loss.d_steps):
            self._load()
            state.images_seen += self._point.batch_size

    def _conditions(self, optimizer: Optimizer, *, penalize: bool) -> Conditions:
        alpha = torch.full((), self._point.alpha, device=self._device) if self._point.growing else None
        probability = self._updates.state.augmenter.probability
        return Conditions(self._point.level, alpha, probability, penalize, optimizer.scale)

    def _d_step(self, batch: DiscriminatorBatch, *, penalize: bool) -> float:
        state, function = self._updates.state, self._updates.functions.D
        at = self._conditions(state.d_optimizer, penalize=penalize)
        return seconds(
            lambda: discriminator_step(
                (state.G, state.D), state.d_optimizer, batch, at, self._config, self._point.d_lr,
                self._largest, function,
            ),
            self._device,
        )  # fmt: skip

    def _g_step(self, batch: GeneratorBatch) -> float:
        state, function = self._updates.state, self._updates.functions.G
        at = self._conditions(state.g_optimizer, penalize=False)
        return seconds(
            lambda: generator_step(
                (state.G, state.D), state.g_optimizer, batch, at, self._config, self._point.g_lr,
                self._largest, function,
            ),
            self._device,
        )  # fmt: skip

    def _adam(self, trained: Trained, optimizer: Optimizer) -> float:
        """Measure a step of Adam, with gradients of zero."""
        state = self._updates.state
        at = self._conditions(optimizer, penalize=False)
        used: dict[str, nn.Parameter] = used_parameters(state.G, state.D, trained, at)
        for parameter in used.values():
            parameter.grad = torch.zeros_like(parameter)
        return seconds(lambda: optimizer.step(self._point.d_lr), self._device)

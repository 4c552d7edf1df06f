"""The log points of a run: what its updates told on average, found finite, heeded, measured and written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from progan.errors import DivergenceError
from progan.runs import checkpoint
from progan.runs.callbacks.callback import RunStart
from progan.runs.checks import Prepared
from progan.runs.divergence import Alarm, Rollbacks
from progan.runs.logs import Logs, Stats
from progan.runs.monitors import Monitors
from progan.runs.sample_grid import SampleGrid
from progan.training.losses import Terms
from progan.training.precision import needs_loss_scaling
from progan.training.schedule import Point
from progan.training.state import TrainState

READ_AT_ONCE = ("cpu",)
"""Devices whose numbers are there as soon as they are computed; others are waited for at log points only."""


class LogPoints:
    """Gathers what updates tell, and writes it down where the schedule says so.

    All processes of the run call its methods; the first writes. The grid tells how much pictures differ, and
    `rollbacks` knows what an update that diverged was made of.
    """

    def __init__(
        self,
        run: Prepared,
        state: TrainState,
        grid: SampleGrid,
        monitors: Monitors,
        rollbacks: Rollbacks,
    ) -> None:
        self._run, self._state, self._grid = run, state, grid
        self._monitors, self._rollbacks = monitors, rollbacks
        self._logs: Logs | None = None
        self._alarm = Alarm()
        self._logged_at, self._logged = 0.0, 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Gather and write from the present clock on; what is there beyond it is of work that was lost.

        Raises:
            StorageError: if the folder cannot be written.
        """
        seen = self._state.images_seen
        self._logs = self._run.ranks.first_only(lambda: Logs(self._run.folder, seen))
        self._alarm = Alarm(() if self._logs is None else self._logs.kept)
        self._logged_at, self._logged = time.monotonic(), seen
        run = self._run
        total, level = run.spec.schedule.total, self._state.G.level if seen else None
        start = RunStart(run.folder.path, run.spec.config, seen, total)
        with run.callbacks.following(start, level, lambda: self._state.images_seen):
            yield

    def add(self, begun: int, point: Point, updates: Sequence[Terms]) -> None:
        """Take note of the terms of an iteration, which must be finite, as far as that is known already.

        Args:
            begun: Images seen before it.
            point: What the schedule said.
            updates: The terms of each update.

        Raises:
            DivergenceError: if one is not finite.
        """
        clock = begun
        for terms in updates:
            if "G/loss" in terms:
                clock = begun  # G's batch is that of the iteration's first update
            self._state.interval.add(clock, terms)
            if self._state.d_optimizer.device.type in READ_AT_ONCE:
                self._require_finite(terms, point, clock)
            clock += point.batch_size

    def require_finite(self, before: int) -> None:
        """Refuse to save a state, or one that comes of terms, that are not finite.

        Args:
            before: The clock before the last iteration.

        Raises:
            DivergenceError: if one is not.
        """
        self._means(before)
        if wrong := checkpoint.not_finite(self._state.tensors()):
            raise self._rollbacks.diverged(wrong, self._rollbacks.point(before), before)

    def _means(self, before: int) -> dict[str, float]:
        """Return the means of the terms since the last log point, all of which were finite."""
        means, first = self._state.interval.means(), self._state.interval.first_not_finite()
        at = before if first is None else first
        self._require_finite(means, self._rollbacks.point(at), at)
        return means

    def write(self, point: Point, *, measured: bool, scheduled: bool, is_over: Callable[[], bool]) -> None:
        """Write a log point: means over the updates since the last one, and metrics if they are due.

        Args:
            point: What the schedule said of the last iteration.
            measured: Measure, too.
            scheduled: A run that is not stopped here has this log point, too; else its means go on.
            is_over: Asked now and then whether to give up measuring.

        Raises:
            DivergenceError: if a number is not finite, or the alarm is to stop the run.
        """
        state, seen = self._state, self._state.images_seen
        rate = (seen - self._logged) / max(time.monotonic() - self._logged_at, 1e-9)
        self._run.ranks.at("a log point", seen, point.phase.name)
        optimizers = {"D": state.d_optimizer, "G": state.g_optimizer}
        norms = {f"{name}/gradient_norm": float(adam.gradient_norm()) for name, adam in optimizers.items()}
        means = self._means(seen - point.batch_size)
        self._require_finite(norms, point, seen - point.batch_size)
        stats: Stats = {
            "images_seen": seen,
            "level": point.level,
            "resolution": "x".join(map(str, state.G.resolution(point.level))),
            "phase": point.phase.kind,
            "alpha": round(point.alpha, 6),
            "batch_size": point.batch_size,
            "g_lr": point.g_lr,
            "d_lr": point.d_lr,
            "images_per_second": round(rate, 3),
            **self._gauges(),
            **means,
            **norms,
            "G/variation": float(self._grid.variation(state.G)),
        }
        self._heed(stats)
        if measured:
            stats |= self._monitors.measure(state, is_over)
        if scheduled:
            state.interval.begin_anew()
        if self._logs is not None:
            self._logs.write(stats)
            self._run.callbacks.log(stats)
        self._run.reporter.tick(stats)
        self._logged_at, self._logged = time.monotonic(), seen

    def _require_finite(self, terms: Mapping[str, Tensor | float], point: Point, clock: int) -> None:
        """Stop at a term that is not finite, before anything is saved; `clock` is that before its update."""
        if wrong := [name for name, value in terms.items() if not math.isfinite(float(value))]:
            raise self._rollbacks.diverged(wrong, point, clock)

    def _heed(self, stats: Stats) -> None:
        """Say what the alarm makes of a log point, or stop if `run.on_alarm` says so."""
        seen = self._state.images_seen
        told = self._run.ranks.broadcast(self._alarm.observe(stats))
        if told and self._run.spec.config.run.on_alarm == "stop":
            raise DivergenceError(f"at {seen:,} images {'; '.join(told)}. {self._rollbacks.advice()}")
        for message in told:
            self._run.reporter.say(f"warning: at {seen:,} images {message}")

    def _gauges(self) -> Stats:
        """Return what adjusts itself during training, where it does."""
        gauges: Stats = {}
        if self._state.augmenter.probability is not None:
            gauges["augment_probability"] = float(self._state.augmenter.probability)
        if needs_loss_scaling(self._run.spec.config.run.precision):
            gauges["g_loss_scale"] = float(self._state.g_optimizer.scale)
            gauges["d_loss_scale"] = float(self._state.d_optimizer.scale)
        return gauges

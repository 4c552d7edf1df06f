"""Variants that take turns: one round of iterations each, again and again."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.performance.breakdown import Parts, measure_parts
from progan.performance.peak_rates import seconds
from progan.performance.variants import Variant
from progan.training.iteration import Iteration
from progan.training.precision import settings
from progan.training.schedule import Phase, point_of
from progan.training.spec import Spec
from progan.training.step import TooLittleMemoryError, is_out_of_memory

WARM_UP = 3
"""Rounds before those that count: algorithms are chosen in them, updates recorded and compiled."""

WORTH_SAYING = 10.0
"""Seconds of a first round, with what is compiled and chosen in it, from which they are mentioned."""

BURST_SECONDS = 0.2
"""Where a device computes while the program goes on, a round takes at least so long."""


NO_MEMORY = "out of memory"
"""What a note begins with that says so."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one variant in one phase; numbers are None where memory did not suffice.

    An iteration takes `seconds` in the median, and `parts` of it alone; the first round, with everything that
    happens once, took `first_seconds`. The ratio, the median of paired rounds, is how many times as fast as
    the first variant that is. Bytes in use at once are measured on CUDA alone. Notes say what else happened.
    """

    seconds: float | None = None
    ratio: float | None = None
    parts: Parts | None = None
    first_seconds: float | None = None
    peak_memory: int | None = None
    notes: tuple[str, ...] = ()


class Runner:
    """One variant, which makes iterations of a plan (with the configuration of the variant) on request."""

    def __init__(self, variant: Variant, spec: Spec, packed: PackedSet, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._notes: list[str] = []
        self._iteration = Iteration(spec, packed, device, self._notes.append)
        variant.place(self._iteration)
        self._phase, self._point = spec.schedule.phases[0], spec.schedule.at(0)
        self._count = 1
        self.times: list[float] = []
        self.failed = False
        self._first: float | None = None
        self._peak: int | None = None

    def enter(self, phase: Phase) -> None:
        """Get ready for a phase and warm up."""
        self._phase = phase
        alpha = 1.0 if phase.kind == "stabilise" else 0.5  # half-way if its level comes in
        self._point = point_of(self._spec.config, phase, alpha)
        self._iteration.state.images_seen = self._spec.schedule.entry(phase)
        self._notes.clear()
        self.times, self.failed, self._first, self._peak = [], False, None, None
        self._count = self._spec.config.loss.penalty_interval  # one with penalties, d_steps times
        before = -sum(tensor.nbytes for tensor in self._iteration.state.tensors().values())
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            before += torch.cuda.memory_allocated(self._device)
        for _ in range(WARM_UP):
            self.turn()
            if self.failed:
                return
            self._first = self.times[0] * self._count if self._first is None else self._first
        if self._device.type == "cuda":
            self._peak = torch.cuda.max_memory_allocated(self._device) - before
        if self._device.type != "cpu":
            self._count *= max(1, round(BURST_SECONDS / (self.times[-1] * self._count)))
        self.times.clear()

    def turn(self) -> None:
        """Make a round of iterations and note the seconds of one; nothing is waited for within a round."""
        if self.failed:
            return
        problem = self._try_round()
        if problem:  # outside the handler: while it runs, the error keeps the failed attempt's tensors alive
            self.failed = True
            self._notes.append(problem)
            self._make_room()

    def _try_round(self) -> str:
        """Make a round and note its time; returns what was in the way of it, or ""."""
        with settings(self._spec.config.run, self._device):
            try:
                taken = seconds(self._iterate, self._device)
            except ConfigError as error:
                kind = NO_MEMORY if isinstance(error, TooLittleMemoryError) else "failed"
                return f"{kind}: {str(error).splitlines()[0]}"
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return f"{NO_MEMORY}: {str(error).splitlines()[0]}"
        self.times.append(taken / self._count)
        return ""

    def result(self, reference: Sequence[float], rounds: int) -> Timed:
        """Return what was measured, and measure the parts.

        Args:
            reference: Times of the first variant in the same rounds; empty if there are none.
            rounds: How often to measure the parts.
        """
        if self.failed:
            return Timed(first_seconds=self._first, notes=tuple(self._notes))
        ratio = None
        if reference:
            # Rounds are paired: the ratio of neighbours in time is steadier than that of the medians.
            ratio = median(a / b for a, b in zip(reference, self.times, strict=True))
        timed = Timed(median(self.times), ratio, None, self._first, self._peak)
        if self._first is not None and self._first > WORTH_SAYING:
            self._notes.append(f"the first round took {self._first:.0f} s")
        try:
            with settings(self._spec.config.run, self._device):
                timed = replace(timed, parts=measure_parts(self._iteration, self._point, rounds))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._notes.append("its parts did not fit into memory by themselves")
        return replace(timed, notes=tuple(self._notes))

    def _iterate(self) -> None:
        state, loss = self._iteration.state, self._spec.config.loss
        ahead = self._count * loss.d_steps * self._point.batch_size
        if state.images_seen + ahead > self._phase.end:
            state.images_seen = self._spec.schedule.entry(self._phase)
        for _ in range(self._count):
            update = self._spec.schedule.at(state.images_seen).update
            self._iteration(replace(self._point, update=update))

    def _make_room(self) -> None:
        """Drop what a failed iteration has left."""
        state = self._iteration.state
        for optimizer in (state.g_optimizer, state.d_optimizer):
            optimizer.drop_gradients()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def take_turns(runners: Sequence[Runner], phase: Phase, rounds: int) -> list[Timed]:
    """Measure all variants in one phase; the ratios are to the first.

    Args:
        runners: The variants.
        phase: The phase.
        rounds: Rounds that count, at least 1.
    """
    for runner in runners:
        runner.enter(phase)
    for _ in range(rounds):
        for runner in runners:
            runner.turn()
    first = [] if runners[0].failed else runners[0].times
    return [runner.result(first, rounds) for runner in runners]

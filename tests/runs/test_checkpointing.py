"""No more than an interval of work is in no checkpoint, however slow the disk; training is not held up."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from progan.runs.checkpointing import Pace

SECONDS = 100.0
times = st.floats(1.0, 10.0)


class Simulation:
    """Training and a disk, on a clock of their own; what `Trainer` and `Saver` do with a pace."""

    def __init__(self, writes: list[float]) -> None:
        self.now = self.worked = self.waited = self.saved = self.risked = 0.0
        self.pace = Pace(SECONDS, lambda: self.now)
        self.begun: list[float] = []
        self._writes = writes
        self._under_way: tuple[float, float, float] | None = None  # end, what `begin` said, work saved in it

    def iterate(self, seconds: float) -> None:
        self._finish()
        if self._under_way is not None and self.pace.is_behind():
            self._wait()
        self.now += seconds
        self.worked += seconds
        self._finish()
        self.risked = max(self.risked, self.worked - self.saved)
        if self.pace.is_due():
            self._wait()
            begun = self.pace.begin()
            self.begun.append(self.worked)
            took = self._writes[len(self.begun) % len(self._writes)]
            self._under_way = self.now + took, begun, self.worked

    def _wait(self) -> None:
        if self._under_way is not None:
            with self.pace.waiting():
                self.waited += max(0.0, self._under_way[0] - self.now)
                self.now = max(self.now, self._under_way[0])
        self._finish()

    def _finish(self) -> None:
        if self._under_way is not None and self.now >= self._under_way[0]:
            _, begun, self.saved = self._under_way
            self._under_way = None
            self.pace.finish(begun)


@given(st.lists(times, min_size=50, max_size=150), st.lists(st.floats(0.0, 400.0), min_size=1, max_size=9))
def test_no_more_than_an_interval_of_work_is_lost(iterations: list[float], writes: list[float]) -> None:
    """And the iteration under way, which cannot be saved amid itself."""
    simulation = Simulation(writes)
    for seconds in iterations:
        simulation.iterate(seconds)
        assert simulation.risked <= SECONDS + max(iterations)


@given(st.floats(0.0, 40.0), times)
def test_a_disk_that_takes_less_than_half_an_interval_holds_nothing_up(took: float, iteration: float) -> None:
    """But for the first checkpoint, before which nobody knows how long one takes."""
    simulation = Simulation([took])
    while len(simulation.begun) < 2:
        simulation.iterate(iteration)
    before = simulation.waited
    assert before <= took + 1e-6
    while simulation.worked < 8 * SECONDS:
        simulation.iterate(iteration)
    assert simulation.waited == before
    apart = [after - begun for begun, after in zip(simulation.begun[1:], simulation.begun[2:], strict=False)]
    assert min(apart) >= SECONDS / 2 - 1e-6
    assert max(apart) <= max(SECONDS - 2 * took, SECONDS / 2 + iteration) + 1e-6


def test_without_an_interval_a_checkpoint_is_always_due() -> None:
    assert Pace(0).is_due()


def test_a_restart_counts_anew() -> None:
    now = [0.0]
    pace = Pace(SECONDS, lambda: now[0])
    now[0] = 2 * SECONDS
    assert (pace.is_due(), pace.is_behind()) == (True, True)
    pace.restart()
    assert (pace.is_due(), pace.is_behind()) == (False, False)


def test_the_time_of_waiting_does_not_count() -> None:
    now = [0.0]
    pace = Pace(SECONDS, lambda: now[0])
    with suppress(KeyboardInterrupt), pace.waiting():
        now[0] += 2 * SECONDS
        raise KeyboardInterrupt
    assert (pace.is_due(), pace.is_behind()) == (False, False)
    now[0] += SECONDS
    assert (pace.is_due(), pace.is_behind()) == (True, True)

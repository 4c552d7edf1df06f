"""Time that passes only when a test lets it, for modules that use `time` and `threading`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

HANG = 120.0
"""Real seconds after which threads that come to no rest are a failure."""


class VirtualTime:
    """Stands for the modules `time` and `threading`: of every thread begun with it, one knows when it wakes.

    Time stands still while such a thread is at work. When all of them wait, it moves on to the moment at
    which the first is to wake, and only while the thread of the test, which is none of them, waits for
    something. So what happens does not depend on how slow the machine is.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.now = 0.0
        self.waiting: dict[threading.Thread, tuple[VirtualEvent, float]] = {}
        self.alive: set[threading.Thread] = set()

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wait so long."""
        self.Event().wait(seconds)

    def Event(self) -> VirtualEvent:  # noqa: N802
        """Return an event that is waited for in this time."""
        return VirtualEvent(self)

    def Thread(  # noqa: N802
        self, target: Callable[[], object], name: str | None = None, daemon: bool = True
    ) -> VirtualThread:
        """Return a thread of this time."""
        return VirtualThread(self, target, name, daemon)

    def rest(self) -> None:
        """Wait, in real time, until every thread of this time waits for what has not come."""
        with self.changed:
            assert self.changed.wait_for(self._all_wait, HANG), "a thread comes to no rest"

    def _all_wait(self) -> bool:
        return all(thread in self.waiting and not self._wakes(*self.waiting[thread]) for thread in self.alive)

    def _wakes(self, event: VirtualEvent, until: float) -> bool:
        return event.is_set() or self.now >= until

    def step(self, until: float) -> None:
        """Let time pass to the moment at which the next thread wakes, or to `until` if that is sooner."""
        self.rest()
        with self.changed:
            self.now = min([until, *(moment for _, moment in self.waiting.values())])
            self.changed.notify_all()
        self.rest()

    def wait(self, event: VirtualEvent, until: float) -> None:
        """Wait for an event, or a moment."""
        thread = threading.current_thread()
        if thread not in self.alive:
            self.rest()
            while not self._wakes(event, until):
                self.step(until)
            return
        with self.changed:
            self.waiting[thread] = event, until
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._wakes(event, until))
            del self.waiting[thread]


class VirtualEvent:
    """A `threading.Event` of a virtual time."""

    def __init__(self, time: VirtualTime) -> None:
        self._time, self._set = time, False

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._set

    def set(self) -> None:
        """Let it come."""
        with self._time.changed:
            self._set = True
            self._time.changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether it has come within so many seconds."""
        self._time.wait(self, math.inf if timeout is None else self._time.now + timeout)
        return self._set


class VirtualThread:
    """A `threading.Thread` of a virtual time."""

    def __init__(
        self, time: VirtualTime, target: Callable[[], object], name: str | None, daemon: bool
    ) -> None:
        self._time, self._target, self._ended = time, target, VirtualEvent(time)
        self._thread = threading.Thread(target=self._run, name=name, daemon=daemon)

    def start(self) -> None:
        """Begin."""
        with self._time.changed:
            self._time.alive.add(self._thread)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._ended.set()
            with self._time.changed:
                self._time.alive.remove(self._thread)
                self._time.changed.notify_all()

    def is_alive(self) -> bool:
        """Whether it is at work."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._ended.wait(timeout)

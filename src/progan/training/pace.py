"""When a checkpoint is due, so that a kill costs no more than an interval of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """Counts the time of training, without that of waiting, since the checkpoints of a run.

    A checkpoint takes time to be written, while training goes on. So that the work that is in no checkpoint
    stays within the interval, each is begun earlier than an interval after the one before: by twice the time
    that the last took, and the iteration to come; but not before half of the interval is over, or a slow disk
    would do nothing else. Where even that is too late, training has to wait (`is_behind`).

    Args:
        seconds: The interval.
        now: A clock that does not go back, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._waited = self._took = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin to count: what has been trained is on the disk, or nothing has."""
        self._begun = self._safe = self._asked = self._time()
        self._begun_at = self._now()

    def begin(self) -> float:
        """Take note that a checkpoint of the present state is begun; returns when, for `finish`."""
        self._begun, self._begun_at = self._time(), self._now()
        return self._begun

    def finish(self, begun: float) -> None:
        """Take note, in whatever thread, that the checkpoint that was begun then is on the disk."""
        self._took = self._now() - self._begun_at
        self._safe = begun

    def is_due(self) -> bool:
        """Whether it is time to begin a checkpoint; to be asked after each iteration."""
        before, self._asked = self._asked, self._time()
        early = min(2 * self._took + self._asked - before, self._seconds / 2)
        return self._asked - self._begun >= self._seconds - early

    def is_behind(self) -> bool:
        """Whether an interval of work is in no checkpoint on the disk."""
        return self._time() - self._safe >= self._seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave the time within this block out of account: nothing is trained in it."""
        start = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - start

    def _time(self) -> float:
        return self._now() - self._waited

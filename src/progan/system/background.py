"""Work in threads: the next thing is made, or the last one written, while the present one is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

WRITER = "checkpoint writer"
"""Name of the thread while a `BackgroundWriter` is writing something."""


class Job(threading.Thread, Generic[T]):
    """A call in a thread of its own, begun at once; if it is a daemon, the process may end before it."""

    def __init__(self, function: Callable[[], T], name: str, *, daemon: bool = False) -> None:
        super().__init__(name=name, daemon=daemon)
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Carry out the call."""
        try:
            self._result.append(self._function())
        except BaseException as error:  # for whoever asks for the result
            self._error = error

    def result(self) -> T:
        """Wait for what the function returns.

        Raises:
            Exception: what the function has raised.
        """
        self.join()
        if self._error is not None:
            raise self._error
        return self._result[0]


class Ahead(Generic[K, T]):
    """Calls a function of a key one call ahead, in a thread that ends with the call.

    It must be pure: give the same whenever it is called.
    """

    def __init__(self, function: Callable[[K], T]) -> None:
        self._function = function
        self._begun: tuple[K, Job[T]] | None = None

    def get(self, key: K, following: K) -> T:
        """Return the function of `key`, and begin that of `following`.

        Raises:
            Exception: what the function raises for `key`.
        """
        if self._begun is not None and self._begun[0] == key:
            job, self._begun = self._begun[1], None
            result = job.result()
        else:
            self.forget()
            result = self._function(key)
        # A daemon: a disk that does not answer must not keep the process from ending.
        self._begun = following, Job(lambda: self._function(following), "ahead", daemon=True)
        return result

    def forget(self) -> None:
        """Let go of what has been begun; afterwards the function is not at work."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].join()


class BackgroundWriter:
    """Carries out pieces of writing one after the other, each in a thread, without holding up who asked.

    At most one piece is under way: the next waits for it. So a slow disk stalls training only where it takes
    longer than the time between two checkpoints, and memory holds one copy of what is written.

    Use it as a context manager: on leaving it waits for the last piece, whatever else has happened, so that
    the files are whole before anybody else may touch them. Only a KeyboardInterrupt is in too much of a hurry
    for that: then the thread ends its piece by itself, or the process ends at once (`is_writing`) and leaves
    a temporary file that the next run removes.
    """

    def __init__(self) -> None:
        self._piece: Job[object] | None = None

    def submit(self, write: Callable[[], object]) -> None:
        """Begin a piece of writing, after waiting for the one before.

        Raises:
            StorageError or another error of the piece before; then the new one is not begun.
        """
        self.wait()
        self._piece = Job(write, WRITER)

    def check(self) -> None:
        """Raise the error of a piece that has failed, if there is one; waits for nothing."""
        if not self.is_busy:
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written any more, then `check`."""
        piece = self._piece
        if piece is not None:
            piece.join()
            self._piece = None
            piece.result()

    @property
    def is_busy(self) -> bool:
        """Whether a piece of this writer is under way."""
        return self._piece is not None and self._piece.is_alive()

    @staticmethod
    def is_writing() -> bool:
        """Whether something is being written in this process, for which its exit would wait."""
        return any(thread.name == WRITER for thread in threading.enumerate())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif not issubclass(kind, KeyboardInterrupt) and self._piece is not None:
            self._piece.join()  # what stopped the training is the error to tell


def behind(items: Iterable[T], write: Callable[[T], object]) -> None:
    """Call `write` for one item after the other in a thread of its own, while the next items are made.

    An item is asked for only when at most one other is not yet written.

    Raises:
        Exception: what `write` has raised, or the items.
    """
    job: Job[object] | None = None
    try:
        for item in items:
            if job is not None:
                job.result()
            job = Job(partial(write, item), "behind")
        if job is not None:
            job.result()
    finally:
        if job is not None:
            job.join()

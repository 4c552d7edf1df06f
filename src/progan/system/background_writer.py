"""Writing beside training: a thread writes one checkpoint while the next updates are computed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

THREAD = "checkpoint writer"
"""Name of the thread while something is being written."""


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
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, write: Callable[[], object]) -> None:
        """Begin a piece of writing, after waiting for the one before.

        Raises:
            StorageError or another error of the piece before; then the new one is not begun.
        """
        self.wait()
        self._thread = threading.Thread(target=self._carry_out, args=(write,), name=THREAD)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a piece that has failed, if there is one; waits for nothing."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until nothing is being written any more, then `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    @property
    def is_busy(self) -> bool:
        """Whether a piece of this writer is under way."""
        return self._thread is not None and self._thread.is_alive()

    @staticmethod
    def is_writing() -> bool:
        """Whether something is being written in this process, for which its exit would wait."""
        return any(thread.name == THREAD for thread in threading.enumerate())

    def _carry_out(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:  # whatever it is, it is for the thread that trains
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif not issubclass(kind, KeyboardInterrupt) and self._thread is not None:
            self._thread.join()  # what stopped the training is the error to tell

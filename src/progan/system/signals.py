"""Signals ask a long work to stop at its next good moment instead of ending it anywhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether, and by which signal, the work has been asked to stop: the first one received, else None."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this block SIGINT, SIGTERM, SIGHUP and SIGUSR1 set the request; a second SIGINT interrupts.

    SIGUSR1 is what SLURM sends ahead of the end of a job (`sbatch --signal=USR1@60`).

    A signal that the process was started to ignore (as `nohup` does with SIGHUP) stays ignored.

    Outside the main thread, where Python allows no handlers, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_number = request.signal_number or number

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # not all of them on every system
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    old = {number: signal.signal(number, handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

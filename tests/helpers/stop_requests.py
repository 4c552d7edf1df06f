"""Tells when this process has heard a signal that asks it to stop."""

from __future__ import annotations

from collections.abc import Callable

from progan.system import signals


def tell_stop_requests(tell: Callable[[], object]) -> None:
    """Have something called in each signal handler that notes a request, from now on."""

    class Told(signals.StopRequest):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if value is not None:
                tell()

    # Looked up by whoever installs handlers.
    setattr(signals, "StopRequest", Told)  # noqa: B010

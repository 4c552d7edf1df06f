"""A run in a notebook: a bar, the last lines and the newest sample grid, in the output of the cell."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from progan.runs.callbacks.callback import Callback, RunStart
from progan.runs.reporter import LineReporter
from progan.training.schedule import Point

LINES = 12
"""Lines that are shown."""
EVERY = 0.5
"""Seconds between two changes of the bar."""


def in_notebook() -> bool:
    """Tell whether this is the kernel of a notebook, which shows pictures."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _shows() -> Any:
    """Return the module that shows things in the output of a cell."""
    return import_module("IPython.display")


class _Area:
    """A place in the output of a cell, whose contents are replaced."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, what: Any) -> None:
        """Show something there, in the place of what was there."""
        if self._handle is None:
            self._handle = _shows().display(what, display_id=True)
        else:
            self._handle.update(what)


class NotebookReporter(LineReporter):
    """Shows a bar and the last lines; `now` tells the time in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._add, now)
        self._lines: deque[str] = deque(maxlen=LINES)
        self._area, self._shown, self._bar = _Area(), -EVERY, ""

    def advance(self, point: Point, images_seen: int) -> None:
        """Move the bar."""
        super().advance(point, images_seen)
        assert self._spec is not None
        total = self._spec.schedule.total
        size = "x".join(map(str, self._spec.image.resolution(point.level)))
        words = [f"{images_seen / 1000:,.1f} of {total / 1000:,g} kimg", f"{size} {point.phase.kind}"]
        words += [self.rate(), self.left()]
        self._bar = (
            f'<progress max="{total}" value="{images_seen}" style="width: 40%"></progress> '
            + " · ".join(filter(None, words))
        )
        if self._now() - self._shown >= EVERY or images_seen >= total:
            self._show()

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def _show(self) -> None:
        self._shown = self._now()
        text = html.escape("\n".join(self._lines))
        self._area.show(_shows().HTML(f'{self._bar}<pre style="font-size: 85%">{text}</pre>'))


class InlineSamples(Callback):
    """Shows the newest grid of samples below; it knows the run folder as soon as training begins.

    Attributes:
        folder: The run folder; None before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None
        self._area = _Area()

    def begin(self, run: RunStart) -> None:
        """Note where the run is."""
        self.folder = run.folder

    def samples(self, picture: Path, images_seen: int) -> None:  # noqa: ARG002 - the bar says it
        """Show a grid."""
        self._area.show(_shows().Image(data=picture.read_bytes(), format="png"))

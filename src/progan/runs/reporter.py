"""What a run tells whoever watches it."""

from __future__ import annotations

from progan.preparation.report import PrepareReport
from progan.runs.logs import Stats
from progan.training.schedule import Point
from progan.training.spec import Spec


class Reporter:
    """Hears everything and says nothing; a subclass overrides what it wants to show."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """So many pictures of the source are prepared."""

    def prepared(self, report: PrepareReport) -> None:
        """The packed set was made."""

    def begin(self, spec: Spec, images_seen: int) -> None:
        """Training starts, or goes on, at this clock."""

    def advance(self, point: Point, images_seen: int) -> None:
        """One iteration is done."""

    def tick(self, stats: Stats) -> None:
        """A log point was written."""

    def say(self, message: str) -> None:
        """Something worth knowing happened."""

"""What a callback is, and how a run tells its own what happens."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from progan.config import Config, Part
from progan.errors import Interrupted, ProganError
from progan.runs.logs import Stats


@dataclass(frozen=True)
class RunStart:
    """What a callback is told when training starts.

    Attributes:
        folder: The run folder.
        config: The configuration.
        images_seen: The clock: 0, or where the run goes on.
        total: Images of the whole schedule.
    """

    folder: Path
    config: Config
    images_seen: int
    total: int


class Callback(Part):
    """Follows a run at a few exact moments; derive from this and override what is of use.

    The first process of a run calls it, in the thread that trains, and waits for it. What goes wrong in it is
    said, and training goes on without it; a `ProganError` that it raises ends the run.
    """

    chosen_by = "track.to"

    def check(self, config: Config) -> None:
        """Say what is missing, by raising a `ProganError`, before anything is prepared or trained."""

    def begin(self, run: RunStart) -> None:
        """Training starts, or goes on."""

    def log(self, stats: Stats) -> None:
        """A log point was written."""

    def samples(self, picture: Path, images_seen: int) -> None:
        """A grid of samples was written: a PNG file."""

    def checkpoint(self, file: Path, images_seen: int) -> None:
        """A checkpoint is on the disk; `images_seen` is its clock."""

    def growth(self, level: int, images_seen: int) -> None:
        """A level above the one before begins to train."""

    def end(self, how: str, images_seen: int) -> None:
        """Training ends: `done`, `stopped` (it may go on) or `failed`."""


class Callbacks:
    """The callbacks of a run on its first process; on others there are none.

    `say` is told what goes wrong in one, which is then called no more.
    """

    def __init__(self, callbacks: Iterable[Callback], say: Callable[[str], None]) -> None:
        self._callbacks, self._say = list(callbacks), say
        self._level: int | None = None

    @contextmanager
    def following(self, run: RunStart, level: int | None, clock: Callable[[], int]) -> Iterator[None]:
        """Tell that training begins, or goes on at a level, and, when the block is left, how it ended."""
        self._level = level
        self._call("begin", lambda one: one.begin(run))
        how = "failed"
        try:
            yield
            how = "done" if clock() >= run.total else "stopped"
        except (Interrupted, KeyboardInterrupt):
            how = "stopped"
            raise
        finally:
            self._call("end", lambda one: one.end(how, clock()))

    def log(self, stats: Stats) -> None:
        """A log point was written."""
        self._call("log", lambda one: one.log(dict(stats)))

    def samples(self, picture: Path, images_seen: int) -> None:
        """A grid was written."""
        self._call("samples", lambda one: one.samples(picture, images_seen))

    def checkpoint(self, file: Path, images_seen: int) -> None:
        """A checkpoint is on the disk."""
        self._call("checkpoint", lambda one: one.checkpoint(file, images_seen))

    def at_level(self, level: int, images_seen: int) -> None:
        """Training is at a level, which may be a new one."""
        if self._level is not None and level > self._level:
            self._call("growth", lambda one: one.growth(level, images_seen))
        self._level = level

    def _call(self, moment: str, call: Callable[[Callback], None]) -> None:
        for one in list(self._callbacks):
            try:
                call(one)
            except ProganError:
                raise
            # They are of others, and so are their errors.
            except Exception as error:
                self._callbacks.remove(one)
                last = traceback.extract_tb(error.__traceback__)[-1]
                self._say(
                    f"warning: {one.name} failed at {moment} and is called no more: {type(error).__name__}: "
                    f"{error} ({Path(last.filename).name}, line {last.lineno})"
                )

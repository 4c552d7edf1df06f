"""How work that takes long says how far it is: one signature for all of it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far some work is."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take note that `done` of `total` are done of what is named; a new name begins a new piece of work.

        Args:
            what: What is being done, in words for a user.
            done: How much of it, in whatever it counts: images, bytes, updates.
            total: How much it is; 0 if that is not known.
        """


def unheard(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""

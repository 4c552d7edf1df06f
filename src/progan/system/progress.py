"""How work that takes long says how far it is: one signature for all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


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


def reported(
    items: Iterable[T],
    progress: Progress,
    what: str,
    total: int,
    *,
    done: int = 0,
    size: Callable[[Any], int] = len,
) -> Iterator[T]:
    """Pass items on, and tell of each as soon as the next is asked for.

    Args:
        items: For example batches.
        progress: Told before the first item and after each.
        what: What is being done.
        total: How much there will be.
        done: How much there was before.
        size: How much an item is.
    """
    progress(what, done, total)
    for item in items:
        yield item
        done += size(item)
        progress(what, done, total)

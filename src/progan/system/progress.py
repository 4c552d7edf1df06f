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


def format_seconds(seconds: float) -> str:
    """Write a duration in 7 characters: `120d`, `2d 03h`, `3h 05m`, `4m 09s` or `12s`."""
    whole = round(seconds)
    if whole >= 100 * 86400:
        return f"{whole // 86400}d"
    if whole >= 86400:
        return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def format_about(seconds: float) -> str:
    """Write a duration as people say it: `12 days`, `3.5 hours`, `20 minutes`, `40 seconds`."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 0.995 * size:
            count = seconds / size
            text = f"{count:.0f}" if count >= 9.95 else f"{count:.2g}"
            return f"{text} {unit}{'' if text == '1' else 's'}"
    return f"{max(1, round(seconds))} second{'' if round(seconds) <= 1 else 's'}"

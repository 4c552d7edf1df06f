"""Bars with rate and remaining time on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar while the block runs; yields the function that moves it.

    That takes (what is being done, done, total); a new name begins a new bar in the place of the old. Nothing
    is shown where stderr is no terminal.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def show(what: str, done: int, total: int) -> None:
            if not bar.tasks or bar.tasks[-1].description != what:
                for task in bar.task_ids:
                    bar.remove_task(task)
                bar.add_task(what, total=None, rate="")
            task = bar.tasks[-1].id
            speed = bar.tasks[-1].speed
            # A download may not know its size.
            bar.update(task, completed=done, total=total or None, rate=f"{speed:,.0f}/s" if speed else "")

        yield show

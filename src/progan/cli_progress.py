"""Bars with rate and remaining time on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from progan.errors import Interrupted

if TYPE_CHECKING:
    from progan.evaluation.measure import Stages
    from progan.training.distributed import Ranks


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


@contextmanager
def interruptible(ranks: Ranks, out: Path | None) -> Iterator[Stages]:
    """Show `stages`, to the other processes too, which wait meanwhile; and turn Ctrl-C into words.

    Args:
        ranks: The processes.
        out: The file that keeps what is finished, if there is one.

    Raises:
        Interrupted: at Ctrl-C.
    """
    with stages() as show:

        def progress(what: str, done: int, total: int) -> None:
            ranks.at(f"{what}, {done:,} of {total:,}")
            show(what, done, total)

        try:
            yield progress
        except KeyboardInterrupt:
            kept = "" if out is None else "; what is finished is kept, the same command goes on"
            raise Interrupted(f"interrupted{kept}", 2) from None

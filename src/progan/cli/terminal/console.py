"""Messages and bars, for every command; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.segment import Segment
from rich.text import Text

from progan.distributed.leaving import tells
from progan.errors import Interrupted, printable
from progan.system.progress import Progress

if TYPE_CHECKING:
    from progan.distributed.ranks import Ranks


class PlainConsole(Console):
    """A console of rich that shows the control characters of a text instead of sending them.

    Names of pictures, labels and options come from files of strangers. Colours and cursor movements of rich
    itself are no text and pass through.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text; rich would drop some control characters without a trace."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the segments of what is to be shown, their text printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Narrower(NamedTuple):
    """Something with columns left free beside it."""

    inner: RenderableType
    columns: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield it."""
        yield from console.render(self.inner, options.update_width(max(options.max_width - self.columns, 1)))


class Bars(RichProgress):
    """Bars that are narrower than the terminal by what it shows of a Ctrl-C or two (`^C^C`).

    Else that would begin a new line, and the first of the bars would stay when they are taken away.
    """

    def get_renderable(self) -> RenderableType:
        """Return the bars."""
        return _Narrower(super().get_renderable(), 5)


@contextmanager
def stages() -> Iterator[Progress]:
    """Show a bar while the block runs; yields the function that moves it.

    A new name of what is being done begins a new bar in the place of the old. Nothing is shown where stderr
    is no terminal.
    """
    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

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


def busy(what: str) -> AbstractContextManager[object]:
    """Show that something is being done while the block runs; nothing where stderr is no terminal."""
    return PlainConsole(stderr=True).status(escape(what))


@contextmanager
def interruptible(ranks: Ranks, out: Path | None) -> Iterator[Progress]:
    """Show `stages`, to the other processes too, which wait meanwhile; and turn Ctrl-C into words.

    Args:
        ranks: The processes.
        out: The file that keeps what is finished, if there is one.

    Raises:
        Interrupted: at Ctrl-C.
    """
    with stages() as show:

        def progress(what: str, done: int, total: int) -> None:
            ranks.progress(what, done, total)
            show(what, done, total)

        try:
            yield progress
        except KeyboardInterrupt:
            kept = "" if out is None else "; what is finished is kept, the same command goes on"
            raise Interrupted(f"interrupted{kept}", 2) from None


def format_size(size: int) -> str:
    """Write the size of a file: `340 KB`, `92.1 MB` or `1.2 GB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{-(-size // 1000)} KB"


def format_bytes(size: int) -> str:
    """Write a size in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def say(console: Console, message: str) -> None:
    """Print a message as it is: no markup, no colours, no line breaks of the console's own."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def training_console() -> Console:
    """Return where training reports: of the processes that torchrun has started, the first does."""
    return PlainConsole(quiet=not tells())

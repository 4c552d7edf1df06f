"""The commands that show what a run was."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from progan.cli.config import Plugins
from progan.cli.terminal.console import PlainConsole, say, stages


def movie(
    run: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("growth.mp4"),
    source: Annotated[Literal["auto", "generators", "grids"], Parameter(name="--from")] = "auto",
    seconds: float = 12.0,
    fps: float = 25.0,
    grid: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
    plugin: Plugins = (),
) -> None:
    """Make a film of a training: the same latents from its first level to its last.

    Parameters
    ----------
    run
        Run folder.
    out
        .mp4 or .webm (with the extra `video`), .webp or .gif.
    source
        generators (those that the run has kept draw a grid), grids (its sample grids as they are), or auto.
    seconds
        Length.
    fps
        Frames a second.
    grid
        Rows and columns, of generators, 3x5.
    seed
        Of the latents, of generators.
    """
    from progan.generation.samples import parse_grid
    from progan.report.growth_film import make_movie

    shape = (3, 5) if grid is None else parse_grid(" ".join(grid))
    with stages() as progress:
        made = make_movie(
            run,
            out,
            source=source,
            seconds=seconds,
            fps=fps,
            grid=shape,
            seed=seed,
            progress=progress,
            own=plugin,
        )
    say(PlainConsole(), f"film: {made}")


def report(
    run: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    live: bool = False,
    interval: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    plugin: Plugins = (),
) -> None:
    """Write one page of what a run was, or of several beside one another: curves, samples, options, costs.

    Parameters
    ----------
    run
        Run folders.
    out
        The file, .html; default: report.html in the run folder, of several runs here.
    live
        Write it again whenever a log point is added, until Ctrl-C; the browser follows.
    interval
        Seconds between two looks, with --live.
    """
    from progan.report.html_page import write_report

    file = out or (run[0] / "report.html" if len(run) == 1 else Path("report.html"))
    made = write_report(run, file, refresh=interval if live else None, own=plugin)
    say(PlainConsole(), f"report: {made} ({made.stat().st_size / 1e6:,.1f} MB)")
    if live:
        from progan.report.follow import follow

        say(PlainConsole(), f"it follows the run every {interval} s; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            follow(run, file, interval, own=plugin)

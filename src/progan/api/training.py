"""Training from Python: the same as `progan train`, and a run as an object comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from progan.api.notebook import InlineSamples, NotebookReporter, in_notebook
from progan.api.run import Run
from progan.errors import Interrupted
from progan.preparation.own_source import PictureSource
from progan.runs import run as runs
from progan.runs.reporter import LineReporter, Reporter
from progan.runs.run import OwnParts


def train(
    source: str | Path | Sequence[str | Path] | PictureSource,
    out: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    file: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    time: str | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
    **own: Unpack[OwnParts],
) -> Run:
    """Train a generator from pictures; the same call again goes on where the last one stopped.

    In a notebook a bar and the newest samples are shown, and the stop button (or Ctrl-C) saves a checkpoint
    and returns the run as far as it is; elsewhere that raises `Interrupted`. Under torchrun its processes
    share the work; each makes this call.

    Args:
        source: A folder or .zip of pictures, another form that docs/data.md lists, several of them, a packed
            set, `builtin:glyphs`, or a `PictureSource` of your own.
        out: The run folder; default `runs/<source>-<recipe>`.
        recipe: Name of a shipped recipe, or a file; default: paper-light-128, with a time quickstart.
        file: A YAML, JSON or TOML file of options laid over the recipe.
        options: Nested options laid over both, such as `{"schedule": {"batch_size": [8]}}`.
        time: How long training is to take, such as "2h" or "30m": it plans size and lengths before it begins.
        reporter: Who watches; default: in a notebook a bar, else a line a log point, or a minute, on stderr.
            `progan.Reporter()` says nothing.
        memory_check: First try one update at the largest level, so that a lack of memory shows now and
            not after days.
        own: Parts of your own, which are then chosen (`OwnParts`), such as `loss=MyLoss(gamma=2)`.

    Returns:
        The run, which `progan.load` takes, too.

    Raises:
        ProganError: of the kind that fits (`progan.errors`); everything that can be checked is checked
            before the first step.
    """

    def work(reporter: Reporter, own: OwnParts) -> Path:
        return runs.train(
            source, out, recipe=recipe, file=file, options=options, time=time, reporter=reporter,
            memory_check=memory_check, **own,
        )  # fmt: skip

    return _carried_out(work, reporter, own)


def resume(
    run: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    time: str | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
    **own: Unpack[OwnParts],
) -> Run:
    """Go on with a run from its newest readable checkpoint.

    Args:
        run: The run, or its folder.
        options: Nested options to change from here on; those of data, model and the seed cannot change.
        time: How long the rest is to take, such as "2h": it plans the lengths of what is left.
        reporter: Who watches; default: in a notebook a bar, else lines on stderr; `progan.Reporter()` says
            nothing.
        memory_check: First try one update at the largest level.
        own: Parts of your own, among them those that the run uses; which penalties, augmentations and
            metrics it uses stays as it is.

    Returns:
        The run.

    Raises:
        ProganError: of the kind that fits; everything that can be checked is checked before the first step.
    """

    def work(reporter: Reporter, own: OwnParts) -> Path:
        return runs.resume(
            run, options=options, time=time, reporter=reporter, memory_check=memory_check, **own
        )

    return _carried_out(work, reporter, own)


def _carried_out(work: Callable[[Reporter, OwnParts], Path], reporter: Reporter | None, own: OwnParts) -> Run:
    """Train, shown as fits where this is called from."""
    if not in_notebook():
        return _opened(work(reporter or LineReporter(), own), own)
    reporter, samples = reporter or NotebookReporter(), InlineSamples()
    followed: OwnParts = {**own, "callbacks": [*own.get("callbacks", ()), samples]}
    try:
        return _opened(work(reporter, followed), own)
    except Interrupted as stopped:
        if samples.folder is None:  # there is no run yet
            raise
        reporter.say(str(stopped))
        return _opened(samples.folder, own)


def _opened(folder: Path, own: OwnParts) -> Run:
    """Return a run that knows the networks of one's own which it was given."""
    run = Run(folder)
    generator = [own["generator"]] if "generator" in own else []
    run.own = (*generator, *own.get("plugins", ()))
    return run

"""From a source of pictures, or an existing run, to a trained generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from progan.recipes import DEFAULT_RECIPE
from progan.training.checks import Prepared, check, check_resume
from progan.training.memory import try_largest
from progan.training.precision import settings
from progan.training.reporting import Reporter
from progan.training.signals import StopRequest, stop_on_signals
from progan.training.trainer import Trainer


def train(
    source: str | Path,
    out: str | Path | None = None,
    *,
    recipe: str | Path = DEFAULT_RECIPE,
    file: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
) -> Path:
    """Train a generator from pictures; the same call again goes on where the last one stopped.

    Args:
        source: A folder or .zip of pictures, a packed set, or `builtin:glyphs`.
        out: The run folder; default `runs/<source>-<recipe>`.
        recipe: Name of a shipped recipe, or a file.
        file: A YAML, JSON or TOML file of options laid over the recipe.
        options: Nested options laid over both, such as `{"schedule": {"batch_size": [8]}}`.
        reporter: Who watches; default: nobody. `progan.training.progress.TerminalReporter` shows what the
            command line shows.
        memory_check: First try one update at the largest level, so that a lack of memory shows now and
            not after days.

    Returns:
        The run folder; `progan.load` takes it.

    Raises:
        ProganError: of the kind that fits; see `progan.errors`. Everything that can be checked is checked
            before the first step.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        prepared = check(source, out, recipe, options, reporter, stop, file=file)
        return _run(prepared, reporter, stop, memory_check)


def resume(
    run: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
) -> Path:
    """Go on with a run from its newest readable checkpoint.

    Args:
        run: The run folder.
        options: Nested options to change from here on; those of data, model and the seed cannot change.
        reporter: Who watches; default: nobody.
        memory_check: As in `train`.

    Returns:
        The run folder.

    Raises:
        ProganError: as `train`.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        return _run(check_resume(run, options, reporter, stop), reporter, stop, memory_check)


def _run(prepared: Prepared, reporter: Reporter, stop: StopRequest, memory_check: bool) -> Path:
    """Train a checked run to its end."""
    plan, packed, folder, device = prepared.plan, prepared.packed, prepared.folder, prepared.device
    with folder.lock(), settings(plan.config.run, device):
        if memory_check:
            reporter.say(try_largest(plan, packed, device))
        trainer = Trainer(plan, packed, folder, device, reporter)
        trainer.resume()
        folder.begin(plan.config, prepared.dataset)
        trainer.run(stop)
    return folder.path

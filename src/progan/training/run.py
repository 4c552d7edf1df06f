"""From a source of pictures, or an existing run, to a trained generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from progan.recipes import DEFAULT_RECIPE
from progan.training.checks import Prepared, check, check_resume
from progan.training.reporting import Reporter
from progan.training.signals import StopRequest, stop_on_signals
from progan.training.trainer import Trainer


def train(
    source: str | Path,
    out: str | Path | None = None,
    *,
    recipe: str | Path = DEFAULT_RECIPE,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train a generator from pictures; the same call again goes on where the last one stopped.

    Args:
        source: A folder or .zip of pictures, a packed set, or `builtin:glyphs`.
        out: The run folder; default `runs/<source>-<recipe>`.
        recipe: Name of a shipped recipe, or a YAML file.
        options: Nested options laid over the recipe, such as `{"schedule": {"batch_size": [8]}}`.
        reporter: Who watches; default: nobody. `progan.training.progress.TerminalReporter` shows what the
            command line shows.

    Returns:
        The run folder; `progan.load` takes it.

    Raises:
        ProganError: of the kind that fits; see `progan.errors`. Everything that can be checked is checked
            before the first step.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        return _run(check(source, out, recipe, options, reporter, stop), reporter, stop)


def resume(
    run: str | Path, *, options: Mapping[str, Any] | None = None, reporter: Reporter | None = None
) -> Path:
    """Go on with a run from its newest readable checkpoint.

    Args:
        run: The run folder.
        options: Nested options to change from here on; those of data, model and the seed cannot change.
        reporter: Who watches; default: nobody.

    Returns:
        The run folder.

    Raises:
        ProganError: as `train`.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        return _run(check_resume(run, options, reporter, stop), reporter, stop)


def _run(prepared: Prepared, reporter: Reporter, stop: StopRequest) -> Path:
    """Train a checked run to its end."""
    config = prepared.plan.config
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    if prepared.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.run.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.run.tf32
        torch.backends.cudnn.benchmark = True
    with prepared.folder.lock():
        trainer = Trainer(prepared.plan, prepared.packed, prepared.folder, prepared.device, reporter)
        trainer.resume()
        prepared.folder.begin(config, prepared.dataset)
        trainer.run(stop)
    return prepared.folder.path

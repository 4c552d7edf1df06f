"""From a source of pictures, or an existing run, to a trained generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from progan.config import flatten
from progan.config.recipes import DEFAULT_RECIPE
from progan.distributed.ranks import Ranks, join
from progan.errors import DivergenceError, Interrupted, ToldElsewhere
from progan.runs.checks import Prepared, check, check_resume, try_largest
from progan.runs.loop import Trainer
from progan.runs.reporter import Reporter
from progan.system.signals import StopRequest, stop_on_signals
from progan.training.precision import settings
from progan.version import __version__


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

    Under torchrun its processes share the work; each makes this call.

    Args:
        source: A folder or .zip of pictures, a packed set, or `builtin:glyphs`.
        out: The run folder; default `runs/<source>-<recipe>`.
        recipe: Name of a shipped recipe, or a file.
        file: A YAML, JSON or TOML file of options laid over the recipe.
        options: Nested options laid over both, such as `{"schedule": {"batch_size": [8]}}`.
        reporter: Who watches; default: nobody. `progan.cli.terminal.training.TerminalReporter` shows what the
            command line shows.
        memory_check: First try one update at the largest level, so that a lack of memory shows now and
            not after days.

    Returns:
        The run folder; `progan.load` takes it.

    Raises:
        ProganError: of the kind that fits; see `progan.errors`. Everything that can be checked is checked
            before the first step.
    """
    with join() as ranks, stop_on_signals() as stop:
        heard = reporter if reporter is not None and ranks.first else Reporter()

        def checked() -> Prepared:
            return check(source, out, recipe, options, heard, stop, file=file, ranks=ranks)

        return _run(checked, heard, stop, ranks, memory_check)


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
        memory_check: Try the largest iteration before the first step.

    Returns:
        The run folder.

    Raises:
        ProganError: as `train`.
    """
    with join() as ranks, stop_on_signals() as stop:
        heard = reporter if reporter is not None and ranks.first else Reporter()

        def checked() -> Prepared:
            return check_resume(run, options, heard, stop, ranks=ranks)

        return _run(checked, heard, stop, ranks, memory_check)


def _run(
    checked: Callable[[], Prepared], reporter: Reporter, stop: StopRequest, ranks: Ranks, memory_check: bool
) -> Path:
    """Check a run, on each of its processes, and train it to its end."""
    prepared = ranks.in_turn(checked, facts)
    spec, packed, folder, device = prepared.spec, prepared.packed, prepared.folder, prepared.device
    ranks.limit(spec.config.run.timeout_minutes)
    with folder.lock() if ranks.first else nullcontext(), settings(spec.config.run, device):
        if memory_check:
            reporter.say(try_largest(spec, packed, device, ranks))
        trainer = Trainer(spec, packed, folder, device, reporter, ranks)
        trainer.resume()
        if ranks.first:
            folder.begin(spec.config, prepared.dataset)
        try:
            trainer.run(stop)
        except (DivergenceError, Interrupted) as error:
            if ranks.first:
                raise
            # All processes come to the same end together.
            raise ToldElsewhere(str(error), error.exit_code) from None
    return folder.path


def facts(prepared: Prepared) -> dict[str, str]:
    """Return what all processes of a run must agree about, by name.

    The device is left out, and the number of threads: machines may differ there.
    """
    config = flatten(prepared.spec.config.model_dump(mode="json"))
    own = ("run.device", "run.threads")
    return {
        "progan": __version__,
        "torch": ".".join(str(torch.__version__).split(".")[:2]),
        "pictures": prepared.packed.fingerprint,
        **{name: str(value) for name, value in config.items() if name not in own},
    }

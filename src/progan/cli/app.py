"""The commands; every one is a thin call into a room below.

Nothing heavy is imported before a command runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from progan.cli.bench import bench
from progan.cli.config import config_app, recipes
from progan.cli.exit import fail, interrupted
from progan.cli.generate import generate, interpolate
from progan.cli.import_weights import import_file
from progan.cli.measure import compare, evaluate
from progan.cli.prepare import prepare
from progan.cli.train import train
from progan.config import Options, PictureOptions, explain
from progan.distributed.leaving import leave_others, told_once
from progan.errors import ConfigError, ProganError, StorageError
from progan.system.malloc import keep_freed_memory
from progan.version import __version__

app = App(
    name="progan",
    help="Train progressively grown GANs from a folder of pictures, and use the generators.",
    version=__version__,
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    help_on_error=False,
    suppress_keyboard_interrupt=False,  # `main` says it in words
)
app.command(train)
app.command(prepare)
app.command(generate)
app.command(interpolate)
app.command(config_app)
app.command(bench)
app.command(evaluate)
app.command(compare)
app.command(import_file, name="import")
app.command(recipes)


@app.command
def info(path: Path) -> None:
    """Say what a run folder, weight file, checkpoint or packed set is, and how far it got.

    Parameters
    ----------
    path
        The folder or file.
    """
    from progan.cli.info import describe, print_facts

    print_facts(Console(), describe(path))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 a user's mistake, 128 + n stopped by signal n.

    Args:
        arguments: Words of the command; None for those of the process, which is all that it does then.
    """
    try:
        _carry_out(arguments)
    except SystemExit as end:
        if arguments is None:
            leave_others(end.code)
        raise


def _carry_out(arguments: list[str] | None) -> None:
    """Run the command line, and exit with a message where it cannot be done."""
    _wait_politely()
    keep_freed_memory()
    # A broken connection is told in words; PyTorch would add a page of addresses.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from pydantic import ValidationError

    try:
        with told_once():
            app(arguments, print_error=False, exit_on_error=False)
    except ProganError as error:
        fail(str(error), error.exit_code)
    except CycloptsError as error:
        fail(_explain_command(error), ConfigError.exit_code)
    except ValidationError as error:
        fail(explain(error), ConfigError.exit_code)
    except OSError as error:
        # Of a path that nothing more particular was said about: too long a name, a disk that fails.
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}; look at that path", StorageError.exit_code)
    except KeyboardInterrupt:
        interrupted()


def _wait_politely() -> None:
    """Have PyTorch's threads spin for some microseconds while they wait for each other, then sleep.

    By default they spin on, and slow each other down many times when other processes use the cores, too.
    Those that sleep at once are slow when no other process does. OMP_WAIT_POLICY, if set, decides instead.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by GNU's OpenMP, which wins over the policy


def _explain_command(error: CycloptsError) -> str:
    """Return the message of a command line that cannot be read."""
    from pydantic import ValidationError

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    return explain(cause, PictureOptions if PictureOptions.__name__ in cause.title else Options)

"""How the command line ends: with a message, and with an exit code even where threads would hold it up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from cyclopts import CycloptsError
from rich.console import Console

from progan.config import Options, PictureOptions, explain
from progan.distributed.leaving import leave_others, told_once
from progan.errors import ConfigError, ProganError, StorageError
from progan.system.safe_stdout import patient


@contextmanager
def ended_in_words(*, process: bool) -> Iterator[None]:
    """Exit with a message, and the code that belongs to it, where a command cannot be carried out.

    Args:
        process: The command is all that this process does, so that it may leave at once.
    """
    try:
        with _explained(), told_once():
            yield
    except SystemExit as end:
        if process:
            leave_others(end.code)
        raise


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what went wrong into a message and an exit code."""
    from pydantic import ValidationError

    try:
        yield
    except ProganError as error:
        _fail(str(error), error.exit_code)
    except CycloptsError as error:
        _fail(_explain_command(error), ConfigError.exit_code)
    except ValidationError as error:
        _fail(explain(error), ConfigError.exit_code)
    except OSError as error:
        # Of a path that nothing more particular was said about: too long a name, a disk that fails.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; look at that path", StorageError.exit_code)
    except KeyboardInterrupt:
        _interrupted()


def _explain_command(error: CycloptsError) -> str:
    """Return the message of a command line that cannot be read."""
    from pydantic import ValidationError

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    return explain(cause, PictureOptions if PictureOptions.__name__ in cause.title else Options)


def _fail(message: str, code: int) -> NoReturn:
    """Print a message without any markup to stderr and exit; a code above 128, for a signal, is no error."""
    console = Console(file=patient(sys.stderr))
    prefix = "" if code > 128 else "error: "
    console.print(prefix + message, style="yellow" if code > 128 else "red", markup=False, highlight=False,
                  soft_wrap=True)  # fmt: skip
    sys.exit(code)


def _interrupted() -> NoReturn:
    """Exit because of a second Ctrl-C (or one where nothing listens to the first)."""
    from progan.system.background import BackgroundWriter

    try:
        _fail("interrupted", 130)
    finally:
        # The exit of Python waits for threads; a checkpoint on a slow disk must not hold it up.
        if BackgroundWriter.is_writing():
            os._exit(130)

"""How the command line ends: with a message, and with an exit code even where threads would hold it up."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from cyclopts import CycloptsError, UnknownOptionError, UnusedCliTokensError

from progan.cli.config import plugin_parts
from progan.cli.terminal.console import PlainConsole
from progan.cli.terminal.option_names import explain_branch, explain_unknown
from progan.config import Options, PictureOptions, explain, extended
from progan.config.problems import NOT_A_BRANCH
from progan.distributed.leaving import leave_others, told_once
from progan.errors import ConfigError, ProganError, StorageError, says_out_of_memory, shown
from progan.system.safe_stdout import PatientStream, patient_output

PRINTING = ("info", "recipes", "config", "bench", "--help", "-h", "--version")
"""Commands that make nothing but what they print."""


@contextmanager
def ended_in_words(words: Sequence[str] | None) -> Iterator[None]:
    """Exit with a message, and the code that belongs to it, where a command cannot be carried out.

    Args:
        words: Of the command; None for those of the process, which is all that it does then, so that it may
            leave at once.
    """
    prints = [*(sys.argv[1:] if words is None else words), "--help"][0] in PRINTING
    with patient_output() as output, _threads_in_words():
        try:
            with _explained(sys.argv[1:] if words is None else words), told_once():
                yield
        except SystemExit as end:
            if not end.code:
                _tell_unshown(output, prints)
            if words is None:
                leave_others(end.code)
            raise


@contextmanager
def _threads_in_words() -> Iterator[None]:
    """Tell in a line what ends a thread, such as TensorBoard's when the disk is full; the work goes on."""

    def tell(failed: threading.ExceptHookArgs) -> None:
        what = str(failed.exc_value or "") or failed.exc_type.__name__
        _print(f"what is done beside the work failed: {what}", "yellow")

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    finally:
        threading.excepthook = before


def _tell_unshown(output: PatientStream, prints: bool) -> None:
    """Say that the output could not be written, unless its reader has left, as `head` does.

    Args:
        output: Where to.
        prints: The output is all that the command makes.
    """
    output.flush()
    if output.failure is None or output.failure.errno == errno.EPIPE:
        return
    message = f"the output could not be written: {output.failure.strerror}"
    if prints:
        _fail(f"{message}; send it elsewhere, and give the command again", StorageError.exit_code)
    _print(f"{message}; what the command makes besides is whole", "yellow")


@contextmanager
def _explained(words: Sequence[str]) -> Iterator[None]:
    """Turn what went wrong with the words of a command into a message and an exit code."""
    from pydantic import ValidationError

    try:
        yield
    except ProganError as error:
        _fail(str(error), error.exit_code)
    except CycloptsError as error:
        _fail(_explain_command(error, words), ConfigError.exit_code)
    except ValidationError as error:
        _fail(explain(error), ConfigError.exit_code)
    except OSError as error:
        _explain_memory(error)
        # Of a path that nothing more particular was said about: too long a name, a disk that fails.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; look at that path", StorageError.exit_code)
    except (MemoryError, RuntimeError) as error:
        _explain_memory(error)
        raise
    except KeyboardInterrupt:
        _interrupted()


def _explain_memory(error: Exception) -> None:
    """Exit with a message if it says that memory is at its end."""
    if says_out_of_memory(error):
        said = str(error).strip().split("\n")[0] or "the system gives no more"
        _fail(
            f"memory is at its end ({said}): let other programs end, or ask for less at once; what was "
            f"written before is whole, and the same command goes on from there",
            ConfigError.exit_code,
        )


def _explain_command(error: CycloptsError, words: Sequence[str]) -> str:
    """Return the message of a command line that cannot be read."""
    from pydantic import ValidationError

    cause = error.__cause__
    chain = " ".join(error.command_chain or ())
    if isinstance(error, UnknownOptionError):
        names = [name for argument in error.argument_collection for name in argument.names]
        name = error.token.keyword or error.token.value
        # Parts of one's own have options beneath a branch: --loss.mine.weight.
        own = " (Options of a part of your own need --plugin FILE.)" if name.count(".") > 1 else ""
        return explain_unknown(name, names, chain) + own
    if isinstance(error, UnusedCliTokensError):
        more = " ".join(map(shown, error.unused_tokens or ()))
        return f"{more}: more than this command takes; options begin with --: progan {chain} --help"
    if not isinstance(cause, ValidationError):
        return str(error)
    problem = cause.errors(include_url=False, include_input=False)[0]
    if problem["type"] in NOT_A_BRANCH and len(problem["loc"]) == 1:
        return explain_branch(str(problem["loc"][0]), chain)
    pictures = PictureOptions.__name__ in cause.title
    return explain(cause, PictureOptions if pictures else extended(Options, plugin_parts(words)))


def _fail(message: str, code: int) -> NoReturn:
    """Print a message to stderr and exit; a code above 128, for a signal, is no error."""
    if code > 128:
        _print(message, "yellow")
    else:
        _print(f"error: {message}", "red")
    sys.exit(code)


def _print(message: str, colour: str) -> None:
    """Print a message to stderr, as it is but for its colour."""
    PlainConsole(stderr=True).print(message, style=colour, markup=False, highlight=False, soft_wrap=True)


def _interrupted() -> NoReturn:
    """Exit because of a second Ctrl-C (or one where nothing listens to the first)."""
    from progan.system.background import BackgroundWriter

    try:
        _fail("interrupted", 130)
    finally:
        # The exit of Python waits for threads; a checkpoint on a slow disk must not hold it up.
        if BackgroundWriter.is_writing():
            os._exit(130)

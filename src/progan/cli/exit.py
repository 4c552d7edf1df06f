"""How the command line ends: with a message, and with an exit code even where threads would hold it up."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from rich.console import Console

from progan.system.safe_stdout import patient


def fail(message: str, code: int) -> NoReturn:
    """Print a message without any markup to stderr and exit.

    Args:
        message: What to say.
        code: What to exit with; above 128, for a signal, it is no error.
    """
    console = Console(file=patient(sys.stderr))
    prefix = "" if code > 128 else "error: "
    console.print(prefix + message, style="yellow" if code > 128 else "red", markup=False, highlight=False,
                  soft_wrap=True)  # fmt: skip
    sys.exit(code)


def leave_others(code: object) -> None:
    """Exit at once if this process is still connected with others, for which PyTorch would wait otherwise.

    Everything that is to be written has been waited for by those who write it.

    Args:
        code: Of the exit.
    """
    distributed = sys.modules.get("progan.distributed.ranks")
    if distributed is not None and distributed.is_joined() and isinstance(code, int):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


def interrupted(*, quiet: bool = False) -> NoReturn:
    """Exit because of a second Ctrl-C (or one where nothing listens to the first).

    Args:
        quiet: Say nothing; of several processes, which all get it, the first says it.
    """
    from progan.system.background import BackgroundWriter

    try:
        if quiet:
            sys.exit(130)
        fail("interrupted", 130)
    finally:
        # The exit of Python waits for threads; a checkpoint on a slow disk must not hold it up.
        if BackgroundWriter.is_writing():
            os._exit(130)

"""How the command line ends: with a message, and with an exit code even where threads would hold it up."""

from __future__ import annotations

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


def interrupted() -> NoReturn:
    """Exit because of a second Ctrl-C (or one where nothing listens to the first)."""
    from progan.system.background import BackgroundWriter

    try:
        fail("interrupted", 130)
    finally:
        # The exit of Python waits for threads; a checkpoint on a slow disk must not hold it up.
        if BackgroundWriter.is_writing():
            os._exit(130)

"""How a command ends where it is one of several processes: one of them tells why, and it waits for nobody.

Nothing heavy is imported, so that the command line can answer at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from progan.errors import ToldElsewhere


def tells() -> bool:
    """Whether this process is the one that writes to the terminal, by what torchrun has told it."""
    rank = os.environ.get("RANK", "0")
    return not rank.isdigit() or int(rank) == 0


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Exit without a word at what another process tells: its error, or Ctrl-C, which all of them get."""
    try:
        yield
    except ToldElsewhere as error:
        time.sleep(1)  # torchrun ends all as soon as one has ended, so who tells it goes first
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if tells():
            raise
        sys.exit(130)


def leave_others(code: object) -> None:
    """Exit at once if this process is still connected with others, for which PyTorch would wait otherwise.

    Everything that is to be written has been waited for by those who write it.

    Args:
        code: Of the exit.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if isinstance(code, int):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)

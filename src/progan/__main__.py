"""`progan` and `python -m progan` are the command line."""

from __future__ import annotations

import os
import sys

from progan.cli.app import make_app
from progan.cli.config import plugin_parts
from progan.cli.exit import ended_in_words
from progan.cli.terminal.help_pages import print_help
from progan.cli.terminal.option_names import join_flags
from progan.system.malloc import keep_freed_memory


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 a user's mistake, 128 + n stopped by signal n.

    Args:
        arguments: Words of the command; None for those of the process, which is all that it does then.
    """
    _wait_politely()
    keep_freed_memory()
    # A broken connection is told in words; PyTorch would add a page of addresses.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with ended_in_words(arguments):
        words = sys.argv[1:] if arguments is None else arguments
        app = make_app(plugin_parts(words))
        if print_help(app, words):
            sys.exit()
        app(join_flags(app, words), print_error=False, exit_on_error=False)


def _wait_politely() -> None:
    """Have PyTorch's threads spin for some microseconds while they wait for each other, then sleep.

    By default they spin on, and slow each other down many times when other processes use the cores, too.
    Those that sleep at once are slow when no other process does. OMP_WAIT_POLICY, if set, decides instead.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by GNU's OpenMP, which wins over the policy


if __name__ == "__main__":
    main()

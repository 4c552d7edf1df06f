"""A report that is written again as its runs go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from progan.models.weights import Own
from progan.report.html_page import write_report
from progan.runs.run_folder import RunFolder


def follow(
    runs: Sequence[Path],
    out: Path,
    interval: int,
    *,
    wait: Callable[[float], None] = time.sleep,
    own: Own = (),
) -> None:
    """Write a report again whenever a run has a new log point, for ever.

    Args:
        runs: Run folders.
        out: The file.
        interval: Seconds between two looks.
        wait: Waits for so many seconds; ends the following by raising.
        own: Networks of one's own that the runs use.
    """
    before = _sizes(runs)
    while True:
        wait(interval)
        now = _sizes(runs)
        if now != before:
            write_report(runs, out, refresh=interval, own=own)
            before = now


def _sizes(runs: Sequence[Path]) -> list[int]:
    files = [RunFolder(run).stats_file for run in runs]
    return [file.stat().st_size if file.is_file() else 0 for file in files]

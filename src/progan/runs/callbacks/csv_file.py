"""Log points as a table that spreadsheets open."""

from __future__ import annotations

import csv
import io

from progan.runs.callbacks.callback import Callback, RunStart
from progan.runs.logs import Stats, read_stats
from progan.system.files import write_text


class Csv(Callback):
    """`stats.csv` in the run folder: a row a log point, a column a number."""

    def begin(self, run: RunStart) -> None:
        """Begin with the log points that the run has."""
        self._file = run.folder / "stats.csv"
        self._rows = read_stats(run.folder / "stats.jsonl")

    def log(self, stats: Stats) -> None:
        """Write the table anew, since a later log point may have more columns."""
        self._rows.append(stats)
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._file, text.getvalue())

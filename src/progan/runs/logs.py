"""What a run writes down in any case: one JSON line a log point."""

from __future__ import annotations

import json
from pathlib import Path

from progan.errors import DataError
from progan.runs.run_folder import RunFolder
from progan.system.files import parse_json, storage_errors, write_text

Stats = dict[str, float | int | str]


class Logs:
    """Appends log points to `stats.jsonl`, from where a run begins or goes on.

    Lines of a later clock are of work that was lost and is done again, and are removed; `kept` are the
    others.

    Raises:
        StorageError: if the folder cannot be written.
    """

    def __init__(self, folder: RunFolder, images_seen: int) -> None:
        self._path = folder.stats_file
        self.kept = [line for line in read_stats(self._path) if int(line["images_seen"]) <= images_seen]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self.kept))

    def write(self, stats: Stats) -> None:
        """Append one log point; `stats["images_seen"]` is its time."""
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(stats) + "\n")


def read_stats(path: Path) -> list[Stats]:
    """Return the log points of a `stats.jsonl`; a last line that was cut off is left out.

    Raises:
        DataError: if another line is not a log point, or the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    stats: list[Stats] = []
    for number, line in enumerate(lines, 1):
        try:
            stats.append(_log_point(line))
        except ValueError:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}: not a log point; delete the line") from None
    return stats


def _log_point(line: str) -> Stats:
    """Return the log point of a line: numbers and words by name, the clock among them; or a ValueError."""
    try:
        point = parse_json(line)
        good = int(point["images_seen"]) >= 0 and all(
            isinstance(value, str) or isinstance(float(value), float) for value in point.values()
        )
    except (KeyError, TypeError, AttributeError, OverflowError):  # OverflowError: beyond all floats
        good = False
    if not good:
        raise ValueError("not a log point")
    return dict(point)

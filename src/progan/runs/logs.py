"""What a run writes down: one JSON line a log point, and the same numbers as TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from progan.config import flatten
from progan.errors import DataError
from progan.generation.picture_form import flat
from progan.runs.run_folder import RunFolder
from progan.system.files import parse_json, storage_errors, write_text

Stats = dict[str, float | int | str]


LAYOUT = {
    "training": {
        "losses": ["Multiline", ["D/loss", "G/loss"]],
        "scores": ["Multiline", ["D/real_score", "D/fake_score"]],
        "gradient norms": ["Multiline", ["D/gradient_norm", "G/gradient_norm"]],
        "speed": ["Multiline", ["images_per_second"]],
    }
}
"""Curves that TensorBoard lays over one another, under Custom Scalars."""


class Logs:
    """Appends log points to `stats.jsonl` and to TensorBoard, from where a run begins or goes on.

    Lines of a later clock are of work that was lost and is done again, and are removed; `kept` are the
    others.

    Raises:
        StorageError: if the folder cannot be written.
    """

    def __init__(self, folder: RunFolder, images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._path = folder.stats_file
        self.kept = [line for line in read_stats(self._path) if int(line["images_seen"]) <= images_seen]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self.kept))
        with storage_errors(folder.tensorboard):
            self._events = SummaryWriter(
                str(folder.tensorboard), purge_step=images_seen + 1 if images_seen else None
            )

        self._folder, self._shown, self._last = folder, images_seen, Stats()
        self._events.add_custom_scalars(LAYOUT)

    def write(self, stats: Stats) -> None:
        """Append one log point; `stats["images_seen"]` is its time."""
        with storage_errors(self._path):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(stats) + "\n")
            step = int(stats["images_seen"])
            for name, value in stats.items():
                if isinstance(value, int | float) and name != "images_seen":
                    self._events.add_scalar(name, value, step)
            self._show_grids()
            self._events.flush()
        self._last = stats

    def close(self) -> None:
        """Write no more, but for what the run came to: its last grid, and options with last numbers."""
        with storage_errors(self._path):
            self._show_grids()
            if self._last:
                self._write_options(self._last)
            self._events.close()

    def _show_grids(self) -> None:
        """Show the sample grids that were written since the last time."""
        for path in sorted(self._folder.samples.glob("0*_*x*.png")):
            clock = int(path.name.split("_")[0])
            if clock > self._shown:
                with Image.open(path) as picture:
                    pixels = np.asarray(flat(picture))
                self._events.add_image(
                    "samples", pixels, clock, dataformats="HWC" if pixels.ndim == 3 else "HW"
                )
                self._shown = clock

    def _write_options(self, stats: Stats) -> None:
        """Write what TensorBoard compares runs by: options, and the numbers of the last log point."""
        from torch.utils.tensorboard import summary as summaries

        options = flatten(self._folder.config().model_dump(mode="json"))
        plain = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in options.items()
            if value is not None
        }
        numbers = {name: float(value) for name, value in stats.items() if not isinstance(value, str)}
        writer: Any = self._events.file_writer
        for made in summaries.hparams(plain, numbers):  # type: ignore[no-untyped-call]
            writer.add_summary(made)


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

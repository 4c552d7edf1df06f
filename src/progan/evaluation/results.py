"""Numbers with everything that decides them, one JSON line each, and finding them again."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progan.errors import DataError, StorageError
from progan.system.files import file_lock, flush, parse_json, storage_errors
from progan.version import __version__

FILE = "metrics.jsonl"
"""Name of the file of results in a run folder."""


@dataclass(frozen=True)
class Result:
    """The numbers of one metric.

    Attributes:
        metric: Its name.
        version: Of its definition.
        numbers: By name.
        definition: Everything of the metric that decides them.
        num_images: How many images (or paths) were measured.
        num_reals: How many reals they were compared with; None if there were none.
        seed: Decided which images, in which order, and the metric's own random numbers.
        images: Identity of the set that was measured (`ImageSet.identity`).
        reals: Identity of the reals, or None.
        about: What is good to know besides: paths, images seen; decides nothing.
        notes: What the metric warned of.
        software: Versions.
        seconds: How long it took, samples not counted if they were made before.
        cached: Whether it was found in a file rather than computed now; not written.
    """

    metric: str
    version: int
    numbers: dict[str, float]
    definition: dict[str, Any]
    num_images: int
    num_reals: int | None
    seed: int
    images: dict[str, Any]
    reals: dict[str, Any] | None
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    software: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cached: bool = False

    def key(self) -> str:
        """Return what two results have in common if one stands for the other."""
        matters = (self.metric, self.version, self.definition, self.num_images, self.num_reals, self.seed)
        return json.dumps([*matters, self.images, self.reals], sort_keys=True)

    def line(self) -> str:
        """Return it as a line of JSON.

        Raises:
            DataError: if a number is not finite.
        """
        for name, number in self.numbers.items():
            if not math.isfinite(number):
                raise DataError(f"{name} came out as {number}; look at the images and the extractor")
        tree = asdict(self)
        del tree["cached"]
        return json.dumps(tree, allow_nan=False) + "\n"


def software() -> dict[str, str]:
    """Return the versions that decide the last digits of a number."""
    return {
        "progan": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def read_results(path: Path) -> list[Result]:
    """Return the results of a file, oldest first; a last line that was cut off is left out.

    Raises:
        DataError: if another line is no result, or the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    found = []
    lines = text.split("\n")  # what follows the last line break was not finished
    for number, line in enumerate(lines[:-1], 1):
        if line.strip():
            found.append(_parse(line, f"{path}, line {number}"))
    return found


def find_result(path: Path | None, wanted: Result) -> Result | None:
    """Return the newest result of a file that stands for another one, or None.

    Raises:
        DataError: if a line is no result, or the file cannot be read.
    """
    key = wanted.key()
    for result in reversed(read_results(path) if path is not None else []):
        if result.key() == key:
            return result
    return None


def require_appendable(path: Path) -> None:
    """Raise a `StorageError` if a file cannot be appended to; makes it and its folder if they are missing."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise StorageError(f"{path} is a folder; give the name of a file for the results")
        path.open("ab").close()


def append_result(path: Path, result: Result) -> None:
    """Append a line durably; a torn line at the end, of a writer that was killed, is removed first.

    Raises:
        StorageError: if it cannot be written.
        DataError: if a number is not finite.
    """
    line = result.line().encode()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{path.name}.lock"), wait=True), path.open("a+b") as file:
            file.truncate(path.read_bytes().rfind(b"\n") + 1)  # where its last whole line ends
            file.write(line)
            file.flush()
            flush(file.fileno())


def _parse(line: str, where: str) -> Result:
    known = {each.name for each in fields(Result)} - {"cached"}
    try:
        tree = parse_json(line)
        # A newer version may tell more.
        result = Result(**{k: v for k, v in tree.items() if k in known}, cached=True)
        numbers = {str(k): float(v) for k, v in result.numbers.items()}
        return Result(**{**vars(result), "numbers": numbers, "notes": tuple(result.notes)})
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise DataError(f"{where}: is no result of a metric; delete the line") from None

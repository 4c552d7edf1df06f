"""Scores or labels that somebody gave to pictures of a generator, and the latents of these pictures."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import DataError
from progan.generation.picture_form import read_facts
from progan.generation.sampling import digest, label_vectors, latents
from progan.models.generator import Generator

_MOST_BYTES = 100 * 2**20
_MOST_LABELS = 100
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tiff")


def read_scores(G: Generator, table: Path) -> tuple[Tensor, Tensor | None, dict[str, NDArray[np.float64]]]:
    """Read scores or labels that pictures were given.

    Args:
        G: The generator that made the pictures.
        table: CSV with a head; the first column names pictures, each other one holds numbers, or words, which
            are labels. Or a folder: into whose sub-folders pictures were sorted, which are their labels.

    Returns:
        Latents [N, latent_size], the labels that were drawn with them [N, label_size] or None, and scores [N]
        by name: those of columns of numbers by their heads; of labels 1 and 0, by each label, or of two by
        `one to other`.

    Raises:
        DataError: if it cannot be used, with the line.
    """
    rows, base = (_sorted(table), table) if table.is_dir() else (_rows(table), table.parent)
    head = rows[0]
    if len(head) < 2 or len(rows) < 3:
        raise DataError(f"{table}: expected a head, a column of pictures, and one or more of scores")
    generator = digest(G)[:16]
    z, labels = [], []
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise DataError(f"{table}, line {line}: {len(row)} columns, where the head has {len(head)}")
        seed, sample = _origin(f"{table}, line {line}", base / row[0], generator)
        z.append(latents(seed, sample, 1, G.latent_size))
        labels.append(label_vectors(G, None, seed, sample, 1))
    scores: dict[str, NDArray[np.float64]] = {}
    for i, name in enumerate(head[1:], 1):
        for key, values in _column(table, name, [row[i].strip() for row in rows[1:]]).items():
            if key in scores:
                raise DataError(f"{table}: two columns or labels are called {key!r}; rename one")
            scores[key] = values
    own = [row for row in labels if row is not None]
    return torch.cat(z), torch.cat(own) if own else None, scores


def _sorted(folder: Path) -> list[list[str]]:
    """Return the rows of a folder: pictures, and the sub-folders in which they are.

    Raises:
        DataError: if there are not two sub-folders with pictures, or more.
    """
    found = [
        [f"{place.name}/{path.name}", place.name]
        for place in sorted(folder.iterdir())
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix.lower() in _PICTURES
    ]
    if len({label for _, label in found}) < 2:
        raise DataError(f"{folder}: expected two sub-folders or more into which pictures were sorted")
    return [["file", "label"], *found]


def _column(table: Path, name: str, cells: list[str]) -> dict[str, NDArray[np.float64]]:
    """Return the scores of a column by name: its numbers, or of labels what is 1 where one was given.

    Raises:
        DataError: if it holds both numbers and words, or too many labels.
    """
    numbers = [_number(cell) for cell in cells]
    if all(number is not None for number in numbers):
        values = np.array(numbers, np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{table}: scores must be finite")
        return {name: values}
    if any(number is not None for number in numbers) or "" in cells:
        line = next(i for i, number in enumerate(numbers, 2) if number is None)
        raise DataError(f"{table}, line {line}: {cells[line - 2] or 'empty cells'} are no numbers")
    kinds = sorted(set(cells))
    if not 2 <= len(kinds) <= _MOST_LABELS:
        raise DataError(f"{table}: {len(kinds)} labels in {name!r}; expected 2 to {_MOST_LABELS}")
    given = {kind: np.array([float(cell == kind) for cell in cells]) for kind in kinds}
    return given if len(kinds) > 2 else {f"{kinds[0]} to {kinds[1]}": given[kinds[1]]}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rows(table: Path) -> list[list[str]]:
    """Return the rows of a CSV file that are not empty.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        if table.stat().st_size > _MOST_BYTES:
            raise DataError(f"{table} is larger than {_MOST_BYTES >> 20} MiB")
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read ({error})") from None
    if not rows:
        raise DataError(f"{table} is empty")
    return rows


def _origin(place: str, path: Path, generator: str) -> tuple[int, int]:
    """Return the seed and index of a picture: as its metadata says, or its name.

    Raises:
        DataError: if neither says it, or it is another generator's.
    """
    facts = None
    if path.is_file():
        try:
            facts = read_facts(path)
        except OSError as error:
            raise DataError(f"{place}: {path} cannot be read ({error})") from None
    if facts is not None and isinstance(facts.get("seed"), int) and isinstance(facts.get("sample"), int):
        if facts.get("generator") not in (None, generator):
            raise DataError(f"{place}: {path} was made by another generator")
        return int(facts["seed"]), int(facts["sample"])
    if match := re.search(r"seed(\d{1,18})\b", path.stem, re.ASCII):
        return int(match[1]), 0
    raise DataError(
        f"{place}: nothing says which sample {path.name} is; name pictures of `progan generate` that "
        f"lie there, or call them seed0004.png"
    )

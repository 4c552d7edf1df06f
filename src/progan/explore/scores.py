"""Scores that somebody gave to pictures of a generator, and the latents of these pictures."""

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


def read_scores(G: Generator, table: Path) -> tuple[Tensor, Tensor | None, dict[str, NDArray[np.float64]]]:
    """Read a table of scores.

    Args:
        G: The generator that made the pictures.
        table: CSV with a head; the first column names pictures, the others are numbers.

    Returns:
        Latents [N, latent_size], the labels that were drawn with them [N, label_size] or None, and scores [N]
        by the names of their columns.

    Raises:
        DataError: if it cannot be used, with the line.
    """
    rows = _rows(table)
    head = rows[0]
    if len(head) < 2 or len(rows) < 3:
        raise DataError(f"{table}: expected a head, a column of pictures, and one or more of scores")
    generator = digest(G)[:16]
    z, labels, numbers = [], [], []
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise DataError(f"{table}, line {line}: {len(row)} columns, where the head has {len(head)}")
        seed, sample = _origin(table, line, row[0], generator)
        z.append(latents(seed, sample, 1, G.latent_size))
        labels.append(label_vectors(G, None, seed, sample, 1))
        try:
            numbers.append([float(text) for text in row[1:]])
        except ValueError:
            raise DataError(f"{table}, line {line}: {', '.join(row[1:])} are no numbers") from None
    columns = np.array(numbers, np.float64)
    if not np.isfinite(columns).all():
        raise DataError(f"{table}: scores must be finite")
    own = [row for row in labels if row is not None]
    scores = {name: columns[:, i] for i, name in enumerate(head[1:])}
    return torch.cat(z), torch.cat(own) if own else None, scores


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


def _origin(table: Path, line: int, name: str, generator: str) -> tuple[int, int]:
    """Return the seed and index of a picture: as its metadata says, or its name.

    Raises:
        DataError: if neither says it, or it is another generator's.
    """
    path = table.parent / name
    facts = None
    if path.is_file():
        try:
            facts = read_facts(path)
        except OSError as error:
            raise DataError(f"{table}, line {line}: {path} cannot be read ({error})") from None
    if facts is not None and isinstance(facts.get("seed"), int) and isinstance(facts.get("sample"), int):
        if facts.get("generator") not in (None, generator):
            raise DataError(f"{table}, line {line}: {path} was made by another generator")
        return int(facts["seed"]), int(facts["sample"])
    if match := re.search(r"seed(\d{1,18})\b", Path(name).stem, re.ASCII):
        return int(match[1]), 0
    raise DataError(
        f"{table}, line {line}: nothing says which sample {name} is; name pictures of `progan generate` that "
        f"lie beside the table, or call them seed0004.png"
    )

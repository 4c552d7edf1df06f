"""Tables of labels: several classes a picture (0 and 1), or a vector of numbers; CSV or CelebA's lists."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.labels.label_source import LabelFile, Line
from progan.preparation.labels.matching import plain_name

TableForm = Literal["classes", "vector"]
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class LabelTable:
    """A row of numbers for each picture.

    Attributes:
        columns: Names of the classes, or of the entries of a vector.
        names: Names of the pictures.
        values: [len(names), len(columns)] float32, finite; only 0 and 1 if the columns are classes.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float32]


def read_label_table(file: LabelFile, form: TableForm) -> LabelTable:
    """Read a CSV file with a header `name,COLUMN,...` and a row of numbers for each picture.

    The attribute lists of CelebA are read, too: the number of pictures, a header without `name`, then rows,
    all separated by spaces.

    Args:
        file: The file.
        form: 'classes': cells are 1 (the picture has the class), and 0 or -1 (it has not). 'vector': cells
            are any finite numbers.

    Raises:
        DataError: with the line and column, if the file cannot be read, the header is missing, a row has
            not a number of its form in every column, or a picture has two rows.
    """
    lines = table_lines(file)
    first = next(lines, None)
    if first is None:
        raise DataError(f"label file {file.name}: is empty; it needs a header `name,COLUMN,...` and rows")
    columns = _header(file, *first)
    rows: dict[str, int] = {}
    numbers, values = list[int](), array("f")
    for line, cells in lines:
        name = plain_name(cells[0])
        if not name:
            raise DataError(f"{file.name}, line {line}: has no name of a picture in its first column")
        if name in rows:
            raise DataError(
                f"{file.name}, line {line}: {name!r} has a row already, in line {numbers[rows[name]]}; "
                "keep one of them"
            )
        values.extend(_row(file, line, cells[1:], columns, form))
        rows[name] = len(rows)
        numbers.append(line)
    if not rows:
        raise DataError(f"label file {file.name}: has a header and no rows; give one for each picture")
    table = np.array(values, dtype=np.float32).reshape(len(rows), len(columns))
    if form == "classes":
        _require_one_way(file, table, columns, numbers)
        table = np.maximum(table, 0)
    return LabelTable(columns, tuple(rows), table)


def table_lines(file: LabelFile) -> Iterator[Line]:
    """Yield the lines of a table, those of a list in the form of CelebA with a header `name` put before."""
    lines = file.lines()
    first = next(lines, None)
    if first is None:
        return
    _, cells = first
    if len(cells) == 1 and cells[0].isascii() and cells[0].isdigit():
        yield from _spaced_lines(file, cells[0], lines)
    else:
        yield first
        yield from lines


def _spaced_lines(file: LabelFile, count: str, lines: Iterator[Line]) -> Iterator[Line]:
    """Yield header and rows of a list in the form of CelebA, of which `count` is the first line."""
    header = next(lines, None)
    if header is None:
        raise DataError(f"label file {file.name}: holds nothing but the number {count[:20]}")
    yield header[0], ["name", *" ".join(header[1]).split()]
    found = 0
    for line, cells in lines:
        found += 1
        yield line, " ".join(cells).split()
    if count.lstrip("0") != str(found):
        raise DataError(
            f"label file {file.name}: its first line announces {count[:20]} rows, but {found} follow; "
            "copy the file again, or correct the number"
        )


def _header(file: LabelFile, line: int, cells: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns after the first."""
    columns = tuple(cells[1:])
    # Another first word, such as `image_id`, is no harm; but numbers are the row of a picture.
    row = cells[0].lower() != "name" and all(_number(cell) is not None for cell in columns)
    if row or not columns:
        raise DataError(
            f"{file.name}, line {line}: expected a header `name,COLUMN,...` that names the columns, "
            f"found {reprlib.repr(list(cells))}"
        )
    for i, column in enumerate(columns):
        if not column:
            raise DataError(f"{file.name}, line {line}, column {i + 2}: has no name; every column needs one")
        if column in columns[:i]:
            raise DataError(
                f"{file.name}, line {line}, column {i + 2}: {column!r} names another column already; "
                "names must differ"
            )
    return columns


def _row(
    file: LabelFile, line: int, cells: Sequence[str], columns: Sequence[str], form: TableForm
) -> list[float]:
    """Return the numbers of a row."""
    if len(cells) > len(columns):
        raise DataError(
            f"{file.name}, line {line}: has {len(cells)} values, but the header names {len(columns)} columns"
        )
    numbers = []
    for i, column in enumerate(columns):
        number = _number(cells[i]) if i < len(cells) else None
        if number is None or (form == "classes" and number not in (-1, 0, 1)):
            found = repr(cells[i][:40]) if i < len(cells) and cells[i] else "nothing"
            allowed = "a finite number" if form == "vector" else "1 (has the class), or 0 or -1 (has it not)"
            hint = "" if form == "vector" or number is None else "; other numbers need data.label_form vector"
            raise DataError(
                f"{file.name}, line {line}, column {column!r}: expected {allowed}, found {found}{hint}"
            )
        numbers.append(number)
    return numbers


def _number(cell: str) -> float | None:
    """Return the number in a cell; None if it is none, or one that float32 cannot hold."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) <= _FLOAT32_MAX and "_" not in cell else None


def _require_one_way(
    file: LabelFile, table: NDArray[np.float32], columns: Sequence[str], numbers: Sequence[int]
) -> None:
    """Refuse 0 beside -1: one of them might be meant as unknown."""
    zeros, negatives = np.flatnonzero(table == 0), np.flatnonzero(table == -1)
    if zeros.size and negatives.size:
        place = max(zeros[0], negatives[0])
        row, column = divmod(int(place), len(columns))
        value, other = (0, -1) if place == zeros[0] else (-1, 0)
        raise DataError(
            f"{file.name}, line {numbers[row]}, column {columns[column]!r}: {value}, but {other} further up; "
            "write pictures that have not the class in one way, 0 or -1"
        )

"""Label files: what each picture shows, as CSV.

Three forms: a class for each picture (`name,label`), several classes (a table of 0 and 1), or a vector (a
table of numbers). Tables may also be written as the attribute lists of CelebA are.
"""

from __future__ import annotations

import csv
import reprlib
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.folder_labels import first_of, require_two

TableForm = Literal["classes", "vector"]
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_Line = tuple[int, list[str]]
"""Number of a line, and its cells."""


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


def labels_from_file(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the class of the pictures that a label file names.

    Args:
        path: The CSV file.
        names: Every picture file of the source, usable or not.

    Raises:
        DataError: if the file cannot be read, names pictures that are not there, labels one twice, or has
            fewer than two classes.
    """
    labels = read_label_file(path)
    found = dict(zip(_found(path, labels, names), labels.values(), strict=True))
    require_two(set(found.values()), f"label file {path}", "at least two different labels")
    return found


def table_from_file(path: Path, form: TableForm, names: Iterable[str]) -> LabelTable:
    """Return the table of a label file, with the pictures called as in the source.

    Args:
        path: The file.
        form: 'classes' for cells of 0 and 1, 'vector' for any numbers.
        names: Every picture file of the source, usable or not.

    Raises:
        DataError: if the file cannot be read, or names pictures that are not there.
    """
    table = read_label_table(path, form)
    return replace(table, names=tuple(_found(path, table.names, names)))


def read_label_file(path: Path) -> dict[str, str]:
    """Read a CSV file of `name,label` lines, with or without that header; an empty label means none.

    Raises:
        DataError: if the file cannot be read, a line has not two columns, or a name has two labels.
    """
    labels: dict[str, str] = {}
    for i, (line, cells) in enumerate(_lines(path)):
        if i == 0 and [cell.lower() for cell in cells] == ["name", "label"]:
            continue
        if len(cells) != 2 or not cells[0]:
            hint = "; a table of several columns needs data.label_form classes or vector"
            raise DataError(
                f"{path}, line {line}: expected `name,label`, found {_shown(cells)}"
                f"{hint if len(cells) > 2 else ''}"
            )
        name, label = _plain(cells[0]), cells[1]
        if labels.get(name, label) != label:
            raise DataError(
                f"{path}, line {line}: {name!r} is labelled {label!r}, but {labels[name]!r} further up"
            )
        if label:
            labels[name] = label
    return labels


def read_label_table(path: Path, form: TableForm) -> LabelTable:
    """Read a CSV file with a header `name,COLUMN,...` and a row of numbers for each picture.

    The attribute lists of CelebA are read, too: the number of pictures, a header without `name`, then rows,
    all separated by spaces.

    Args:
        path: The file.
        form: 'classes': cells are 1 (the picture has the class), and 0 or -1 (it has not). 'vector': cells
            are any finite numbers.

    Raises:
        DataError: with the line and column, if the file cannot be read, the header is missing, a row has
            not a number of its form in every column, or a picture has two rows.
    """
    lines = _table_lines(path)
    columns = _header(path, *next(lines))
    rows: dict[str, int] = {}
    numbers, values = list[int](), array("f")
    for line, cells in lines:
        name = _plain(cells[0])
        if not name:
            raise DataError(f"{path}, line {line}: has no name of a picture in its first column")
        if name in rows:
            raise DataError(
                f"{path}, line {line}: {name!r} has a row already, in line {numbers[rows[name]]}; "
                "keep one of them"
            )
        values.extend(_row(path, line, cells[1:], columns, form))
        rows[name] = len(rows)
        numbers.append(line)
    if not rows:
        raise DataError(f"label file {path}: has a header and no rows; give one for each picture")
    table = np.array(values, dtype=np.float32).reshape(len(rows), len(columns))
    if form == "classes":
        _require_one_way(path, table, columns, numbers)
        table = np.maximum(table, 0)
    return LabelTable(columns, tuple(rows), table)


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines of a CSV file that are not empty, their cells without spaces around them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
    except OSError as error:
        raise DataError(f"label file {path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"label file {path}: not a CSV file in UTF-8 ({error})") from None


def _table_lines(path: Path) -> Iterator[_Line]:
    """Yield the header of a table, then its rows."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"label file {path}: is empty; it needs a header `name,COLUMN,...` and rows")
    _, cells = first
    if len(cells) == 1 and cells[0].isascii() and cells[0].isdigit():
        yield from _spaced_lines(path, cells[0], lines)
    else:
        yield first
        yield from lines


def _spaced_lines(path: Path, count: str, lines: Iterator[_Line]) -> Iterator[_Line]:
    """Yield header and rows of a list in the form of CelebA, of which `count` is the first line."""
    header = next(lines, None)
    if header is None:
        raise DataError(f"label file {path}: holds nothing but the number {count[:20]}")
    yield header[0], ["name", *" ".join(header[1]).split()]
    found = 0
    for line, cells in lines:
        found += 1
        yield line, " ".join(cells).split()
    if count.lstrip("0") != str(found):
        raise DataError(
            f"label file {path}: its first line announces {count[:20]} rows, but {found} follow; "
            "copy the file again, or correct the number"
        )


def _header(path: Path, line: int, cells: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns after the first."""
    columns = tuple(cells[1:])
    # Another first word, such as `image_id`, is no harm; but numbers are the row of a picture.
    row = cells[0].lower() != "name" and all(_number(cell) is not None for cell in columns)
    if row or not columns:
        raise DataError(
            f"{path}, line {line}: expected a header `name,COLUMN,...` that names the columns, "
            f"found {_shown(cells)}"
        )
    for i, column in enumerate(columns):
        if not column:
            raise DataError(f"{path}, line {line}, column {i + 2}: has no name; every column needs one")
        if column in columns[:i]:
            raise DataError(
                f"{path}, line {line}, column {i + 2}: {column!r} names another column already; "
                "names must differ"
            )
    return columns


def _row(path: Path, line: int, cells: Sequence[str], columns: Sequence[str], form: TableForm) -> list[float]:
    """Return the numbers of a row."""
    if len(cells) > len(columns):
        raise DataError(
            f"{path}, line {line}: has {len(cells)} values, but the header names {len(columns)} columns"
        )
    numbers = []
    for i, column in enumerate(columns):
        number = _number(cells[i]) if i < len(cells) else None
        if number is None or (form == "classes" and number not in (-1, 0, 1)):
            found = repr(cells[i][:40]) if i < len(cells) and cells[i] else "nothing"
            allowed = "a finite number" if form == "vector" else "1 (has the class), or 0 or -1 (has it not)"
            hint = "" if form == "vector" or number is None else "; other numbers need data.label_form vector"
            raise DataError(
                f"{path}, line {line}, column {column!r}: expected {allowed}, found {found}{hint}"
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
    path: Path, table: NDArray[np.float32], columns: Sequence[str], numbers: Sequence[int]
) -> None:
    """Refuse 0 beside -1: one of them might be meant as unknown."""
    zeros, negatives = np.flatnonzero(table == 0), np.flatnonzero(table == -1)
    if zeros.size and negatives.size:
        place = max(zeros[0], negatives[0])
        row, column = divmod(int(place), len(columns))
        value, other = (0, -1) if place == zeros[0] else (-1, 0)
        raise DataError(
            f"{path}, line {numbers[row]}, column {columns[column]!r}: {value}, but {other} further up; "
            "write pictures that have not the class in one way, 0 or -1"
        )


def _found(path: Path, written: Collection[str], names: Iterable[str]) -> list[str]:
    """Return what the pictures that a file names are called in the source; a DataError if one is missing."""
    # Some systems store file names with composed accents, some with decomposed ones.
    known = {unicodedata.normalize("NFC", name): name for name in names}
    missing = [name for name in written if name not in known]
    if missing:
        raise DataError(
            f"label file {path}: {len(missing)} of the pictures it names are not in the source "
            f"({first_of(missing)}); names are relative to the source, with their sub-folders"
        )
    return [known[name] for name in written]


def _plain(name: str) -> str:
    """Return a name as written in a label file in the form in which names are compared."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def _shown(cells: Sequence[str]) -> str:
    """Write the cells of a line, shortened."""
    return reprlib.repr(list(cells))

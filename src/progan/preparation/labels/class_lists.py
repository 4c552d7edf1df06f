"""Lists of one class a picture: CSV with any separator and header, or two words a line."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator, Sequence

from progan.errors import DataError
from progan.preparation.labels.label_source import LabelFile, Line
from progan.preparation.labels.label_tables import table_lines
from progan.preparation.labels.matching import plain_name
from progan.preparation.pictures import PICTURE_SUFFIXES

NAME_COLUMNS = (
    "name", "file_name", "filename", "file", "image", "image_id", "image_name", "image_path", "imagename",
    "img", "path", "filepath", "file_path", "fname", "picture", "id",
)  # fmt: skip
"""What the field calls the column of the picture's name, the surest first."""
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "class_id",
    "label_id", "y", "species", "breed", "identity", "partition",
)  # fmt: skip
"""What it calls the column of the class."""
CAPTIONS = ("caption", "captions", "text", "prompt", "description", "title")


def read_class_list(file: LabelFile, known: Collection[str] = frozenset()) -> dict[str, str]:
    """Read a list of pictures and classes; an empty label means none.

    The first line is a header if it names its columns with a word that the field uses, or if it has no
    name of a picture where the next line has one.

    Args:
        file: The list.
        known: The pictures of the source.

    Raises:
        DataError: if the file cannot be read, a line has not the columns of the others, or a name has two
            labels.
    """
    lines = list(_lines(file))
    columns = _columns(file, lines, known)
    name_at, label_at, width = columns or (0, 1, 2)
    labels: dict[str, str] = {}
    for line, cells in lines[1 if columns else 0 :]:
        if len(cells) != width or not cells[name_at]:
            raise DataError(f"{file.name}, line {line}: expected {_expected(width, cells)}")
        name, label = plain_name(cells[name_at]), cells[label_at]
        if labels.get(name, label) != label:
            raise DataError(
                f"{file.name}, line {line}: {name!r} is labelled {label!r}, but {labels[name]!r} further up"
            )
        if label:
            labels[name] = label
    return labels


def require_classes(file: LabelFile, labels: Collection[str]) -> None:
    """Refuse labels that are another one for each of many pictures, such as captions.

    Raises:
        DataError: if they are.
    """
    if len(labels) > 20 and len(set(labels)) == len(labels):
        raise DataError(
            f"label file {file.name}: each of its {len(labels):,} pictures has a label of its own "
            f"({next(iter(labels))[:40]!r}, ...), which is no class; name another column: "
            f"--labels FILE:COLUMN"
        )


def _lines(file: LabelFile) -> Iterator[Line]:
    """Yield the cells of each line; lines without a separator are split at their last space."""
    lines = table_lines(file)
    first = next(lines, None)
    if first is None:
        return
    spaced = len(first[1]) == 1 and " " in first[1][0]
    for line, cells in (first, *lines):
        yield line, cells[0].rsplit(None, 1) if spaced and len(cells) == 1 else cells


def _columns(file: LabelFile, lines: Sequence[Line], known: Collection[str]) -> tuple[int, int, int] | None:
    """Return the places of name and label and the number of columns, if the first line is a header."""
    if not lines:
        return None
    line, cells = lines[0]
    words = [cell.lower() for cell in cells]
    named = next((words.index(word) for word in NAME_COLUMNS if word in words), None)
    if file.column is None and (
        plain_name(cells[0]) in known or (named is None and not _heads(lines, known))
    ):
        return None
    name_at = named or 0
    others = [i for i in range(len(cells)) if i != name_at]
    if file.column is not None:
        if file.column not in cells:
            raise DataError(
                f"{file.name}, line {line}: has no column {file.column!r}, only {reprlib.repr(cells)}"
            )
        return name_at, cells.index(file.column), len(cells)
    label_at = next((words.index(word) for word in LABEL_COLUMNS if words.count(word) == 1), None)
    if label_at is None and len(others) == 1:
        label_at = others[0]
    if label_at is None:
        raise DataError(f"{file.name}, line {line}: expected {_expected(2, cells)}")
    if words[label_at] in CAPTIONS:
        raise DataError(
            f"{file.name}, line {line}: {cells[label_at]!r} is no class but a text for each picture; name a "
            f"column of classes (--labels FILE:COLUMN), or leave the labels out"
        )
    return name_at, label_at, len(cells)


def _heads(lines: Sequence[Line], known: Collection[str]) -> bool:
    """Tell whether a first line of unknown words is a header: only the next one names a picture."""
    first, second = (plain_name(cells[0]) for _, cells in lines[:2]) if len(lines) > 1 else ("", "")
    suffix = "." + first.rpartition(".")[2].lower()
    return len(lines[0][1]) == 2 and suffix not in PICTURE_SUFFIXES and second in known


def _expected(width: int, cells: Sequence[str]) -> str:
    """Say what a line should have been, and was."""
    hint = "; a table of several columns needs data.label_form classes or vector, or --labels FILE:COLUMN"
    what = "`name,label`" if width == 2 else f"{width} columns"
    return f"{what}, found {reprlib.repr(list(cells))}{hint if width == 2 and len(cells) > 2 else ''}"

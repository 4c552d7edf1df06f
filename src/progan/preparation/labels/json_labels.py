"""Labels in JSON: `dataset.json` of StyleGAN, and records such as the lines of a `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np

from progan.config import LabelForm
from progan.errors import DataError
from progan.preparation.labels.array_labels import label_rows
from progan.preparation.labels.class_lists import CAPTIONS, LABEL_COLUMNS, NAME_COLUMNS
from progan.preparation.labels.folder_labels import class_order
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.labels.matching import plain_name
from progan.preparation.pictures import Labelling, first_few
from progan.system.files import parse_json

_FLOAT32_MAX = float(np.finfo(np.float32).max)
Label = str | tuple[float, ...] | frozenset[str]
"""A class, a vector, or several classes."""


def is_json(file: LabelFile) -> bool:
    """Tell from its first character whether a label file is one of JSON."""
    return file.data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def read_json_labels(file: LabelFile) -> dict[str, Label]:
    """Return the labels of a JSON file by the name of the picture; `null` means none.

    Raises:
        DataError: if the file cannot be read, or a label is none.
    """
    labels: dict[str, Label] = {}
    for where, name, value in _entries(file):
        if not isinstance(name, str) or not name:
            raise DataError(
                f"label file {file.name}, {where}: expected the name of a picture, found {_short(name)}"
            )
        label = None if value is None else label_of(file, f"{where} ({name!r})", value)
        name = plain_name(name)
        if label is None:
            continue
        if labels.setdefault(name, label) != label:
            raise DataError(f"label file {file.name}, {where}: {name!r} has another label further up")
    if not labels:
        raise DataError(f"label file {file.name}: holds no labels, only names; give 'none', or another file")
    return labels


def number_labels(where: str, labels: dict[str, Label], form: LabelForm | None) -> Labelling:
    """Bring labels into the form that is stored.

    Args:
        where: Where they are from, for messages.
        labels: By picture, all of one kind.
        form: What a label is to be; None: what it is. Vectors of one 1 and else 0 are classes then.

    Raises:
        DataError: if they are of different kinds or lengths, or not of that form.
    """
    kinds = {type(label) for label in labels.values()}
    if len(kinds) > 1:
        raise DataError(f"{where}: some labels are lists and some are none; give all pictures one kind")
    kind = kinds.pop()
    if kind is frozenset:
        return _several(where, cast("dict[str, frozenset[str]]", labels), form)
    rows = {name: i for i, name in enumerate(labels)}
    if kind is tuple:
        return _vectors(where, list(cast("Iterable[tuple[float, ...]]", labels.values())), rows, form)
    if form in ("classes", "vector"):
        raise DataError(f"{where}: has one class a picture, and data.label_form {form} was asked for")
    classes = class_order(cast("Iterable[str]", labels.values()))
    number = {label: i for i, label in enumerate(classes)}
    values = np.array([number[cast(str, label)] for label in labels.values()], dtype=np.int64)
    return Labelling("file", "class", classes, rows, values)


def _several(where: str, labels: dict[str, frozenset[str]], form: LabelForm | None) -> Labelling:
    if form in ("class", "vector"):
        raise DataError(f"{where}: has lists of classes; leave data.label_form out, or set it to 'classes'")
    classes = class_order(one for several in labels.values() for one in several)
    number = {label: i for i, label in enumerate(classes)}
    values = np.zeros((len(labels), len(classes)), np.float32)
    for row, several in enumerate(labels.values()):
        values[row, [number[one] for one in several]] = 1
    return Labelling("file", "classes", classes, {name: i for i, name in enumerate(labels)}, values)


def _vectors(
    where: str, vectors: list[tuple[float, ...]], rows: dict[str, int], form: LabelForm | None
) -> Labelling:
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(
            f"{where}: its labels are lists of {', '.join(map(str, sorted(lengths)[:5]))} numbers; "
            f"all need the same length, at least 1"
        )
    return label_rows(where, np.array(vectors, np.float32), rows, form)


def _entries(file: LabelFile) -> Iterator[tuple[str, Any, Any]]:
    """Yield where it stands, the name and the label of each picture."""
    try:
        tree = parse_json(file.data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"label file {file.name}: not JSON in UTF-8 ({error})") from None
    except ValueError as whole:
        yield from _lines(file, whole)
        return
    if isinstance(tree, dict) and "labels" in tree:
        tree = tree["labels"]
        if tree is None:
            raise DataError(f"label file {file.name}: says that there are no labels (null); give 'none'")
        if isinstance(tree, list):
            for i, pair in enumerate(tree):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise DataError(
                        f"label file {file.name}, entry {i + 1}: expected [name, label], found {_short(pair)}"
                    )
                yield f"entry {i + 1}", pair[0], pair[1]
            return
    if isinstance(tree, dict) and not {"images", "annotations"} <= set(tree):
        yield from ((f"entry {i + 1}", name, label) for i, (name, label) in enumerate(tree.items()))
    elif isinstance(tree, list):
        yield from _records(file, ((f"entry {i + 1}", record) for i, record in enumerate(tree)))
    else:
        raise DataError(
            f'label file {file.name}: expected {{"labels": [[name, label], ...]}}, {{name: label, ...}} or '
            f"records with a file_name, found {_short(tree)}"
        )


def _lines(file: LabelFile, whole: ValueError) -> Iterator[tuple[str, Any, Any]]:
    """Yield the records of a file that holds one a line."""
    lines = [(i, line) for i, line in enumerate(file.text().splitlines(), 1) if line.strip()]
    if len(lines) < 2:
        raise DataError(f"label file {file.name}: not JSON ({whole})")

    def parsed() -> Iterator[tuple[str, Any]]:
        for i, line in lines:
            try:
                yield f"line {i}", parse_json(line)
            except ValueError as error:
                # Of a file that is one tree the first line alone is none.
                raise DataError(f"label file {file.name}: not JSON ({whole if i == 1 else error})") from None

    yield from _records(file, parsed())


def _records(file: LabelFile, records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Yield names and labels of objects, the first of which tells which of their fields these are."""
    name_field = label_field = ""
    for where, record in records:
        if not isinstance(record, dict):
            raise DataError(
                f"label file {file.name}, {where}: expected an object with a file_name, "
                f"found {_short(record)}"
            )
        if not name_field:
            name_field, label_field = _fields(file, where, record)
        yield where, record.get(name_field), record.get(label_field)


def _fields(file: LabelFile, where: str, record: dict[str, Any]) -> tuple[str, str]:
    """Return which fields of a record are the name and the label."""
    fields = {field.lower(): field for field in record}
    name = next((fields[one] for one in NAME_COLUMNS if one in fields), None)
    if name is None:
        raise DataError(
            f"label file {file.name}, {where}: has no field with the name of the picture (file_name), only "
            f"{first_few(list(record))}"
        )
    others = [field for field in record if field != name]
    if file.column is not None:
        if file.column not in others:
            raise DataError(
                f"label file {file.name}: has no field {file.column!r}; it has "
                f"{', '.join(others)[:200] or 'none'}"
            )
        return name, file.column
    label = next((fields[one] for one in LABEL_COLUMNS if one in fields), None)
    if label is None and len(others) == 1 and others[0].lower() not in CAPTIONS:
        label = others[0]
    if label is None:
        raise DataError(
            f"label file {file.name}: which field is the label? It has {', '.join(others)[:200] or 'none'}; "
            f"name it: --labels FILE:FIELD"
        )
    return name, label


def label_of(file: LabelFile, where: str, value: Any) -> Label | None:
    """Return one label of what JSON holds; None for one that is empty.

    Args:
        file: The file, for messages.
        where: The place in it, for messages.
        value: What is there.

    Raises:
        DataError: if it is no label.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list) and all(isinstance(one, str) for one in value) and value:
        return frozenset(value)
    if isinstance(value, list) and value and all(_is_number(one) for one in value):
        return tuple(float(one) for one in value)
    raise DataError(
        f"label file {file.name}, {where}: expected a class (a number or a word), a list of finite numbers "
        f"or a list of words, found {_short(value)}"
    )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _FLOAT32_MAX  # not so of nan


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."

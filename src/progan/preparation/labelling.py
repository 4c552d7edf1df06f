"""Which labels the pictures of a source have, from folders or a label file, in the form that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from progan.config import LabelForm, PictureOptions
from progan.data.packed import Labels
from progan.errors import DataError
from progan.preparation.folder_labels import class_order, labels_from_folders
from progan.preparation.formats.pictures import Listing, Pictures
from progan.preparation.label_files import labels_from_file, table_from_file


@dataclass(frozen=True)
class Labelling:
    """Labels of the pictures that have one.

    Attributes:
        kind: 'folders' or 'file'.
        form: What a label is.
        names: Names of the classes or entries.
        rows: Where the label of a picture is in `values`.
        values: As `PackedSet` stores them.
    """

    kind: str
    form: LabelForm
    names: tuple[str, ...]
    rows: dict[str, int]
    values: Labels


def label_file_path(pictures: Pictures, options: PictureOptions) -> Path | None:
    """Return the label file, looked for from the current folder and in the source; None if there is none.

    Raises:
        DataError: if `options.labels` is neither 'none' nor 'folders' nor a file.
    """
    if options.labels in {"none", "folders"}:
        return None
    for path in (Path(options.labels), pictures.path / options.labels):
        if path.is_file():
            return path
    raise DataError(
        f"labels {options.labels!r}: no such file; give 'none', 'folders', or a CSV file of "
        f"{'name,label' if options.label_form == 'class' else 'name,COLUMN,...'}"
    )


def find_labels(
    pictures: Pictures, listing: Listing, usable: Sequence[str], options: PictureOptions
) -> Labelling | None:
    """Read the labels of the usable pictures; None without labels."""
    file = label_file_path(pictures, options)
    if file is None:
        if options.labels == "none":
            return None
        return _classes("folders", labels_from_folders(usable, in_archive=pictures.in_archive))
    known = [item.name for item in listing.candidates] + [name for name, _ in listing.skipped]
    if options.label_form == "class":
        labels = labels_from_file(file, known)
        return _classes("file", {name: labels[name] for name in usable if name in labels})
    table = table_from_file(file, options.label_form, known)
    rows = {name: i for i, name in enumerate(table.names)}
    return Labelling("file", options.label_form, table.columns, rows, table.values)


def _classes(kind: str, labels: dict[str, str]) -> Labelling:
    """Number the classes of pictures."""
    classes = class_order(labels.values())
    number = {label: i for i, label in enumerate(classes)}
    values = np.array([number[label] for label in labels.values()], dtype=np.int64)
    return Labelling(kind, "class", classes, {name: i for i, name in enumerate(labels)}, values)

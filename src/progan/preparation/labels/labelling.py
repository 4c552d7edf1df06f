"""Which labels the pictures of a source have: from folders, from files, or from inside it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from progan.config import LabelForm, PictureOptions
from progan.data.packed import Labels
from progan.errors import DataError
from progan.preparation.labels.array_labels import NPY, labels_in_order
from progan.preparation.labels.class_lists import read_class_list, require_classes
from progan.preparation.labels.folder_labels import (
    PARTS,
    all_equal,
    class_order,
    labels_from_folders,
    require_two,
)
from progan.preparation.labels.json_labels import Label, is_json, number_labels, read_json_labels
from progan.preparation.labels.label_source import LabelFile, label_files, labels_beside
from progan.preparation.labels.label_tables import read_label_table
from progan.preparation.labels.matching import match_names
from progan.preparation.pictures import Labelling, Listing, Pictures, first_few


def label_digest(pictures: Pictures, listing: Listing, options: PictureOptions) -> str | None:
    """Return a hash over the label files that are used; None without any."""
    files = label_files(pictures, listing, options)
    state = hashlib.sha256()
    for file in files:
        state.update(file.data)
    return state.hexdigest() if files else None


def find_labels(
    pictures: Pictures, listing: Listing, usable: Sequence[str], options: PictureOptions
) -> Labelling | None:
    """Read the labels of the usable pictures; None without labels.

    What a person should know of them is added to the notes of the listing.

    Raises:
        DataError: if a label file is missing, cannot be read, or does not belong to these pictures.
    """
    if options.labels == "none":
        listing.notes.extend(_not_used(pictures, listing, usable))
        return None
    if options.labels == "folders":
        return _classes("folders", labels_from_folders(usable, pictures.in_archive, listing.depth))
    form = options.label_form if "label_form" in options.model_fields_set else None
    files = label_files(pictures, listing, options)
    if not files:
        assert listing.labels is not None
        return _of_form(listing.labels, form)
    if files[0].data.startswith(NPY):
        return _of_form(labels_in_order(files[0], listing), form)
    known = [*listing.candidates.names, *(name for name, _ in listing.skipped)]
    if form in ("classes", "vector") and not is_json(files[0]):
        if len(files) > 1:
            raise DataError(f"{files[0].name} and {files[1].name}: tables in several files; give one of them")
        table = read_label_table(files[0], form)
        listing.notes.append(f"{len(table.names):,} labels were read from {files[0].name}")
        names = match_names(files[0], table.names, known, listing.notes)
        return Labelling("file", form, table.columns, {name: i for i, name in enumerate(names)}, table.values)
    labels: dict[str, Label] = {}
    for file in files:
        read = read_json_labels(file) if is_json(file) else read_class_list(file, frozenset(known))
        listing.notes.append(f"{len(read):,} labels were read from {file.name}")
        labels |= zip(match_names(file, read, known, listing.notes), read.values(), strict=True)
    return _found(files[0], labels, usable, form)


def _found(file: LabelFile, labels: dict[str, Label], usable: Sequence[str], form: str | None) -> Labelling:
    """Number the labels of a file, of the usable pictures only."""
    texts = [label for label in labels.values() if isinstance(label, str)]
    if len(texts) == len(labels):
        require_two(set(texts), f"label file {file.name}", "at least two different labels")
        require_classes(file, texts)
    here = {name: labels[name] for name in usable if name in labels}
    if not here:
        raise DataError(f"label file {file.name}: labels no picture that can be used")
    return number_labels(f"label file {file.name}", here, form)  # type: ignore[arg-type]


def drop_empty(values: Labels, names: Sequence[str]) -> tuple[Labels, list[str], list[str]]:
    """Leave out the classes that no picture is left of.

    Args:
        values: The class number [n] of each picture.
        names: What the classes are called.

    Returns:
        The class numbers and names without those, and a sentence about them, if any were left out.
    """
    present = np.unique(values)
    if len(present) == len(names):
        return values, list(names), []
    gone = sorted(set(range(len(names))) - set(present.tolist()))
    said = f"{len(gone):,} of {len(names):,} classes have no picture here and were left out"
    kept = np.searchsorted(present, values).astype(np.int64)
    return kept, [names[i] for i in present], [f"{said} ({first_few([names[i] for i in gone])})"]


def missing_from_parts(
    values: Labels | None,
    names: Sequence[str],
    form: LabelForm,
    parts: NDArray[np.uint8],
    shares: tuple[float, float, float],
) -> list[str]:
    """Say which parts of a split have no pictures at all, or none of some classes.

    Args:
        values: The labels, as `PackedSet` has them.
        names: What the classes are called.
        form: What a label is.
        parts: The part of each picture, by its number.
        shares: The split.
    """
    said = []
    for number, (part, share) in enumerate(zip(PARTS, shares, strict=True)):
        chosen = parts == number
        if not share:
            continue
        if not chosen.any():
            said.append(f"the {part} part of the split has no pictures: --split gives it a larger share")
        elif values is not None and form != "vector":
            own = values[chosen]
            there = np.isin(np.arange(len(names)), own) if form == "class" else (own > 0).any(0)
            gone = [name for name, found in zip(names, there, strict=True) if not found]
            if gone:
                said.append(
                    f"{len(gone):,} of {len(names):,} classes have no picture in the {part} part of the "
                    f"split ({first_few(gone)}): --split gives it a larger share"
                )
    return said


def _classes(kind: str, labels: dict[str, str]) -> Labelling:
    """Number the classes of pictures."""
    classes = class_order(labels.values())
    number = {label: i for i, label in enumerate(classes)}
    values = np.array([number[label] for label in labels.values()], dtype=np.int64)
    return Labelling(kind, "class", classes, {name: i for i, name in enumerate(labels)}, values)


def _of_form(labels: Labelling, form: str | None) -> Labelling:
    """Return the labels inside a source if they are of the form that was asked for."""
    if form not in (None, labels.form):
        raise DataError(
            f"labels 'inside': the source holds {labels.say()}, and data.label_form {form} was asked for; "
            f"leave data.label_form out"
        )
    return labels


def _not_used(pictures: Pictures, listing: Listing, usable: Collection[str]) -> list[str]:
    """Tell of labels that are there although none were asked for, and how to use them."""
    if listing.labels is not None:
        what = listing.labels.say()
        return [f"the source brings labels ({what}), which are not used: --labels inside uses them"]
    beside = labels_beside(pictures)
    if beside is not None:
        return [f"{beside} may hold labels, which are not used: --labels inside uses them"]
    tops = (name.partition("/")[0] for name in usable)
    depth = listing.depth + (pictures.in_archive and all_equal(tops))
    folders = Counter[str]()
    for name in usable:
        parts = name.split("/", depth + 1)
        if len(parts) < depth + 2:
            return []
        folders[parts[depth]] += 1
    if len(folders) < 2:
        return []
    return [
        f"the pictures lie in {len(folders):,} sub-folders ({first_few(sorted(folders))}), which are not "
        f"used as classes: --labels folders uses them"
    ]

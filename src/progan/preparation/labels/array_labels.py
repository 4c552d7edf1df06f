"""Labels that are an array: a class, several classes or a vector for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.config import LabelForm
from progan.errors import DataError
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.pictures import Labelling, Listing
from progan.system.npy_files import parse_array

NPY = b"\x93NUMPY"
"""What a `.npy` file begins with."""


def labels_in_order(file: LabelFile, listing: Listing) -> Labelling:
    """Return the labels in a `.npy` file that lies beside an array of pictures.

    Raises:
        DataError: if the pictures have no order, or the labels do not belong to them.
    """
    if not listing.ordered:
        raise DataError(
            f"label file {file.name}: its rows have no names, and pictures that are files have no order; "
            f"give a list of names and labels (CSV or JSON)"
        )
    try:
        values = parse_array(file.data)
    except Exception as error:  # a damaged header raises anything
        raise DataError(f"label file {file.name}: cannot be read ({error})") from None
    names = listing.candidates.names
    return replace(labelling_of(f"label file {file.name}", values, names, ()), kind="file")


def labelling_of(
    where: str, values: NDArray[Any], names: Sequence[str], label_names: Sequence[str]
) -> Labelling:
    """Return the labels of pictures in order; negative numbers of classes mean none.

    Args:
        where: Where they are from.
        values: [n] of whole numbers or texts, classes; else [n] or [n, size] of numbers.
        names: The n pictures.
        label_names: What the numbers of classes mean; nothing if that is not known.

    Raises:
        DataError: if there are not as many labels as pictures, or they are of another kind.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or len(values) != len(names):
        found = f"{len(values):,}" if values.ndim else "no"
        raise DataError(f"{where}: holds {found} labels for {len(names):,} pictures; each needs one")
    if (
        values.dtype.kind == "f"
        and values.ndim == 1
        and np.isfinite(values).all()
        and (values % 1 == 0).all()
    ):
        values = values.astype(np.int64)
    if values.ndim == 2 or values.dtype.kind == "f":
        if values.dtype.kind not in "uifb":
            raise DataError(f"{where}: its labels are {values.dtype}, not numbers")
        rows = {name: i for i, name in enumerate(names)}
        table = label_rows(where, values.reshape(len(values), -1).astype(np.float32), rows, None)
        good = len(label_names) == len(table.names)
        return replace(table, kind="inside", names=tuple(label_names) if good else table.names)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind not in "uiSUTO":
        raise DataError(f"{where}: its labels are {values.dtype}; classes are whole numbers or texts")
    return _numbered(where, values, names, label_names)


def _numbered(
    where: str, values: NDArray[Any], names: Sequence[str], label_names: Sequence[str]
) -> Labelling:
    """Number classes that are whole numbers or texts."""
    numbers = values.dtype.kind in "ui"
    if not numbers:
        values = np.array(
            [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values]
        )
    classes, inverse = np.unique(values, return_inverse=True)
    first = int((classes < 0).sum()) if numbers else 0
    if label_names and numbers and int(classes[-1]) >= len(label_names):
        raise DataError(f"{where}: has a label {classes[-1]}, but names for {len(label_names)} classes only")
    known = [label_names[int(one)] if label_names and numbers else str(one) for one in classes[first:]]
    if not known:
        raise DataError(f"{where}: none of its pictures has a label")
    rows = {name: i for i, name in enumerate(names) if inverse[i] >= first}
    return Labelling("inside", "class", tuple(known), rows, (inverse - first).astype(np.int64))


def label_rows(
    where: str, values: np.ndarray[Any, Any], rows: dict[str, int], form: LabelForm | None
) -> Labelling:
    """Bring rows of numbers [n, size] into the form that is stored.

    Without a form that is asked for, rows of one 1 and else 0 are a class, others of 0 and 1 several classes,
    and all else is a vector.

    Raises:
        DataError: if they are not of the form that was asked for, or not finite.
    """
    names = tuple(map(str, range(values.shape[1])))
    if not np.isfinite(values).all():
        raise DataError(f"{where}: holds labels that are not finite numbers")
    binary = bool(np.isin(values, (0, 1)).all())
    if form in (None, "class") and binary and bool((values.sum(axis=1) == 1).all()) and values.shape[1] > 1:
        return Labelling("file", "class", names, rows, values.argmax(axis=1).astype(np.int64))
    if form == "class" or (form == "classes" and not binary):
        allowed = "one 1 and else 0" if form == "class" else "0 and 1"
        raise DataError(
            f"{where}: holds vectors of {values.shape[1]} numbers that are not {allowed}; leave "
            f"data.label_form out, or set it to 'vector'"
        )
    found = form or ("classes" if binary else "vector")
    return Labelling("file", found, names, rows, values.astype(np.float32))

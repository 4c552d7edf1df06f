"""What is decided by a picture's name: its class, whether a limit keeps it, and its part of the split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from itertools import groupby, islice

from progan.errors import DataError
from progan.preparation.pictures import encode_name, first_few

PARTS = ("train", "validation", "test")
"""The parts of a split, by their numbers."""


def unit_hash(purpose: str, name: str) -> float:
    """Return a number in [0, 1) that depends on `name` alone, and another one for each `purpose`.

    The purposes must differ: were the limit and the split to use one number, a limit would keep pictures of
    the training part only.
    """
    state = hashlib.sha256(purpose.encode() + b"\0" + encode_name(name)).digest()
    return int.from_bytes(state[:6], "big") / 2**48


def split_of(name: str, shares: tuple[float, float, float]) -> int:
    """Return 0 (train), 1 (validation) or 2 (test) for a picture.

    The choice depends on the name and the shares only, so adding or removing pictures moves no other.
    """
    place = unit_hash("split", name)
    if place < shares[0] or shares[1] == shares[2] == 0:
        return 0
    return 1 if place < shares[0] + shares[1] or shares[2] == 0 else 2


def apply_limit(names: Sequence[str], limit: int | None) -> list[str]:
    """Keep the `limit` names with the smallest hash, in the order given.

    A sorted list usually holds one class after the other; picks by hash are spread evenly over all of it.
    """
    if limit is None or len(names) <= limit:
        return list(names)
    kept = set(nsmallest(limit, names, key=lambda name: (unit_hash("limit", name), name)))
    return [name for name in names if name in kept]


def labels_from_folders(names: Sequence[str], in_archive: bool = False, depth: int = 0) -> dict[str, str]:
    """Return the class of every picture: the first sub-folder of its name.

    Args:
        names: Names of pictures, with `/`.
        in_archive: Look below a folder that holds everything, as most archives have one.
        depth: So many folders are not looked at.

    Raises:
        DataError: for a picture outside any sub-folder, or if there are fewer than two classes.
    """
    if in_archive:
        while all(name.count("/") > depth + 1 for name in names) and all_equal(
            name.split("/", depth + 1)[: depth + 1] for name in names
        ):
            depth += 1
    loose = [name for name in names if name.count("/") < depth + 1]
    if loose:
        raise DataError(
            f"labels 'folders': {len(loose)} pictures are in no class folder ({first_few(loose)}); "
            "move every picture into the sub-folder of its class, or use labels 'none'"
        )
    same: dict[str, str] = {}  # one text for each class, not for each picture
    classes = (name.split("/", depth + 1)[depth] for name in names)
    labels = {name: same.setdefault(label, label) for name, label in zip(names, classes, strict=True)}
    require_two(set(same), "labels 'folders'", "one sub-folder for each class")
    return labels


def all_equal(values: Iterable[object]) -> bool:
    """Tell whether there are values, and all of them are the same."""
    return sum(1 for _ in islice(groupby(values), 2)) == 1


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the different labels in the order of their class numbers: numbers by value, else by text."""
    different = set(labels)
    if all(label.isascii() and label.isdigit() for label in different):
        # Not by int(label), which refuses thousands of digits.
        return tuple(sorted(different, key=lambda label: (len(label.lstrip("0")), label.lstrip("0"), label)))
    return tuple(sorted(different))


def require_two(classes: set[str], where: str, needed: str) -> None:
    """Raise `DataError`, beginning with `where`, if there are fewer than two classes."""
    if len(classes) < 2:
        found = f"only {next(iter(classes))!r}" if classes else "none"
        raise DataError(f"{where}: classes found: {found}; needs {needed}, or use labels 'none'")

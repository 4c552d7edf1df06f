"""Which picture of the source a name in a label file means."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from progan.errors import DataError
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.pictures import first_few

_WAYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", lambda name: name),
    ("without their endings", lambda name: str(PurePosixPath(name).with_suffix("")) if name else name),
    ("without their folders", lambda name: name.rpartition("/")[2]),
    ("without their folders and endings", lambda name: PurePosixPath(name).stem),
)
"""What of a name is compared; the first way in which every name has one picture counts."""


def match_names(
    file: LabelFile, written: Collection[str], names: Iterable[str], notes: list[str]
) -> list[str]:
    """Return what the pictures that a file names are called in the source.

    Args:
        file: Where the names are written.
        written: The names.
        names: Every picture of the source, usable or not.
        notes: Takes a sentence if names had to be compared in another way than as they are.

    Raises:
        DataError: if some are not there.
    """
    # Some systems store file names with composed accents, some with decomposed ones.
    known = {unicodedata.normalize("NFC", name): name for name in names}
    wanted = [file.folder + name for name in written]
    for way, reduce in _WAYS:
        found = _unique(known, reduce)
        if len({reduce(name) for name in wanted}) == len(wanted) and all(reduce(n) in found for n in wanted):
            if way:
                notes.append(f"the names in {file.name} were found {way}")
            return [found[reduce(name)] for name in wanted]
    missing = [name for name in written if file.folder + name not in known]
    raise DataError(
        f"label file {file.name}: {len(missing)} of the pictures it names are not in the source "
        f"({first_few(missing)}); names are relative to the source, with their sub-folders"
    )


def _unique(known: dict[str, str], reduce: Callable[[str], str]) -> dict[str, str]:
    """Return the pictures by what remains of their names, without those that then have one in common."""
    found: dict[str, str] = {}
    twice = set()
    for name, original in known.items():
        short = reduce(name)
        if short in found:
            twice.add(short)
        found[short] = original
    return {short: original for short, original in found.items() if short not in twice}


def plain_name(name: str) -> str:
    """Return a name as written in a label file in the form in which names are compared."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))

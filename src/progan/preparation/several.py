"""Several sources as one: named one by one, by a pattern, or in a text file that lists paths."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from progan.config import PictureOptions
from progan.errors import DataError
from progan.preparation.formats.folder import head_of
from progan.preparation.formats.hugging_face import HUB, open_hub
from progan.preparation.formats.registry import open_pictures
from progan.preparation.labels.json_labels import Label, number_labels
from progan.preparation.pictures import (
    RAW_SUFFIXES,
    Candidate,
    Labelling,
    Listing,
    Pictures,
    is_picture,
    reason_of,
)

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 100_000
MOST_LIST_BYTES = 1 << 30
LISTS = ("", ".txt", ".lst", ".list")


def gather(places: Sequence[str], options: PictureOptions) -> Pictures:
    """Return the reader of the pictures at some places.

    Args:
        places: Paths, patterns (`photos/*.jpg`, `shard-{000..099}.tar`), names of data sets (`hf:user/name`),
            and text files that list paths.
        options: How a reader is to take what it finds.

    Raises:
        DataError: if there is nothing at one of them, or nothing that is known.
        DependencyError: if what reads it is not installed.
    """
    files: list[Path] = []
    parts: list[tuple[str, Pictures]] = []
    for place in (one for each in places for one in expand(each)):
        path = Path(place)
        if place.startswith(HUB):
            parts.append((place.removeprefix(HUB), open_hub(place)))
        elif _is_picture_file(path):
            files.append(path)
        else:
            listed = read_list(path)
            pictures = open_pictures(path, options) if listed is None else listed
            parts.append((path.name or path.resolve().name, pictures))
    if files:
        parts.append((_common(files).name, FileList(Path(places[0]), dict.fromkeys(files, ""))))
    return parts[0][1] if len(parts) == 1 else Several(parts)


def expand(place: str) -> list[str]:
    """Return the places that a pattern stands for; one that is no pattern stands for itself.

    Raises:
        DataError: if a pattern stands for nothing.
    """
    if place.startswith(HUB) or os.path.lexists(place):
        return [place]
    numbers = RANGE.search(place)
    if numbers is not None:
        first, last = int(numbers[1]), int(numbers[2])
        if not first <= last < first + MOST_SHARDS:
            raise DataError(f"{place}: {numbers[0]} is no range of numbers that rise")
        ends = place[: numbers.start()], place[numbers.end() :]
        shards = (f"{i:0{len(numbers[1])}d}".join(ends) for i in range(first, last + 1))
        return [one for shard in shards for one in expand(shard)]
    if not glob.has_magic(place):
        return [place]
    found = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - also of absolute patterns
    if not found:
        raise DataError(
            f"{place}: nothing is called so; quote a pattern so that the shell leaves it as it is"
        )
    return found


class FileList:
    """Picture files by their paths, called by what these do not have in common.

    Args:
        path: What lists them.
        files: The class of each, or nothing.
        missing: (name, reason) of what cannot be used.
    """

    in_archive = False

    def __init__(self, path: Path, files: dict[Path, str], missing: Iterable[tuple[str, str]] = ()) -> None:
        self.path = path
        self._folder = _common(list(files))
        self._classes = dict(zip(map(self._name, files), files.values(), strict=True))
        # Of a path through a link and back another is made without that.
        self._through = {self._name(file): file for file in files if ".." in file.parts}
        self._missing = list(missing)

    def _path(self, name: str) -> Path:
        return self._through.get(name) or self._folder / name

    def _name(self, file: Path) -> str:
        return os.path.relpath(file, self._folder).replace(os.sep, "/")

    def listing(self) -> Listing:
        """Look at each file."""
        listing = Listing(skipped=list(self._missing))
        for name in self._classes:
            file = self._path(name)
            try:
                status = file.stat()
            except OSError as error:
                listing.skipped.append((name, reason_of(error)))
                continue
            listing.admit(Candidate(name, status.st_size, status.st_mtime_ns), lambda: head_of(file))  # noqa: B023
        labels: dict[str, Label] = {
            name: self._classes[name] for name in listing.candidates.names if self._classes[name]
        }
        if labels:
            listing.labels = replace(number_labels(str(self.path), labels, None), kind="inside")
        return listing.sort()

    def open(self, name: str) -> BinaryIO:
        """Open a file."""
        return self._path(name).open("rb")

    def read_file(self, name: str) -> bytes | None:
        """Return what a file beside the pictures holds; None without such a file."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None


class Several:
    """Several sources; what each calls its pictures comes after the name of the source.

    Args:
        parts: The name and the reader of each.
    """

    in_archive = False

    def __init__(self, parts: Sequence[tuple[str, Pictures]]) -> None:
        self.path = Path(", ".join(str(pictures.path) for _, pictures in parts))
        counts = Counter(name for name, _ in parts)
        self._parts: dict[str, Pictures] = {}
        for number, (name, pictures) in enumerate(parts, 1):
            plain = name.replace("/", "-")
            self._parts[plain if counts[name] == 1 else f"{number}-{plain}"] = pictures

    def listing(self) -> Listing:
        """Return the pictures of all sources, with the labels that they bring."""
        whole, labels = Listing(), dict[str, Labelling]()
        for name, pictures in self._parts.items():
            part = pictures.listing()
            for item in part.candidates:
                whole.candidates.append(item._replace(name=f"{name}/{item.name}"))
            whole.skipped += [(f"{name}/{one}", reason) for one, reason in part.skipped]
            whole.ignored += part.ignored
            whole.notes += [f"{name}: {note}" for note in part.notes]
            whole.notes.append(f"{name}: {len(part.candidates):,} pictures")
            if part.labels is not None:
                rows = {f"{name}/{one}": row for one, row in part.labels.rows.items()}
                labels[name] = replace(part.labels, rows=rows)
        if all(one.count("/") > 1 for one in whole.candidates.names):
            whole.depth = 1  # each source has its classes in sub-folders
        whole.labels = _merged(list(labels.values()))
        bare = [name for name in self._parts if name not in labels]
        if labels and bare:
            whole.notes.append(f"no labels are in {', '.join(bare)}")
        return whole.sort()

    def open(self, name: str) -> BinaryIO:
        """Open a picture of one of the sources."""
        part, _, rest = name.partition("/")
        return self._parts[part].open(rest)

    def read_file(self, name: str) -> bytes | None:
        """Return what a file of one of the sources holds; None without such a file."""
        part, _, rest = name.partition("/")
        return self._parts[part].read_file(rest) if part in self._parts and rest else None


def _merged(labels: Sequence[Labelling]) -> Labelling | None:
    """Return the labels of several sources as one; classes of one name are one."""
    if not labels:
        return None
    form = labels[0].form
    if any(one.form != form for one in labels) or (
        form == "vector" and len({len(x.names) for x in labels}) > 1
    ):
        kinds = ", ".join(one.say() for one in labels)
        raise DataError(
            f"the sources have labels of different kinds ({kinds}); give labels of one kind, or none"
        )
    names = list(dict.fromkeys(name for one in labels for name in one.names))
    rows: dict[str, int] = {}
    values = []
    for one in labels:
        start = len(rows)
        order = list(one.rows)
        rows |= {name: start + i for i, name in enumerate(order)}
        own = one.values[[one.rows[name] for name in order]]
        if form == "class":
            values.append(np.array([names.index(name) for name in one.names], np.int64)[own])
        elif form == "classes":
            wide = np.zeros((len(own), len(names)), np.float32)
            wide[:, [names.index(name) for name in one.names]] = own
            values.append(wide)
        else:
            values.append(own)
    together = tuple(names if form != "vector" else labels[0].names)
    return Labelling("inside", form, together, rows, np.concatenate(values))


def read_list(path: Path) -> FileList | None:
    """Return the picture files that a text file lists; None if it is no such file.

    A line is a path, from the folder of the list or the current one, and after a tab, comma or space there
    may be a class. Lines that begin with # count for nothing.
    """
    if not path.is_file() or path.suffix.lower() not in LISTS or path.stat().st_size > MOST_LIST_BYTES:
        return None
    with path.open("rb") as stream:
        head = stream.read(4096)
    if b"\0" in head or is_picture(head):
        return None
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [_listed(path.parent, line) for line in lines]
    files = {file: label for file, label in found if _is_file(file)}
    if not files or not any(found[0][0] == file for file in files):
        return None
    missing = [(str(file), "no such file") for file, _ in found if file not in files]
    return FileList(path, files, missing)


def _listed(folder: Path, line: str) -> tuple[Path, str]:
    """Return the file that a line of a list names, and its class, if it tells one."""
    for text, label in ((line, ""), *(tuple(line.rsplit(sep, 1)) for sep in ("\t", ",", " ") if sep in line)):
        for path in (folder / text.strip(), Path(text.strip())):
            if _is_file(path):
                return path, label.strip()
    return folder / line, ""


def _is_file(path: Path) -> bool:
    """Tell whether a file is called so; not so of what can be no name of one."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def _is_picture_file(path: Path) -> bool:
    """Tell whether a path leads to one picture, which is no film."""
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    return suffix in RAW_SUFFIXES or (suffix != ".gif" and is_picture(head_of(path)))


def _common(files: Sequence[Path]) -> Path:
    """Return the folder that some files have in common."""
    if not files:
        return Path()
    return Path(os.path.commonpath([file.absolute().parent for file in files]))

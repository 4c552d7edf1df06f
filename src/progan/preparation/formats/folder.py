"""A folder of picture files, with everything below it."""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from progan.errors import DataError
from progan.preparation.pictures import (
    HEAD_BYTES,
    PICTURE_SUFFIXES,
    Candidate,
    Found,
    Listing,
    own_output,
    reason_of,
)

Identity = tuple[int, int]
"""Device and number of a folder: the same for every path that leads to it."""


def recognise(found: Found) -> Folder | None:
    """Return the reader of any folder."""
    return None if found.entries is None else Folder(found.path)


@dataclass(frozen=True)
class Folder:
    """A folder and everything below it; hidden files and folders (leading dot) are left out."""

    path: Path
    in_archive = False

    def listing(self) -> Listing:
        """Walk the folder and the folders that links lead to; each real folder is taken once.

        A link that leads to a folder above itself is not followed.
        """
        return _Walk().run(self.path)

    def open(self, name: str) -> BinaryIO:
        """Open the file called `name` below the folder."""
        return (self.path / name).open("rb")

    def read_file(self, name: str) -> bytes | None:
        """Return what a file below the folder holds; None without such a file."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None


class _Walk:
    """One pass over a folder. Links wait until all that is really there was taken, by its own name."""

    def __init__(self) -> None:
        self._listing = Listing()
        self._seen: set[Identity] = set()
        self._links: deque[tuple[Path, str, frozenset[Identity]]] = deque()

    def run(self, root: Path) -> Listing:
        self._links.append((root, "", frozenset()))
        while self._links:
            folder, prefix, above = self._links.popleft()
            self._take(folder, prefix, above | _ancestors(folder))
        return self._listing.sort()

    def _take(self, folder: Path, prefix: str, above: frozenset[Identity]) -> None:
        """List a folder and what is below it; `prefix` is what the names of its files begin with.

        `above` are the folders that it is in, in reality or by the links that led to it.
        """
        try:
            identity = _identity(folder)
            if identity in above:
                self._skip(prefix, "a symbolic link that leads back to a folder above it")
                return
            if identity in self._seen:
                self._skip(prefix, "a symbolic link to a folder whose pictures are listed already")
                return
            with os.scandir(folder) as iterator:
                # The names alone: entries keep what is asked of them, some hundred bytes each.
                names = sorted(entry.name for entry in iterator)
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder}: {reason_of(error)}") from None
            self._skip(prefix, f"the folder cannot be read: {reason_of(error)}")
            return
        self._seen.add(identity)
        above |= {identity}
        ours = own_output(folder.name, names) if prefix else None
        if ours is not None:
            self._listing.notes.append(f"{prefix} is {ours} and was left out")
            return
        for name in names:
            if not name.startswith("."):
                self._take_entry(folder, name, prefix + name, above)

    def _take_entry(self, folder: Path, entry: str, name: str, above: frozenset[Identity]) -> None:
        path = folder / entry
        try:
            status = path.stat()
        except OSError as error:
            if path.is_symlink() and PurePosixPath(name).suffix.lower() not in PICTURE_SUFFIXES:
                self._listing.ignored["broken link"] += 1
            else:
                self._skip(name, reason_of(error))
            return
        if stat.S_ISREG(status.st_mode):
            candidate = Candidate(name, status.st_size, status.st_mtime_ns)
            self._listing.admit(candidate, lambda: head_of(path))
        elif not stat.S_ISDIR(status.st_mode):
            self._skip(name, "not a regular file")
        elif path.is_symlink():
            self._links.append((path, name + "/", above))
        else:
            self._take(path, name + "/", above)

    def _skip(self, name: str, reason: str) -> None:
        self._listing.skipped.append((name, reason))


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, enough to tell a picture; nothing if it cannot be read."""
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(HEAD_BYTES)
    return b""


def _identity(folder: Path) -> Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _ancestors(folder: Path) -> frozenset[Identity]:
    """Return the folders that the real folder behind `folder` is in."""
    found = set()
    with suppress(OSError):  # of a folder that vanished, or above which nothing may be read
        for parent in folder.resolve().parents:
            found.add(_identity(parent))
    return frozenset(found)

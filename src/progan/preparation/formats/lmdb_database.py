"""A LMDB of encoded pictures, such as those of LSUN."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from progan.errors import DataError
from progan.preparation.formats.extras import elsewhere, needed
from progan.preparation.pictures import HEAD_BYTES, Candidate, Candidates, Found, Listing, is_picture

FILE = "data.mdb"
MAGIC, MAGIC_PLACE = b"\xde\xc0\xef\xbe", 16
_LEVEL = re.compile(r"(\d+)-\d+")
"""Keys of tools that keep each picture in several sizes."""


def recognise(found: Found) -> LmdbDatabase | None:
    """Return the reader of a folder with a `data.mdb`, or of such a file."""
    file = found.path / FILE if found.entries is not None and FILE in found.entries else None
    if file is None and found.head[MAGIC_PLACE : MAGIC_PLACE + 4] == MAGIC:
        file = found.path
    return None if file is None else LmdbDatabase(found.path, file)


class LmdbDatabase:
    """The values of a database that are picture files, by their keys.

    Args:
        path: What the user named.
        file: The file of the database.
    """

    in_archive = False

    def __init__(self, path: Path, file: Path) -> None:
        self.path = path
        self.file = file
        self._transaction: Any = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_transaction": None}

    def listing(self) -> Listing:
        """Go through the keys, in another process: a damaged database can end the one that reads it.

        Raises:
            DataError: if the database cannot be read.
            DependencyError: if lmdb is not installed.
        """
        needed("lmdb", "lmdb", self.path)
        entries = elsewhere(_entries, self, self.path)
        listing = Listing(entries[0])
        if entries[1]:
            listing.ignored["values"] = entries[1]
        _keep_largest(listing)
        return listing.sort()

    def open(self, name: str) -> BinaryIO:
        """Return the value of a key."""
        value = self._begin().get(_key(name))
        if value is None:
            raise OSError("it is no longer in the database")
        return io.BytesIO(value)

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return nothing: a database holds no other files."""
        return None

    def _begin(self) -> Any:
        if self._transaction is None:
            lmdb = needed("lmdb", "lmdb", self.path)
            environment = lmdb.open(
                str(self.file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False
            )
            # Reading behind the end of the file would end the process.
            need = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if need > self.file.stat().st_size:
                raise DataError(
                    f"{self.path}: is cut off: {self.file.stat().st_size} of {need} bytes; copy it again"
                )
            self._transaction = environment.begin(buffers=True)
        return self._transaction


def _entries(database: LmdbDatabase) -> tuple[Candidates, int]:
    """Return the values that are pictures, and how many others there are."""
    try:
        found, others, stamp = Candidates(), 0, database.file.stat().st_mtime_ns
        for key, value in database._begin().cursor():
            # The last byte is touched, too: one behind the end of the file ends this process and no other.
            good = is_picture(bytes(value[:HEAD_BYTES])) and bytes(value[-1:]) is not None
            if good:
                found.append(Candidate(_name(bytes(key)), len(value), stamp))
            others += not good
        return found, others
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{database.path}: cannot be read as a LMDB ({error})") from None


def _name(key: bytes) -> str:
    """Return a key as a name: as it is if it is plain text, else in hexadecimal."""
    text = key.decode("ascii", "replace")
    return (
        text
        if text.isprintable() and "\ufffd" not in text and not text.startswith("0x")
        else "0x" + key.hex()
    )


def _key(name: str) -> bytes:
    return bytes.fromhex(name[2:]) if name.startswith("0x") else name.encode()


def _level(name: str) -> str:
    """Return the size in a key that tells one; nothing if it tells none."""
    match = _LEVEL.fullmatch(name)
    return match[1] if match else ""


def _keep_largest(listing: Listing) -> None:
    """Of a database that holds each picture in several sizes keep the largest."""
    counts = Counter(map(_level, listing.candidates.names))
    if len(counts) < 2 or "" in counts:
        return
    largest = max(counts, key=int)
    listing.candidates = Candidates(item for item in listing.candidates if _level(item.name) == largest)
    left = ", ".join(sorted(set(counts) - {largest}, key=int))
    listing.notes.append(f"each picture is there in several sizes; {largest} is read, and {left} left out")

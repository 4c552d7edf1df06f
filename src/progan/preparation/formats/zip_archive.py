"""A .zip file of picture files; nothing is ever extracted to disk."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from progan.data.names import Table
from progan.errors import DataError
from progan.preparation.pictures import HEAD_BYTES, Candidate, Found, Listing, own_outputs

MAX_ZIP_RATIO = 250
"""Photographs are stored nearly uncompressed in a zip; far beyond this ratio an entry is a zip bomb."""
SMALL_ENTRY_BYTES = 1 << 20
"""Below this size a high ratio is harmless: a flat picture compresses that well."""
SMALL_TOTAL_BYTES = 1 << 30
"""The same for all entries of an archive together: some thousands of flat pictures."""
EMPTY = b"PK\5\6" + bytes(18)
"""An archive without entries."""


def recognise(found: Found) -> ZipArchive | None:
    """Return the reader of a .zip file."""
    return ZipArchive(found.path) if found.head and zipfile.is_zipfile(found.path) else None


class Entry(NamedTuple):
    """What the directory of an archive tells of an entry."""

    at: int
    size: int
    packed: int
    crc: int
    method: int
    flags: int

    def info(self, name: str) -> zipfile.ZipInfo:
        """Return it as zipfile takes it."""
        made = zipfile.ZipInfo()
        made.filename = made.orig_filename = name
        made.header_offset, made.file_size, made.compress_size = self.at, self.size, self.packed
        made.CRC, made.compress_type, made.flag_bits = self.crc, self.method, self.flags
        return made


class Directory(NamedTuple):
    """The directory of an archive.

    Attributes:
        entries: By name, those that may be opened.
        refused: Why others may not.
        originals: What an entry is called in the archive, if otherwise.
    """

    entries: Table[Entry]
    refused: dict[str, str]
    originals: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Directory:
        """Read it; raises DataError if that fails."""
        made = cls(Table[Entry](Entry), {}, {})
        try:
            archive = zipfile.ZipFile(path)
        # Damaged directories raise anything: struct.error, UnicodeDecodeError, OverflowError, ...
        except Exception as error:
            raise DataError(f"{path}: cannot be read as a .zip file ({error})") from None
        with archive:
            for info in archive.infolist():
                if info.filename and not info.is_dir() and not _is_hidden(info.filename):
                    made._take(info)
        made.entries.sort()
        return made

    def _take(self, info: zipfile.ZipInfo) -> None:
        # Some archivers of Windows write backslashes. Of entries with one name the last one counts.
        name = info.filename.replace("\\", "/")
        refusal = _refuse_entry(name, info)
        if refusal is not None:
            self.refused[name] = refusal
            return
        numbers = (info.header_offset, info.file_size, info.compress_size, info.CRC)
        self.entries.append(name, (*numbers, info.compress_type, info.flag_bits))
        if info.orig_filename != name:
            self.originals[name] = info.orig_filename


class ZipArchive:
    """A .zip file; nothing is ever extracted to disk.

    Its directory goes along to other processes, which need not read it again.

    Args:
        path: The file.
    """

    in_archive = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory: Directory | None = None
        self._opened: tuple[zipfile.ZipFile, BinaryIO] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def listing(self) -> Listing:
        """Read the directory of the archive; entries that are unsafe or encrypted are skipped.

        Raises:
            DataError: if its entries together are a zip bomb.
        """
        listing, directory = Listing(), self._read()
        listing.notes, ours = own_outputs(directory.entries.names)
        for name, entry in directory.entries.items():
            if not name.startswith(ours):
                listing.admit(Candidate(name, entry.size, entry.crc), partial(self._head, name))
        listing.skipped += [
            (name, why) for name, why in directory.refused.items() if not name.startswith(ours)
        ]
        self._refuse_bomb(listing)
        return listing.sort()

    def open(self, name: str) -> BinaryIO:
        """Read the entry called `name` (its listed size at most) into memory."""
        return io.BytesIO(self._bytes(name))

    def read_file(self, name: str) -> bytes | None:
        """Return what an entry holds; None without such an entry, or if it is unsafe."""
        return None if self._read().entries.get(name) is None else self._bytes(name)

    def _bytes(self, name: str, most: int | None = None) -> bytes:
        directory = self._read()
        entry = directory.entries.get(name)
        if entry is None:
            raise OSError("it is no longer in the archive")
        with self._archive().open(entry.info(directory.originals.get(name, name))) as stream:
            # zipfile stops at the size in the directory, which `listing` has checked.
            return stream.read(entry.size if most is None else most)

    def _head(self, name: str) -> bytes:
        """Return the first bytes of an entry; nothing if it cannot be read."""
        with suppress(Exception):  # damaged ones raise anything
            return self._bytes(name, HEAD_BYTES)
        return b""

    def _refuse_bomb(self, listing: Listing) -> None:
        size, total = self.path.stat().st_size, sum(item.size for item in listing.candidates)
        if total > max(SMALL_TOTAL_BYTES, MAX_ZIP_RATIO * size):
            raise DataError(
                f"{self.path}: suspicious compression: {size} bytes would become {total}; if they are "
                f"pictures indeed, unpack them and give the folder"
            )

    def _read(self) -> Directory:
        if self._directory is None:
            self._directory = Directory.read(self.path)
        return self._directory

    def _archive(self) -> zipfile.ZipFile:
        """Return the archive without its directory, of which zipfile would keep half a kilobyte an entry."""
        if self._opened is None:
            archive, stream = zipfile.ZipFile(io.BytesIO(EMPTY)), self.path.open("rb")
            archive.fp = stream
            self._opened = archive, stream
        return self._opened[0]

    def __del__(self) -> None:
        if self._opened is not None:
            self._opened[1].close()


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)


def _refuse_entry(name: str, info: zipfile.ZipInfo) -> str | None:
    """Return why an entry of an archive is not to be opened, or None."""
    if name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name):
        return "unsafe path in the archive (absolute, or with '..')"
    mode = info.external_attr >> 16  # 0 if the archiver writes none, as on Windows
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        return "a link or other special file in the archive"
    if info.flag_bits & 1:
        return "encrypted entry; unpack the archive with its password first"
    if info.file_size > max(SMALL_ENTRY_BYTES, MAX_ZIP_RATIO * info.compress_size):
        return f"suspicious compression: {info.compress_size} bytes would become {info.file_size}"
    return None

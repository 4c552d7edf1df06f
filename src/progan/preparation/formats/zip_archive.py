"""A .zip file of picture files; nothing is ever extracted to disk."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from progan.errors import DataError
from progan.preparation.pictures import HEAD_BYTES, Candidate, Found, Listing, own_outputs

MAX_ZIP_RATIO = 250
"""Photographs are stored nearly uncompressed in a zip; far beyond this ratio an entry is a zip bomb."""
SMALL_ENTRY_BYTES = 1 << 20
"""Below this size a high ratio is harmless: a flat picture compresses that well."""
SMALL_TOTAL_BYTES = 1 << 30
"""The same for all entries of an archive together: some thousands of flat pictures."""


def recognise(found: Found) -> ZipArchive | None:
    """Return the reader of a .zip file."""
    return ZipArchive(found.path) if found.head and zipfile.is_zipfile(found.path) else None


@dataclass(frozen=True)
class ZipArchive:
    """A .zip file; nothing is ever extracted to disk."""

    path: Path
    in_archive = True
    _opened: list[_OpenZip] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ZipArchive], tuple[Path]]:
        return ZipArchive, (self.path,)

    def listing(self) -> Listing:
        """Read the directory of the archive; entries that are unsafe or encrypted are skipped.

        Raises:
            DataError: if its entries together are a zip bomb.
        """
        listing = Listing()
        entries = self._archive().entries
        listing.notes, ours = own_outputs(entries)
        for name, info in entries.items():
            refusal = _refuse_entry(name, info)
            if name.startswith(ours):
                continue
            if refusal is None:
                candidate = Candidate(name, info.file_size, info.CRC)
                listing.admit(candidate, partial(self._head, info))
            else:
                listing.skipped.append((name, refusal))
        self._refuse_bomb(listing)
        return listing.sort()

    def open(self, name: str) -> BinaryIO:
        """Read the entry called `name` (its listed size at most) into memory."""
        archive = self._archive()
        info = archive.entries[name]
        with archive.file.open(info) as stream:
            # zipfile stops at the size in the directory, which `listing` has checked.
            return io.BytesIO(stream.read(info.file_size))

    def read_file(self, name: str) -> bytes | None:
        """Return what an entry holds; None without such an entry, or if it is unsafe."""
        info = self._archive().entries.get(name)
        if info is None or _refuse_entry(name, info) is not None:
            return None
        return self._archive().file.read(info)

    def _head(self, info: zipfile.ZipInfo) -> bytes:
        """Return the first bytes of an entry; nothing if it cannot be read."""
        with suppress(Exception), self._archive().file.open(info) as stream:  # damaged ones raise anything
            return stream.read(HEAD_BYTES)
        return b""

    def _refuse_bomb(self, listing: Listing) -> None:
        size, total = self.path.stat().st_size, sum(item.size for item in listing.candidates)
        if total > max(SMALL_TOTAL_BYTES, MAX_ZIP_RATIO * size):
            raise DataError(
                f"{self.path}: suspicious compression: {size} bytes would become {total}; if they are "
                f"pictures indeed, unpack them and give the folder"
            )

    def _archive(self) -> _OpenZip:
        if not self._opened:
            self._opened.append(_OpenZip(self.path))
        return self._opened[0]


class _OpenZip:
    """An open archive and its entries by name; one for each process."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = zipfile.ZipFile(path)
        # Damaged directories raise anything: struct.error, UnicodeDecodeError, OverflowError, ...
        except Exception as error:
            raise DataError(f"{path}: cannot be read as a .zip file ({error})") from None
        # Some archivers of Windows write backslashes. Of entries with one name the last one counts.
        self.entries = {
            info.filename.replace("\\", "/"): info
            for info in self.file.infolist()
            if info.filename and not info.is_dir() and not _is_hidden(info.filename)
        }

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


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

"""Where pictures come from: a folder or a .zip, listed in a stable order and opened by name.

Listing decides by name and size alone which files are candidates; nothing is decoded here. A `Source` holds
only its path, so it can be sent to a worker process, which opens the files for itself.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import zipfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from progan.errors import DataError

Identity = tuple[int, int]
"""Device and number of a folder: the same for every path that leads to it."""

PICTURE_SUFFIXES = frozenset(
    {
        ".apng",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpf",
        ".jpg",
        ".jpx",
        ".mpo",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".qoi",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    }
)
UNSUPPORTED_SUFFIXES = frozenset(
    {
        ".ai",
        ".arw",
        ".cr2",
        ".cr3",
        ".dng",
        ".emf",
        ".eps",
        ".exr",
        ".hdr",
        ".heic",
        ".heif",
        ".ico",
        ".jxl",
        ".nef",
        ".orf",
        ".pcx",
        ".psd",
        ".raf",
        ".raw",
        ".svg",
        ".wmf",
        ".xcf",
    }
)
MAX_FILE_BYTES = 1 << 30
MAX_ZIP_RATIO = 250
"""Photographs are stored nearly uncompressed in a zip; far beyond this ratio an entry is a zip bomb."""
SMALL_ENTRY_BYTES = 1 << 20
"""Below this size a high ratio is harmless: a flat picture compresses that well."""
SMALL_TOTAL_BYTES = 1 << 30
"""The same for all entries of an archive together: some thousands of flat pictures."""


@dataclass(frozen=True)
class Candidate:
    """A file that looks like a picture: its name, its size, and a stamp that changes with its content."""

    name: str
    size: int
    stamp: int


@dataclass
class Listing:
    """What a source holds.

    Attributes:
        candidates: Files to be decoded, sorted by name.
        skipped: (name, reason) of pictures that cannot be used, known without opening them.
        ignored: Other files by suffix; they are not errors.
    """

    candidates: list[Candidate] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def digest(self) -> str:
        """Return a hash over the names, sizes and stamps of the candidates."""
        state = hashlib.sha256()
        for item in self.candidates:
            state.update(encode_name(item.name) + b"\0%d\0%d\n" % (item.size, item.stamp))
        return state.hexdigest()

    def sort(self) -> Listing:
        """Put everything in order of name (by code point, the same on every machine)."""
        self.candidates.sort(key=lambda item: item.name)
        self.skipped.sort()
        return self

    def admit(self, candidate: Candidate) -> None:
        """Take a file as a candidate, skip it with a reason, or count it as ignored."""
        suffix = PurePosixPath(candidate.name).suffix.lower()
        if suffix in UNSUPPORTED_SUFFIXES:
            self.skipped.append((candidate.name, f"{suffix} files are not supported; convert to PNG or JPEG"))
        elif suffix not in PICTURE_SUFFIXES:
            self.ignored[suffix or "no suffix"] += 1
        elif candidate.size == 0:
            self.skipped.append((candidate.name, "the file is empty (0 bytes)"))
        elif candidate.size > MAX_FILE_BYTES:
            self.skipped.append((candidate.name, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB"))
        else:
            self.candidates.append(candidate)


class Source(Protocol):
    """Pictures by name; names are relative and use `/` on every system."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    def listing(self) -> Listing:
        """Return what the source holds; raises DataError if it cannot be read at all."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open one candidate for reading; raises OSError (or zipfile's errors) if that fails."""
        ...


def open_source(path: Path) -> Source:
    """Return the source at `path`, a folder or a .zip file.

    Raises:
        DataError: if there is nothing at `path`, or it is neither.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"{path}: {_why(error)}; give a folder of pictures or a .zip file") from None
    if stat.S_ISDIR(mode):
        return FolderSource(path)
    if stat.S_ISREG(mode) and zipfile.is_zipfile(path):
        return ZipSource(path)
    kind = "a damaged .zip file" if path.suffix.lower() == ".zip" else "neither a folder nor a .zip file"
    raise DataError(f"{path}: is {kind}; give a folder of pictures or a .zip of them")


@dataclass(frozen=True)
class FolderSource:
    """A folder and everything below it; hidden files and folders (leading dot) are left out."""

    path: Path

    def listing(self) -> Listing:
        """Walk the folder and the folders that links lead to; each real folder is taken once.

        A link that leads to a folder above itself is not followed.
        """
        return _Walk().run(self.path)

    def open(self, name: str) -> BinaryIO:
        """Open the file called `name` below the folder."""
        return (self.path / name).open("rb")


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
        """List a folder and what is below it.

        Args:
            folder: The folder.
            prefix: What the names of its files begin with.
            above: The folders that it is in, in reality or by the links that led to it.
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
                entries = sorted(iterator, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder}: {_why(error)}") from None
            self._skip(prefix, f"the folder cannot be read: {_why(error)}")
            return
        self._seen.add(identity)
        above |= {identity}
        for entry in entries:
            if not entry.name.startswith("."):
                self._take_entry(folder, entry, prefix + entry.name, above)

    def _take_entry(
        self, folder: Path, entry: os.DirEntry[str], name: str, above: frozenset[Identity]
    ) -> None:
        try:
            status = entry.stat()
        except OSError as error:
            if entry.is_symlink() and PurePosixPath(name).suffix.lower() not in PICTURE_SUFFIXES:
                self._listing.ignored["broken link"] += 1
            else:
                self._skip(name, _why(error))
            return
        if stat.S_ISREG(status.st_mode):
            self._listing.admit(Candidate(name, status.st_size, status.st_mtime_ns))
        elif not stat.S_ISDIR(status.st_mode):
            self._skip(name, "not a regular file")
        elif entry.is_symlink():
            self._links.append((folder / entry.name, name + "/", above))
        else:
            self._take(folder / entry.name, name + "/", above)

    def _skip(self, name: str, reason: str) -> None:
        self._listing.skipped.append((name, reason))


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


@dataclass(frozen=True)
class ZipSource:
    """A .zip file; nothing is ever extracted to disk."""

    path: Path
    _opened: list[_OpenZip] = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_opened": []}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    def listing(self) -> Listing:
        """Read the directory of the archive; entries that are unsafe or encrypted are skipped.

        Raises:
            DataError: if its entries together are a zip bomb.
        """
        listing = Listing()
        for name, info in self._archive().entries.items():
            refusal = _refuse_entry(name, info)
            if refusal is None:
                listing.admit(Candidate(name, info.file_size, info.CRC))
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


def encode_name(name: str) -> bytes:
    """Return the bytes of a file name, also of one that is not valid Unicode."""
    return name.encode("utf-8", "surrogatepass")


def describe_ignored(ignored: Counter[str]) -> str:
    """Write ignored files as `12 .txt, 3 .json`, the most frequent first."""
    return ", ".join(f"{count} {suffix}" for suffix, count in _most_common(ignored))


def _most_common(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    return iter(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5])


def _why(error: OSError) -> str:
    """Return the reason of a system error in lower-case words, without its number and path."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]

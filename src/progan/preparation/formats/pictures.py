"""What every reader of pictures answers: what it holds, in a stable order, and each picture by its name.

Listing decides by name and size alone which files are candidates; nothing is decoded here. A reader holds
only its path, so it can be sent to a worker process, which opens the files for itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(f".{suffix}" for suffix in text.split())


PICTURE_SUFFIXES = _suffixes(
    "apng avif bmp dib gif j2k jfif jp2 jpe jpeg jpf jpg jpx mpo pbm pgm png pnm ppm qoi tga tif tiff webp"
)
UNSUPPORTED_SUFFIXES = _suffixes(
    "ai arw cr2 cr3 dng emf eps exr hdr heic heif ico jxl nef orf pcx psd raf raw svg wmf xcf"
)
MAX_FILE_BYTES = 1 << 30


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


class Pictures(Protocol):
    """Pictures by name; names are relative and use `/` on every system."""

    @property
    def path(self) -> Path:
        """Where they are."""
        ...

    @property
    def in_archive(self) -> bool:
        """Whether a folder around all of them is only the archive's own."""
        ...

    def listing(self) -> Listing:
        """Return what there is; raises DataError if it cannot be read at all."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open one candidate for reading; raises OSError (or zipfile's errors) if that fails."""
        ...


def encode_name(name: str) -> bytes:
    """Return the bytes of a file name, also of one that is not valid Unicode."""
    return name.encode("utf-8", "surrogatepass")


def describe_ignored(ignored: Counter[str]) -> str:
    """Write ignored files as `12 .txt, 3 .json`, the most frequent first."""
    most = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))[:5]
    return ", ".join(f"{count} {suffix}" for suffix, count in most)


def reason_of(error: OSError) -> str:
    """Return the reason of a system error in lower-case words, without its number and path."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]

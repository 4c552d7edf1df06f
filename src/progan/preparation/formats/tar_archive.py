"""A `.tar` file of picture files, also compressed, with the members that WebDataset puts beside a picture."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from progan.data.names import Table
from progan.errors import DataError
from progan.preparation.labels.class_lists import LABEL_COLUMNS
from progan.preparation.labels.json_labels import Label, label_of, number_labels
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.pictures import HEAD_BYTES, Candidate, Found, Labelling, Listing, own_outputs
from progan.system.spool import PIECE, spool

COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
MAGIC, MAGIC_PLACE = b"ustar", 257
MOST_LABEL_BYTES = 1 << 16
"""Of a member that holds the label of one picture."""


class Member(NamedTuple):
    """Where the bytes of a member are, how many, and a stamp that changes with them."""

    at: int
    length: int
    stamp: int


def recognise(found: Found) -> TarArchive | None:
    """Return the reader of a tar file, compressed or not."""
    if found.head[MAGIC_PLACE : MAGIC_PLACE + len(MAGIC)] == MAGIC:
        return TarArchive(found.path, None)
    for magic, reader in COMPRESSED.items():
        if found.head.startswith(magic) and _is_tar(found.path, reader):
            return TarArchive(found.path, reader)
    return None


class TarArchive:
    """A tar file; nothing of it is extracted, but a compressed one is uncompressed into a temporary file.

    Args:
        path: The file.
        uncompressed: Opens it as it was before it was compressed; None if it is not.
    """

    in_archive = True

    def __init__(self, path: Path, uncompressed: Callable[[Path], Any] | None) -> None:
        self.path = path
        self._uncompressed = uncompressed
        self._plain = path if uncompressed is None else None
        self._members = Table[Member](Member)

    def listing(self) -> Listing:
        """Read the headers of all members.

        Raises:
            DataError: if the file is damaged before its first member, or compressed beyond measure.
        """
        listing, self._members, refused = Listing(), Table[Member](Member), dict[str, str]()
        try:
            with tarfile.open(self._whole(), "r:") as archive:
                for member in archive:
                    self._note(member, refused)
                    archive.members = []  # type: ignore[attr-defined] # it would keep all of them
                end = self._end(archive.offset)
        except DataError:
            raise
        except Exception as error:  # damaged headers raise anything
            if not self._members:
                raise DataError(f"{self.path}: cannot be read as a tar file ({error})") from None
            end = ""
            listing.skipped.append(
                (self.path.name, f"the archive is damaged after its first pictures: {error}")
            )
        last = self._members.names[-1] if self._members else "nothing"
        self._members.sort()
        listing.notes, ours = own_outputs(self._members.names)
        if end:
            listing.notes.append(f"{self.path.name} {end}: what is read of it ends with {last}")
        size = self._whole().stat().st_size
        for name, (place, length, stamp) in self._members.items():
            if name.startswith(ours):
                continue
            if place + length > size:
                listing.skipped.append((name, "the archive is cut off within it"))
            else:
                listing.admit(Candidate(name, length, stamp), lambda: self._bytes(name, HEAD_BYTES))  # noqa: B023
        listing.skipped.extend(refused.items())
        listing.sort()
        listing.labels = self._labels(listing)
        return listing

    def _end(self, place: int) -> str:
        """Tell what is wrong with the end of the archive, which zeros mark; nothing if it is right."""
        with self._whole().open("rb") as stream:
            stream.seek(place)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                return "has no end, so it may be cut off"
            while piece := stream.read(PIECE):
                if piece.strip(b"\0"):
                    return "goes on after its end, as if another archive was appended"
        return ""

    def _note(self, member: tarfile.TarInfo, refused: dict[str, str]) -> None:
        name = member.name.removeprefix("./")
        hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
        if member.isdir() or hidden or not name:
            return
        if name.startswith("/") or ".." in name.split("/"):
            refused[name] = "unsafe path in the archive (absolute, or with '..')"
        elif not member.isreg() or member.issparse():
            refused[name] = "a link or other special file in the archive"
        else:
            stamp = hash((member.offset_data, int(member.mtime)))
            self._members.append(name, Member(member.offset_data, member.size, stamp))

    def open(self, name: str) -> BinaryIO:
        """Read a member into memory."""
        return io.BytesIO(self._bytes(name))

    def read_file(self, name: str) -> bytes | None:
        """Return what a member holds; None without such a member."""
        return None if self._members.get(name) is None else self._bytes(name)

    def _bytes(self, name: str, most: int | None = None) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise OSError("it is no longer in the archive")
        with self._whole().open("rb") as stream:
            stream.seek(member.at)
            return stream.read(member.length if most is None else min(member.length, most))

    def _whole(self) -> Path:
        """Return the file, or the temporary one of what it was before it was compressed."""
        if self._plain is None or not self._plain.exists():
            assert self._uncompressed is not None
            try:
                with self._uncompressed(self.path) as stream:
                    self._plain = spool(self, cast(BinaryIO, stream), self.path)
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
                raise DataError(f"{self.path}: is cut off or damaged ({error}); copy it again") from None
        return self._plain

    def _labels(self, listing: Listing) -> Labelling | None:
        """Return the labels that WebDataset keeps in members with the name of a picture, .cls or .json."""
        labels: dict[str, Label] = {}
        for candidate in listing.candidates:
            folder, slash, name = candidate.name.rpartition("/")
            key = folder + slash + name.partition(".")[0]
            label = self._label(f"{key}.cls") or self._label(f"{key}.json")
            if label is not None:
                labels[candidate.name] = label
        if not labels:
            return None
        made = number_labels(str(self.path), labels, None)
        return Labelling("inside", made.form, made.names, made.rows, made.values)

    def _label(self, name: str) -> Label | None:
        member = self._members.get(name)
        if member is None or member.length >= MOST_LABEL_BYTES:
            return None
        text = self._bytes(name)
        try:
            value = json.loads(text) if name.endswith(".json") else text.decode().strip()
        except (ValueError, RecursionError):
            return None
        if isinstance(value, dict):
            value = next((value[one] for one in LABEL_COLUMNS if one in value), None)
        return None if value is None else label_of(LabelFile(str(self.path), b""), name, value)


def _is_tar(path: Path, uncompressed: Callable[[Path], Any]) -> bool:
    """Tell whether a compressed file is one of a tar file."""
    try:
        with uncompressed(path) as stream:
            return bool(stream.read(MAGIC_PLACE + len(MAGIC))[MAGIC_PLACE:] == MAGIC)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False

"""What every reader of pictures answers: what it holds, in a stable order, and each picture by its name.

Listing decides by name and size alone which files are candidates; nothing is decoded here. A reader holds
only its path, so it can be sent to a worker process, which opens the files for itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, overload

from progan.config import LabelForm, PictureOptions
from progan.data.names import Names, Table
from progan.data.packed import Labels

if TYPE_CHECKING:
    from progan.preparation.decoding import Header


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(f".{suffix}" for suffix in text.split())


RAW_SUFFIXES = _suffixes("arw cr2 cr3 crw dng erf kdc mef mos mrw nef nrw orf pef raf raw rw2 srw x3f")
"""Files of cameras: what the sensor saw, not yet a picture. Only their names tell them."""
PICTURE_SUFFIXES = RAW_SUFFIXES | _suffixes(
    "apng avif bmp dib gif heic heif hif j2k jfif jp2 jpe jpeg jpf jpg jpx mpo pbm pgm png pnm ppm qoi tga "
    "tif tiff webp"
)
UNSUPPORTED_SUFFIXES = _suffixes("ai emf eps exr hdr ico jxl pcx psd svg wmf xcf")
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
MAX_FILE_BYTES = 1 << 30
SHOWN = 3
"""How many names a message lists before it only counts."""
HEAD_BYTES = 32
"""So many first bytes of a file tell whether it is a picture."""
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif",
    b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
CONFIG = "config.yaml"
RUN_FILES = frozenset({"stats.jsonl", "checkpoints", "dataset.json"})
EXPORTED = frozenset({"generator.safetensors", "model.safetensors"})
FIRST_LEVEL = "level_0_"
OWN_NAMES = RUN_FILES | EXPORTED | {CONFIG}
"""By what is in them folders are told that this program wrote."""


@dataclass(frozen=True)
class Labelling:
    """Labels of the pictures that have one.

    Attributes:
        kind: 'folders', 'file' or 'inside', where they come from.
        form: What a label is.
        names: Names of the classes or entries.
        rows: Where the label of a picture is in `values`.
        values: Class numbers [n] int64; of the forms 'classes' and 'vector', [n, len(names)] float32.
    """

    kind: str
    form: LabelForm
    names: tuple[str, ...]
    rows: dict[str, int]
    values: Labels

    def say(self) -> str:
        """Tell in a few words what they are."""
        what = {"class": "classes", "classes": "classes, several a picture", "vector": "numbers a picture"}
        return f"{len(self.names):,} {what[self.form]}"


class Candidate(NamedTuple):
    """A file that looks like a picture: its name, its size, and a stamp that changes with its content."""

    name: str
    size: int
    stamp: int


class _Facts(NamedTuple):
    size: int
    stamp: int


class Candidates(Sequence[Candidate]):
    """Files that look like pictures, a great many of them in little memory: 24 bytes each and their names.

    Args:
        items: What it holds at first.
    """

    def __init__(self, items: Iterable[Candidate] = ()) -> None:
        self._table = Table[_Facts](_Facts)
        for item in items:
            self.append(item)

    @property
    def names(self) -> Names:
        """What they are called."""
        return self._table.names

    def append(self, item: Candidate) -> None:
        """Add a file."""
        self._table.append(item.name, (item.size, item.stamp))

    def sort(self) -> None:
        """Put them in order of name, by code point."""
        self._table.sort()

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Candidate]:
        return (Candidate(name, size, stamp) for name, (size, stamp) in self._table.items())

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> list[Candidate]: ...
    def __getitem__(self, place: int | slice) -> Candidate | list[Candidate]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return Candidate(self.names[place], *self._table.at(place))


@dataclass
class Listing:
    """What a source holds.

    Attributes:
        candidates: Files to be decoded, sorted by name.
        skipped: (name, reason) of pictures that cannot be used, known without opening them.
        ignored: Other files by suffix; they are not errors.
        labels: Those that the source itself brings, None if it has none.
        depth: How many folders in the names of the candidates were not there, but name a source.
        ordered: Whether the pictures have no names but numbers, in the order of the candidates.
        notes: What was decided about the source or left out of it, a sentence each.
        header: That of every candidate, where the source knows it; the pictures are not looked at then.
        slow: Whether a picture takes seconds, so that each is worth a message between processes.
    """

    candidates: Candidates = field(default_factory=Candidates)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    labels: Labelling | None = None
    ordered: bool = False
    depth: int = 0
    notes: list[str] = field(default_factory=list)
    header: Header | None = None
    slow: bool = False

    def digest(self) -> str:
        """Return a hash over the names, sizes and stamps of the candidates."""
        state = hashlib.sha256()
        for item in self.candidates:
            state.update(encode_name(item.name) + b"\0%d\0%d\n" % (item.size, item.stamp))
        return state.hexdigest()

    def sort(self) -> Listing:
        """Put everything in order of name (by code point, the same on every machine)."""
        self.candidates.sort()
        self.skipped.sort()
        return self

    def admit(self, candidate: Candidate, head: Callable[[], bytes]) -> None:
        """Take a file as a candidate, skip it with a reason, or count it as ignored.

        Args:
            candidate: The file.
            head: Reads its first `HEAD_BYTES`; called only where the name does not tell.
        """
        suffix = PurePosixPath(candidate.name).suffix.lower()
        if suffix in UNSUPPORTED_SUFFIXES:
            self.skipped.append((candidate.name, f"{suffix} files are not supported; convert to PNG or JPEG"))
        elif suffix not in PICTURE_SUFFIXES and not is_picture(head()):
            self.ignored[suffix or "no suffix"] += 1
        elif candidate.size == 0:
            self.skipped.append((candidate.name, "the file is empty (0 bytes)"))
        elif candidate.size > MAX_FILE_BYTES:
            self.skipped.append((candidate.name, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB"))
        else:
            self.candidates.append(candidate)


class Found(NamedTuple):
    """What can be known of a place at a glance.

    Attributes:
        path: The file or folder.
        key: Which of the things in it is meant, if that was said.
        head: The first bytes of a file.
        entries: The names in a folder, of a very large one some; None for a file.
        options: How the pictures are to be taken.
    """

    path: Path
    key: str
    head: bytes
    entries: frozenset[str] | None
    options: PictureOptions

    def holds(self, *endings: str) -> list[Path]:
        """Return the files of a folder with one of some endings, in order of name."""
        names = sorted(self.entries or ())
        return [self.path / name for name in names if name.lower().endswith(endings) and name[0] != "."]


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
        """Open one candidate for reading: a picture file, or an array [H, W] or [H, W, C] as a `.npy` file.

        Raises:
            OSError: or an error of the archive or library, if that fails.
        """
        ...

    def read_file(self, name: str) -> bytes | None:
        """Return what a file beside the pictures holds, such as labels; None without such a file."""
        ...


def is_picture(head: bytes) -> bool:
    """Tell from the first bytes of a file whether it is a picture in a format that is read."""
    if head.startswith(b"BM"):
        return head[14:18] in {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis") or is_heif(head)
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"):
        return head[2:3].isspace() and head[3:4] in b"#0123456789"
    return head.startswith(_SIGNATURES)


def is_heif(head: bytes) -> bool:
    """Tell from the first bytes of a file whether it is HEIC (HEIF with HEVC), as telephones write it."""
    brands = {head[i : i + 4] for i in range(16, min(len(head), int.from_bytes(head[:4], "big")), 4)}
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and not brands & {b"avif", b"avis"}


def own_output(name: str, entries: Collection[str]) -> str | None:
    """Tell what a folder is that this program wrote, whose pictures are nothing to learn from; else None.

    Args:
        name: What the folder is called.
        entries: The names of what is in it.
    """
    if CONFIG in entries and not RUN_FILES.isdisjoint(entries):
        return "a run"
    if any(entry.startswith(FIRST_LEVEL) and entry.endswith((".u8", ".u16")) for entry in entries):
        return "an unfinished packed set" if name.endswith(".partial") else "a packed set"
    if not EXPORTED.isdisjoint(entries):
        return "an exported generator"
    return None


def own_outputs(names: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Find the folders of an archive that this program wrote.

    Args:
        names: The files of the archive.

    Returns:
        A sentence for each, and what the names of their files begin with.
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        for i, part in enumerate(parts[1:], 1):
            if part in OWN_NAMES or part.startswith(FIRST_LEVEL):
                folders.setdefault("/".join(parts[:i]), set()).add(part)
    found = {one: ours for one, inside in folders.items() if (ours := own_output(one, inside)) is not None}
    tops = sorted(one for one in found if not any(one.startswith(other + "/") for other in found))
    return [f"{one}/ is {found[one]} and was left out" for one in tops], tuple(f"{one}/" for one in tops)


def first_few(names: Sequence[str]) -> str:
    """Write the first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


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

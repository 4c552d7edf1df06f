"""CelebA-HQ: made of CelebA and the published differences, or taken ready with its count and size checked.

The facts are those of `create_celebahq` in dataset_tool.py of the original code: 30,000 of the 202,599
photographs of CelebA are aligned by their landmarks, and to each a difference is added that is encrypted with
the photograph as its key. MD5 sums of both steps are published with the differences.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.config import PictureOptions
from progan.errors import DataError
from progan.preparation.decoding import Header, scan
from progan.preparation.formats.arrays import array_stream
from progan.preparation.formats.extras import needed
from progan.preparation.picture.face_alignment import LANDMARKS, align_face
from progan.preparation.pictures import Candidate, Listing, Pictures, reason_of
from progan.preparation.several import gather

NAME = "celeba-hq"
"""What `progan prepare` calls it, in the place of the first source."""
EXTRA = "celeba-hq"
LIST = "image_list.txt"
FILE = re.compile(r"\d+\.jpg")
COLUMNS = ("idx", "orig_idx", "orig_file", "proc_md5", "final_md5")
SIDES = (64, 128, 256, 512, 1024)
"""In which CelebA-HQ is passed on."""
FARTHEST = 1e6
"""A landmark lies in a picture, or a little outside."""
ROUNDS = 100_000
"""Of the derivation of a key."""
ROUNDING = 16
"""Decoders and resamplers that differ in rounding differ by less."""


class Facts(NamedTuple):
    """What CelebA-HQ is made of.

    Attributes:
        pictures: Its pictures.
        photographs: Those of CelebA.
        side: Of the pictures that are made.
        archive: Differences in an archive.
        sides: Sides that ready pictures may have.
    """

    pictures: int = 30_000
    photographs: int = 202_599
    side: int = 1024
    archive: int = 1000
    sides: Sequence[int] = SIDES


class Entry(NamedTuple):
    """A line of `image_list.txt`."""

    number: int
    photograph: int
    file: str
    aligned_md5: str
    final_md5: str


def open_celeba_hq(
    places: Sequence[str],
    options: PictureOptions,
    facts: Facts = Facts(),  # noqa: B008 - frozen
) -> Pictures:
    """Return the reader of CelebA-HQ.

    Args:
        places: The folders of CelebA and of the differences, in any order; or one place of ready pictures.
        options: How a reader is to take what it finds.
        facts: What to expect.

    Raises:
        DataError: if something is missing, or is of another count or size.
        DependencyError: if what the differences need is not installed.
    """
    deltas = [Path(place) for place in places if (Path(place) / LIST).is_file()]
    if len(places) == 1 and not deltas:
        return ReadyMade(_ready(Path(places[0]), places[0], options), facts)
    if len(places) != 2 or len(deltas) != 1:
        raise DataError(
            f"{NAME}: give the folder of CelebA and that of the differences (with {LIST}), or one place of "
            f"ready pictures: progan prepare {NAME} CELEBA DELTAS DESTINATION"
        )
    celeba = next(Path(place) for place in places if Path(place) != deltas[0])
    return MadeOfCelebA(celeba, deltas[0], facts)


def _ready(path: Path, place: str, options: PictureOptions) -> Pictures:
    """Return the reader of ready pictures; of CelebAMask-HQ, of its pictures without the masks."""
    inner = path / "CelebA-HQ-img"
    return gather([str(inner) if inner.is_dir() else place], options)


class ReadyMade:
    """Ready pictures, whose count and size are those of CelebA-HQ.

    Args:
        pictures: Where they are.
        facts: What to expect.
    """

    def __init__(self, pictures: Pictures, facts: Facts) -> None:
        self.path = pictures.path
        self.in_archive = pictures.in_archive
        self._pictures = pictures
        self._facts = facts

    def listing(self) -> Listing:
        """List the pictures; some of them, from all parts, are looked at.

        Raises:
            DataError: if there are more or fewer than there should be, or a size is another.
        """
        listing = self._pictures.listing()
        count = len(listing.candidates)
        if count != self._facts.pictures:
            why = "the download is not complete" if count < self._facts.pictures else "there are others, too"
            raise DataError(
                f"{self.path}: holds {count:,} pictures, and CelebA-HQ has {self._facts.pictures:,}: {why}"
            )
        sizes = {self._size(item.name) for item in listing.candidates[:: max(1, count // 30)]}
        (height, width), *others = sorted(sizes)
        if others or height != width or height not in self._facts.sides:
            held = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:3])
            raise DataError(
                f"{self.path}: has pictures of {held}; CelebA-HQ is passed on in one size, square, of "
                f"{', '.join(map(str, self._facts.sides))}"
            )
        listing.notes.append(f"CelebA-HQ: {count:,} pictures of {width}x{height}, as there should be")
        return listing

    def _size(self, name: str) -> tuple[int, int]:
        header = scan(self._pictures, name)
        if isinstance(header, str):
            raise DataError(f"{self.path}: {name}: {header}")
        return header.height, header.width

    def open(self, name: str) -> BinaryIO:
        """Open a picture."""
        return self._pictures.open(name)

    def read_file(self, name: str) -> bytes | None:
        """Return what a file beside the pictures holds; None without such a file."""
        return self._pictures.read_file(name)


class MadeOfCelebA:
    """Pictures that are made when they are opened, which takes seconds each.

    The first is made before all others, and tells whether the libraries of this machine give the bits that
    the differences were taken from (MD5). If so, every picture must have its sums; if not, all differ by
    rounding from those of the paper, which is said.

    Args:
        celeba: The folder of CelebA, with `img_celeba` and `list_landmarks_celeba.txt`.
        deltas: The folder of the differences.
        facts: What to expect.
    """

    in_archive = False

    def __init__(self, celeba: Path, deltas: Path, facts: Facts) -> None:
        self.path = deltas
        self._facts = facts
        self._photographs = _found(celeba, "img_celeba")
        self._landmarks_file = _found(celeba, "list_landmarks_celeba.txt")
        self._exact = True
        self._entries: dict[str, Entry] = {}
        self._landmarks: dict[str, NDArray[np.float32]] = {}

    def listing(self) -> Listing:
        """Check what is there, and make the first picture.

        Raises:
            DataError: if files are missing, of another number, or not those of CelebA.
            DependencyError: if what decrypts the differences, or SciPy, is not installed.
        """
        needed("cryptography.fernet", EXTRA, self.path)
        needed("scipy.ndimage", EXTRA, self.path)
        self._check_counts()
        entries = read_image_list(self.path / LIST, self._facts.pictures)
        landmarks = read_landmarks(self._landmarks_file, self._facts.photographs)
        if not all(0 <= entry.photograph < len(landmarks) for entry in entries):
            raise DataError(f"{self.path / LIST}: names a photograph that CelebA does not have")
        self._entries = {f"{entry.number:05d}": entry for entry in entries}
        self._landmarks = {entry.file: landmarks[entry.photograph] for entry in entries}
        side = self._facts.side
        listing = Listing(header=Header(side, side, True, False, False), slow=True)
        for name, entry in self._entries.items():
            try:
                status = (self._photographs / entry.file).stat()
            except OSError as error:
                raise DataError(f"{self._photographs / entry.file}: {reason_of(error)}") from None
            listing.candidates.append(Candidate(name, status.st_size, status.st_mtime_ns))
        listing.notes.append(self._try(next(iter(self._entries))))
        return listing.sort()

    def _check_counts(self) -> None:
        photographs = sum(1 for _ in self._photographs.glob("*.jpg"))
        if photographs != self._facts.photographs:
            raise DataError(
                f"{self._photographs}: holds {photographs:,} .jpg files, and CelebA has "
                f"{self._facts.photographs:,}; take the photographs as they are (in the wild), not aligned"
            )
        archives = -(-self._facts.pictures // self._facts.archive)
        there = sum(1 for _ in self.path.glob("delta*.zip"))
        if there != archives:
            raise DataError(f"{self.path}: holds {there} of {archives} archives deltas00000.zip, ...")

    def _try(self, name: str) -> str:
        """Make one picture, and find out whether all will be those of the paper, bit for bit."""
        entry = self._entries[name]
        try:
            aligned = self._aligned(entry)
            delta = self._delta(entry)
        except OSError as error:
            raise DataError(f"{entry.file}: {error}") from None
        self._exact = _md5(aligned) == entry.aligned_md5
        if not self._exact:
            return (
                "CelebA-HQ: not to the bit that of the paper (by MD5), because the differences belong to "
                "Pillow 3.1.1 and libjpeg 8d: pixels differ by rounding"
            )
        if _md5(aligned + delta) != entry.final_md5:
            raise DataError(f"{self.path}: the difference of {entry.file} is another than {LIST} says (MD5)")
        return "CelebA-HQ: that of the paper, bit for bit (every picture is compared with its MD5)"

    def open(self, name: str) -> BinaryIO:
        """Make a picture; raises OSError if it is not what it should be."""
        entry = self._entries[name]
        aligned, delta = self._aligned(entry), self._delta(entry)
        if not self._exact:
            return array_stream(nearest_sum(aligned, delta).transpose(1, 2, 0))
        made = aligned + delta  # modulo 256
        for pixels, known, what in (
            (aligned, entry.aligned_md5, "aligned"), (made, entry.final_md5, "finished"),
        ):  # fmt: skip
            if _md5(pixels) != known:
                raise OSError(f"the {what} picture has another MD5 than {LIST} says")
        return array_stream(made.transpose(1, 2, 0))

    def read_file(self, name: str) -> bytes | None:
        """Return what a file beside the differences holds; None without such a file."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def _aligned(self, entry: Entry) -> NDArray[np.uint8]:
        with Image.open(self._photographs / entry.file, formats=["JPEG"]) as image:
            return align_face(image.convert("RGB"), self._landmarks[entry.file], self._facts.side)

    def _delta(self, entry: Entry) -> NDArray[np.uint8]:
        """Return the difference [3, side, side] of a picture.

        Raises:
            OSError: if it is not there, or belongs to another photograph.
        """
        first = entry.number - entry.number % self._facts.archive
        with zipfile.ZipFile(self.path / f"deltas{first:05d}.zip") as archive:
            encrypted = archive.read(f"delta{entry.number:05d}.dat")
        data = decrypted(encrypted, entry.file, (self._photographs / entry.file).read_bytes())
        side = self._facts.side
        if len(data) != 3 * side * side:
            raise OSError(f"its difference has {len(data):,} bytes instead of {3 * side * side:,}")
        return np.frombuffer(data, np.uint8).reshape(3, side, side)


def nearest_sum(aligned: NDArray[np.uint8], delta: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the sum modulo 256 of what differs by rounding from what the difference was taken from.

    Near black and white rounding may lead over the edge, from 255 to 0. A sum that may have done so is taken
    as black or white if that is nearer to the aligned picture.

    Args:
        aligned: uint8 of any shape.
        delta: As `aligned`.
    """
    made = aligned + delta
    before, after = aligned.astype(np.int16), made.astype(np.int16)
    change = np.abs(after - before)
    white = (after < ROUNDING) & (255 - before < change)
    black = (after > 255 - ROUNDING) & (before < change)
    return np.where(white, np.uint8(255), np.where(black, np.uint8(0), made))


def decrypted(data: bytes, file: str, photograph: bytes) -> bytes:
    """Return what was encrypted with a photograph as the key (PBKDF2, Fernet), uncompressed (bzip2).

    Raises:
        OSError: if it is damaged, or the photograph is another.
    """
    fernet = needed("cryptography.fernet", EXTRA, Path(file))
    key = hashlib.pbkdf2_hmac("sha256", photograph, file.encode("ascii", "replace"), ROUNDS, 32)
    try:
        packed = fernet.Fernet(base64.urlsafe_b64encode(key)).decrypt(data)
    except fernet.InvalidToken:
        raise OSError("its difference is damaged, or the photograph is not that of CelebA") from None
    # Damaged data that passes the check above was made so; its size is bounded by what is asked of it.
    return bz2.BZ2File(io.BytesIO(packed)).read(MOST)


MOST = 3 * 1024 * 1024 + 1
"""Bytes of a difference, and one more, so that a longer one shows."""


def _md5(pixels: NDArray[np.uint8]) -> str:
    return hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest()


def _found(folder: Path, name: str) -> Path:
    """Return a file or folder of CelebA, which stands in one of its folders (`Img`, `Anno`) or by itself."""
    for place in (folder / name, *sorted(folder.glob(f"*/{name}"))):
        if place.exists():
            return place
    raise DataError(
        f"{folder}: has no {name}; CelebA has img_celeba.7z, which is to be unpacked, and "
        f"Anno/list_landmarks_celeba.txt"
    )


def read_image_list(path: Path, count: int) -> list[Entry]:
    """Read `image_list.txt`.

    Raises:
        DataError: if it is another file.
    """
    head, *rows = _lines(path) or [[]]
    if not set(COLUMNS) <= set(head):
        raise DataError(f"{path}: has no columns {', '.join(COLUMNS)}")
    places = [head.index(column) for column in COLUMNS]
    try:
        entries = [
            Entry(int(values[0]), int(values[1]), values[2], values[3], values[4])
            for values in ([row[place] for place in places] for row in rows)
        ]
    except (ValueError, IndexError):
        raise DataError(f"{path}: a line has too few values, or none that are numbers") from None
    numbers = sorted(entry.number for entry in entries)
    if numbers != list(range(count)) or any(not FILE.fullmatch(entry.file) for entry in entries):
        raise DataError(f"{path}: lists {len(entries):,} pictures; CelebA-HQ has {count:,}, from 0 on")
    return entries


def read_landmarks(path: Path, count: int) -> NDArray[np.float32]:
    """Read the landmarks [count, 5, 2] of CelebA.

    Raises:
        DataError: if it is another file.
    """
    rows = [row[1:] for row in _lines(path)[2:]]
    if len(rows) != count or any(len(row) != 2 * LANDMARKS for row in rows):
        raise DataError(
            f"{path}: holds landmarks of {len(rows):,} pictures; CelebA has {count:,} of them, with "
            f"{2 * LANDMARKS} numbers each"
        )
    try:
        numbers: Any = np.array(rows, np.float64)
    except ValueError:
        raise DataError(f"{path}: a landmark is no number") from None
    if not (np.abs(numbers) < FARTHEST).all():
        raise DataError(f"{path}: a landmark is in no picture")
    return np.asarray(numbers, np.float32).reshape(-1, LANDMARKS, 2)


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None

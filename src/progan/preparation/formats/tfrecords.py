"""TFRecords: those of the original's dataset tool, one file a level, and those of encoded pictures.

A file is a row of frames: the length (8 bytes), its checksum, the bytes of a record, and theirs. Checksums
are CRC32C, masked as `tensorflow/core/lib/hash/crc32c.h` does.
"""

from __future__ import annotations

import io
import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from progan.errors import DataError
from progan.preparation.formats.arrays import array_stream
from progan.preparation.formats.extras import needed
from progan.preparation.labels.array_labels import labelling_of
from progan.preparation.labels.class_lists import LABEL_COLUMNS
from progan.preparation.labels.json_labels import Label, number_labels
from progan.preparation.pictures import Candidate, Found, Labelling, Listing, is_picture
from progan.system.npy_files import load_array

ENDING = (".tfrecords", ".tfrecord")
LEVEL = re.compile(r"(.*)-r(\d\d)\.tfrecords?")
HEAD = struct.Struct("<QI")
MASK = 0xA282EAD8
MOST_BYTES = 1 << 28
"""Of one record: more than a picture of 8192x8192."""
PICTURES = ("image/encoded", "image", "image_raw", "data", "img", "jpeg", "png", "picture")
LABELS = ("image/class/label", "image/class/text", *LABEL_COLUMNS)


def _message(name: str, *fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "field": list(fields), **more}


def _field(name: str, number: int, kind: str, label: str = "REPEATED", **more: Any) -> dict[str, Any]:
    of = (
        {"type": kind}
        if kind.startswith("TYPE_")
        else {"type": "TYPE_MESSAGE", "typeName": f".progan.{kind}"}
    )
    return {"name": name, "number": number, "label": f"LABEL_{label}", **of, **more}


_KINDS = [
    _field(f"{kind.lower()}_list", i, f"{kind}List", "OPTIONAL", oneofIndex=0)
    for i, kind in enumerate(("Bytes", "Float", "Int64"), 1)
]
_ENTRY = _message(
    "FeatureEntry",
    _field("key", 1, "TYPE_STRING", "OPTIONAL"),
    _field("value", 2, "Feature", "OPTIONAL"),
    options={"mapEntry": True},
)
EXAMPLE = {
    "name": "progan_example.proto",
    "package": "progan",
    "syntax": "proto3",
    "messageType": [
        _message("BytesList", _field("value", 1, "TYPE_BYTES")),
        _message("FloatList", _field("value", 1, "TYPE_FLOAT")),
        _message("Int64List", _field("value", 1, "TYPE_INT64")),
        _message("Feature", *_KINDS, oneofDecl=[{"name": "kind"}]),
        _message("Features", _field("feature", 1, "Features.FeatureEntry"), nestedType=[_ENTRY]),
        _message("Example", _field("features", 1, "Features", "OPTIONAL")),
    ],
}
"""What a record is, field by field, in the words of protobuf."""


class Place(NamedTuple):
    """Which file a record is in, where, and how long it is."""

    file: int
    at: int
    length: int


def recognise(found: Found) -> TfRecords | None:
    """Return the reader of a folder of such files, or of one of them."""
    if found.entries is None:
        return TfRecords(found.path, [found.path]) if _is_frame(found.path, found.head) else None
    files = [path for path in found.holds(*ENDING) if path.is_file()]
    sharded = [
        found.path / name for name in sorted(found.entries) if re.search(r"tfrecords?-\d+-of-\d+$", name)
    ]
    files = files or sharded
    return TfRecords(found.path, files) if files else None


class TfRecords:
    """Records of pictures: pixels with their shape, or files.

    Args:
        path: What the user named.
        files: The files; of those that are levels of the same pictures the largest is read.
    """

    in_archive = False

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._files = files
        self._places = tuple(array("q") for _ in Place._fields)

    def listing(self) -> Listing:
        """Go through the frames, checking all lengths.

        Raises:
            DataError: if a file is none of such frames, or levels have different numbers of records.
            DependencyError: if what reads the records is not installed.
        """
        for module in ("google_crc32c", "google.protobuf"):
            needed(module, "tfrecords", self.path)
        listing = Listing(ordered=True)
        levels = {path: match for path in self._files if (match := LEVEL.fullmatch(path.name))}
        chosen = self._files
        if levels and len(levels) == len(self._files):
            chosen = [self._largest(levels, listing)]
        self._files, self._places = chosen, tuple(array("q") for _ in Place._fields)
        for number, file in enumerate(chosen):
            stamp = file.stat().st_mtime_ns
            for at, length in frames(file, listing):
                for numbers, value in zip(self._places, Place(number, at, length), strict=True):
                    numbers.append(value)
                name = f"{len(listing.candidates):06d}"
                listing.candidates.append(Candidate(name, max(length, 1), stamp))
        listing.labels = self._labels(chosen[0], listing.candidates.names)
        return listing

    def open(self, name: str) -> BinaryIO:
        """Return the picture of a record, its checksum being right; raises OSError if it is not."""
        features = self._record(name)
        value = next((features[key] for key in PICTURES if features.get(key)), None)
        data = value[0] if value else None
        if not isinstance(data, bytes):
            raise OSError("the record holds no picture (no feature 'data' or 'image')")
        if is_picture(data):
            return io.BytesIO(data)
        return array_stream(_pixels(data, features))

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return nothing: beside records are no files."""
        return None

    def _record(self, name: str) -> dict[str, list[Any]]:
        number, at, length = (numbers[int(name)] for numbers in self._places)
        with self._files[number].open("rb") as stream:
            stream.seek(at)
            data, end = stream.read(length), stream.read(4)
        if masked_crc(data) != int.from_bytes(end, "little"):
            raise OSError("the record is damaged: its checksum is wrong")
        return parse_example(data)

    def _largest(self, levels: dict[Path, re.Match[str]], listing: Listing) -> Path:
        """Return the file of the highest level."""
        names = {match[1] for match in levels.values()}
        if len(names) > 1:
            raise DataError(
                f"{self.path}: holds the sets {', '.join(sorted(names))}; give one of their files"
            )
        counts = {path: sum(1 for _ in frames(path, None)) for path in levels}
        if len(set(counts.values())) > 1:
            held = ", ".join(f"{path.name} {count:,}" for path, count in counts.items())
            raise DataError(f"{self.path}: its levels hold different numbers of pictures ({held})")
        largest = max(levels, key=lambda path: int(levels[path][2]))
        if len(levels) > 1:
            listing.notes.append(f"the pictures are {largest.name}; the smaller ones are made of them")
        return largest

    def _labels(self, file: Path, names: Sequence[str]) -> Labelling | None:
        """Return the labels in the file beside that of the pictures, or in the records."""
        match = LEVEL.fullmatch(file.name)
        beside = [file.with_name(f"{match[1]}-rxx.labels")] if match else []
        for path in [*beside, file.with_suffix(".labels")]:
            if path.is_file():
                try:
                    return labelling_of(str(path), load_array(path), names, ())
                except (OSError, ValueError) as error:
                    raise DataError(f"{path}: cannot be read ({error})") from None
        return self._inside(names)

    def _inside(self, names: Sequence[str]) -> Labelling | None:
        """Return the classes in the records; None if the first that is whole has none."""
        labels: dict[str, Label] = {}
        key = ""
        for name in names:
            try:
                features = self._record(name)
            except (OSError, ValueError):  # it is skipped with its reason when it is decoded
                continue
            key = key or next((key for key in LABELS if features.get(key)), "")
            if not key:
                return None
            if features.get(key):
                value = features[key][0]
                labels[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else f"{value:g}"
        return replace(number_labels(str(self.path), labels, None), kind="inside") if labels else None


def frames(file: Path, listing: Listing | None) -> Iterator[tuple[int, int]]:
    """Yield where the bytes of each record are, and how many; what is cut off at the end is noted as skipped.

    Args:
        file: The file.
        listing: Takes what is wrong with the end of the file.

    Raises:
        DataError: if the first frame is none.
    """
    size, at = file.stat().st_size, 0
    with file.open("rb") as stream:
        while at < size:
            head = stream.read(HEAD.size)
            length, crc = HEAD.unpack(head) if len(head) == HEAD.size else (size, 0)
            wrong = len(head) == HEAD.size and crc != masked_crc(head[:8])
            if wrong or length > MOST_BYTES or at + HEAD.size + length + 4 > size:
                what = (
                    "the frame is damaged: its length is wrong" if wrong else "the file is cut off within it"
                )
                if at == 0:
                    raise DataError(f"{file}: is no file of TFRecords, or damaged ({what})")
                if listing is not None:
                    listing.skipped.append((f"{file.name}, byte {at}", what))
                return
            yield at + HEAD.size, length
            at += HEAD.size + length + 4
            stream.seek(at)


def masked_crc(data: bytes) -> int:
    """Return the masked CRC32C of bytes."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """Return the features of a `tf.train.Example`: lists of bytes, floats or whole numbers.

    Raises:
        ValueError: if it is none.
    """
    from google.protobuf.message import DecodeError

    example = _example_type()()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example ({error})") from None
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = [] if kind is None else list(getattr(feature, kind).value)
    return found


@lru_cache
def _example_type() -> Any:
    """Return the class of messages that TensorFlow's `example.proto` and `feature.proto` define."""
    from google.protobuf import descriptor_pool, json_format, message_factory
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    pool = descriptor_pool.DescriptorPool()
    pool.Add(json_format.ParseDict(EXAMPLE, FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("progan.Example"))


def _pixels(data: bytes, features: dict[str, list[Any]]) -> NDArray[np.uint8]:
    """Return the pixels [H, W, C] of bytes with a shape [C, H, W], as the original writes them."""
    shape = features.get("shape") or []
    if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(data):
        written = "x".join(map(str, shape)) or "none"
        raise OSError(f"its {len(data)} bytes are neither a picture file nor pixels of the shape {written}")
    return np.frombuffer(data, np.uint8).reshape(shape).transpose(1, 2, 0)


def _is_frame(path: Path, head: bytes) -> bool:
    """Tell whether a file begins with a frame: by its checksum, or by its name where that cannot be had."""
    if len(head) < HEAD.size:
        return False
    length, crc = HEAD.unpack(head[: HEAD.size])
    try:
        return bool(length <= MOST_BYTES and masked_crc(head[:8]) == crc)
    except ImportError:
        return path.name.lower().endswith(ENDING)

"""Which reader takes what a path leads to. A format is a module with a function `recognise`, and a line."""

from __future__ import annotations

import stat
from pathlib import Path

from progan.config import PictureOptions
from progan.errors import DataError
from progan.preparation.formats import (
    cifar,
    film,
    folder,
    hdf5,
    hugging_face,
    idx,
    lmdb_database,
    numpy_arrays,
    tar_archive,
    tfrecords,
    zip_archive,
)
from progan.preparation.pictures import Found, Pictures, reason_of

FORMATS = (
    numpy_arrays.recognise,
    zip_archive.recognise,
    tar_archive.recognise,
    lmdb_database.recognise,
    cifar.recognise,
    idx.recognise,
    hdf5.recognise,
    tfrecords.recognise,
    hugging_face.recognise,
    film.recognise,
    folder.recognise,
)
"""Readers by what they recognise, the surest first; a folder is whatever nothing else knows it as."""
HEAD = 4096
MOST_ENTRIES = 10_000
ZIP = b"PK\3\4"
"""What `.zip` and `.npz` files begin with."""
READ = (
    "a folder, .zip or .tar of pictures, a LMDB, TFRecords, HDF5, .npy, .npz, .mat, Parquet, CIFAR or IDX "
    "files, or a film"
)


def open_pictures(place: Path, options: PictureOptions = PictureOptions()) -> Pictures:  # noqa: B008 - frozen
    """Return the reader of the pictures at `place`.

    Args:
        place: A file or folder; after a colon, which of the arrays in it is meant.
        options: How a reader is to take what it finds.

    Raises:
        DataError: if there is nothing at `place`, or nothing that is known.
        DependencyError: if what reads it is not installed.
    """
    found = _look(place, options)
    for recognise in FORMATS:
        pictures = recognise(found)
        if pictures is not None:
            return pictures
    if found.head.startswith(ZIP):
        raise DataError(f"{place}: is a cut off or damaged .zip file; copy it again")
    kind = "a damaged .zip file" if place.suffix.lower() == ".zip" else "in no form that is read"
    raise DataError(f"{place}: is {kind}; give {READ}")


def _look(place: Path, options: PictureOptions) -> Found:
    """Find out what can be known at a glance."""
    path, key = place, ""
    try:
        if not place.exists() and ":" in str(place):
            before, _, key = str(place).rpartition(":")
            path = Path(before)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            names = {entry.name for _, entry in zip(range(MOST_ENTRIES), path.iterdir(), strict=False)}
            return Found(path, key, b"", frozenset(names), options)
        if stat.S_ISREG(mode):
            with path.open("rb") as stream:
                return Found(path, key, stream.read(HEAD), None, options)
    except OSError as error:
        raise DataError(f"{place}: {reason_of(error)}; give a folder of pictures or a .zip file") from None
    raise DataError(f"{place}: is neither a file nor a folder; give {READ}")

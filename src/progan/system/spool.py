"""A temporary file of what is stored compressed, so that several processes can read any part of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from progan.errors import DataError, StorageError
from progan.system.files import storage_errors

PIECE = 1 << 20
MAX_RATIO = 250
SMALL = 1 << 30
"""Up to so many bytes any compression is harmless."""


def spool(owner: object, stream: BinaryIO, source: Path) -> Path:
    """Copy a stream into a temporary file, which is deleted with `owner`, or when the process ends.

    Args:
        owner: An object of this process.
        stream: What to copy.
        source: The compressed file, for messages.

    Raises:
        DataError: if the stream is absurdly longer than the file.
        StorageError: if there is no room.
    """
    most = max(SMALL, MAX_RATIO * source.stat().st_size)
    with storage_errors(Path(tempfile.gettempdir())):
        descriptor, name = tempfile.mkstemp(prefix="progan-", suffix=f"-{source.name[-40:]}")
    weakref.finalize(owner, Path(name).unlink, missing_ok=True)
    written = 0
    with os.fdopen(descriptor, "wb") as copy:
        while piece := stream.read(PIECE):
            written += len(piece)
            if written > most:
                size = source.stat().st_size
                raise DataError(f"{source}: suspicious compression: {size} bytes become more than {most}")
            if written % (64 * PIECE) < PIECE and shutil.disk_usage(name).free < 2 * PIECE:
                raise StorageError(
                    f"{source}: there is no room in {tempfile.gettempdir()} to uncompress it; set TMPDIR to "
                    f"a folder with room, or uncompress it yourself"
                )
            with storage_errors(Path(name)):
                copy.write(piece)
    return Path(name)

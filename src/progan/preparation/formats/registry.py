"""Which reader takes what a path leads to."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from progan.errors import DataError
from progan.preparation.formats.folder import Folder
from progan.preparation.formats.pictures import Pictures, reason_of
from progan.preparation.formats.zip_archive import ZipArchive


def open_pictures(path: Path) -> Pictures:
    """Return the reader of the pictures at `path`, a folder or a .zip file.

    Raises:
        DataError: if there is nothing at `path`, or it is neither.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"{path}: {reason_of(error)}; give a folder of pictures or a .zip file") from None
    if stat.S_ISDIR(mode):
        return Folder(path)
    if stat.S_ISREG(mode) and zipfile.is_zipfile(path):
        return ZipArchive(path)
    kind = "a damaged .zip file" if path.suffix.lower() == ".zip" else "neither a folder nor a .zip file"
    raise DataError(f"{path}: is {kind}; give a folder of pictures or a .zip of them")

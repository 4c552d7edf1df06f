"""Where labels are written: a file that the user names or that lies in the source; the lines of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from progan.config import PictureOptions
from progan.errors import DataError
from progan.preparation.pictures import Listing, Pictures

WORDS = ("none", "folders", "inside")
"""What `data.labels` may say instead of naming a file."""
INSIDE_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv")
"""Label files that tools put beside the pictures: StyleGAN's, and Hugging Face's `imagefolder`."""
Line = tuple[int, list[str]]
"""Number of a line, and its cells."""


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes:
        name: What it is called in messages.
        data: What it holds.
        column: The column of the labels, if the user named one.
        folder: What the names in it are relative to, such as `train/`; nothing for the source itself.
    """

    name: str
    data: bytes
    column: str | None = None
    folder: str = ""

    @classmethod
    def read(cls, path: Path, column: str | None = None) -> LabelFile:
        """Read a file.

        Raises:
            DataError: if that fails.
        """
        try:
            return cls(str(path), path.read_bytes(), column)
        except OSError as error:
            raise DataError(f"label file {path}: cannot be read ({error.strerror})") from None

    def text(self) -> str:
        """Return what it holds as text.

        Raises:
            DataError: if it is none in UTF-8.
        """
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"label file {self.name}: not a CSV file in UTF-8 ({error})") from None

    def lines(self) -> Iterator[Line]:
        """Yield the lines of a table that are not empty, their cells without spaces around them.

        Cells are separated by what separates the first line: commas, else semicolons, else tabs.
        """
        text = self.text()
        first = text.lstrip().partition("\n")[0]
        separator = next((sign for sign in ",;\t" if sign in first), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"label file {self.name}: not a CSV file in UTF-8 ({error})") from None


def label_files(pictures: Pictures, listing: Listing, options: PictureOptions) -> list[LabelFile]:
    """Return the files that hold the labels asked for; none for labels that are in no file.

    A file is looked for from the current folder, then in the source, also if that is an archive. After its
    name `:COLUMN` may tell which column is meant.

    Raises:
        DataError: if the file is missing or cannot be read.
    """
    if options.labels == "inside" and listing.labels is None:
        return _inside(pictures, listing)
    if options.labels in WORDS:
        return []
    before, _, after = options.labels.rpartition(":")
    for name, column in ((options.labels, None), (before, after)):
        found = _find(pictures, listing, name) if name else []
        if found:
            return [replace(file, column=column) for file in found]
    raise DataError(
        f"labels {options.labels!r}: no such file; give 'none', 'folders', or a CSV file of "
        f"{'name,label' if options.label_form == 'class' else 'name,COLUMN,...'}"
    )


def labels_beside(pictures: Pictures) -> str | None:
    """Return the name of a label file that lies at the top of the source, if one does."""
    return next((name for name in INSIDE_FILES if _find_inside(pictures, name) is not None), None)


def _inside(pictures: Pictures, listing: Listing) -> list[LabelFile]:
    """Return the label files of the first kind that lies in the source or in its first sub-folders."""
    for name in INSIDE_FILES:
        files = _at_the_top(pictures, listing, name)
        if files:
            return files
    raise DataError(
        f"labels 'inside': {pictures.path} brings no labels of its own ({', '.join(INSIDE_FILES)}); give "
        f"'none', 'folders', or a label file"
    )


def _find(pictures: Pictures, listing: Listing, name: str) -> list[LabelFile]:
    path = Path(name)
    return [LabelFile.read(path)] if path.is_file() else _at_the_top(pictures, listing, name)


def _at_the_top(pictures: Pictures, listing: Listing, name: str) -> list[LabelFile]:
    """Return the files of a name in the source and in its first sub-folders."""
    tops = {name.split("/")[0] + "/" for name in listing.candidates.names if "/" in name}
    found = [_find_inside(pictures, name, folder) for folder in ("", *sorted(tops))]
    return [file for file in found if file is not None]


def _find_inside(pictures: Pictures, name: str, folder: str = "") -> LabelFile | None:
    try:
        data = pictures.read_file(folder + name)
    except Exception as error:  # archives raise anything
        raise DataError(f"label file {pictures.path}/{folder}{name}: cannot be read ({error})") from None
    return None if data is None else LabelFile(f"{pictures.path}/{folder}{name}", data, folder=folder)

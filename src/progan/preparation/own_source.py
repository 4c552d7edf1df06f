"""Pictures from a source of one's own: a class that names them and returns each."""

from __future__ import annotations

import io
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from progan.config import Part
from progan.errors import DataError
from progan.preparation.pictures import Candidate, Candidates, Labelling, Listing

Made = NDArray[Any] | bytes
"""A picture: an array [H, W] or [H, W, C], or what a picture file holds."""


class PictureSource(Part, ABC):
    """Pictures from anywhere. Derive from this for a source of your own.

    On the command line it is named before a colon: `progan train mine:/data/x --plugin mine.py`; in Python
    it is given in the place of a path: `progan.train(Mine("/data/x"))`. Its pictures are packed like any
    others, in the process that asks for them.

    Attributes:
        argument: What stands behind the colon.
    """

    chosen_by = "source"

    def __init__(self, argument: str = "") -> None:
        super().__init__()
        self.argument = argument

    @property
    def place(self) -> str:
        """The source, as it is named on the command line."""
        return f"{self.name}:{self.argument}"

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return a name for each picture, each once; they decide the order."""

    @abstractmethod
    def picture(self, name: str) -> Made:
        """Return a picture: an array [H, W] or [H, W, C], or the bytes of a picture file."""

    def label(self, name: str) -> str | None:  # noqa: ARG002 - of use to those that override it
        """Return the class of a picture, for `data.labels inside`; None for none."""
        return None

    def stamp(self) -> str:
        """Return a text that changes when the pictures do; they are then packed anew."""
        return ""


class OwnPictures:
    """The pictures of a source of one's own, as readers of other sources answer for theirs."""

    in_archive = False

    def __init__(self, source: PictureSource) -> None:
        self._source = source
        self.path = Path(source.place)

    def listing(self) -> Listing:
        """Return the names, and the classes if there are any; a DataError if there is no picture."""
        names = list(self._asked("names", self._source.names))
        if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{self._source.place}: names() must return texts, at least one, and each once")
        stamp = zlib.crc32(str(self._asked("stamp", self._source.stamp)).encode())
        candidates = Candidates(Candidate(name, 1, stamp) for name in names)
        return Listing(candidates, labels=self._labels(names)).sort()

    def open(self, name: str) -> BinaryIO:
        """Return a picture as a file."""
        made = self._asked(f"picture({name!r})", partial(self._source.picture, name))
        if isinstance(made, bytes):
            return io.BytesIO(made)
        stream = io.BytesIO()
        np.save(stream, np.asarray(made), allow_pickle=False)
        stream.seek(0)
        return stream

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return None: there are no files beside the pictures."""
        return None

    def _labels(self, names: Sequence[str]) -> Labelling | None:
        given = {name: self._asked(f"label({name!r})", partial(self._source.label, name)) for name in names}
        found = {name: label for name, label in given.items() if label is not None}
        if not found:
            return None
        classes = tuple(sorted(set(found.values())))
        values = np.array([classes.index(label) for label in found.values()], np.int64)
        return Labelling("inside", "class", classes, {name: i for i, name in enumerate(found)}, values)

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        """Ask the source; what goes wrong in it is told in words."""
        try:
            return ask()
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self._source.place}: {what} failed: {type(error).__name__}: {error}"
            ) from error

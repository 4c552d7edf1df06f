"""A folder or .zip of pictures as a set of images: all of one size and kind, nothing cropped or resized.

Pictures are decoded as `progan prepare` decodes them. A picture that cannot be used is an error here, not
skipped: a number over a part of the pictures is not the number that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from progan.config import PictureOptions
from progan.data.pixels import Images
from progan.errors import DataError
from progan.evaluation.image_set import ImageSet, describe_shape
from progan.preparation.decisions import decide_pixels, what_to_look_at
from progan.preparation.decoding import Header, Looking, Rules, UnusablePictureError, develop, look_at
from progan.preparation.pictures import Listing, Pictures, describe_ignored
from progan.preparation.several import gather
from progan.system.worker_pool import run_chunks, usable_cores

FEW = 256
"""Up to so many pictures, starting other processes takes longer than they would save."""
HEADERS_AT_ONCE = 64
WHOLE = PictureOptions()
"""Pictures are measured as they are."""
CRASHED = "it ends the process that decodes it"


class _How(NamedTuple):
    """What a worker needs to know to decode a picture."""

    source: Pictures
    rules: Rules


class PictureImages(ImageSet):
    """The pictures of a folder or .zip in order of name.

    Its fingerprint is over names, sizes and times of files (in a .zip: checksums), not over pixels.

    Raises:
        DataError: if there is none, one cannot be used, or they differ in size or channels.
    """

    def __init__(self, path: Path) -> None:
        self._source = gather([str(path)], PictureOptions())
        listing = self._source.listing()
        _require_usable(path, listing)
        self._names = listing.candidates.names
        headers = self._look(path)
        shape = _common_shape(path, self._names, headers)
        # Values and transparency mean what they mean in the whole set; no option decides otherwise here.
        decided = decide_pixels(self._names, headers, WHOLE).model_copy(
            update={"channels": shape[0], "depth": 8}
        )
        self._rules = decided.rules(WHOLE)
        identity = {"kind": "pictures", "fingerprint": listing.digest()}
        super().__init__(str(path), shape, len(self._names), identity, {"path": str(path)})

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return images [len(indices), C, H, W], decoded in this process."""
        return np.stack([self._checked(self._names[i], _decode(self._how, self._names[i])) for i in indices])

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield images [n, C, H, W] in the order of `indices`; many are decoded by several processes."""
        names, size = [self._names[i] for i in indices], self.batch_size
        chunks = [names[i : i + size] for i in range(0, len(names), size)]
        with closing(run_chunks(_decode, self._how, chunks, _workers(len(names)), CRASHED)) as results:
            for chunk, pictures in zip(chunks, results, strict=True):
                yield np.stack([self._checked(*each) for each in zip(chunk, pictures, strict=True)])

    @property
    def batch_size(self) -> int:
        """Images in a batch; few, since each is a message of another process."""
        return min(32, super().batch_size)

    @property
    def _how(self) -> _How:
        return _How(self._source, self._rules)

    def _look(self, path: Path) -> list[Header]:
        """Look at all pictures."""
        names, found = self._names, list[Header]()
        task = Looking(self._source, what_to_look_at(WHOLE))
        chunks = (names[i : i + HEADERS_AT_ONCE] for i in range(0, len(names), HEADERS_AT_ONCE))
        with closing(run_chunks(look_at, task, chunks, _workers(len(names)), CRASHED)) as results:
            for header in (one for chunk in results for one in chunk):
                if isinstance(header, str):
                    raise DataError(_unusable(path, names[len(found)], header))
                found.append(header)
        return found

    def _checked(self, name: str, picture: Images | str) -> Images:
        if isinstance(picture, str):
            raise DataError(_unusable(Path(self.name), name, picture))
        if picture.shape != self.shape:
            raise DataError(
                f"{self.name}: {name} has changed since it was listed; give the same command again"
            )
        return picture


def _workers(pictures: int) -> int:
    return 1 if pictures <= FEW else usable_cores()


def _common_shape(path: Path, names: Sequence[str], headers: Sequence[Header]) -> tuple[int, int, int]:
    """Return the (C, H, W) that all pictures have; an alpha channel that is opaque in all counts as none."""
    alpha = any(header.transparent for header in headers)
    shape = _shape(headers[0], alpha)
    for name, header in zip(names, headers, strict=True):
        found = _shape(header, alpha)
        if found != shape:
            raise DataError(
                f"{path}: the pictures differ: {names[0]} is {describe_shape(shape)}, {name} is "
                f"{describe_shape(found)}; give pictures of one size and kind, for example the packed set "
                f"that `progan prepare` makes of them"
            )
    return shape


def _shape(header: Header, alpha: bool) -> tuple[int, int, int]:
    """Return (C, H, W) of a picture."""
    channels = header.channels or (3 if header.colour else 1) + int(header.alpha and alpha)
    return channels, header.height, header.width


def _decode(how: _How, name: str) -> Images | str:
    """Return a picture [C, H, W], or why there is none."""
    try:
        pixels = np.asarray(develop(how.source, name, how.rules).pixels)
    except UnusablePictureError as error:
        return str(error)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _require_usable(path: Path, listing: Listing) -> None:
    """Raise a DataError if a listing is empty, or names pictures that cannot be used."""
    if listing.skipped:
        name, reason = listing.skipped[0]
        raise DataError(_unusable(path, name, reason, len(listing.skipped)))
    if not listing.candidates:
        ignored = f" (ignored: {describe_ignored(listing.ignored)})" if listing.ignored else ""
        raise DataError(f"{path}: holds no pictures{ignored}")


def _unusable(path: Path, name: str, reason: str, count: int = 1) -> str:
    others = f" (and {count - 1:,} more)" if count > 1 else ""
    return f"{path}: {name} cannot be used: {reason}{others}; mend it or take it out of the set"

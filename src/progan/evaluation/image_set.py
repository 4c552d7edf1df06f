"""Sets of images that metrics are fed with: images by index, uint8, whatever they are stored as.

A set says of itself what decides its images (`identity`), so that a number can be found again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.config import format_resolution
from progan.data.packed import PackedSet
from progan.data.pixels import Images, to_8_bit
from progan.data.showing import Colour, laid_on
from progan.errors import DataError
from progan.system.npy_files import map_array
from progan.system.randomness import random_generator

BYTES_AT_ONCE = 2**24
"""Bytes of a batch of images."""

BATCH_MOST = 256

FLIPS = 4096
"""Flips that are drawn together; decides which images of a mirrored set are flipped."""

FLOATS_MOST = 8.0
"""Networks go a little beyond [-1, 1]; an array that goes far beyond holds something else."""


class ImageSet(ABC):
    """Images of one shape, by index.

    Attributes:
        name: What messages and tables call the set.
        shape: (C, H, W).
        count: How many images there are; None for as many as are asked for.
        identity: What decides the images, ready for JSON: sets of the same identity hold the same images.
        about: What is good to know besides, such as where they lie; ready for JSON.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        count: int | None,
        identity: dict[str, Any],
        about: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.count = count
        self.identity = identity
        self.about = about or {}

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places, a new array: [n, C, H, W].

        Raises:
            DataError: if one cannot be read.
        """

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield the images at these places, in this order, in batches of a moderate size."""
        size = self.batch_size
        for start in range(0, len(indices), size):
            yield self.read(indices[start : start + size])

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return max(1, min(BATCH_MOST, BYTES_AT_ONCE // max(1, int(np.prod(self.shape)))))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def on(self, ground: Colour) -> ImageSet:
        """Return the images as they look on a ground: the same set if they have no transparency."""
        return GroundedImages(self, ground) if has_alpha(self.shape) else self

    def __repr__(self) -> str:
        count = "any number of" if self.count is None else f"{self.count:,}"
        return f"{type(self).__name__}({self.name!r}: {count} images, {describe_shape(self.shape)})"


class ArrayImages(ImageSet):
    """An array in memory or mapped from a file.

    Args:
        array: [N, C, H, W] or [N, H, W, C] (told by which of the two axes is 1 to 4; if both are, the first
            form is meant), uint8; or floating point in [-1, 1], as networks make them, which is rounded as
            `progan.data.pixels.to_uint8` does.
        name: What messages call it.
        identity: What decides the images, ready for JSON; None: a hash of the contents.

    Raises:
        DataError: if the array is of another kind, or holds values that are not finite.
    """

    def __init__(self, array: NDArray[Any], name: str, identity: dict[str, Any] | None = None) -> None:
        if array.ndim != 4 or not array.size:
            raise DataError(
                f"{name}: holds an array of shape {list(array.shape)}; expected images [N, C, H, W] or "
                f"[N, H, W, C], at least one"
            )
        channels_last = array.shape[1] > 4 and array.shape[3] <= 4
        self._array = array.transpose(0, 3, 1, 2) if channels_last else array
        if array.dtype != np.uint8:
            _require_floats(array, name)
        channels, height, width = self._array.shape[1:]
        if identity is None:
            identity = {"kind": "array", "fingerprint": _content(array)}
        super().__init__(name, (channels, height, width), len(array), identity)

    @classmethod
    def open(cls, path: Path) -> ArrayImages:
        """Open a `.npy` file; its pixels stay on disk until they are read.

        Raises:
            DataError: if it cannot be read, or holds no images.
        """
        try:
            array = map_array(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as a .npy array ({error})") from None
        made = cls(array, str(path))
        made.about = {"path": str(path)}
        return made

    @classmethod
    def gather(cls, batches: Iterable[Images], name: str, most: int | None = None) -> ArrayImages:
        """Take in an iterator of batches, through a temporary file.

        Args:
            batches: Arrays as `ArrayImages` takes them, of one shape and type.
            name: What messages call them.
            most: Take this many images at most; an endless iterator needs it.

        Raises:
            DataError: if there are none, or they differ in shape or type.
        """
        count, first = 0, None
        with tempfile.TemporaryFile() as file:
            for batch in batches:
                part = np.asarray(batch)[: None if most is None else most - count]
                first = part if first is None else first
                if (part.ndim, part.shape[1:], part.dtype) != (4, first.shape[1:], first.dtype):
                    raise DataError(
                        f"{name}: a batch is a {part.dtype} array of shape {list(part.shape)}; expected "
                        f"batches [n, C, H, W] of one shape and type"
                    )
                file.write(np.ascontiguousarray(part).data)
                count += len(part)
                if count == most:
                    break
            if first is None or not count:
                raise DataError(f"{name}: not one image came")
            file.flush()
            # The map keeps the file's pages when its name and handle are gone.
            return cls(np.memmap(file, first.dtype, "r", shape=(count, *first.shape[1:])), name)

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places: [n, C, H, W]."""
        part = self._array[indices]
        if part.dtype != np.uint8:
            part = np.rint(part.astype(np.float32) * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(part)


class PackedImages(ImageSet):
    """A part of a packed set at one level; 16-bit pixels are rounded to 8.

    Args:
        packed: The set.
        part: "train", "validation", "test" or "all".
        size: (height, width) of the level; None for the highest.

    Raises:
        DataError: if the part is empty, or no level has this size.
    """

    def __init__(
        self, packed: PackedSet, *, part: str = "train", size: tuple[int, int] | None = None
    ) -> None:
        sizes = [packed.resolution(i) for i in range(packed.max_level + 1)]
        if size is not None and size not in sizes:
            raise DataError(
                f"{packed.path}: has no level of {format_resolution(size)}; its levels are "
                f"{', '.join(map(format_resolution, sizes))}"
            )
        self._packed = packed
        self._level = packed.max_level if size is None else sizes.index(size)
        self._indices = packed.indices(part)
        if not len(self._indices):
            raise DataError(f"{packed.path}: no picture is in the part {part!r}; choose another --part")
        identity = {
            "kind": "packed",
            "fingerprint": packed.fingerprint,
            "resolution": format_resolution(sizes[self._level]),
            "part": part,
        }
        shape = (packed.channels, *sizes[self._level])
        super().__init__(str(packed.path), shape, len(self._indices), identity, {"path": str(packed.path)})

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places: [n, C, H, W]."""
        return to_8_bit(self._packed.read(self._level, self._indices[indices]))


class GroundedImages(ImageSet):
    """Images with transparency, laid on a ground; its identity names the colour."""

    def __init__(self, images: ImageSet, ground: Colour) -> None:
        self._images, self._ground = images, ground
        identity = {**images.identity, "background": named(ground)}
        super().__init__(images.name, laid_shape(images.shape, ground), images.count, identity, images.about)

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places: [n, 1 or 3, H, W]."""
        return laid_on(self._images.read(indices), self._ground)

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield the images at these places, in this order, in batches."""
        for batch in self._images.batches(indices):
            yield laid_on(batch, self._ground)


def has_alpha(shape: tuple[int, int, int]) -> bool:
    """Tell whether images of a shape (C, H, W) have transparency."""
    return shape[0] in (2, 4)


def laid_shape(shape: tuple[int, int, int], ground: Colour) -> tuple[int, int, int]:
    """Return the (C, H, W) of images with transparency once they are laid on a ground."""
    return (1 if shape[0] == 2 and len(set(ground)) == 1 else 3), shape[1], shape[2]


def named(ground: Colour) -> str:
    """Write a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*ground)


class MirroredImages(ImageSet):
    """Another set, each image flipped left to right with probability 1/2, by its seed and index alone.

    So does the original with the reals it measures, if training did (section 5 of the paper measures what the
    networks saw).
    """

    def __init__(self, images: ImageSet, seed: int) -> None:
        identity = {**images.identity, "mirror_seed": seed}
        super().__init__(images.name, images.shape, images.count, identity, images.about)
        self._images = images
        self._seed = seed

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places: [n, C, H, W]."""
        return self._flip(self._images.read(indices), indices)

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield the images at these places, in this order, in batches."""
        start = 0
        for batch in self._images.batches(indices):
            yield self._flip(batch, indices[start : start + len(batch)])
            start += len(batch)

    def _flip(self, images: Images, indices: NDArray[np.int64]) -> Images:
        flipped = np.zeros(len(images), bool)
        for block in np.unique(indices // FLIPS):
            inside = indices // FLIPS == block
            draws = random_generator(self._seed, "mirror of measured reals", int(block)).random(FLIPS)
            flipped[inside] = draws[indices[inside] % FLIPS] < 0.5
        images[flipped] = images[flipped, ..., ::-1]
        return images


def choose(images: ImageSet, n: int, seed: int) -> NDArray[np.int64]:
    """Return which images of a set are measured, in which order: n of them, without repeats, by the seed.

    The order is random since a folder is sorted by name, so often by class, and some metrics look at
    neighbours. Of a generator they are the samples 0 to n - 1, shuffled likewise: a folder that holds just
    these samples gives the same numbers.

    Args:
        images: The set; it must hold n images.
        n: How many.
        seed: At least 0.
    """
    count = n if images.count is None else images.count
    return random_generator(seed, "choice of images", 0).permutation(count)[:n].astype(np.int64)


def describe_shape(shape: tuple[int, int, int]) -> str:
    """Write (C, H, W) as `3x64x64 (RGB)`."""
    kind = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGBA"}.get(shape[0])
    size = format_resolution((shape[1], shape[2]))
    return f"{size} {kind}" if kind else f"{size} with {shape[0]} channels"


def require_equal_shapes(images: ImageSet, reals: ImageSet) -> None:
    """Raise a DataError unless two sets have images of one shape."""
    if images.shape != reals.shape:
        raise DataError(
            f"the sets differ: {images.name} has images of {describe_shape(images.shape)}, {reals.name} of "
            f"{describe_shape(reals.shape)}; make them equal"
        )


def _require_floats(array: NDArray[Any], name: str) -> None:
    """Raise a DataError unless an array holds floating-point images in about [-1, 1]."""
    if array.dtype.kind != "f":
        raise DataError(f"{name}: holds {array.dtype}; expected uint8 (0..255), or floats in [-1, 1]")
    low, high = np.inf, -np.inf
    for part in np.array_split(array, -(-array.nbytes // BYTES_AT_ONCE)):
        if not np.isfinite(part).all():
            raise DataError(f"{name}: holds values that are not finite (NaN or infinite)")
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    if low >= 0 or low < -FLOATS_MOST or high > FLOATS_MOST:
        raise DataError(
            f"{name}: holds floats from {low:g} to {high:g}; expected [-1, 1], as networks make them, or "
            f"uint8"
        )


def _content(array: NDArray[Any]) -> str:
    """Return a hash of the type, shape and values of an array."""
    state = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = max(1, BYTES_AT_ONCE // max(1, array[0].nbytes))
    for start in range(0, len(array), rows):
        state.update(np.ascontiguousarray(array[start : start + rows]).data)
    return state.hexdigest()

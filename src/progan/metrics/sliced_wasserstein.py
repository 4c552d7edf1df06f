"""The sliced Wasserstein distance between two sets of images (section 5 of the paper).

Images are split into a Laplacian pyramid. From each level of each image random 7x7 patches are taken, all
patches of a set are normalised per channel, and two sets are compared along random directions, where the
Wasserstein distance is the mean difference of sorted projections. The fine levels tell how alike detail and
sharpness are, the coarse ones how alike large structures.

The numbers are those of the original sliced_wasserstein.py, times 1e3 as in the paper's tables. They can be
compared only at the same number of images, resolution, patches and kind of image (gray or colour).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import ConfigError, DataError
from progan.metrics.laplacian import laplacian_pyramid

SMALLEST = 16
"""Side of the coarsest level (section 5)."""

PATCH = 7
"""Side of a patch (section 5)."""

BLOCK = 16
"""Images that are worked on together. Even, so that a block splits into halves; part of the definition of
`SeededDraws`, so not to be tuned."""

VALUES_AT_ONCE = 2**20
"""Pixel values that are filtered together; whole blocks of large images fall out of the caches, which takes
four times as long."""

PART = 1024
"""Images whose patches are kept in one piece of memory; pieces are never moved, and given back when used."""

DIRECTIONS_AT_ONCE = 32
"""Directions whose projections are in memory together: 128 bytes a patch and set."""


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distance between two sets of images; smaller is nearer.

    Attributes:
        resolutions: The smaller side of the images of each level of the pyramid, finest first.
        distances: Distance of each level, times 1e3.
        images: Images in each set.
    """

    resolutions: tuple[int, ...]
    distances: tuple[float, ...]
    images: int

    @property
    def mean(self) -> float:
        """Mean distance over the levels, times 1e3."""
        return sum(self.distances) / len(self.distances)


class Draws(Protocol):
    """Where the random numbers of the metric come from."""

    def centres(
        self, images: str, level: int, block: int, shape: tuple[int, int], sides: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the centres of patches lie.

        Args:
            images: Which set, "reals" or "fakes".
            level: Level of the pyramid, 0 the finest.
            block: Which images: those from `BLOCK` * block on.
            shape: (n, patches), n <= `BLOCK`.
            sides: (H, W) of the level.

        Returns:
            x and y [n, patches], in 3 .. W - 4 and 3 .. H - 4.
        """

    def directions(self, level: int, repeat: int, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return standard normal numbers [components, directions]: a column is a direction."""


@dataclass(frozen=True)
class SeededDraws:
    """Random numbers that depend on the seed and on what they are for, never on the order of calls.

    Args:
        seed: At least 0.
    """

    seed: int

    def centres(
        self, images: str, level: int, block: int, shape: tuple[int, int], sides: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `Draws`."""
        rng = self._generator(f"patches of {images}", level, block)
        margin = PATCH // 2
        top = np.array(sides)[:, None] - margin
        y, x = rng.integers(margin, top, size=(*shape[:1], 2, *shape[1:])).swapaxes(0, 1)
        return x, y

    def directions(self, level: int, repeat: int, shape: tuple[int, int]) -> NDArray[np.float64]:
        """See `Draws`."""
        return self._generator("directions", level, repeat).standard_normal(shape)

    def _generator(self, purpose: str, level: int, index: int) -> np.random.Generator:
        key = [self.seed, zlib.crc32(purpose.encode()), level, index]
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def sliced_wasserstein(
    reals: Iterable[NDArray[np.uint8]],
    fakes: Iterable[NDArray[np.uint8]],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    repeats: int = 4,
    directions: int = 128,
    patches: int = 128,
    draws: Draws | None = None,
) -> SlicedWasserstein:
    """Measure the sliced Wasserstein distance between two sets of as many images.

    Each set is read once; how it is cut into batches changes nothing. Its descriptors are kept in host
    memory: 588 bytes a patch, so 75 kB an image and level at 128 patches (1.2 GB a set and level for the
    paper's 16,384 images). The device holds one level of both sets at a time.

    Gray images are shown as RGB, three equal channels, as the original does. Alpha is refused: how a
    see-through colour looks depends on the background, so put the images on one, or drop the channel, first.

    A level on which all patches of a set are the same number (a generator that makes one flat colour)
    has no deviation to divide by; its descriptors are 0, where the original divides by zero.

    Args:
        reals: Batches [n, C, H, W] of uint8, C of 1 or 3; both sides at least 16 and even as often as they
            are halved on the way to 16 (powers of two always are).
        fakes: Likewise, of the same shape, and as many images.
        seed: Of the patches and directions; keep it when numbers are to be compared.
        device: Where to compute; None for the CPU.
        repeats: How often directions are drawn.
        directions: Directions drawn each time.
        patches: Patches of each image and level.
        draws: Random numbers that replace those of `seed`.

    Raises:
        DataError: if the images cannot be measured or compared; the message says why.
        ConfigError: if an option is out of range.
    """
    _check_options(seed, repeats=repeats, directions=directions, patches=patches)
    draws = draws or SeededDraws(seed)
    device = device or torch.device("cpu")
    with _exact_float32(device):
        real, fake = (_Descriptors(name, draws, patches, device) for name in ("reals", "fakes"))
        for block in _blocks(reals, "reals"):
            real.add(block)
        real.check_not_empty()
        for block in _blocks(fakes, "fakes", expected=real.shape):
            fake.add(block)
            if fake.count > real.count:
                break
        fake.check_not_empty()
        if fake.count != real.count:
            fakes_are = "more" if fake.count > real.count else f"only {fake.count}"
            raise DataError(
                f"There are {real.count} reals but {fakes_are} fakes; the distance compares sets of one "
                f"size, so give as many of each."
            )
        return _compare(real, fake, repeats, directions)


def sliced_wasserstein_floor(
    reals: Iterable[NDArray[np.uint8]],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    repeats: int = 4,
    directions: int = 128,
    patches: int = 128,
) -> SlicedWasserstein:
    """Measure the distance between two disjoint halves of the reals: what a perfect generator would reach.

    The halves are the images at even and at odd places; an odd one at the end is left out. The floor
    falls with the number of images, so hold a distance of n images against the floor of 2n reals.

    Args:
        reals: As in `sliced_wasserstein`, at least 2 images.
        seed: Of the patches and directions.
        device: Where to compute; None for the CPU.
        repeats: How often directions are drawn.
        directions: Directions drawn each time.
        patches: Patches of each image and level.

    Returns:
        The distance; `images` counts one half.

    Raises:
        DataError: if the images cannot be measured; the message says why.
        ConfigError: if an option is out of range.
    """
    _check_options(seed, repeats=repeats, directions=directions, patches=patches)
    device = device or torch.device("cpu")
    with _exact_float32(device):
        halves = [_Descriptors(name, SeededDraws(seed), patches, device) for name in ("reals", "fakes")]
        for block in _blocks(reals, "reals"):
            pairs = block[: len(block) // 2 * 2]  # only the last block can be odd
            for k, half in enumerate(halves):
                half.add(pairs[k::2])
        if halves[1].count == 0:
            raise DataError("The floor needs at least 2 reals, one for each half.")
        return _compare(halves[0], halves[1], repeats, directions)


def level_sides(height: int, width: int) -> list[tuple[int, int]]:
    """Return (H, W) of each level of the pyramid: halved while both sides stay at 16 or more.

    Raises:
        DataError: if a side is smaller than 16, or odd where it must be halved.
    """
    if min(height, width) < SMALLEST:
        raise DataError(
            f"Images of {height}x{width} are too small for the sliced Wasserstein distance; "
            f"its coarsest level has sides of {SMALLEST}, so both sides must be at least that."
        )
    sides = [(height, width)]
    while min(sides[-1]) // 2 >= SMALLEST:
        h, w = sides[-1]
        if h % 2 or w % 2:
            step = 2 ** (len(bin(min(height, width) // SMALLEST)) - 3)
            raise DataError(
                f"Images of {height}x{width} cannot be halved down to {SMALLEST} pixels without a rest; "
                f"resize or crop them so that both sides are multiples of {step}."
            )
        sides.append((h // 2, w // 2))
    return sides


def patches_at(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cut 7x7 patches out of images.

    Args:
        images: [N, C, H, W].
        x: [N, P], columns of the centres, in 3 .. W - 4.
        y: [N, P], rows of the centres, in 3 .. H - 4.

    Returns:
        [N * P, C, 7, 7], indexed [.., x, y]: the original lays patches out column by column, which matters
        only when directions are to mean the same. Source: `get_descriptors_for_minibatch`.
    """
    windows = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [N, C, H - 6, W - 6, 7, 7]
    n = torch.arange(len(images), device=images.device)[:, None]
    found = windows[n, :, y - PATCH // 2, x - PATCH // 2]  # [N, P, C, 7, 7]
    return found.flatten(0, 1).transpose(2, 3)


def normalise(descriptors: Sequence[Tensor]) -> None:
    """Give each channel of a set of patches mean 0 and standard deviation 1, in place.

    Args:
        descriptors: The set, in parts [.., C, K]. A channel with one value throughout becomes 0.

    Mean and deviation (the population's) are over all patches and their pixels, summed in float64.
    Source: `finalize_descriptors`.
    """
    count = sum(part.shape[0] * part.shape[2] for part in descriptors)
    sums = torch.stack([part.sum((0, 2), dtype=torch.float64) for part in descriptors])
    mean = sums.sum(0) / count  # [C]
    for part in descriptors:
        part.sub_(mean.to(part.dtype)[:, None])
    squares = torch.stack([part.square().sum((0, 2), dtype=torch.float64) for part in descriptors])
    deviation = (squares.sum(0) / count).sqrt()  # [C]
    scale = torch.where(deviation > 0, 1 / deviation, 0.0)
    for part in descriptors:
        part.mul_(scale.to(part.dtype)[:, None])


def projected_distance(reals: Sequence[Tensor], fakes: Sequence[Tensor], directions: Tensor) -> float:
    """Return the Wasserstein distance of two sets of vectors, averaged over directions.

    In one dimension the distance of two sets of n numbers is the mean of |a_(i) - b_(i)|, both sorted.

    Args:
        reals: The set, in parts [.., K].
        fakes: As many vectors, in parts of any size.
        directions: [D, K], unit vectors.

    Source: `sliced_wasserstein` of the original.
    """
    total = 0.0
    for some in torch.split(directions, DIRECTIONS_AT_ONCE):
        a, b = (
            _sorted(torch.cat([some @ part.T for part in parts], 1)) for parts in (reals, fakes)
        )  # [d, N]
        total += sum(a.sub_(b).abs_().mean(dim=1).tolist())
    return total / len(directions)


class _Descriptors:
    """The patches of one set of images, all levels.

    Args:
        name: "reals" or "fakes": each set has its own patches.
        draws: Where the patches lie.
        patches: Patches of each image and level.
        device: Where images are filtered; patches are kept on the host.
    """

    def __init__(self, name: str, draws: Draws, patches: int, device: torch.device) -> None:
        self.name = name
        self.draws = draws
        self.patches = patches
        self.device = device
        self.shape: tuple[int, ...] = ()
        self.count = 0
        self.sides: list[tuple[int, int]] = []
        self.levels: list[list[Tensor]] = []
        self._blocks = 0
        self._filled = 0  # rows of the last part of each level

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Take the patches of a block [n, C, H, W], n <= `BLOCK`; all blocks but the last are of one size."""
        if not len(pixels):
            return
        if not self.levels:
            self.shape = pixels.shape[1:]
            self.sides = level_sides(*self.shape[1:])
            self.levels = [[] for _ in self.sides]
        rows = len(pixels) * self.patches
        if not self.levels[0] or self._filled + rows > PART * self.patches:
            for parts in self.levels:
                parts.append(torch.empty(PART * self.patches, 3, PATCH, PATCH))
            self._filled = 0
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).float()
        for level, band in enumerate(_pyramid(images, len(self.sides))):
            shape = (len(pixels), self.patches)
            centres = self.draws.centres(self.name, level, self._blocks, shape, self.sides[level])
            x, y = (torch.from_numpy(np.ascontiguousarray(c)).to(self.device) for c in centres)
            found = patches_at(band.expand(-1, 3, -1, -1), x, y)  # [n * P, 3, 7, 7]; gray becomes RGB
            self.levels[level][-1][self._filled : self._filled + rows] = found
        self._filled += rows
        self.count += len(pixels)
        self._blocks += 1

    def take(self, level: int) -> list[Tensor]:
        """Return the normalised descriptors of a level on the device, [.., 147] each, and forget them."""
        parts = [part.flatten(2) for part in self.levels[level]]
        self.levels[level] = []
        parts[-1] = parts[-1][: self._filled]
        normalise(parts)
        return [part.flatten(1).to(self.device) for part in parts]

    def check_not_empty(self) -> None:
        """Raise a DataError if there is no image."""
        if not self.count:
            raise DataError(f"There are no {self.name}: not one image came.")


def _pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return `laplacian_pyramid`, made of few images at a time."""
    few = max(1, VALUES_AT_ONCE // images[0].numel())
    pyramids = [laplacian_pyramid(some, levels) for some in torch.split(images, few)]
    return [torch.cat(bands) for bands in zip(*pyramids, strict=True)]


def _compare(reals: _Descriptors, fakes: _Descriptors, repeats: int, directions: int) -> SlicedWasserstein:
    """Measure each level; uses up both sets, a level at a time."""
    distances = []
    for level in range(len(reals.sides)):
        a, b = reals.take(level), fakes.take(level)
        found = 0.0
        for repeat in range(repeats):
            normals = reals.draws.directions(level, repeat, (a[0].shape[1], directions))
            units = normals / np.sqrt(np.square(normals).sum(axis=0, keepdims=True))
            columns = torch.from_numpy(np.ascontiguousarray(units.T, dtype=np.float32))
            found += projected_distance(a, b, columns.to(reals.device))
        distances.append(found / repeats * 1e3)
    return SlicedWasserstein(tuple(min(sides) for sides in reals.sides), tuple(distances), reals.count)


def _sorted(numbers: Tensor) -> Tensor:
    """Sort each row; the argument is used up."""
    if numbers.device.type != "cpu":
        return numbers.sort(dim=1).values
    numbers.numpy().sort(axis=1)  # in place and without positions, which takes PyTorch thirty times as long
    return numbers


@contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    """Compute without gradients and in float32 proper, whatever training has set for speed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _blocks(
    batches: Iterable[NDArray[np.uint8]], name: str, expected: tuple[int, ...] = ()
) -> Iterator[NDArray[np.uint8]]:
    """Check batches and deal them into blocks of `BLOCK` images; the last may be smaller.

    A block is valid until the next one is asked for.
    """
    shape = expected
    buffer = np.empty(0, dtype=np.uint8)
    filled = 0
    for batch in batches:
        _check_batch(batch, name, shape, expected)
        if not len(buffer):
            shape = batch.shape[1:]
            level_sides(*shape[1:])  # before the first image is worked on
            buffer = np.empty((BLOCK, *shape), dtype=np.uint8)
        start = 0
        while start < len(batch):
            taken = batch[start : start + BLOCK - filled]
            buffer[filled : filled + len(taken)] = taken
            start, filled = start + len(taken), filled + len(taken)
            if filled == BLOCK:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _check_batch(batch: object, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise a DataError unless this is a batch [n, C, H, W] like those before it."""
    if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8:
        kind = f"an array of {batch.dtype}" if isinstance(batch, np.ndarray) else f"a {type(batch).__name__}"
        raise DataError(
            f"The {name} hold {kind}; the sliced Wasserstein distance is defined for NumPy arrays of uint8, "
            f"0..255 (`progan.data.pixels` converts)."
        )
    if batch.ndim != 4:
        raise DataError(
            f"The {name} hold an array of shape {list(batch.shape)}; give batches [n, C, H, W] one after the "
            f"other (a single array goes into a list)."
        )
    channels = batch.shape[1]
    if channels in (2, 4):
        raise DataError(
            f"The {name} have {channels} channels, so an alpha channel; put the images on a background, or "
            f"drop that channel, before measuring."
        )
    if channels not in (1, 3):
        raise DataError(f"The {name} have {channels} channels; only gray (1) and RGB (3) can be measured.")
    if shape and batch.shape[1:] != shape:
        other = "the reals" if expected else "those before them"
        raise DataError(
            f"The {name} have images of shape {list(batch.shape[1:])} (C, H, W), but {other} {list(shape)}; "
            f"make them equal."
        )


def _check_options(seed: int, **counts: int) -> None:
    """Raise a ConfigError unless the seed is at least 0 and everything else at least 1."""
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, not {seed}.")
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}.")

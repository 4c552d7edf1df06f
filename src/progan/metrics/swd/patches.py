"""The descriptors of the sliced Wasserstein distance: normalised patches of the levels of a pyramid."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import DataError
from progan.metrics.exact_compute import Workers, computing
from progan.metrics.image_checks import WaitingImages
from progan.metrics.swd.laplacian import laplacian_pyramid, split_band

SMALLEST = 16
"""Side of the coarsest level (section 5)."""

PATCH = 7
"""Side of a patch (section 5)."""

BLOCK = 16
"""Images whose patches are drawn together; part of the definition of `SeededDraws`, so not to be tuned."""

VALUES_AT_ONCE = 2**20
"""Pixel values that are filtered together; more fall out of the caches, which takes three times as long."""

VALUES_A_TASK = 2**22
"""About how many pixel values a worker takes, in whole blocks: enough that coarse levels are worth a call."""

VALUES_WAITING = 2**23
"""Pixel values for each worker that wait for others: two tasks, 8 MB."""

PART = 512
"""Images whose patches are kept in one piece of memory; pieces are never moved."""

ROWS_AT_ONCE = 2048
"""About how many patches are cut and projected together on a CPU."""


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
            shape: (n, patches), n = `BLOCK`.
            sides: (H, W) of the level.

        Returns:
            x and y [n, patches], in 3 .. W - 4 and 3 .. H - 4.
        """

    def directions(self, level: int, repeat: int, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return standard normal numbers [components, directions]: a column is a direction."""

    def definition(self) -> dict[str, Any]:
        """Return what decides the numbers, ready for JSON."""


@dataclass(frozen=True)
class SeededDraws:
    """Random numbers that depend on the seed (>= 0) and what they are for, never on the order of calls."""

    seed: int

    def centres(
        self, images: str, level: int, block: int, shape: tuple[int, int], sides: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the centres of patches lie: x and y [n, patches]."""
        rng = self._generator(f"patches of {images}", level, block)
        margin = PATCH // 2
        top = np.array(sides)[:, None] - margin
        y, x = rng.integers(margin, top, size=(*shape[:1], 2, *shape[1:])).swapaxes(0, 1)
        return x, y

    def directions(self, level: int, repeat: int, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return standard normal numbers [components, directions]."""
        return self._generator("directions", level, repeat).standard_normal(shape)

    def definition(self) -> dict[str, Any]:
        """Return what decides the numbers, ready for JSON."""
        return {"kind": "seeded", "seed": self.seed}

    def _generator(self, purpose: str, level: int, index: int) -> np.random.Generator:
        key = [self.seed, zlib.crc32(purpose.encode()), level, index]
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


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


def corners(x: Tensor, y: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return where patches begin in the memory of images.

    Args:
        x: [N, P], columns of the centres, in 3 .. W - 4.
        y: [N, P], rows of the centres, in 3 .. H - 4.
        shape: (C, H, W) of the images.

    Returns:
        [N, P], int32: the place of a patch's first pixel in the first channel of its image.
    """
    return ((y - PATCH // 2) * shape[2] + (x - PATCH // 2)).int()


def patches_at(images: Tensor, starts: Tensor) -> Tensor:
    """Cut 7x7 patches out of images.

    Args:
        images: [N, C, H, W], contiguous.
        starts: [N, P], `corners`.

    Returns:
        [N, P, C, 7, 7], row by row. Source: `get_descriptors_for_minibatch`, where they are column by column,
        which matters only when directions are to mean the same.
    """
    n, channels, height, width = images.shape
    # Every 7 neighbours in memory as a row of a matrix, so that one call copies all rows of all patches.
    sevens = images.as_strided((images.numel() - PATCH + 1, PATCH), (1, 1))
    place = torch.arange(n * channels, device=images.device).view(n, 1, channels, 1) * (height * width)
    rows = torch.arange(PATCH, device=images.device) * width
    indices = (starts.long()[:, :, None, None] + place + rows).flatten()  # of [N, P, C, 7]
    return sevens.index_select(0, indices).view(n, -1, channels, PATCH, PATCH)


class LevelPatches:
    """The patches of one set of images (C, H, W) at one level of the pyramid.

    The patches of a small image have more numbers than the image. Of those the image is kept, and patches are
    cut out whenever they are asked for; of larger ones the patches are kept. They are put
    in on the host alone; `to` brings them to another device.
    """

    def __init__(self, shape: tuple[int, int, int], patches: int, device: torch.device | None = None) -> None:
        self.shape = shape
        self.patches = patches
        self.device = device or torch.device("cpu")
        self._cut_later = shape[1] * shape[2] <= patches * PATCH**2
        self._kept: list[Tensor] = []  # [PART, C, H, W] or [PART, P, C, 7, 7]
        self._starts: list[Tensor] = []  # [PART, P]
        self._sums: list[Tensor] = []  # [PART, 2, C] of the values of an image's patches and of their squares

    def reserve(self, count: int) -> None:
        """Make room for the images 0 to count - 1."""
        channels = self.shape[0]
        each = self.shape if self._cut_later else (self.patches, channels, PATCH, PATCH)
        while PART * len(self._kept) < count:
            self._kept.append(torch.empty(PART, *each))
            self._starts.append(torch.empty(PART, self.patches, dtype=torch.int32))
            self._sums.append(torch.empty(PART, 2, channels, dtype=torch.float64))

    def put(self, place: int, images: Tensor, starts: Tensor) -> None:
        """Take the patches of some images.

        Args:
            place: Of the first image; there must be room for all.
            images: [n, C, H, W], float32, contiguous, on any device.
            starts: [n, P], `corners`, on the host.
        """
        part, row = divmod(place, PART)
        here = PART - row
        if here < len(images):
            self.put(place + here, images[here:], starts[here:])
            images, starts = images[:here], starts[:here]
        kept, rows = self._kept[part], slice(row, row + len(images))
        self._starts[part][rows] = starts
        if self._cut_later:
            kept[rows] = images
            found = patches_at(kept[rows], starts)
        else:
            kept[rows] = patches_at(images, starts.to(images.device))
            found = kept[rows]
        values = found.flatten(2).double()  # [n, P, C * 49]
        sums = torch.stack([values.sum(1), values.square_().sum(1)], 1)
        self._sums[part][rows] = sums.view(len(sums), 2, -1, PATCH**2).sum(3)

    def get(self, images: Tensor) -> Tensor:
        """Return the patches of some images [n * P, C * 49]; not to be written to.

        Args:
            images: [n], int64 on the host, increasing, all of one part (`chunks`).
        """
        part, first = divmod(int(images[0]), PART)
        rows: Tensor | slice = images - PART * part
        if int(images[-1]) - int(images[0]) == len(images) - 1:
            rows = slice(first, first + len(images))  # no copy
        found = self._kept[part][rows]
        if self._cut_later:
            found = patches_at(found, self._starts[part][rows])
        return found.flatten(2).flatten(0, 1)

    def sums(self, images: Tensor) -> Tensor:
        """Return the sums of the values of images' [n] patches, and of their squares [2, C], float64."""
        return torch.cat(self._sums)[images].sum(0)

    def chunks(self, images: Tensor) -> list[Tensor]:
        """Split the indices of images [n], increasing, into those that `get` is to be asked for together."""
        within = images.split(np.bincount(images // PART).tolist())  # type: ignore[no-untyped-call]
        few = max(1, ROWS_AT_ONCE // self.patches) if self.device.type == "cpu" else PART
        return [chunk for part in within if len(part) for chunk in part.split(few)]

    def to(self, device: torch.device) -> LevelPatches:
        """Return the same on another device."""
        if device == self.device:
            return self
        copy = LevelPatches(self.shape, self.patches, device)
        copy._kept, copy._starts = ([x.to(device) for x in each] for each in (self._kept, self._starts))
        copy._sums = self._sums
        return copy


class Descriptors:
    """The patches of one set of images, all levels, as they come; nothing is normalised yet.

    They are kept in the memory of the host, and images are filtered on the device. Of the sets, called
    "reals" and "fakes", each has its own patches, which lie where `draws` says.
    """

    def __init__(self, name: str, draws: Draws, patches: int, device: torch.device) -> None:
        self.name = name
        self.draws = draws
        self.patches = patches
        self.device = device
        self.count = 0
        self._taken = 0
        self._waiting = WaitingImages(device, VALUES_WAITING)
        self._levels: list[LevelPatches] = []
        self._offsets: list[Tensor] = []

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take the patches of images [n, C, H, W], all of one shape, now or when others have come."""
        if not len(images):
            return
        if not self.count:
            self._begin(images)
        self.count += len(images)
        for some in self._waiting.add(images):
            self._take(some)

    def levels(self) -> list[LevelPatches]:
        """Return the patches of all images so far, of each level of the pyramid, finest first."""
        if len(self._waiting):
            self._take(self._waiting.take())
        return self._levels

    def _begin(self, images: NDArray[np.uint8]) -> None:
        """Make the levels of a pyramid of images like these."""
        sides = level_sides(*images.shape[2:])
        self._levels = [LevelPatches((images.shape[1], *side), self.patches) for side in sides]
        with computing(self.device):
            # What is near 0 is summed and projected without loss. A number fixed by the first image, and
            # whole, so that taking it off costs no precision either.
            bands = laplacian_pyramid(self._on_device(images[:1]), len(sides))
            self._offsets = [band[0].mean((1, 2), keepdim=True).round() for band in bands]  # [C, 1, 1]

    def _take(self, images: NDArray[np.uint8]) -> None:
        """Take the patches of images that have waited."""
        first, self._taken = self._taken, self._taken + len(images)
        step = BLOCK * max(1, VALUES_A_TASK // (BLOCK * images[0].size))
        edges = [0, *range(step - first % step, len(images), step), len(images)]  # of tasks
        with computing(self.device) as workers:
            for level in self._levels:
                level.reserve(self._taken)
            workers.map(lambda a: self._take_some(first + a[0], images[slice(*a)]), pairwise(edges))

    def _take_some(self, place: int, pixels: NDArray[np.uint8]) -> None:
        """Take the patches of images [n, C, H, W] from a place on."""
        images = self._on_device(pixels)
        for index, (level, offset) in enumerate(zip(self._levels, self._offsets, strict=True)):
            starts = self._starts(index, place, len(images))
            few = max(1, VALUES_AT_ONCE // images[0].numel())
            smaller = []
            for first in range(0, len(images), few):
                band = images[first : first + few]
                if index < len(self._levels) - 1:
                    band, half = split_band(band)
                    smaller.append(half)
                level.put(place + first, band - offset, starts[first : first + few])
            images = torch.cat(smaller) if smaller else images

    def _starts(self, level: int, place: int, count: int) -> Tensor:
        """Return the `corners` of the patches of images from a place on, at one level [count, P]."""
        shape, (block, row) = self._levels[level].shape, divmod(place, BLOCK)
        blocks = range(block, (place + count - 1) // BLOCK + 1)
        sides = shape[1], shape[2]
        drawn = (self.draws.centres(self.name, level, i, (BLOCK, self.patches), sides) for i in blocks)
        x, y = (torch.from_numpy(np.concatenate(centres)) for centres in zip(*drawn, strict=True))
        return corners(x, y, shape)[row : row + count]

    def _on_device(self, pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)


class NormalisedSet:
    """The patches of some images, seen with mean 0 and deviation 1 in each channel, without a copy of them.

    Mean and deviation (the population's) are over all patches and their pixels, summed in float64. A channel
    with one value throughout has no deviation to divide by; it becomes 0, where the original divides by zero.
    Source: `finalize_descriptors`.

    Args:
        level: The patches, on the device where projections are computed.
        images: [n], int64, increasing: of which images.
    """

    def __init__(self, level: LevelPatches, images: Tensor) -> None:
        self._level = level
        self._chunks = level.chunks(images)
        self.count = len(images) * level.patches
        mean, mean_square = level.sums(images) / (self.count * PATCH**2)
        variance = mean_square - mean.square()
        has_deviation = variance > 1e-12 * mean_square  # and is not what the sums have rounded off
        scale = torch.where(has_deviation, variance.rsqrt(), 0.0)
        self._mean, self._scale = (x.repeat_interleave(PATCH**2) for x in (mean, scale))  # [C * 49]

    def project(self, directions: Tensor, out: Tensor, workers: Workers) -> None:
        """Find the inner products of each direction with each normalised patch.

        Args:
            directions: [D, C * 49], float64, on the host.
            out: [D, N], float32, on the device of the patches: becomes what the original gets from normalised
                copies, (x - mean) / deviation . d, computed as x . (d / deviation) - mean . (d / deviation).
            workers: Who computes them.
        """
        scaled = directions * self._scale
        offsets = (scaled @ self._mean).float()[:, None].to(out.device)
        scaled = scaled.float().to(out.device)
        outs = out.split([len(chunk) * self._level.patches for chunk in self._chunks], 1)  # type: ignore[no-untyped-call]

        def project_some(images: Tensor, some: Tensor) -> None:
            patches = self._level.get(images)
            if some.is_cpu:
                torch.sub(_multiply(scaled, patches), offsets, out=some)
            else:
                torch.addmm(offsets, scaled, patches.T, beta=-1, out=some)

        workers.map(lambda both: project_some(*both), zip(self._chunks, outs, strict=True))


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b.T, computed on a CPU: of [D, K] and [N, K], [D, N], all float32.

    PyTorch's usual product takes twice the time on processors of another maker than its library's. That of
    oneDNN, which compiled models use, is fast on all; where there is none, NumPy's is the next best.
    """
    product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if product is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return torch.from_numpy(a.numpy() @ b.numpy().T)
    result: Tensor = product(a, b, None, "none", [], "")
    return result

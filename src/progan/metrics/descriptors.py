"""The descriptors of the sliced Wasserstein distance: normalised patches of the levels of a pyramid."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import DataError
from progan.metrics.computing import Workers, computing
from progan.metrics.laplacian import laplacian_pyramid

SMALLEST = 16
"""Side of the coarsest level (section 5)."""

PATCH = 7
"""Side of a patch (section 5)."""

BLOCK = 16
"""Images whose patches are drawn together; part of the definition of `SeededDraws`, so not to be tuned."""

VALUES_AT_ONCE = 2**18
"""Pixel values that are filtered together; whole blocks of large images fall out of the caches, which takes
three times as long."""

PART = 512
"""Images whose patches are kept in one piece of memory; pieces are never moved."""

ROWS_AT_ONCE = 2048
"""Patches that are summed or projected together on a CPU, so that they stay in the caches."""


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
        [N, P, C, 7, 7], indexed [.., x, y]: the original lays patches out column by column, which matters
        only when directions are to mean the same. Source: `get_descriptors_for_minibatch`.
    """
    windows = images.unfold(3, PATCH, 1).unfold(2, PATCH, 1)  # [N, C, H - 6, W - 6, 7 of x, 7 of y]
    n = torch.arange(len(images), device=images.device)[:, None]
    return windows[n, :, y - PATCH // 2, x - PATCH // 2]


class Descriptors:
    """The patches of one set of images, all levels, as they come; nothing is normalised yet.

    They are kept in the memory of the host: 588 bytes a patch, a third of it if the images are gray. Images
    at even and at odd places are kept apart, so that the halves of a set can be held against each other.

    Args:
        name: "reals" or "fakes": each set has its own patches.
        draws: Where the patches lie.
        patches: Patches of each image and level.
        device: Where images are filtered.
    """

    def __init__(self, name: str, draws: Draws, patches: int, device: torch.device) -> None:
        self.name = name
        self.draws = draws
        self.patches = patches
        self.device = device
        self.count = 0
        self.sides: list[tuple[int, int]] = []
        self._parts: list[tuple[list[Tensor], list[Tensor]]] = []  # of each level and half [.., C, 49]
        self._offsets: list[Tensor] = []

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take the patches of images [n, C, H, W], all of one shape."""
        if not len(images):
            return
        if not self.sides:
            self.sides = level_sides(*images.shape[2:])
            self._parts = [([], []) for _ in self.sides]
        first, self.count = self.count, self.count + len(images)
        edges = [0, *range(BLOCK - first % BLOCK, len(images), BLOCK), len(images)]  # of blocks
        with computing(self.device) as workers:
            for parts in chain.from_iterable(self._parts):
                while PART * len(parts) < (self.count + 1) // 2:
                    parts.append(torch.empty(PART * self.patches, images.shape[1], PATCH * PATCH))
            if not self._offsets:
                # What is near 0 is summed and projected without loss. A number fixed by the first image, and
                # whole, so that taking it off costs no precision either.
                bands = self._pyramid(images[:1])
                self._offsets = [band[0].mean((1, 2), keepdim=True).round() for band in bands]  # [C, 1, 1]
            workers.map(lambda a: self._add_within_block(first + a[0], images[slice(*a)]), pairwise(edges))

    def half(self, level: int, half: int, count: int | None = None) -> list[Tensor]:
        """Return the patches [.., C, 49] of images at even (0) or odd (1) places: `count` of them, or all."""
        rows = ((self.count + 1 - half) // 2 if count is None else count) * self.patches
        parts = []
        for part in self._parts[level][half]:
            if rows > 0:
                parts.append(part[:rows])
            rows -= len(part)
        return parts

    def all(self, level: int) -> list[Tensor]:
        """Return the patches [.., C, 49] of all images."""
        return self.half(level, 0) + self.half(level, 1)

    def _add_within_block(self, place: int, images: NDArray[np.uint8]) -> None:
        """Take the patches of images [n, C, H, W] from a place on, all of one block."""
        block, row = divmod(place, BLOCK)
        for level, band in enumerate(self._pyramid(images)):
            shape = (BLOCK, self.patches)
            centres = self.draws.centres(self.name, level, block, shape, self.sides[level])
            of_these = (torch.from_numpy(c[row : row + len(images)].copy()) for c in centres)
            x, y = (c.to(self.device) for c in of_these)
            found = patches_at(band - self._offsets[level], x, y).flatten(3)  # [n, P, C, 49]
            for image, patches in enumerate(found, start=place):
                part, start = divmod(image // 2, PART)
                start *= self.patches
                self._parts[level][image % 2][part][start : start + self.patches] = patches

    def _pyramid(self, pixels: NDArray[np.uint8]) -> list[Tensor]:
        """Return `laplacian_pyramid`, made of few images at a time."""
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).float()
        few = max(1, VALUES_AT_ONCE // images[0].numel())
        pyramids = [laplacian_pyramid(some, len(self.sides)) for some in torch.split(images, few)]
        return [torch.cat(bands) for bands in zip(*pyramids, strict=True)]


class NormalisedSet:
    """A set of patches, seen with mean 0 and deviation 1 in each channel, without a copy of it.

    Mean and deviation (the population's) are over all patches and their pixels, summed in float64. A channel
    with one value throughout has no deviation to divide by; it becomes 0, where the original divides by zero.
    Source: `finalize_descriptors`.

    Args:
        parts: The set, in parts [.., C, K] of float32.
        device: Where projections are computed.
        workers: Who computes them on a CPU.
    """

    def __init__(self, parts: Sequence[Tensor], device: torch.device, workers: Workers | None = None) -> None:
        self._workers = workers or Workers()
        self._parts = [part.flatten(1).to(device) for part in parts]
        self.count = sum(len(part) for part in parts)
        channels, pixels = parts[0].shape[1:]
        sums = torch.stack(self._workers.map(_sums, parts)).sum(0)  # [2, C * K]
        mean, mean_square = sums.view(2, channels, pixels).sum(2) / (self.count * pixels)
        variance = mean_square - mean.square()
        has_deviation = variance > 1e-12 * mean_square  # and is not what the sums have rounded off
        scale = torch.where(has_deviation, variance.rsqrt(), 0.0)
        self._mean, self._scale = (x.repeat_interleave(pixels) for x in (mean, scale))  # [C * K]

    def project(self, directions: Tensor) -> Tensor:
        """Return the inner products of each direction with each normalised patch.

        Args:
            directions: [D, C * K], float64, on the host.

        Returns:
            [D, N], float32: what the original gets from normalised copies, (x - mean) / deviation . d,
            computed as x . (d / deviation) - mean . (d / deviation).
        """
        found = torch.empty(len(directions), self.count, device=self._parts[0].device)
        scaled = directions * self._scale
        offsets = (scaled @ self._mean).float()[:, None].to(found.device)
        scaled = scaled.float().to(found.device)

        def project_part(part: Tensor, out: Tensor) -> None:
            few = ROWS_AT_ONCE if out.is_cpu else len(part)
            for rows, place in zip(part.split(few), out.split(few, 1), strict=True):  # type: ignore[no-untyped-call]
                place.copy_(torch.addmm(offsets, scaled, rows.T, beta=-1))

        outs = found.split([len(part) for part in self._parts], 1)  # type: ignore[no-untyped-call]
        self._workers.map(lambda both: project_part(*both), zip(self._parts, outs, strict=True))
        return found


def _sums(part: Tensor) -> Tensor:
    """Return the sums of values and of their squares [2, C * K] of patches [.., C, K], in float64."""
    sums = torch.zeros(2, part[0].numel(), dtype=torch.float64)
    for rows in part.flatten(1).split(ROWS_AT_ONCE):  # type: ignore[no-untyped-call]
        values = rows.double()
        sums[0] += values.sum(0)
        sums[1] += values.square_().sum(0)
    return sums

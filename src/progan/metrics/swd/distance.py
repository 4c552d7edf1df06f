"""The sliced Wasserstein distance between two sets of images (section 5 of the paper).

Images are split into a Laplacian pyramid. From each level of each image random 7x7 patches are taken, all
patches of a set are normalised per channel, and two sets are compared along random directions, where the
Wasserstein distance is the mean difference of sorted projections. The fine levels tell how alike detail and
sharpness are, the coarse ones how alike large structures.

The numbers are those of the original sliced_wasserstein.py, times 1e3 as in the paper's tables. They can be
compared only at the same number of images, resolution, patches and kind of image (gray or colour).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Branch
from progan.errors import ConfigError, DataError
from progan.metrics.exact_compute import Workers, computing
from progan.metrics.metric import CheckedMetric, Images, MetricTools
from progan.metrics.swd.patches import (
    PATCH,
    SMALLEST,
    Descriptors,
    Draws,
    LevelPatches,
    NormalisedSet,
    SeededDraws,
    level_sides,
)

PROJECTIONS_AT_ONCE = 2**27
"""Numbers of each set that are sorted at a time: half a gigabyte. Fewer directions at once are slower."""


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distance between two sets of as many images; smaller is nearer.

    Attributes:
        resolutions: The smaller side of the images of each level of the pyramid, finest first.
        distances: Distance of each level, times 1e3.
    """

    resolutions: tuple[int, ...]
    distances: tuple[float, ...]
    images: int

    @property
    def mean(self) -> float:
        """Mean distance over the levels, times 1e3."""
        return sum(self.distances) / len(self.distances)

    def named(self, prefix: str) -> dict[str, float]:
        """Return the numbers as `prefix/128`, .., `prefix/mean`."""
        levels = zip(self.resolutions, self.distances, strict=True)
        return {**{f"{prefix}/{side}": distance for side, distance in levels}, f"{prefix}/mean": self.mean}


class SlicedWassersteinOptions(TypedDict, total=False):
    """The options of `SlicedWassersteinMetric`, which explains them."""

    seed: int
    device: torch.device | None
    repeats: int
    directions: int
    patches: int
    draws: Draws | None


class SlicedWassersteinMetric(CheckedMetric):
    """Sliced Wasserstein distance, with the distance between two halves of the reals beside it.

    Give as many reals as fakes, n, or twice as many. Numbers, all times 1e3:

    - `swd/128`, .., `swd/16`, `swd/mean`: the distance of n fakes from n reals: all of them, or of 2n a
      random half.
    - `swd_floor/128`, .., `swd_floor/mean`: the distance of a random half of the reals from the other, what a
      perfect generator would reach. It falls with the number of images, about as 1 / sqrt(n): of 2n reals it
      belongs to the distance beside it, but of n reals it compares halves of n / 2, and lies higher by about
      sqrt(2).
    - `swd_floor/images`: how many images each half has.

    The floor is computed once. Descriptors are kept in the memory of the host: of a colour image with 128
    patches 75 kB for each level from 128 on, 49 kB for that of 64, less for smaller ones (16,384 reals and
    fakes of 128x128: 4.6 GB); of a gray one a third. The device holds one level of both sets at a time.

    Gray images count as RGB with equal channels, as in the original. Alpha is refused: how a see-through
    colour looks depends on the background, so put the images on one, or drop the channel, first.

    Args:
        seed: Of halves, patches and directions, at least 0; keep it when numbers are to be compared.
        device: Where to compute; None for the CPU.
        repeats: How often directions are drawn.
        directions: Directions drawn each time.
        patches: Patches of each image and level. Other numbers than 4, 128 and 128 make another name,
            such as `swd_64x4x128` (patches, repeats, directions).
        draws: Random numbers of patches and directions that replace those of `seed`; they say in the
            definition what they are.

    Raises:
        ConfigError: if an option is out of range.
    """

    version = 2
    minimum = 2

    name = "swd"

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, with the published patches and directions."""
        return cls(seed=tools.seed, device=tools.device)

    def __init__(
        self,
        *,
        seed: int = 0,
        device: torch.device | None = None,
        repeats: int = 4,
        directions: int = 128,
        patches: int = 128,
        draws: Draws | None = None,
    ) -> None:
        _check_options(seed, repeats=repeats, directions=directions, patches=patches)
        standard = (patches, repeats, directions) == (128, 4, 128)
        self.name = "swd" if standard else f"swd_{patches}x{repeats}x{directions}"
        self.seed = seed
        self.device = device or torch.device("cpu")
        self.repeats, self.directions, self.patches = repeats, directions, patches
        self._draws = draws or SeededDraws(seed)
        super().__init__("the sliced Wasserstein distance")
        self._sets = {name: self._empty(name) for name in ("reals", "fakes")}
        self._floor: SlicedWasserstein | None = None

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        return {
            "patch": PATCH,
            "patches": self.patches,
            "repeats": self.repeats,
            "directions": self.directions,
            "smallest_level": SMALLEST,
            "floor": "a random half of the reals against the other",
            "draws": self._draws.definition(),
            "seed": self.seed,
        }

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of sets that cannot be compared."""
        distance, floor = self.distance(), self.floor()
        numbers = distance.named(self.name) | floor.named(f"{self.name}_floor")
        return numbers | {f"{self.name}_floor/images": float(floor.images)}

    def distance(self) -> SlicedWasserstein:
        """Return the distance of the fakes from as many reals.

        Raises:
            DataError: if a set is empty, or there are neither as many reals as fakes nor twice as many.
        """
        reals, fakes = self._sets["reals"], self._sets["fakes"]
        for some in (reals, fakes):
            if not some.count:
                raise DataError(f"There are no {some.name}: not one image came.")
        if reals.count not in (fakes.count, 2 * fakes.count):
            fakes_are = "more" if fakes.count > reals.count else f"only {fakes.count}"
            raise DataError(
                f"There are {reals.count} reals but {fakes_are} fakes; the distance compares sets of one "
                f"size, so give as many of each (or twice as many reals)."
            )
        of_reals = torch.arange(fakes.count) if reals.count == fakes.count else self._halves()[0]
        return self._compare(reals, fakes, of_reals, torch.arange(fakes.count))

    def floor(self) -> SlicedWasserstein:
        """Return the distance of one random half of the reals from the other; an odd one is left out.

        Raises:
            DataError: if there are fewer than 2 reals.
        """
        reals = self._sets["reals"]
        if reals.count < 2:
            raise DataError("The floor needs at least 2 reals, one for each half.")
        if self._floor is None:
            self._floor = self._compare(reals, reals, *self._halves())
        return self._floor

    def _empty(self, name: str) -> Descriptors:
        return Descriptors(name, self._draws, self.patches, self.device)

    def _take(self, images: Images, name: str) -> None:
        level_sides(*images.shape[2:])  # also of a batch of no images
        self._sets[name].add(images)
        if name == "reals":
            self._floor = None

    def _forget(self, name: str) -> None:
        self._sets[name] = self._empty(name)
        if name == "reals":
            self._floor = None

    def _halves(self) -> tuple[Tensor, Tensor]:
        """Return the indices of two random halves of the reals, in order; an odd one is in neither."""
        count = self._sets["reals"].count
        rng = np.random.default_rng([self.seed, zlib.crc32(b"halves of the reals"), count])
        mixed = torch.from_numpy(rng.permutation(count))
        first, second = mixed[: count // 2].sort().values, mixed[count // 2 : count // 2 * 2].sort().values
        return first, second

    def _compare(self, a: Descriptors, b: Descriptors, of_a: Tensor, of_b: Tensor) -> SlicedWasserstein:
        """Measure as many images of two sets, given by their indices."""
        n, directions = len(of_a) * self.patches, self.repeats * self.directions
        at_once = min(directions, max(1, PROJECTIONS_AT_ONCE // n))
        levels = list(zip(a.levels(), b.levels(), strict=True))

        def distance(index: int, level: LevelPatches, other: LevelPatches) -> float:
            level, other = level.to(self.device), level if other is level else other.to(self.device)
            sets = NormalisedSet(level, of_a), NormalisedSet(other, of_b)
            return projected_distance(*sets, self._units(index), workers, room) * 1e3

        with computing(self.device) as workers:
            room = torch.empty(2, at_once, n, device=self.device)
            distances = tuple(distance(index, *both) for index, both in enumerate(levels))
        return SlicedWasserstein(tuple(min(level.shape[1:]) for level, _ in levels), distances, len(of_a))

    def _units(self, level: int) -> Tensor:
        """Return directions [D, C * 49] of length 1 in the space of RGB patches, those of all repeats."""
        shape = (3 * PATCH * PATCH, self.directions)
        normals = np.concatenate([self._draws.directions(level, i, shape) for i in range(self.repeats)], 1)
        units = normals / np.sqrt(np.square(normals).sum(axis=0, keepdims=True))
        # Drawn for patches column by column, as the original has them; ours are row by row.
        columns = torch.from_numpy(units.T.reshape(-1, 3, PATCH, PATCH)).transpose(2, 3)
        if self._shapes.shapes["reals"][0] == 1:  # equal channels: one stands for all three
            columns = columns.sum(1)
        return columns.flatten(1)


def sliced_wasserstein(
    reals: Iterable[NDArray[np.uint8]],
    fakes: Iterable[NDArray[np.uint8]],
    **options: Unpack[SlicedWassersteinOptions],
) -> SlicedWasserstein:
    """Measure the sliced Wasserstein distance between two sets of images, read once, in batches of any size.

    Args:
        reals: Batches [n, C, H, W] of uint8, C of 1 or 3; both sides at least 16 and even as often as they
            are halved on the way to 16 (powers of two always are).
        fakes: Likewise, of the same shape; as many images, or half as many, which are compared with a
            random half of the reals.
        options: Those of `SlicedWassersteinMetric`.

    Raises:
        DataError: if the images cannot be measured or compared; the message says why.
        ConfigError: if an option is out of range.
    """
    metric = SlicedWassersteinMetric(**options)
    count = 0
    for batch in reals:
        metric.add_reals(batch)
        count += len(batch)
    for batch in fakes if count else ():
        metric.add_fakes(batch)
        count -= len(batch)
        if count < 0:
            break  # `distance` tells that there are too many; their end may never come
    return metric.distance()


def sliced_wasserstein_floor(
    reals: Iterable[NDArray[np.uint8]],
    **options: Unpack[SlicedWassersteinOptions],
) -> SlicedWasserstein:
    """Measure the distance between two disjoint halves of the reals: what a perfect generator would reach.

    The halves are random ones, by the seed; an odd image is left out. The floor falls with the number of
    images, so hold a distance of n images against the floor of 2n reals.

    Args:
        reals: Batches [n, C, H, W] of uint8, C of 1 or 3, at least 2 images; sides like those of
            `sliced_wasserstein`.
        options: Those of `SlicedWassersteinMetric`.

    Returns:
        The distance; `images` counts one half.

    Raises:
        DataError: if the images cannot be measured; the message says why.
        ConfigError: if an option is out of range.
    """
    metric = SlicedWassersteinMetric(**options)
    for batch in reals:
        metric.add_reals(batch)
    return metric.floor()


def projected_distance(
    reals: NormalisedSet, fakes: NormalisedSet, directions: Tensor, workers: Workers, room: Tensor
) -> float:
    """Return the Wasserstein distance of two sets of as many patches, averaged over directions.

    In one dimension the distance of two sets of n numbers is the mean of |a_(i) - b_(i)|, both sorted.

    Args:
        reals: One set.
        fakes: The other.
        directions: [D, C * 49], unit vectors, float64.
        workers: Who computes on a CPU.
        room: [2, d, n], float32, on the device: for the numbers of d directions at a time.

    Source: `sliced_wasserstein` of the original.
    """
    total = 0.0
    for some in directions.split(room.shape[1]):  # type: ignore[no-untyped-call]
        a, b = room[:, : len(some)]
        reals.project(some, a, workers)
        fakes.project(some, b, workers)
        if room.is_cpu:
            # Rows of NumPy's arrays, for it sorts in place, in a thirtieth of the time that PyTorch takes.
            lines = zip(a.numpy(), b.numpy(), strict=True)
            total += math.fsum(workers.map(lambda both: _distance_on_a_line(*both), lines))
        else:
            total += float((a.sort().values - b.sort().values).abs_().mean(1).sum())
    return total / len(directions)


def _distance_on_a_line(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the Wasserstein distance of numbers [N] from others; they are used up."""
    a.sort()
    b.sort()
    a -= b
    return float(np.abs(a, out=a).mean(dtype=np.float64))


def _check_options(seed: int, **counts: int) -> None:
    """Raise a ConfigError unless the seed is at least 0 and everything else at least 1."""
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, not {seed}.")
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}.")

"""Distances between features, and the nearest real images of samples.

Distances are computed a block of rows at a time, so memory does not grow with the product of two sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import ConfigError, DataError
from progan.metrics.extractor import Extractor
from progan.metrics.image_checks import ImageShapes
from progan.metrics.metric import Images

BLOCK = 2**12
"""Vectors of each set whose distances are in memory together: 128 MiB of distances."""


@dataclass(frozen=True)
class Neighbours:
    """The real images that are nearest to samples, nearest first.

    Both are [samples, k]: places in the stream of reals, and Euclidean distances between features.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest_reals(samples: Images, reals: Iterable[Images], extractor: Extractor, k: int = 3) -> Neighbours:
    """Find the k reals nearest to each sample in the space of an extractor's features.

    The reals are read once and not kept. A sample whose nearest real is much nearer than reals are to each
    other is a copy of a training image. Of reals that are equally near the first comes first.

    Args:
        samples: [n, C, H, W] of uint8, C of 1 or 3.
        reals: Batches of such images, of the same shape.
        extractor: Makes the features.
        k: How many, at least 1.

    Raises:
        DataError: if images cannot be measured, there are none, or there are fewer than k reals.
        ConfigError: if k is less than 1.
    """
    if k < 1:
        raise ConfigError(f"the number of neighbours must be at least 1, not {k}")
    return nearest(map(distances_to(samples, extractor), filter(len, reals)), len(samples), k)


def distances_to(samples: Images, extractor: Extractor) -> Callable[[Images], NDArray[np.float64]]:
    """Return what computes how far batches of reals are from samples.

    Args:
        samples: [n, C, H, W] of uint8, C of 1 or 3.
        extractor: Makes the features.

    Returns:
        A function that takes reals [m, C, H, W], m at least 1, and returns the squared distances of their
        features [m, n]; it raises a DataError if they cannot be measured.

    Raises:
        DataError: if the samples cannot be measured, or there are none.
    """
    shapes = ImageShapes("the search for the nearest reals")
    shapes.check(samples, "fakes")
    if not len(samples):
        raise DataError("There are no samples to find neighbours of.")
    wanted = extractor(samples)

    def distances(reals: Images) -> NDArray[np.float64]:
        shapes.check(reals, "reals")
        squares = squared_distances(wanted, extractor(reals), extractor.device)  # [n, m]
        return squares.T.cpu().numpy()

    return distances


def nearest(distances: Iterable[NDArray[np.float64]], samples: int, k: int) -> Neighbours:
    """Find the k nearest of a stream of reals; of those that are equally near the first comes first.

    Args:
        distances: Batches [m, samples] of the reals' squared distances to the samples.
        samples: How many those are.
        k: How many, at least 1.

    Raises:
        DataError: if there are fewer than k reals.
    """
    squares = torch.empty(samples, 0, dtype=torch.float64)
    indices = torch.empty(samples, 0, dtype=torch.int64)
    seen = 0
    for batch in distances:
        places = torch.arange(seen, seen + len(batch)).expand(samples, -1)
        squares, order = torch.cat([squares, torch.from_numpy(batch).T], 1).sort(dim=1, stable=True)
        squares, order = squares[:, :k], order[:, :k]
        indices = torch.cat([indices, places], 1).gather(1, order)
        seen += len(batch)
    if seen < k:
        raise DataError(f"There are only {seen} reals; to find {k} neighbours there must be at least {k}.")
    return Neighbours(indices.numpy(), squares.sqrt().numpy())


def squared_distances(a: Tensor, b: Tensor, device: torch.device | None = None) -> Tensor:
    """Return the squared Euclidean distances of all pairs of two sets of vectors.

    Computed as |a|^2 + |b|^2 - 2ab in float64. What is within the rounding of that is 0, so that copies of a
    vector are at no distance from it.

    Args:
        a: [n, d].
        b: [m, d].
        device: Where to compute; None for the CPU.

    Returns:
        [n, m], float64, on the device (on the CPU where the device has no float64).
    """
    place = torch.device("cpu") if device is None or device.type == "mps" else device
    a, b = a.to(place).double(), b.to(place).double()
    sums = a.square().sum(1)[:, None] + b.square().sum(1)
    squares = torch.addmm(sums, a, b.T, alpha=-2)
    return squares.masked_fill_(squares <= a.shape[1] * torch.finfo(torch.float64).eps * sums, 0)


def squared_radii(features: Tensor, k: int, device: torch.device | None = None) -> Tensor:
    """Return each vector's squared distance to the k-th nearest of the others.

    Args:
        features: [n, d], n more than k.
        k: At least 1.
        device: Where to compute; None for the CPU.

    Returns:
        [n], float64, on the CPU. Source: the manifold of equation 1 of Kynkäänniemi et al. (2019).
    """
    radii = []
    for rows in torch.split(features, BLOCK):
        # Each vector is among the nearest to itself, hence one more.
        nearest = torch.empty(len(rows), 0, dtype=torch.float64)
        for columns in torch.split(features, BLOCK):
            squares = squared_distances(rows, columns, device)
            few = squares.topk(min(k + 1, len(columns)), largest=False).values.cpu()
            nearest = torch.cat([nearest, few], 1)
            nearest = nearest.topk(min(k + 1, nearest.shape[1]), largest=False).values
        radii.append(nearest[:, k])
    return torch.cat(radii)


def share_inside(probes: Tensor, centres: Tensor, radii: Tensor, device: torch.device | None = None) -> float:
    """Return the share of vectors that lie in at least one of the balls, their borders included.

    Args:
        probes: [n, d], n at least 1.
        centres: [m, d].
        radii: [m], squared radii (`squared_radii`).
        device: Where to compute; None for the CPU.

    Source: equation 2 of Kynkäänniemi et al. (2019).
    """
    count = 0
    for rows in torch.split(probes, BLOCK):
        inside = torch.zeros(len(rows), dtype=torch.bool)
        for columns, limits in zip(torch.split(centres, BLOCK), torch.split(radii, BLOCK), strict=True):
            squares = squared_distances(rows, columns, device)
            inside |= (squares <= limits.to(squares.device)).any(1).cpu()
        count += int(inside.sum())
    return count / len(probes)

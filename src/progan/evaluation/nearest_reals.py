"""A picture of samples with the real images that are nearest to them: copies, if there are any, are seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import Images
from progan.distributed.work_sharing import Deal, Work, alone, in_parts
from progan.errors import DataError
from progan.evaluation.image_set import ImageSet, require_equal_shapes
from progan.metrics.extractor import Extractor
from progan.metrics.neighbours import Neighbours, distances_to, nearest
from progan.system.progress import Progress, reported, unheard

ROWS, NEAREST = 8, 7
"""Samples of a picture, and reals beside each."""


def require_enough(images: ImageSet, reals: ImageSet, *, rows: int = ROWS, k: int = NEAREST) -> None:
    """Check the sets of `neighbour_rows`.

    Raises:
        DataError: if the sets differ in shape, or are too small.
    """
    require_equal_shapes(images, reals)
    for each, need in ((images, rows), (reals, k)):
        if each.count is not None and each.count < need:
            raise DataError(f"{each.name}: holds {each.count:,} images; the picture needs {need:,}")
    if reals.count is None:
        raise DataError(f"{reals.name}: a generator has no end of images to look at; give a set of pictures")


def neighbour_rows(
    images: ImageSet,
    reals: ImageSet,
    extractor: Extractor,
    *,
    rows: int = ROWS,
    k: int = NEAREST,
    progress: Progress = unheard,
    deal: Deal = alone,
) -> tuple[Images, Neighbours]:
    """Find the nearest reals of the first samples of a set.

    Args:
        images: The samples: those at places 0 to rows - 1.
        reals: All of them are looked at.
        extractor: In whose features they are near.
        rows: How many samples.
        k: How many reals for each, nearest first.
        progress: Told how many reals are done.
        deal: Who compares the reals with the samples; the result does not depend on it.

    Returns:
        Images [rows * (k + 1), C, H, W], a sample and its neighbours one after the other; and which they are.

    Raises:
        DataError: if the sets differ in shape, or are too small.
    """
    require_enough(images, reals, rows=rows, k=k)
    assert reals.count is not None
    samples, all_reals = images.read(np.arange(rows)), np.arange(reals.count)
    distances: Iterator[NDArray[np.float64]]
    if deal is alone:  # of a folder, `batches` reads with all cores
        distances = map(distances_to(samples, extractor), reals.batches(all_reals))
    else:
        work = neighbour_work(images, reals, extractor, rows=rows)
        distances = deal(work, in_parts(all_reals, reals.batch_size))
    found = nearest(reported(distances, progress, "neighbours", reals.count), rows, k)
    near = reals.read(found.indices.reshape(-1)).reshape(rows, k, *reals.shape)
    together = np.concatenate([samples[:, None], near], axis=1)  # [rows, k + 1, C, H, W]
    return together.reshape(-1, *images.shape), found


def neighbour_work(images: ImageSet, reals: ImageSet, extractor: Extractor, *, rows: int = ROWS) -> Work:
    """Return the comparing of reals with samples, as `neighbour_rows` deals it; the arguments are its own."""

    @cache
    def distances() -> Callable[[Images], NDArray[np.float64]]:
        return distances_to(images.read(np.arange(rows)), extractor)

    means = json.dumps([images.identity, reals.identity, extractor.definition()], sort_keys=True)
    return Work(f"looking for neighbours: {means}", lambda part: distances()(reals.read(part)), (rows,))

"""A picture of samples with the real images that are nearest to them: copies, if there are any, are seen."""

from __future__ import annotations

import numpy as np

from progan.errors import DataError
from progan.evaluation.images import Images, ImageSet, describe_shape
from progan.evaluation.sampling import Progress, reported
from progan.metrics.extractors import Extractor
from progan.metrics.neighbours import Neighbours, nearest_reals

ROWS, NEAREST = 8, 7
"""Samples of a picture, and reals beside each."""


def require_enough(images: ImageSet, reals: ImageSet, *, rows: int = ROWS, k: int = NEAREST) -> None:
    """Check the sets of `neighbour_rows`.

    Raises:
        DataError: if the sets differ in shape, or are too small.
    """
    if images.shape != reals.shape:
        raise DataError(
            f"the sets differ: {images.name} has images of {describe_shape(images.shape)}, {reals.name} of "
            f"{describe_shape(reals.shape)}; make them equal"
        )
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
    progress: Progress | None = None,
) -> tuple[Images, Neighbours]:
    """Find the nearest reals of the first samples of a set.

    Args:
        images: The samples: those at places 0 to rows - 1.
        reals: All of them are looked at.
        extractor: In whose features they are near.
        rows: How many samples.
        k: How many reals for each, nearest first.
        progress: Called with (reals done, reals).

    Returns:
        Images [rows * (k + 1), C, H, W], a sample and its neighbours one after the other; and which they are.

    Raises:
        DataError: as in `require_enough`.
    """
    require_enough(images, reals, rows=rows, k=k)
    assert reals.count is not None
    samples = images.read(np.arange(rows))
    batches = reported(reals.batches(np.arange(reals.count)), reals.count, progress, size=len)
    found = nearest_reals(samples, batches, extractor, k)
    nearest = reals.read(found.indices.reshape(-1)).reshape(rows, k, *reals.shape)
    together = np.concatenate([samples[:, None], nearest], axis=1)  # [rows, k + 1, C, H, W]
    return together.reshape(-1, *images.shape), found

"""Pictures at the size of a lower level, for generators that have not grown to their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import Images
from progan.evaluation.image_set import ImageSet


class HalvedImages(ImageSet):
    """Another set, each image the means of 2x2 pixels of it, as often as asked for; rounded once, at the end.

    That is what training shows at a lower level: the levels of a packed set are made so.
    """

    def __init__(self, images: ImageSet, times: int) -> None:
        channels, height, width = images.shape
        identity = {**images.identity, "halved": times}
        shape = (channels, height >> times, width >> times)
        super().__init__(images.name, shape, images.count, identity, images.about)
        self._images, self._times = images, times

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these places: [n, C, H, W]."""
        return self._halve(self._images.read(indices))

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield the images at these places, in this order, in batches."""
        return map(self._halve, self._images.batches(indices))

    def _halve(self, images: Images) -> Images:
        n, channels, height, width = images.shape
        side = 1 << self._times
        blocks = images.reshape(n, channels, height // side, side, width // side, side)
        means: NDArray[np.float32] = blocks.mean(axis=(3, 5), dtype=np.float32)
        return np.rint(means).astype(images.dtype)


def halvings(larger: tuple[int, ...], smaller: tuple[int, ...]) -> int:
    """Return how often a size has to be halved to become another one; 0 if it never does."""
    times = (larger[0] // max(smaller[0], 1)).bit_length() - 1
    return max(times, 0) if tuple(side << max(times, 0) for side in smaller) == tuple(larger) else 0

"""What metrics ask of the images they are given."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from progan.errors import ConfigError, DataError


def require_at_least(metric: str, **options: tuple[int, int]) -> None:
    """Check options of a metric, each given as (value, least that it can be).

    Raises:
        ConfigError: if one is smaller.
    """
    for option, (value, least) in options.items():
        if value < least:
            raise ConfigError(f"{option} of {metric} must be at least {least}, not {value}")


class ImageShapes:
    """Checks that all batches of the reals and the fakes are images of one shape that a metric can see.

    Gray and RGB can be seen. Alpha is refused: how a see-through colour looks depends on the background.
    Messages call the metric as it is called here.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self.shapes: dict[str, tuple[int, ...]] = {}  # (C, H, W) of the images of each set seen so far

    def check(self, batch: object, name: str) -> None:
        """Take note of a batch of the set `name`, "reals" or "fakes".

        Raises:
            DataError: unless it is an array [n, C, H, W] of uint8, C of 1 or 3, with images like all others.
        """
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8:
            array = isinstance(batch, np.ndarray)
            kind = f"an array of {np.asarray(batch).dtype}" if array else f"a {type(batch).__name__}"
            raise DataError(
                f"The {name} hold {kind}; {self._metric} is defined for NumPy arrays of uint8, 0..255 "
                f"(`progan.data.pixels` converts)."
            )
        if batch.ndim != 4:
            raise DataError(
                f"The {name} hold an array of shape {list(batch.shape)}; give batches [n, C, H, W] one after "
                f"the other (a single array goes into a list)."
            )
        channels = batch.shape[1]
        if channels in (2, 4):
            raise DataError(
                f"The {name} have {channels} channels, so an alpha channel; put the images on a "
                f"background, or drop that channel, before measuring."
            )
        if channels not in (1, 3):
            raise DataError(
                f"The {name} have {channels} channels; only gray (1) and RGB (3) can be measured."
            )
        shape = batch.shape[1:]
        for other, words in ((name, "those before them"), *((s, f"the {s}") for s in self.shapes)):
            expected = self.shapes.get(other, shape)
            if shape != expected:
                raise DataError(
                    f"The {name} have images of shape {list(shape)} (C, H, W), but {words} {list(expected)}; "
                    f"make them equal."
                )
        self.shapes[name] = shape

    def forget(self, name: str) -> None:
        """Let the next batch of a set begin it anew."""
        self.shapes.pop(name, None)


class WaitingImages:
    """Images that wait for others, so that there is work for all workers at once.

    Args:
        device: Where they will be worked on; on a CPU all threads of PyTorch are workers.
        values: Pixel values that are enough for one worker.
        group: Images that are worked on together: only whole groups are given away.
    """

    def __init__(self, device: torch.device, values: int, group: int = 1) -> None:
        self._device = device
        self._values = values
        self._group = group
        self._batches: list[NDArray[np.uint8]] = []

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def add(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Keep a copy of images [n, C, H, W], and yield what waits (`take`) whenever there is enough.

        No more are copied than are enough, for a batch may be a mapped file that is larger than the memory.
        """
        workers = torch.get_num_threads() if self._device.type == "cpu" else 1
        enough = self._values * workers
        step = max(1, enough // max(1, math.prod(images.shape[1:])))
        for start in range(0, len(images), step):
            self._batches.append(images[start : start + step].copy())
            if len(self) >= self._group and sum(batch.size for batch in self._batches) >= enough:
                yield self.take()

    def take(self) -> NDArray[np.uint8]:
        """Return all whole groups that wait, at least one, [n, C, H, W]; the rest waits on."""
        images = np.concatenate(self._batches) if len(self._batches) > 1 else self._batches[0]
        whole = len(images) // self._group * self._group
        self._batches = [images[whole:].copy()] if whole < len(images) else []
        return images[:whole]

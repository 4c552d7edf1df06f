"""Perceptual path length (Karras et al., 2019, section 4.1): how evenly images change between latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Branch
from progan.errors import ConfigError, DataError
from progan.metrics.extractor import Extractor
from progan.metrics.image_checks import require_at_least
from progan.metrics.metric import Measurement, MetricTools
from progan.system.progress import Progress, reported, unheard

Render = Callable[[Tensor, Tensor | None], Tensor]
"""Latents [n, size] and labels [n, L] or None in -> images [n, C, H, W], floating point, -1 to 1."""

Labels = Callable[[int, int], Tensor | None]
"""(index of the first path, count) in -> labels [count, L] or None out."""

Paths = NDArray[np.int64]
"""Indices of paths that are computed together, one after the other."""

Speeds = Callable[[Paths], NDArray[np.float64]]
"""Squared speeds of paths: a pure function, quick if asked in ascending order."""

LARGEST = 256
"""Larger images are averaged down to this side before they are compared, as in StyleGAN."""

EPSILON = 1e-4
"""Step along the path; the paper's."""

SKIPPED = 1024
"""Paths that are drawn at once where none of them is computed."""


class PathLength(Measurement):
    """The mean squared speed of features on great circles between random latents; smaller is smoother.

    For a point t on the circle from z0 to z1 it is |f(t + eps) - f(t)|^2 / eps^2, f being the features of the
    image; t is uniform in 0..1 ("full"), and the lowest and the highest 1 % are left out: the definition for
    a traditional generator, in Z. Latents are given the length sqrt(size), as networks that normalise latents
    do themselves. Images with sides of 512 and more are averaged down to 256.

    The published numbers have LPIPS as the squared distance: an extractor that makes LPIPS features (such as
    the VGG-16 published with StyleGAN2-ADA, called with `return_lpips=True`) gives those.

    It is not a `Metric`, as it asks the generator for images of its own choice.

    Args:
        extractor: Makes the features, of images not rounded to 8 bits.
        samples: Paths, at least 1. The paper has 100,000.
        crop: Compare only the part of images where aligned faces are, as StyleGAN does for faces (`face`).
        seed: Of the latents and places, at least 0.

    Attributes:
        name: `ppl_zfull_EXTRACTOR`, or `ppl_zfull_crop_EXTRACTOR`.
        version: Raised when the definition changes.

    Raises:
        ConfigError: if an option is out of range.
    """

    name = "ppl"
    version = 1
    needs_network: ClassVar[bool] = True

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, of the features of the network."""
        return cls(tools.network().features, samples=tools.samples, seed=tools.seed)

    def __init__(
        self, extractor: Extractor, *, samples: int = 50_000, crop: bool = False, seed: int = 0
    ) -> None:
        require_at_least("the path length", samples=(samples, 1), seed=(seed, 0))
        self.name = f"ppl_zfull_{'crop_' if crop else ''}{extractor.name}"
        self.extractor = extractor
        self.samples, self.crop, self.seed = samples, crop, seed

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the number besides the generator and labels, ready for JSON."""
        own = {"samples": self.samples, "epsilon": EPSILON, "crop": self.crop, "seed": self.seed}
        return {**self.extractor.definition(), **own}

    def measure(
        self,
        render: Render,
        latent_size: int,
        labels: Labels | None = None,
        *,
        batch: int = 16,
        dtype: torch.dtype = torch.float32,
        progress: Progress = unheard,
        deal: Callable[[Speeds, Sequence[Paths]], Iterator[NDArray[np.float64]]] = map,
    ) -> dict[str, float]:
        """Measure a generator.

        Args:
            render, latent_size, labels, dtype: The arguments of `speeds`.
            batch: Paths that are computed together; decides memory and speed only.
            progress: Told how many paths are done, at the beginning and after each batch.
            deal: Has batches of paths computed, wherever that is, and yields their speeds in order.

        Returns:
            The mean, by `name`.

        Raises:
            DataError: if images or features are not finite, or images are not gray or RGB.
            ConfigError: if an option is out of range.
        """
        if batch < 1:
            raise ConfigError("paths are computed in batches of at least 1")
        speeds = self.speeds(render, latent_size, labels, dtype=dtype)
        paths = np.arange(self.samples)
        made = deal(speeds, [paths[first : first + batch] for first in range(0, len(paths), batch)])
        found = list(reported(made, progress, self.name, self.samples))
        return {self.name: trimmed_mean(np.concatenate(found))}

    def speeds(
        self,
        render: Render,
        latent_size: int,
        labels: Labels | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Speeds:
        """Return what computes the squared speeds of paths.

        Args:
            render: The generator; it is called with both ends of a batch of paths.
            latent_size: Numbers in a latent, at least 2.
            labels: Gives the labels of paths (first, count) [count, L], or None as a generator without labels
                has; None: it has none.
            dtype: Type of the latents that `render` is given.

        Raises:
            ConfigError: if latents are too short.
        """
        if latent_size < 2:
            raise ConfigError("a path needs latents of at least 2 numbers")
        drawn = _Ends(self.seed, latent_size)

        def speeds(paths: Paths) -> NDArray[np.float64]:
            first, count = int(paths[0]), len(paths)
            some = None if labels is None else labels(first, count)
            both = None if some is None else some.repeat(2, 1)
            return self._speeds(render(torch.cat(drawn.of(first, count)).to(dtype), both))

        return speeds

    def _speeds(self, images: Tensor) -> NDArray[np.float64]:
        """Return the squared speed [n] of the features of images [2n, C, H, W], starts before ends."""
        with torch.no_grad():
            seen = box_down(face(images) if self.crop else images)
        start, end = self.extractor.of_floats(seen).double().chunk(2)
        squares: NDArray[np.float64] = (start - end).square().sum(1).numpy() / EPSILON**2
        return squares


class _Ends:
    """Both ends of random paths. They are drawn one after the other, so those between are drawn, too."""

    def __init__(self, seed: int, latent_size: int) -> None:
        self._seed, self._size = seed, latent_size
        self._begin()

    def of(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return both ends of the paths first .. first + count - 1: [count, latent_size] each, float64."""
        if first < self._drawn:
            self._begin()
        while self._drawn < first:
            self._draw(min(SKIPPED, first - self._drawn))
        z0, z1, t = self._draw(count)
        return slerp(z0, z1, t), slerp(z0, z1, t + EPSILON)

    def _begin(self) -> None:
        self._latents, self._places = (
            np.random.Generator(np.random.Philox(each))
            for each in np.random.SeedSequence(self._seed).spawn(2)
        )
        self._drawn = 0

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the next paths: the latents that circles go through, and the places on them [count, 1]."""
        z0, z1 = torch.from_numpy(self._latents.standard_normal((count, 2, self._size))).unbind(1)
        self._drawn += count
        return z0, z1, torch.from_numpy(self._places.random((count, 1)))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Go along the great circle from the direction of a to that of b.

    Args:
        a: [n, size].
        b: [n, size], not parallel to a.
        t: [n, 1], 0 for a, 1 for b.

    Returns:
        [n, size], of length sqrt(size). Source: Shoemake (1985); perceptual_path_length.py of StyleGAN, where
        the length is 1: the same to a network that normalises latents.
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    cosine = (a * b).sum(1, keepdim=True)
    angle = t * torch.acos(cosine.clamp(-1, 1))
    upright = F.normalize(b - cosine * a, dim=1)
    direction: Tensor = a * angle.cos() + upright * angle.sin()
    return direction * float(np.sqrt(a.shape[1]))


def trimmed_mean(values: NDArray[np.float64]) -> float:
    """Return the mean without what lies below the 1st or above the 99th percentile.

    Args:
        values: [n], n at least 1. The percentiles are values themselves and stay, so of up to 100 all do.

    Source: perceptual_path_length.py of StyleGAN.
    """
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


def face(images: Tensor) -> Tensor:
    """Return the part of images [n, C, H, W] where faces are: 3/8..7/8 of the height, 2/8..6/8 of the width.

    Source: `perceptual_path_length.py` of StyleGAN.

    Raises:
        DataError: if a side is not a multiple of 8.
    """
    height, width = images.shape[2:]
    if height % 8 or width % 8:
        raise DataError(
            f"Images of {height}x{width} cannot be cut to the face; sides must be multiples of 8."
        )
    h, w = height // 8, width // 8
    return images[:, :, 3 * h : 7 * h, 2 * w : 6 * w]


def box_down(images: Tensor) -> Tensor:
    """Average images [n, C, H, W] down by the whole factor that leaves their smaller side `LARGEST` or above.

    Source: `perceptual_path_length.py` of StyleGAN.
    """
    factor = min(images.shape[2:]) // LARGEST
    return F.avg_pool2d(images, factor) if factor > 1 else images

"""Multi-scale structural similarity between pairs of generated images: a measure of variety.

Wang, Simoncelli and Bovik (2003) compare two images at five scales. Between images that have nothing in
common the similarity is small, so Odena et al. (2017), and section 6.1 of the paper, take its mean over
random pairs of samples: the higher, the less variety. Hold it against the same number of the reals.

The numbers are those of the original metrics/ms_ssim.py: values 0..255, an 11x11 Gaussian window of sigma 1.5
that shrinks with small images, no padding, 2x2 means from one scale to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Branch
from progan.errors import DataError
from progan.metrics.exact_compute import computing
from progan.metrics.image_checks import WaitingImages
from progan.metrics.metric import CheckedMetric, Images, MetricTools
from progan.metrics.swd.laplacian import wide

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang et al., 2003)."""

WINDOW = 11
SIGMA = 1.5

C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
"""They keep the quotients of luminance and of contrast tame in flat parts of an image."""

MULTIPLE = 2 ** (len(WEIGHTS) - 1)
"""Sides must be multiples of this, or the coarser scales would not cover the image."""

VALUES_AT_ONCE = 2**18
"""Pixel values of the first images of pairs that a CPU filters together, so that they stay in its caches."""

VALUES_A_TASK = 2**20
"""Pixel values of the first images of pairs that a worker takes: coarse scales want many."""

VALUES_WAITING = 2**22
"""Pixel values for each worker that wait for others: two tasks, 4 MB. Devices that are no CPU filter them
together: 16 MB in float32, a few times over."""

FEW_PIXELS = 2**10
"""Up to so many pixels float64 is used. The similarity of larger images is a mean over many places, in which
float32's rounding of each averages out."""


class MsSsim(CheckedMetric):
    """Mean MS-SSIM of pairs of fakes, and of the reals if there are any: 0 (unlike) to 1 (the same image).

    Pairs are the images at places 2k and 2k + 1 of a set, however it is cut into batches; an odd one at the
    end is left out. One number a pair is kept. Gray images count as RGB with equal channels; alpha is
    refused.

    Numbers: `ms_ssim` of the fakes and, if reals were added, `ms_ssim_reals`.

    Args:
        device: Where to compute; None for the CPU.
    """

    name = "ms_ssim"
    version = 1
    needs_reals: ClassVar[bool] = False
    minimum = 2

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, on the device."""
        return cls(device=tools.device)

    def __init__(self, *, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        super().__init__("MS-SSIM")
        self._pairs = {name: _Pairs(self.device) for name in ("reals", "fakes")}

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        return {
            "window": WINDOW,
            "sigma": SIGMA,
            "weights": list(WEIGHTS),
            "pairs": "images 2k and 2k + 1",
        }

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of a set without a pair."""
        numbers = {self.name: self._pairs["fakes"].mean("fakes")}
        if "reals" in self._shapes.shapes:
            numbers[f"{self.name}_reals"] = self._pairs["reals"].mean("reals")
        return numbers

    def _take(self, images: Images, name: str) -> None:
        height, width = images.shape[2:]
        if height % MULTIPLE or width % MULTIPLE or not height * width:
            raise DataError(
                f"The {name} are images of {height}x{width}, but MS-SSIM halves images {len(WEIGHTS) - 1} "
                f"times: resize or crop them so that both sides are multiples of {MULTIPLE}."
            )
        self._pairs[name].add(images)

    def _forget(self, name: str) -> None:
        self._pairs[name] = _Pairs(self.device)


def ms_ssim(batches: Iterable[NDArray[np.uint8]], *, device: torch.device | None = None) -> float:
    """Return the mean MS-SSIM of the pairs of images 2k and 2k + 1.

    Args:
        batches: [n, C, H, W] of uint8, C of 1 or 3, H and W multiples of 16; each is read once.
        device: Where to compute; None for the CPU.

    Raises:
        DataError: if the images cannot be measured, or there are fewer than 2; the message says why.
    """
    metric = MsSsim(device=device)
    for images in batches:
        metric.add_fakes(images)
    return metric.compute()[metric.name]


def ms_ssim_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return the MS-SSIM of each image of `a` with that of `b`.

    The product over the scales of contrast-and-structure, and at the coarsest of the whole similarity, each
    to the power of its weight (equation 7 of Wang et al., 2003). Negative similarities count as 0.

    Args:
        a: [N, C, H, W], floating point, values 0..255; H and W multiples of 16.
        b: Likewise, of the same shape.

    Returns:
        [N], 0..1, in float64 (`wide`). Source: `msssim` of the original ms_ssim.py.
    """
    product = wide(torch.ones((), device=a.device))
    for scale, weight in enumerate(WEIGHTS):
        if a.shape[-2:].numel() <= FEW_PIXELS:
            a, b = wide(a), wide(b)
        step = max(1, VALUES_AT_ONCE // a.shape[1:].numel()) if a.device.type == "cpu" else len(a)
        parts = map(structural_similarity, torch.split(a, step), torch.split(b, step))
        similarity, contrast = (wide(torch.cat(found)) for found in zip(*parts, strict=True))
        coarsest = scale == len(WEIGHTS) - 1
        product = product * (similarity if coarsest else contrast).clamp(min=0) ** weight
        if not coarsest:
            a, b = halved(a), halved(b)
    return product


def halved(images: Tensor) -> Tensor:
    """Return the means of all 2x2 pixels: [.., H, W] to [.., H / 2, W / 2].

    Rows first: on a CPU a quarter of the time of a library's pooling of images with channels first.
    """
    rows = images[..., ::2, :] + images[..., 1::2, :]
    return torch.add(rows[..., ::2], rows[..., 1::2]).mul_(0.25)


def structural_similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean SSIM of each pair of images at one scale, and the mean of its contrast factor.

    Args:
        a: [N, C, H, W], floating point, values 0..255.
        b: Likewise, of the same shape.

    Returns:
        SSIM and contrast-and-structure, [N] each, at most 1. Source: `_SSIMForMultiScale` of the original;
        only the sum of the two variances occurs in it, so that is what is filtered here.
    """
    window = gaussian_window(min(WINDOW, *a.shape[-2:]))
    # Variances stay the same when a number is taken off all values, and lose less to rounding.
    centre_a, centre_b = (x.mean((2, 3), keepdim=True).round() for x in (a, b))
    maps = a.new_empty(4, *a.shape)
    a, b = torch.sub(a, centre_a, out=maps[0]), torch.sub(b, centre_b, out=maps[1])
    torch.mul(a, a, out=maps[2]).addcmul_(b, b)
    torch.mul(a, b, out=maps[3])
    mean_a, mean_b, squares, product = filtered(maps, window)
    covariance = product.sub_(mean_a * mean_b)
    variances = squares.sub_(mean_a * mean_a + mean_b * mean_b)  # of equal images, just twice that
    contrast = covariance.mul_(2).add_(C2).div_(variances.add_(C2))
    mean_a, mean_b = mean_a + centre_a, mean_b + centre_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def gaussian_window(size: int) -> list[float]:
    """Return one axis of the Gaussian window, sum 1; sigma is in proportion to the size.

    Source: `_FSpecialGauss` of the original, whose window is the outer product of this one with itself.
    """
    sigma = SIGMA * size / WINDOW
    values = [math.exp(-(((k - (size - 1) / 2) / sigma) ** 2) / 2) for k in range(size)]
    return [value / sum(values) for value in values]


def filtered(images: Tensor, window: list[float]) -> Tensor:
    """Return the weighted means of all windows that lie within the images.

    Sums of shifted slices: a library's convolution in float64 is several times slower on a CPU.

    Args:
        images: [.., H, W].
        window: The K weights of both axes.

    Returns:
        [.., H - K + 1, W - K + 1].
    """
    for dim in (-1, -2):
        size = images.shape[dim] - len(window) + 1
        total = images.narrow(dim, 0, size) * window[0]
        for k, weight in enumerate(window[1:], start=1):
            total.add_(images.narrow(dim, k, size), alpha=weight)
        images = total
    return images


class _Pairs:
    """The similarities of the pairs of a set of images that comes in batches."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._similarities: list[float] = []
        self._waiting = WaitingImages(device, VALUES_WAITING, group=2)

    def add(self, images: NDArray[np.uint8]) -> None:
        for pairs in self._waiting.add(images):
            self._measure(pairs)

    def _measure(self, images: NDArray[np.uint8]) -> None:
        """Measure the pairs of an even number of images."""
        on_cpu = self.device.type == "cpu"
        step = 2 * max(1, VALUES_A_TASK // images[0].size) if on_cpu else len(images)
        some = (images[start : start + step] for start in range(0, len(images), step))
        with computing(self.device) as workers:
            self._similarities += chain.from_iterable(workers.map(self._similarities_of, some))

    def _similarities_of(self, images: NDArray[np.uint8]) -> list[float]:
        a, b = (torch.from_numpy(images[k::2].copy()).to(self.device).float() for k in (0, 1))
        similarities: list[float] = ms_ssim_of_pairs(a, b).tolist()
        return similarities

    def mean(self, name: str) -> float:
        if len(self._waiting) > 1:
            self._measure(self._waiting.take())
        if not self._similarities:
            raise DataError(
                f"MS-SSIM compares pairs of images, but there are only {len(self._waiting)} {name}; "
                "give 2 or more."
            )
        return math.fsum(self._similarities) / len(self._similarities)

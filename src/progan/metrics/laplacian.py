"""The Laplacian pyramid of Burt and Adelson (1983), as section 5 of the paper uses it.

Filters are sums of shifted slices, not convolutions: a convolution on a GPU may round its inputs to TF32,
which a metric must not. They sum in float64 and round once, as the original's do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(images: Tensor) -> Tensor:
    """Return images in float64, or in float32 on MPS, which has no wider type."""
    return images.float() if images.device.type == "mps" else images.double()


def pyr_down(images: Tensor) -> Tensor:
    """Blur with the 5x5 binomial kernel / 256, mirrored at the borders, and keep every second pixel.

    Args:
        images: [N, C, H, W], floating point, H and W even and at least 4.

    Returns:
        [N, C, H/2, W/2], same type. Source: `pyr_down` of the original sliced_wasserstein.py.

    Raises:
        ValueError: if a side is odd or smaller than 4.
    """
    height, width = images.shape[-2:]
    if height % 2 or width % 2 or min(height, width) < 4:
        raise ValueError(f"sides must be even and at least 4, not {height}x{width}")
    padded = F.pad(wide(images), (2, 2, 2, 2), mode="reflect")
    return _halved(_halved(padded, 3), 2).to(images.dtype)


def _halved(padded: Tensor, dim: int) -> Tensor:
    """Return the binomial means (1 4 6 4 1) / 16 around every second place of one padded axis."""
    size = padded.shape[dim]
    a, b, c, d, e = (padded.narrow(dim, k, size - 4).unfold(dim, 1, 2).squeeze(-1) for k in range(5))
    return (a + e + 4 * (b + d) + 6 * c) / 16


def pyr_up(images: Tensor) -> Tensor:
    """Double the sides: put zeros between pixels, blur with 4 x the kernel of `pyr_down`, mirrored likewise.

    Zeros are left out of the sums: an even place sees three pixels of a row (1 6 1) / 8, an odd one two
    (4 4) / 8. The mirror of the widened picture shows pixel 1 before pixel 0, and the last pixel twice.

    Args:
        images: [N, C, H, W], floating point, H and W at least 2.

    Returns:
        [N, C, 2H, 2W], same type. Source: `pyr_up` of the original sliced_wasserstein.py.

    Raises:
        ValueError: if a side is smaller than 2.
    """
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"sides must be at least 2, not {images.shape[-2]}x{images.shape[-1]}")
    return _doubled(_doubled(wide(images), 3), 2).to(images.dtype)


def _doubled(x: Tensor, dim: int) -> Tensor:
    """Interpolate one axis of `pyr_up`."""
    size = x.shape[dim]
    before = torch.cat([x.narrow(dim, 1, 1), x.narrow(dim, 0, size - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
    even, odd = (before + 6 * x + after) / 8, (x + after) / 2
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1)


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Split images into bands of detail, finest first; the last level is what is left of the images.

    Args:
        images: [N, C, H, W], floating point; H and W are multiples of 2^(levels - 1).
        levels: How many levels, at least 1.

    Returns:
        Tensors [N, C, H / 2^i, W / 2^i] for i = 0 .. levels - 1: the images of a level minus what
        `pyr_up` makes of the next. Source: `generate_laplacian_pyramid` of the original
        sliced_wasserstein.py.

    Raises:
        ValueError: if the images cannot be halved that often (`pyr_down`), or levels < 1.
    """
    if levels < 1:
        raise ValueError(f"a pyramid has at least 1 level, not {levels}")
    pyramid = []
    for _ in range(levels - 1):
        smaller = pyr_down(images)
        pyramid.append(images - pyr_up(smaller))
        images = smaller
    return [*pyramid, images]


def collapse(pyramid: Sequence[Tensor]) -> Tensor:
    """Put a Laplacian pyramid together again: the inverse of `laplacian_pyramid`, up to rounding.

    Args:
        pyramid: What `laplacian_pyramid` returns, at least one level.

    Returns:
        [N, C, H, W] of the first level.
    """
    images = pyramid[-1]
    for detail in reversed(pyramid[:-1]):
        images = pyr_up(images) + detail
    return images

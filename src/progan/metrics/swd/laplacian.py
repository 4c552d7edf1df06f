"""The Laplacian pyramid of Burt and Adelson (1983), as section 5 of the paper uses it.

Filters are sums of shifted slices, not convolutions: a convolution on a GPU may round its inputs to TF32,
which a metric must not. They sum in float64 and round once, as the original's do; or in float32 where that
rounds nothing at all, and so gives the same bits in half the time.
"""

from __future__ import annotations

import torch
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
    return _down(wide(images)).to(images.dtype)


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
    return _up(wide(images)).to(images.dtype)


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Split images into bands of detail, finest first; the last level is what is left of the images.

    Args:
        images: [N, C, H, W], uint8 or floating point; H and W are multiples of 2^(levels - 1).
        levels: How many levels, at least 1.

    Returns:
        Tensors [N, C, H / 2^i, W / 2^i] for i = 0 .. levels - 1, float32 for uint8: the images of a level
        minus what `pyr_up` makes of the next. Source: `generate_laplacian_pyramid` of the original
        sliced_wasserstein.py.

    Raises:
        ValueError: if the images cannot be halved that often (`pyr_down`), or levels < 1.
    """
    if levels < 1:
        raise ValueError(f"a pyramid has at least 1 level, not {levels}")
    pyramid = []
    for _ in range(levels - 1):
        band, images = split_band(images)
        pyramid.append(band)
    return [*pyramid, images.float() if images.dtype == torch.uint8 else images]


def split_band(images: Tensor) -> tuple[Tensor, Tensor]:
    """Split images into the finest band of detail, and images of half the size.

    Args:
        images: [N, C, H, W], uint8 or floating point, H and W even and at least 4.

    Returns:
        [N, C, H, W], the images minus what `pyr_up` makes of the second: [N, C, H/2, W/2], `pyr_down` of the
        images. Both float32 for uint8.
    """
    if images.dtype == torch.uint8:
        # Of whole numbers up to 255, the sums are multiples of 2^-14 (1/256 from the way down, 1/64 from the
        # way up) below 2^9, which float32 holds exactly. Those of coarser levels would be finer.
        images = images.float()
        smaller = _down(images)
        return images - _up(smaller), smaller
    smaller = pyr_down(images)
    return images - pyr_up(smaller), smaller


def _down(images: Tensor) -> Tensor:
    """Compute `pyr_down` in the type of the images."""
    height, width = images.shape[-2:]
    if height % 2 or width % 2 or min(height, width) < 4:
        raise ValueError(f"sides must be even and at least 4, not {height}x{width}")
    return _halved(_halved(images, 2), 3)


def _up(images: Tensor) -> Tensor:
    """Compute `pyr_up` in the type of the images."""
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"sides must be at least 2, not {images.shape[-2]}x{images.shape[-1]}")
    return _doubled(_doubled(images, 3), 2)


def _halved(images: Tensor, dim: int) -> Tensor:
    """Return the binomial means (1 4 6 4 1) / 16 around every second place of one axis."""
    # In one piece each: sums of every second number of a row take twice as long.
    pairs: Tensor = images.unflatten(dim, (-1, 2))  # type: ignore[no-untyped-call]
    even, odd = (part.contiguous() for part in pairs.unbind(dim + 1))
    means = 6 * even
    _add_previous(means, even, dim, first=1)
    _add_next(means, even, dim)
    means.add_(odd, alpha=4)
    _add_previous(means, odd, dim, first=0, alpha=4)
    return means.div_(16)


def _doubled(images: Tensor, dim: int) -> Tensor:
    """Interpolate one axis of `pyr_up`."""
    means, halfway = 6 * images, images.clone()
    _add_previous(means, images, dim, first=1)
    _add_next(means, images, dim)
    _add_next(halfway, images, dim)
    return torch.stack([means.div_(8), halfway.div_(2)], dim + 1).flatten(dim, dim + 1)


def _add_previous(sums: Tensor, x: Tensor, dim: int, *, first: int, alpha: int = 1) -> None:
    """Add to each place what is before it; before the first place the mirror shows the place `first`."""
    size = x.shape[dim]
    sums.narrow(dim, 1, size - 1).add_(x.narrow(dim, 0, size - 1), alpha=alpha)
    sums.narrow(dim, 0, 1).add_(x.narrow(dim, first, 1), alpha=alpha)


def _add_next(sums: Tensor, x: Tensor, dim: int) -> None:
    """Add to each place what is behind it; behind the last place the mirror shows that place again."""
    size = x.shape[dim]
    sums.narrow(dim, 0, size - 1).add_(x.narrow(dim, 1, size - 1))
    sums.narrow(dim, size - 1, 1).add_(x.narrow(dim, size - 1, 1))

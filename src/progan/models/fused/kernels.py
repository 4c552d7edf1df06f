"""The kernels, in Triton: features are rows of channels, one row a pixel, as channels_last keeps them.

Everything between reading and writing is computed in float32. Sums over pixels are made in a fixed order, so
that the same numbers come out each time.
"""

# Triton reads these functions itself: it has no types for what they are given.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 4096
"""Of features that one program holds at once: so many that a pixel of 512 channels has company."""

PROGRAMS = 1024
"""Programs of a backward pass, at most: each sums its share of the pixels for the bias."""


@triton.jit
def _forward(x, bias, factors, rows, channels, slope, eps, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, NORM: tl.constexpr):  # fmt: skip  # noqa: E501
    """Replace x by leaky(x + bias), or by its pixel norm, whose factors are kept."""
    row = tl.program_id(0).to(tl.int64) * HEIGHT + tl.arange(0, HEIGHT)
    column = tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < channels)[None, :]
    place = row[:, None] * channels + column[None, :]
    added = tl.load(bias + column, mask=column < channels, other=0.0).to(tl.float32)
    a = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + added[None, :]
    a = tl.where(a > 0, a, a * slope)
    if NORM:
        factor = 1.0 / tl.sqrt(tl.sum(a * a, axis=1) / channels + eps)
        tl.store(factors + row, factor, mask=row < rows)
        a = a * factor[:, None]
    tl.store(x + place, a.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _backward(dy, y, factors, dx, sums, rows, channels, slope, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, NORM: tl.constexpr, SUMS: tl.constexpr):  # fmt: skip  # noqa: E501
    """Write the gradient before the bias, and this program's share of that of the bias."""
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    column = tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    for tile in range(program, tl.cdiv(rows, HEIGHT), programs):
        row = tile * HEIGHT + tl.arange(0, HEIGHT)
        inside = (row < rows)[:, None] & (column < channels)[None, :]
        place = row[:, None] * channels + column[None, :]
        slopes = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)
        made = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            along = tl.sum(slopes * made, axis=1) / channels
            factor = tl.load(factors + row, mask=row < rows, other=0.0)
            slopes = (slopes - made * along[:, None]) * factor[:, None]
        slopes = tl.where(made > 0, slopes, slopes * slope)
        tl.store(dx + place, slopes.to(dx.dtype.element_ty), mask=inside)
        if SUMS:
            total += tl.sum(slopes, axis=0)
    if SUMS:
        tl.store(sums + program * channels + column, total, mask=column < channels)


def forward(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> Tensor:
    """Replace features by what follows a convolution.

    Args:
        x: [N, C, H, W], channels_last; overwritten.
        bias: [C].
        slope: Of the leaky ReLU.
        eps: Of the pixel norm; None for no norm.

    Returns:
        The factor of each pixel, [N, 1, H, W] in float32; nothing, [0], without norm.
    """
    rows, channels = x.numel() // x.shape[1], x.shape[1]
    norm = eps is not None
    factors = torch.empty((x.shape[0], 1, *x.shape[2:]) if norm else 0, device=x.device)
    height, width = _tile(channels)
    with _on(x):
        _forward[(triton.cdiv(rows, height),)](
            x, bias, factors, rows, channels, slope, eps or 0.0, HEIGHT=height, WIDTH=width, NORM=norm
        )
    return factors


def backward(
    dy: Tensor, y: Tensor, factors: Tensor | None, slope: float, *, sums: bool
) -> tuple[Tensor, Tensor]:
    """Find the gradients of what `forward` made.

    Args:
        dy: [N, C, H, W], channels_last: the gradient of the result.
        y: The result, of the same layout.
        factors: What `forward` returned; None without norm.
        slope: Of the leaky ReLU.
        sums: Whether the gradient of the bias is asked for.

    Returns:
        The gradient of what was given to `forward`, and parts of that of the bias [parts, C] in float32, of
        which the sum is asked for; [0, C] without `sums`.
    """
    rows, channels = y.numel() // y.shape[1], y.shape[1]
    height, width = _tile(channels)
    programs = min(triton.cdiv(rows, height), PROGRAMS)
    dx = torch.empty_like(y)
    shares = torch.empty(programs if sums else 0, channels, device=y.device)
    with _on(y):
        _backward[(programs,)](
            dy, y, y if factors is None else factors, dx, shares, rows, channels, slope,
            HEIGHT=height, WIDTH=width, NORM=factors is not None, SUMS=sums,
        )  # fmt: skip
    return dx, shares


def _tile(channels: int) -> tuple[int, int]:
    """Return how many pixels and channels a program looks at, powers of two."""
    width = triton.next_power_of_2(channels)
    return max(1, ELEMENTS // width), width


def _on(x: Tensor) -> torch.cuda.device:
    """Return the context of the device of a tensor, which Triton launches on."""
    return torch.cuda.device(x.device if x.is_cuda else -1)

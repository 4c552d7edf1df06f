"""The operation as PyTorch knows it: of one name on each device, Triton on CUDA, plain PyTorch elsewhere.

So it is counted and faked like any other operation, and tests need no GPU. Features are [N, C, H, W] and
channels_last; a bias is [C].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LIBRARY: Any = torch.library.Library("progan", "FRAGMENT")  # type: ignore[no-untyped-call]
"""PyTorch knows the operations as long as it lives."""

_LIBRARY.define("bias_leaky_(Tensor(a!) x, Tensor bias, float slope, float? eps) -> (Tensor(a!), Tensor)")
_LIBRARY.define(
    "bias_leaky_backward(Tensor dy, Tensor y, Tensor? factors, float slope, bool sums) -> (Tensor, Tensor)"
)


def bias_leaky_(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> tuple[Tensor, Tensor]:
    """Add a bias, apply leaky ReLU, and normalise each pixel if `eps` is given: in the memory of x.

    Args:
        x: Features; overwritten.
        bias: Of any floating type.
        slope: Of the leaky ReLU, at least 0.
        eps: Of the pixel norm; None for no norm.

    Returns:
        x, and the factor of each pixel [N, 1, H, W] in float32 (nothing, [0], without norm).
    """
    made, factors = torch.ops.progan.bias_leaky_(x, bias, slope, eps)
    return made, factors


def bias_leaky_backward(
    dy: Tensor, y: Tensor, factors: Tensor | None, slope: float, *, sums: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of `bias_leaky_` with respect to x and, with `sums`, to the bias, in float32.

    Args:
        dy: Gradient of the result, of any layout.
        y: The result.
        factors: Those that came with it; None without norm.
        slope: Of the leaky ReLU.
        sums: Whether the gradient of the bias is asked for.
    """
    if not dy.is_meta:
        dy = dy.contiguous(memory_format=torch.channels_last)
    dx, parts = torch.ops.progan.bias_leaky_backward(dy, y, factors, slope, sums)
    return dx, parts.sum(dim=0) if sums else None


def _plain(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> tuple[Tensor, Tensor]:
    a = F.leaky_relu(x.float() + bias.float().view(1, -1, 1, 1), slope)
    if eps is None:
        return x.copy_(a), a.new_empty(0)
    factors = torch.rsqrt(a.square().mean(dim=1, keepdim=True) + eps)
    return x.copy_(a * factors), factors


def _plain_backward(
    dy: Tensor, y: Tensor, factors: Tensor | None, slope: float, sums: bool
) -> tuple[Tensor, Tensor]:
    slopes, made = dy.float(), y.float()
    if factors is not None:
        slopes = (slopes - made * (slopes * made).mean(dim=1, keepdim=True)) * factors
    slopes = torch.where(made > 0, slopes, slopes * slope)
    parts = slopes.sum(dim=(0, 2, 3))[None] if sums else slopes.new_empty(0, y.shape[1])
    return torch.empty_like(y).copy_(slopes), parts


def _shapes(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    shape = [0] if eps is None else [x.shape[0], 1, *x.shape[2:]]
    return x, x.new_empty(shape, dtype=torch.float32)


def _shapes_backward(
    dy: Tensor, y: Tensor, factors: Tensor | None, slope: float, sums: bool  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(y), y.new_empty(int(sums), y.shape[1], dtype=torch.float32)


def _on_cuda(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> tuple[Tensor, Tensor]:
    from progan.models.fused import kernels

    return x, kernels.forward(x, bias, slope, eps)


def _on_cuda_backward(
    dy: Tensor, y: Tensor, factors: Tensor | None, slope: float, sums: bool
) -> tuple[Tensor, Tensor]:
    from progan.models.fused import kernels

    return kernels.backward(dy, y, factors, slope, sums=sums)


for _key, _made, _found in (
    ("CPU", _plain, _plain_backward),
    ("Meta", _shapes, _shapes_backward),
    ("CUDA", _on_cuda, _on_cuda_backward),
):
    _LIBRARY.impl("bias_leaky_", _made, _key)
    _LIBRARY.impl("bias_leaky_backward", _found, _key)

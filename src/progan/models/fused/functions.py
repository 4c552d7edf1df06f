"""The operation with its gradients, which can be differentiated again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from progan.models.activations import leaky_relu_slope
from progan.models.conv2d_gradfix import is_asked_for
from progan.models.fused.operators import bias_leaky_, bias_leaky_backward
from progan.models.leaky_pixel_norm import slope_of_leaky_pixel_norm


def biased_leaky(x: Tensor, bias: Tensor, slope: float, eps: float | None = None) -> Tensor:
    """Add a bias, apply leaky ReLU, and normalise the feature vector of each pixel if `eps` is given.

    What it computes is computed in float32 and rounded once; the result is in the memory of x.

    Args:
        x: [N, C, H, W], channels_last, float32 or a smaller type; not to be used afterwards.
        bias: [C], of any floating type.
        slope: Of the leaky ReLU, at least 0.
        eps: Of the pixel norm: a / sqrt(mean_c(a^2) + eps); None for no norm.

    Returns:
        Shape, type and layout of x.
    """
    if not torch.is_grad_enabled() or not (x.requires_grad or bias.requires_grad):
        return bias_leaky_(x, bias, slope, eps)[0]
    y, _ = _BiasedLeaky.apply(x, bias, slope, eps)  # type: ignore[no-untyped-call]
    result: Tensor = y
    return result


def takes(x: Tensor) -> bool:
    """Return whether the operation is made for features: their type, and their layout if they have one."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16) or x.dim() != 4:
        return False
    if x._is_view():  # what it is a view of would be overwritten, too
        return False
    return x.is_meta or x.is_contiguous(memory_format=torch.channels_last)


class _BiasedLeaky(Function):
    """The function above; it returns the factor of each pixel, too, so that it can be differentiated again.

    Gradients that are to be differentiated are made of operations that can be.
    """

    @staticmethod
    def forward(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> tuple[Tensor, Tensor]:
        return bias_leaky_(x, bias, slope, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, bias, ctx.slope, eps = inputs
        ctx.mark_dirty(x)
        ctx.save_for_backward(*output)
        ctx.norm, ctx.bias_type = eps is not None, bias.dtype
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor | None, dr: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        y, factors = ctx.saved_tensors
        if dy is None and (dr is None or not ctx.norm):
            return None, None, None, None
        sums, to_bias = is_asked_for(ctx, 1), None
        if dy is not None and dr is None and not torch.is_grad_enabled():
            found, to_bias = bias_leaky_backward(dy, y, factors if ctx.norm else None, ctx.slope, sums=sums)
        else:
            if ctx.norm:
                found = slope_of_leaky_pixel_norm(dy, dr, y, factors, ctx.slope)
            else:
                assert dy is not None
                found = leaky_relu_slope(dy, y, ctx.slope)
            if sums:
                to_bias = found.sum(dim=(0, 2, 3), dtype=torch.float32)
        return found, None if to_bias is None else to_bias.to(ctx.bias_type), None, None

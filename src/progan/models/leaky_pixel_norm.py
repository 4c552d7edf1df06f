"""Leaky ReLU and pixel norm in one operation with its gradient written out.

Left to autograd, the two keep four tensors as large as the features and go over them a dozen times backward.
Written out, they keep the result alone, which the next convolution keeps anyway, and a factor per pixel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from progan.models.autograd import is_plain_autograd
from progan.models.layers import pixel_norm


class LeakyPixelNorm(nn.Module):
    """`leaky_pixel_norm` as a module, of a slope of at least 0; `eps` keeps a zero vector finite."""

    kernels = False
    """Whether the bias before it is added in the same operation, where that is made for the features."""

    def __init__(self, slope: float, eps: float) -> None:
        super().__init__()
        self.slope, self.eps = slope, eps

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, ...] to features of unit mean square, of the same shape."""
        return leaky_pixel_norm(x, self.slope, self.eps)


def leaky_pixel_norm(x: Tensor, slope: float, eps: float) -> Tensor:
    """Apply leaky ReLU, then normalise the feature vector of each pixel to unit mean square.

    Args:
        x: [N, C, ...].
        slope: Of the leaky ReLU, at least 0.
        eps: Keeps a zero vector finite.

    Returns:
        b = a / sqrt(mean_c(a^2) + eps), where a is leaky_relu(x): shape and type of x. The mean is at least
        float32. Source: section 4.2.
    """
    if not is_plain_autograd():
        return pixel_norm(F.leaky_relu(x, slope), eps)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _LeakyPixelNorm.forward(x, slope, eps)[0]
    y, _ = _LeakyPixelNorm.apply(x, slope, eps)  # type: ignore[no-untyped-call]
    result: Tensor = y
    return result


def slope_of_leaky_pixel_norm(
    dy: Tensor | None, dr: Tensor | None, y: Tensor, r: Tensor, slope: float
) -> Tensor:
    """Return the gradient with respect to what was given, from y and r alone; it can be differentiated again.

    With y = a r and r = (mean_c(a^2) + eps)^(-1/2): dr/da = -r^2 y / C, so the gradient with respect to a is
    r (dy - y (mean_c(dy y) + r dr / C)). The sign of a is that of y.

    Args:
        dy: Gradient of y [N, C, ...]; None for zero.
        dr: Gradient of r [N, 1, ...]; None for zero.
        y: The result.
        r: The factor of each pixel.
        slope: Of the leaky ReLU, at least 0.
    """
    wide = torch.promote_types(y.dtype, torch.float32)
    da = torch.zeros_like(y) if dy is None else dy
    along = (da * y).mean(dim=1, keepdim=True, dtype=wide)
    if dr is not None:
        along = along + (r * dr).to(wide) / y.shape[1]
    da = torch.addcmul(da, y, along.to(y.dtype), value=-1) * r.to(y.dtype)
    result: Tensor = torch.ops.aten.leaky_relu_backward(da, y, slope, True)
    return result


class _LeakyPixelNorm(Function):
    """The function above and its gradient; it returns the factor of each pixel, r, too.

    As y and r are both results, x need not be kept, and the gradient can be differentiated again.
    """

    @staticmethod
    def forward(x: Tensor, slope: float, eps: float) -> tuple[Tensor, Tensor]:
        a = F.leaky_relu(x, slope)
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(a, dim=1, keepdim=True, dtype=wide)
        r = torch.rsqrt(norm.square() / x.shape[1] + eps).to(x.dtype)
        return a.mul_(r), r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.slope = inputs[1]
        ctx.save_for_backward(*output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dr: Tensor | None) -> tuple[Tensor | None, None, None]:
        y, r = ctx.saved_tensors
        if dy is None and dr is None:
            return None, None, None
        return slope_of_leaky_pixel_norm(dy, dr, y, r, ctx.slope), None, None

"""A hidden layer: a convolution, its bias, and what follows, the last two in one operation if so chosen."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from progan.models.activations import LeakyReLU
from progan.models.autograd import is_plain_autograd
from progan.models.conv2d_gradfix import convolve
from progan.models.fused.functions import biased_leaky, takes
from progan.models.layers import EqualizedConv2d, add_bias, blend_in, fresh
from progan.models.leaky_pixel_norm import LeakyPixelNorm


def hidden(layer: nn.Module, after: nn.Module, x: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Return after(layer(x)), of which `after` is blended in where there is an alpha.

    Args:
        layer: The convolution; one of another class, or that somebody watches, is called as it is.
        after: Keeps the shape; it may work in place.
        x: [N, in, H, W].
        alpha: 0-d, in [0, 1]; None for 1.
    """
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    if watched or not isinstance(layer, EqualizedConv2d) or not _joins(after, layer.bias, alpha):
        return blend_in(after, fresh(layer, x), alpha)
    if type(layer).forward is not EqualizedConv2d.forward:  # it may do anything
        return blend_in(after, fresh(layer, x), alpha)
    return scaled_hidden(
        lambda bias: convolve(x, layer.scaled_weight(), bias, padding=layer.kernel // 2), layer.bias, after
    )


def scaled_hidden(
    convolution: Callable[[Tensor | None], Tensor],
    bias: Tensor | None,
    after: nn.Module,
    alpha: Tensor | None = None,
) -> Tensor:
    """Return what follows a convolution that also scales.

    Args:
        convolution: Convolves, and adds the bias that it is given, or none: [N, C, H, W].
        bias: [C] or None.
        after: Keeps the shape; it may work in place.
        alpha: 0-d, in [0, 1], by which `after` is blended in; None for 1.
    """
    if not _joins(after, bias, alpha):
        return blend_in(after, convolution(bias), alpha)
    x = convolution(None)
    if not takes(x) or bias is None:
        return blend_in(after, add_bias(x, None if bias is None else bias.to(x.dtype)), alpha)
    if isinstance(after, LeakyReLU):
        return biased_leaky(x, bias, after.negative_slope)
    assert isinstance(after, LeakyPixelNorm)
    return biased_leaky(x, bias, after.slope, after.eps)


def _joins(after: nn.Module, bias: Tensor | None, alpha: Tensor | None) -> bool:
    """Return whether the bias is to be added by the operation that follows."""
    if bias is None or alpha is not None or not isinstance(after, LeakyReLU | LeakyPixelNorm):
        return False
    if type(after).forward not in (LeakyReLU.forward, LeakyPixelNorm.forward):  # it may do anything
        return False
    return after.kernels and not after._forward_hooks and not after._forward_pre_hooks and is_plain_autograd()

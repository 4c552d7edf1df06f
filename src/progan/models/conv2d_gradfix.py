"""Convolution whose gradient can be differentiated again at the price of a convolution.

PyTorch differentiates the gradient of a convolution by convolving two images with each other, one of them in
the place of a kernel, which no library is made for (github.com/pytorch/pytorch/issues/22577). The gradient
with respect to the input is itself a transposed convolution, and differentiated as such it needs nothing
unusual. The idea: `conv2d_gradfix` of StyleGAN2-ADA (Karras et al. 2020).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn.grad import conv2d_weight

from progan.models.autograd import is_plain_autograd, outside_autocast

Sizes = tuple[int, int]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does; only the gradient of the gradient is computed otherwise.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k].
        bias: [O] or None.
        stride: Of both axes.
        padding: Zeros at each side.

    Returns:
        [N, O, (H + 2 padding - k) / stride + 1, ...], rounded down.
    """
    twice = torch.is_grad_enabled() and x.requires_grad and weight.requires_grad
    if not twice or x.is_meta or not is_plain_autograd():
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        small = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(small), weight.to(small), None if bias is None else bias.to(small)
    result: Tensor = _Convolution.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return result


class _Convolution(Function):
    """The function above. Its gradients are of two kinds: to be differentiated again, or not."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, weight, bias, ctx.stride, ctx.padding = inputs
        ctx.outputs = None if bias is None else list(bias.shape)
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        with outside_autocast(slope):
            return _Convolution._gradients(ctx, slope)

    @staticmethod
    def _gradients(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        needed = [is_asked_for(ctx, i) for i in range(3)]
        if not torch.is_grad_enabled():
            both, once = [ctx.stride] * 2, [1, 1]
            found = torch.ops.aten.convolution_backward(
                slope, x, weight, ctx.outputs, both, [ctx.padding] * 2, once, False, [0, 0], 1, needed
            )
            return (*found, None, None)
        to_x = to_weight = to_bias = None
        if needed[0]:
            to_x = _transposed(slope, weight, x.shape, ctx.stride, ctx.padding)
        if needed[1]:
            to_weight = conv2d_weight(x, weight.shape, slope, ctx.stride, ctx.padding)  # type: ignore[no-untyped-call]
        if needed[2]:
            to_bias = slope.sum(dim=(0, 2, 3))
        return to_x, to_weight, to_bias, None, None


def _transposed(y: Tensor, weight: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """Convolve backwards, to a shape [N, I, H, W]."""
    sides = zip(shape[2:], y.shape[2:], weight.shape[2:], strict=True)
    height, width = (
        side - ((short - 1) * stride + k) for side, short, k in sides
    )  # less than without padding
    if height == width == -2 * padding:
        return F.conv_transpose2d(y, weight, stride=stride, padding=padding)
    # The stride does not divide the sides; PyTorch's output_padding cannot be differentiated again.
    whole = F.conv_transpose2d(y, weight, stride=stride)
    return F.pad(whole, (-padding, width + padding, -padding, height + padding))


def is_asked_for(ctx: Any, i: int) -> bool:
    """Return whether anybody asks for the gradient of a function's input `i` in this backward pass.

    A Python function is told only whether the input has a gradient at all. But the penalties ask for that of
    the images alone, and PyTorch knows which operations it will come to.
    """
    if not ctx.needs_input_grad[i]:
        return False
    node = ctx.next_functions[i][0]
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except (AttributeError, RuntimeError):  # leaves are not answered for
        return True

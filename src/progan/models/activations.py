"""The activations of the networks, and the gains of the weights that go with them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from progan.config import Activation, NetworkOptions
from progan.models.autograd import is_plain_autograd


def activation(options: NetworkOptions) -> nn.Module:
    """Return the activation that follows every hidden layer; it has no parameters.

    It may work in place, which halves the memory of features: give it what is not needed afterwards.
    """
    return _activation(options.activation, options.leaky_slope)


def leaky_slope(options: NetworkOptions) -> float | None:
    """Return by how much the activation multiplies what is below zero; None if it is not of that kind."""
    return {"leaky_relu": options.leaky_slope, "relu": 0.0}.get(options.activation)


def _activation(name: Activation, leaky_slope: float) -> nn.Module:
    if name == "leaky_relu":
        return LeakyReLU(leaky_slope, inplace=True)
    if name == "relu":
        return nn.ReLU(inplace=True)
    plain: dict[Activation, type[nn.Module]] = {
        "elu": nn.ELU,
        "selu": nn.SELU,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "softplus": nn.Softplus,
        "tanh": nn.Tanh,
    }
    return plain[name]()


def hidden_gain(options: NetworkOptions) -> float:
    """Return the gain of hidden layers: their weights have the deviation gain / sqrt(fan_in)."""
    if options.weight_init == "lecun":
        return 1.0
    if options.gain == "paper":
        return math.sqrt(2)
    return variance_gain(options.activation, options.leaky_slope)


@cache
def variance_gain(name: Activation, leaky_slope: float) -> float:
    """Return the gain with which a deep network keeps the variance of its activations' inputs.

    gain = 1 / sqrt(E[f(x)^2]), x ~ N(0, 1), for an activation f (He et al. 2015, section 2.2, whose case is
    sqrt(2 / (1 + slope^2)) for leaky ReLU). The integral is taken over both sides of zero apart, where
    each f here is smooth, by Gauss-Legendre quadrature: exact to rounding.
    """
    places, weights = np.polynomial.legendre.leggauss(128)
    total, edge = 0.0, 12.0  # beyond it the normal density is below 1e-31
    for sign in (-1.0, 1.0):
        x = sign * edge / 2 * (places + 1)
        density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        with torch.no_grad():
            y = _activation(name, leaky_slope)(torch.from_numpy(x)).numpy()
        total += edge / 2 * float((weights * density * y**2).sum())
    return 1 / math.sqrt(total)


class LeakyReLU(nn.LeakyReLU):
    """PyTorch's, in place; the gradient of its gradient moves as few bytes as the gradient.

    PyTorch says of each result, too, by how much it changes the gradient: by zeros as large as the features,
    which are then added.
    """

    kernels = False
    """Whether the bias before it is added in the same operation, where that is made for the features."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, ...] to max(x, 0) + slope min(x, 0), in the memory of x."""
        if not (torch.is_grad_enabled() and x.requires_grad and is_plain_autograd()):
            return F.leaky_relu_(x, self.negative_slope)
        result: Tensor = _LeakyReLU.apply(x, self.negative_slope)  # type: ignore[no-untyped-call]
        return result


class _LeakyReLU(Function):
    """Leaky ReLU of a slope of at least 0: then the sign of its argument is that of its result."""

    @staticmethod
    def forward(x: Tensor, slope: float) -> Tensor:
        return F.leaky_relu_(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        ctx.slope = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return leaky_relu_slope(dy, y, ctx.slope), None


def leaky_relu_slope(dy: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return the gradient of leaky ReLU, which can be differentiated again.

    Args:
        dy: Gradient of the result.
        y: The result, of the same shape; of it the sign counts.
        slope: At least 0.
    """
    result: Tensor = _LeakyReLUSlope.apply(dy, y, slope)  # type: ignore[no-untyped-call]
    return result


class _LeakyReLUSlope(Function):
    """The gradient of leaky ReLU: linear in dy, and constant wherever y does not change its sign."""

    @staticmethod
    def forward(dy: Tensor, y: Tensor, slope: float) -> Tensor:
        result: Tensor = torch.ops.aten.leaky_relu_backward(dy, y, slope, True)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], _: Tensor) -> None:
        _, y, ctx.slope = inputs
        ctx.save_for_backward(y)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return leaky_relu_slope(ddx, y, ctx.slope), None, None

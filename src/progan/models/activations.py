"""The activations of the networks, and the gains of the weights that go with them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import nn

from progan.config import Activation, NetworkOptions


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
        return nn.LeakyReLU(leaky_slope, inplace=True)
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

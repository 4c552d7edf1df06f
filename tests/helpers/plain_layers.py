"""Layers in their plainest form, written from their published definitions, to compare ours with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from progan.config import Activation
from progan.models.layers import StddevForm

FORMULAS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.2 * x),
    "relu": lambda x: x.clamp(min=0),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    # Klambauer et al. 2017, equation 2 and the constants below it
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "softplus": lambda x: (1 + x.exp()).log(),
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
}


def same_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """TensorFlow's conv2d, stride 2, padding SAME, tap by tap, from the formulas in its documentation."""
    height, width = x.shape[2:]
    k = weight.shape[-1]
    out = [math.ceil(height / 2), math.ceil(width / 2)]
    before = [max((o - 1) * 2 + k - side, 0) // 2 for o, side in zip(out, (height, width), strict=True)]
    rows = []
    for i in range(out[0]):
        for j in range(out[1]):
            value = torch.zeros(len(x), len(weight), dtype=x.dtype)
            for a in range(k):
                for b in range(k):
                    row, column = 2 * i + a - before[0], 2 * j + b - before[1]
                    if 0 <= row < height and 0 <= column < width:
                        value = value + x[:, :, row, column] @ weight[:, :, a, b].t()
            rows.append(value)
    return torch.stack(rows, dim=-1).view(len(x), len(weight), *out)


def stddev_by_loops(x: Tensor, form: StddevForm, of: Tensor | None = None) -> Tensor:
    """Section 3 in plain loops: sample i is in group i mod M, or i // G of neighbours; channels in parts."""
    n, given = len(x), x if of is None else of
    group = min(form.group, n)
    m = n // group
    maps = torch.empty(n, form.features, *x.shape[2:], dtype=x.dtype)
    for j, (f, part) in itertools.product(range(m), enumerate(given.chunk(form.features, dim=1))):
        chosen = [i for i in range(n) if (i // group if form.contiguous else i % m) == j]
        members = [part[i] for i in chosen]
        mean = sum(members, torch.zeros_like(part[0])) / len(members)
        variance = sum(((one - mean) ** 2 for one in members), torch.zeros_like(part[0]))
        variance = variance / max(len(members) - form.unbiased, 1)
        alone = form.unbiased and len(members) == 1
        value = (variance + (0 if alone else form.epsilon)).sqrt().mean()
        for i in chosen:
            maps[i, f] = value
    return torch.cat([x, maps], dim=1)

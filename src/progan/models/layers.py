"""The layers of the paper: equalized learning rate, pixel norm, minibatch stddev, scaling by two.

Weights are kept as PyTorch keeps them: convolutions [out, in, k, k], linear [out, in].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
"""Slope of leaky ReLU for negative values (Table 2)."""


def feature_maps(level: int, *, fmap_base: int, fmap_decay: float, fmap_max: int) -> int:
    """Return the number of filters at a level; level -1 is the latent and the last dense layer.

    Source: `nf(stage)` of the original networks.py, where stage = level + 1.
    """
    exponent = min((level + 1) * fmap_decay, 1023.0)  # where a float ends; there is one filter long before
    return max(1, min(int(fmap_base / 2.0**exponent), fmap_max))


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is if it is float32 or wider."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def leaky_relu(x: Tensor) -> Tensor:
    """Apply the activation of the paper: x if x > 0, else 0.2 x."""
    return F.leaky_relu(x, LEAK)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Normalise the feature vector of each pixel to unit mean square.

    Args:
        x: [N, C, ...].
        eps: Keeps a zero vector finite.

    Returns:
        b = a / sqrt(mean_c(a^2) + eps), shape and type of x. Source: section 4.2.
    """
    wide = at_least_float32(x)
    return x * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + eps).to(x.dtype)


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """Append one feature map that holds the mean standard deviation over each sample's group.

    Sample i belongs to group i mod (N / group). The variance is the population's.

    Args:
        x: [N, C, H, W]; N a multiple of min(group, N).
        group: Samples in a group.

    Returns:
        [N, C + 1, H, W], the new map last. Source: section 3; `minibatch_stddev_layer` of networks.py.

    Raises:
        ValueError: if the groups do not divide the batch.
    """
    n, channels, height, width = x.shape
    group = min(group, n)
    if n % group:
        raise ValueError(f"a batch of {n} cannot be divided into minibatch-stddev groups of {group}")
    y = at_least_float32(x).reshape(group, n // group, channels, height, width)  # [G, M, C, H, W]
    y = (y - y.mean(dim=0)).square().mean(dim=0)  # [M, C, H, W]
    y = (y + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [M]
    y = y.repeat(group).to(x.dtype)  # [N]: sample i takes value i mod M
    return torch.cat([x, y.view(n, 1, 1, 1).expand(n, 1, height, width)], dim=1)


def upscale2d(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels: [N, C, H, W] -> [N, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def downscale2d(x: Tensor) -> Tensor:
    """Halve height and width by 2x2 box means: [N, C, H, W] -> [N, C, H/2, W/2]."""
    return F.avg_pool2d(x, 2)


def fused_kernel(weight: Tensor) -> Tensor:
    """Sum four copies of a k x k kernel, shifted by 0 or 1 in each axis: [O, I, k, k] -> [.., k+1, k+1].

    Source: `upscale2d_conv2d` and `conv2d_downscale2d` of the original networks.py.
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


def upscale2d_conv2d(x: Tensor, weight: Tensor, *, fused: bool) -> Tensor:
    """Upscale by two, then convolve with a 3x3 kernel (scaled already).

    The fused form is the same function at 16 instead of 36 multiplications an input pixel: a
    transposed convolution of stride 2 with the summed 4x4 kernel. The transposed convolution
    correlates with the mirrored kernel, hence the flip.

    Args:
        x: [N, I, H, W].
        weight: [O, I, 3, 3].
        fused: How to compute it; the result differs by rounding only.

    Returns:
        [N, O, 2H, 2W].
    """
    if not fused:
        return F.conv2d(upscale2d(x), weight, padding=1)
    kernel = fused_kernel(weight.flip(2, 3)).transpose(0, 1)  # [I, O, 4, 4]
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def conv2d_downscale2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, fused: bool) -> Tensor:
    """Convolve with a 3x3 kernel (scaled already), halve by box means, add the bias.

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, 3, 3].
        bias: [O] or None.
        fused: How to compute it; the result differs by rounding only.

    Returns:
        [N, O, H/2, W/2].
    """
    if fused:
        return F.conv2d(x, fused_kernel(weight) * 0.25, bias, stride=2, padding=1)
    y = downscale2d(F.conv2d(x, weight, padding=1))
    return y if bias is None else y + bias.view(1, -1, 1, 1)


class EqualizedConv2d(nn.Module):
    """Convolution with equalized learning rate (section 4.1): weight ~ N(0, 1), scaled at each use.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Side of the kernel; the padding keeps the image's size.
        gain: The weight is multiplied by gain / sqrt(fan_in); the bias is not scaled.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = math.sqrt(2)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.padding = kernel // 2

    def scaled_weight(self) -> Tensor:
        """Return the weight as the convolution sees it."""
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in, H, W] to [N, out, H, W]."""
        return F.conv2d(x, self.scaled_weight(), self.bias, padding=self.padding)


class EqualizedLinear(nn.Module):
    """Linear layer with equalized learning rate: weight ~ N(0, 1) times gain / sqrt(inputs) at each use.

    Args:
        inputs: Features in.
        outputs: Features out.
        gain: As in `EqualizedConv2d`.
        bias: Whether there is a bias of length `outputs`.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2), *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return F.linear(x, self.weight * self.scale, self.bias)

"""The layers of the paper: equalized learning rate, pixel norm, minibatch stddev, scaling by two.

Weights are kept as PyTorch keeps them: convolutions [out, in, k, k], linear [out, in]; k is odd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.config import NetworkOptions, PixelNormForm
from progan.models.activations import hidden_gain
from progan.models.autograd import at_least_float32
from progan.models.conv2d_gradfix import convolve


def feature_maps(level: int, *, fmap_base: int, fmap_decay: float, fmap_max: int) -> int:
    """Return the number of filters at a level; level -1 is the latent and the last dense layer.

    Source: `nf(stage)` of the original networks.py, where stage = level + 1.
    """
    exponent = min((level + 1) * fmap_decay, 1023.0)  # where a float ends; there is one filter long before
    return max(1, min(int(fmap_base / 2.0**exponent), fmap_max))


def add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias [C] to features [N, C, H, W]; None adds nothing."""
    return x if bias is None else x + bias.view(1, -1, 1, 1)


def pixel_norm(
    x: Tensor, eps: float = 1e-8, form: PixelNormForm = "mean_square", *, units: bool = False
) -> Tensor:
    """Normalise the feature vector of each pixel.

    Args:
        x: [N, C, ...].
        eps: Keeps a zero vector finite.
        form: 'mean_square': b = a / sqrt(mean(a^2) + eps), of unit mean square. 'root':
            a / (sqrt(mean(a^2)) + eps). 'variance': a / sqrt(mean((a - mean(a))^2) + eps).
        units: Whether means are over all units of a sample, instead of over the channels of each pixel.

    Returns:
        Shape and type of x. Source: section 4.2, which has the first form; implementations have the others.
    """
    wide, over = at_least_float32(x), tuple(range(1, x.ndim)) if units else (1,)
    if form == "variance":
        wide = wide - wide.mean(dim=over, keepdim=True)
    square = wide.square().mean(dim=over, keepdim=True)
    if form == "root":
        # A root has no gradient at zero.
        root = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
        return x * (root + eps).reciprocal().to(x.dtype)
    return x * torch.rsqrt(square + eps).to(x.dtype)


class PixelNorm(nn.Module):
    """`pixel_norm` as a module.

    Args:
        eps: Keeps a zero vector finite.
        form: What it divides by.
        units: Whether all units of a sample are normalised at once, as if they were one pixel.
    """

    def __init__(self, eps: float, form: PixelNormForm = "mean_square", *, units: bool = False) -> None:
        super().__init__()
        self.eps, self.form, self.units = eps, form, units

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, ...] to normalised features of the same shape."""
        return pixel_norm(x, self.eps, self.form, units=self.units)


@dataclass(frozen=True)
class StddevForm:
    """What the minibatch standard deviation looks at, and how.

    Attributes:
        group: Samples in a group.
        features: Number of maps.
        contiguous: Whether the samples of a group are neighbours. Otherwise sample i belongs to group
            i mod (N / group).
        unbiased: Whether the variance of n samples is over n - 1 (0 for one sample) instead of n.
        epsilon: Added to the variance.
    """

    group: int
    features: int = 1
    contiguous: bool = False
    unbiased: bool = False
    epsilon: float = 1e-8


def minibatch_stddev(x: Tensor, form: StddevForm, sets: int = 1, of: Tensor | None = None) -> Tensor:
    """Append feature maps that hold the mean standard deviation over each sample's group.

    The channels are dealt, in order, into as many equal parts as there are maps: map f is the mean over part
    f and all pixels.

    Args:
        x: [N, C, H, W]; N a multiple of min(group, N), C of features.
        form: Groups and variance.
        sets: Equal parts of the batch that are looked at one by one; what is said of N holds for each.
        of: What the deviation is of, [N, C', H', W']; None for `x`.

    Returns:
        [N, C + features, H, W], the new maps last. Source: section 3; `minibatch_stddev_layer` of
        networks.py, with several features as in StyleGAN (Karras et al. 2019, its networks_stylegan.py).

    Raises:
        ValueError: if the groups do not divide the batch.
    """
    n, _, height, width = x.shape
    given = at_least_float32(x if of is None else of)
    group, features = min(form.group, n // sets), form.features
    if n % sets or n // sets % group:
        raise ValueError(f"a batch of {n // sets} cannot be divided into minibatch-stddev groups of {group}")
    many, channels = n // sets // group, given.shape[1] // features
    axes = (sets, many, group) if form.contiguous else (sets, group, many)
    y = given.reshape(*axes, features, channels, *given.shape[2:])  # [S, G, M, F, C/F, H, W]
    y = y.transpose(1, 2) if form.contiguous else y
    y = _deviation(y, form).mean(dim=(3, 4, 5))  # [S, M, F]
    # Sample i of a set takes row i // G of neighbours, else row i mod M.
    y = y.repeat_interleave(group, dim=1) if form.contiguous else y.repeat(1, group, 1)
    y = y.to(x.dtype).view(n, features, 1, 1).expand(n, features, height, width)
    return torch.cat([x, y], dim=1)


def _deviation(y: Tensor, form: StddevForm) -> Tensor:
    """Return the standard deviation over the second axis: [S, G, ...] -> [S, ...]."""
    group = y.shape[1]
    if form.unbiased and group == 1:
        return torch.zeros_like(y[:, 0])
    if form.epsilon == 0:  # its gradient is 0 where there is no deviation, which that of a root is not
        return y.std(dim=1, correction=int(form.unbiased))
    squares = (y - y.mean(dim=1, keepdim=True)).square().sum(dim=1)
    return (squares / (group - form.unbiased) + form.epsilon).sqrt()


def upscale2d(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels: [N, C, H, W] -> [N, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def downscale2d(x: Tensor) -> Tensor:
    """Halve height and width by 2x2 box means: [N, C, H, W] -> [N, C, H/2, W/2]."""
    return F.avg_pool2d(x, 2)


def fade(old: Tensor, new: Tensor, alpha: Tensor) -> Tensor:
    """Blend what the level below makes with what a level makes: old + (new - old) * alpha.

    In the type of the features, so that no copies of them in float32 are made. Of the small types the form is
    old (1 - alpha) + new alpha, whose shares, both made of alpha before anything is rounded, are right to
    their last bit however near to 0 or 1 alpha is; alpha itself would have no steps below 1/256 near 1.

    Args:
        old, new: Of one shape.
        alpha: 0-d, in [0, 1].
    """
    if new.dtype not in (torch.float16, torch.bfloat16):
        return torch.lerp(old.to(new.dtype), new, alpha.to(new.dtype))
    alpha = alpha.float()
    return torch.addcmul(old * (1 - alpha).to(new.dtype), new, alpha.to(new.dtype))


def blend_in(function: Callable[[Tensor], Tensor], x: Tensor, alpha: Tensor | None) -> Tensor:
    """Return `x` where alpha is 0 and function(x) where it is 1 or None, blended in between.

    Args:
        function: Keeps the shape; it may work in place.
        x: Any shape; not to be used afterwards.
        alpha: 0-d, in [0, 1]; None for 1.
    """
    return function(x) if alpha is None else fade(x, function(x.clone()), alpha)


def fresh(layer: nn.Module, x: Tensor) -> Tensor:
    """Return layer(x) in memory that may be overwritten: a copy where a hook may look at the result."""
    y: Tensor = layer(x)
    if torch.compiler.is_compiling():
        return y  # the compiler takes care of what is overwritten
    watched = bool(layer._forward_hooks) or y._is_view()  # of hooks of its gradient, it is a view
    return y.clone() if watched else y


def fused_kernel(weight: Tensor, divisor: int = 1) -> Tensor:
    """Sum four copies of a k x k kernel, shifted by 0 or 1 in each axis: [O, I, k, k] -> [.., k+1, k+1].

    That is four times the mean over windows of 2x2 with a zero around the kernel, which pooling does at once.
    (Its own divisor is not used: exporters to ONNX leave it out.)

    Args:
        weight: [O, I, k, k].
        divisor: What the sums are divided by, a power of two: then nothing is rounded but the sums.

    Source: `upscale2d_conv2d` and `conv2d_downscale2d` of the original networks.py.
    """
    weight = weight if divisor == 4 else weight * (4 / divisor)
    return F.avg_pool2d(weight, 2, stride=1, padding=1)


def upscale2d_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, kernel: int, fused: bool
) -> Tensor:
    """Upscale by two, convolve with a k x k kernel (scaled already), add the bias.

    The fused form is the same function at (k+1)^2 instead of 4 k^2 multiplications an input pixel (16, not
    36): a transposed convolution of stride 2 with the summed kernel. The transposed convolution
    correlates with the mirrored kernel, hence the flip.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k].
        bias: [O] or None.
        kernel: k, odd; not read from the weight, because sizes are tensors where PyTorch traces.
        fused: How to compute it; the result differs by rounding only.

    Returns:
        [N, O, 2H, 2W].
    """
    padding = kernel // 2
    if not fused:
        return F.conv2d(upscale2d(x), weight, bias, padding=padding)
    summed = fused_kernel(weight.flip(2, 3)).transpose(0, 1)  # [I, O, k+1, k+1]
    return F.conv_transpose2d(x, summed, bias, stride=2, padding=padding)


def conv2d_downscale2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, kernel: int, fused: bool
) -> Tensor:
    """Convolve with a k x k kernel (scaled already), halve by box means, add the bias.

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, k, k].
        bias: [O] or None.
        kernel: k, odd; not read from the weight, because sizes are tensors where PyTorch traces.
        fused: How to compute it; the result differs by rounding only.

    Returns:
        [N, O, H/2, W/2].
    """
    padding = kernel // 2
    if fused:
        return convolve(x, fused_kernel(weight, divisor=4), bias, stride=2, padding=padding)
    return add_bias(downscale2d(convolve(x, weight, padding=padding)), bias)


def strided_padding(kernel: int) -> tuple[int, int]:
    """Return TensorFlow's 'same' padding before and after an even side, at stride 2: (0, 1) for k = 3.

    Together max(k - 2, 0), the odd one after; the convolution halves the side exactly.
    """
    together = max(kernel - 2, 0)
    return together // 2, together - together // 2


def strided_up(x: Tensor, weight: Tensor, *, kernel: int) -> Tensor:
    """Double the size by a transposed convolution of stride 2, aligned as Keras' Conv2DTranspose 'same'.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k] (scaled already).
        kernel: k.

    Returns:
        [N, O, 2H, 2W]: the whole output, which is k - 2 longer, cropped as `strided_padding` pads.
    """
    height, width = x.shape[2:]
    before, _ = strided_padding(kernel)
    missing = max(2 - kernel, 0)  # a 1x1 kernel never reaches the last row and column
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=before, output_padding=missing)
    return y[..., : 2 * height, : 2 * width]


def strided_down(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, kernel: int) -> Tensor:
    """Halve the size by a convolution of stride 2, aligned as TensorFlow's 'same'.

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, k, k] (scaled already).
        bias: [O] or None.
        kernel: k.

    Returns:
        [N, O, H/2, W/2].
    """
    padding = strided_padding(kernel)
    return convolve(F.pad(x, padding * 2), weight, bias, stride=2)


class EqualizedLayer(nn.Module):
    """A weight with equalized learning rate (section 4.1), and a bias that is not scaled.

    The weight is drawn with unit variance and multiplied by gain / sqrt(fan_in) at each use. Without
    equalized_lr it is multiplied once, here. fan_in is the product of all sides but the first.

    Args:
        shape: Shape of the weight; the bias has the length of its first side.
        options: Distribution of the weight, whether there is a bias, equalized_lr, and the gain.
        gain: Instead of that of hidden layers.
        bias: False for no bias whatever the options say.
    """

    def __init__(
        self, shape: tuple[int, ...], options: NetworkOptions, *, gain: float | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        deviation = (hidden_gain(options) if gain is None else gain) / math.sqrt(math.prod(shape[1:]))
        weight = _drawn(shape, options)
        self.scale = deviation if options.equalized_lr else None
        self.weight = nn.Parameter(weight if options.equalized_lr else weight * deviation)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias and options.bias else None

    def scaled_weight(self) -> Tensor:
        """Return the weight as it is used."""
        return self.weight if self.scale is None else self.weight * self.scale


def _drawn(shape: tuple[int, ...], options: NetworkOptions) -> Tensor:
    """Return a new weight of unit variance, on the default device."""
    empty = torch.empty(shape)
    if empty.is_meta:  # there is nothing to draw, and PyTorch would load parts of its compiler to do so
        return empty
    return torch.randn(shape) if options.weight_init != "truncated" else truncated_normal(shape)


def truncated_normal(shape: tuple[int, ...]) -> Tensor:
    """Draw from a normal distribution cut at two deviations and rescaled to unit variance."""
    # Var[x | -2 < x < 2] = 1 - 2 * 2 * phi(2) / (Phi(2) - Phi(-2))
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    deviation = math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))
    return nn.init.trunc_normal_(torch.empty(shape), a=-2.0, b=2.0) / deviation


class EqualizedConv2d(EqualizedLayer):
    """Convolution that keeps the image's size; the side of its kernel is odd.

    Distribution of the weight, bias and equalized_lr are those of the options, and so is the gain, if none is
    given.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, options: NetworkOptions, *, gain: float | None = None
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), options, gain=gain)
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in, H, W] to [N, out, H, W]."""
        return convolve(x, self.scaled_weight(), self.bias, padding=self.kernel // 2)


class EqualizedLinear(EqualizedLayer):
    """Linear layer.

    Distribution of the weight, bias and equalized_lr are those of the options, and so is the gain, if none is
    given; with `bias` False there is no bias whatever the options say.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: NetworkOptions,
        *,
        gain: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__((outputs, inputs), options, gain=gain, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return F.linear(x, self.scaled_weight(), self.bias)

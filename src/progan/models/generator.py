"""The generator of the paper (Table 2, `G_paper` of the original networks.py), for any base shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from progan.config import GeneratorOptions, Growth, LabelForm
from progan.models.activations import activation, hidden_gain, leaky_slope, variance_gain
from progan.models.fused.hidden import hidden, scaled_hidden
from progan.models.hub import HubNetwork
from progan.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    PixelNorm,
    add_bias,
    fade,
    fresh,
    pixel_norm,
    strided_up,
    upscale2d,
    upscale2d_conv2d,
)
from progan.models.leaky_pixel_norm import LeakyPixelNorm
from progan.models.network import filters, is_traced, read_options

LABEL_EXAMPLES = 64
"""Rows of labels of the training set that a generator keeps, unless its labels are single classes."""


class UpBlock(nn.Module):
    """Two convolutions at a new level, after which it has its own channels; the first doubles the size."""

    def __init__(self, inputs: int, outputs: int, options: GeneratorOptions) -> None:
        super().__init__()
        self.strided = options.upscale == "strided"
        self.fused = options.upscale == "fused"
        # Of a transposed convolution of stride 2, each output sums a quarter of the kernel on average, so
        # its fan_in is a quarter, too.
        gain = hidden_gain(options) * (2 if self.strided else 1)
        self.conv0_up = EqualizedConv2d(inputs, outputs, options.kernel_size, options, gain=gain)
        self.conv1 = EqualizedConv2d(outputs, outputs, options.kernel_size, options)
        self.after = after_convolution(options)

    def forward(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Map [N, in, H, W] to [N, out, 2H, 2W].

        With alpha, a 0-d tensor, activations and norms are blended in: at 0 the block is linear.
        """
        weight, bias, kernel = self.conv0_up.scaled_weight(), self.conv0_up.bias, self.conv0_up.kernel
        if self.strided:
            # The sum is dense in memory again, which a crop is not.
            scaled = strided_up(x, weight, kernel=kernel)
            x = scaled_hidden(lambda bias: add_bias(scaled, bias), bias, self.after, alpha)
        else:
            small = x
            x = scaled_hidden(
                lambda bias: upscale2d_conv2d(small, weight, bias, kernel=kernel, fused=self.fused),
                bias,
                self.after,
                alpha,
            )
        return hidden(self.conv1, self.after, x, alpha)


def after_convolution(options: GeneratorOptions) -> nn.Module:
    """Return what follows a hidden layer of G and its bias: the activation, and pixel norm beside it."""
    slope, after = leaky_slope(options), options.pixel_norm_place == "after"
    if not options.pixel_norm:
        return activation(options)
    if after and slope is not None and options.pixel_norm_form == "mean_square":
        return LeakyPixelNorm(slope, options.pixel_norm_eps)
    return _normed(options, PixelNorm(options.pixel_norm_eps, options.pixel_norm_form))


def after_dense(options: GeneratorOptions) -> nn.Module:
    """Return what follows the first dense layer of G and its bias."""
    if options.dense_norm == "pixel":
        return after_convolution(options)
    if options.dense_norm == "none" or not options.pixel_norm:
        return activation(options)
    return _normed(options, PixelNorm(options.pixel_norm_eps, options.pixel_norm_form, units=True))


def _normed(options: GeneratorOptions, norm: nn.Module) -> nn.Module:
    """Return the activation and a norm, in their order."""
    pair = (activation(options), norm)
    return nn.Sequential(*(pair if options.pixel_norm_place == "after" else pair[::-1]))


class Generator(HubNetwork):
    """Maps latents to images, at any level up to the one it was built for.

    All levels are allocated from the start; a call computes those up to `level` alone.

    Args:
        channels: Channels of the images.
        base_shape: Height and width at level 0.
        max_level: Highest level; the full size is base_shape * 2**max_level.
        label_size: Length of the label vector joined to the latent; 0 for none.
        label_form: What a row of labels is: `class` (one-hot), `classes` (0 or 1 per class) or `vector` (any
            numbers).
        level: How far it has grown: what a call computes unless told otherwise.
        alpha: The same, of how far that level has come in.
        label_names: One name per entry of the label vector, in order; may be empty.
        growth: What alpha does: 'fade' blends the level's image with that of the level below, 'morph' blends
            the activations and norms of the level's block in (`models/morph.py`).
        depth: Bits of the pixels that it was trained on, 8 or 16; its images are written with as many.
        options: The choices of the architecture, described in `config.GeneratorOptions`, which also has their
            defaults: those of both networks (fmap_base, fmap_decay, fmap_max, kernel_size, activation,
            leaky_slope, bias, equalized_lr, weight_init, gain) and those of the generator alone: latent_size,
            normalize_latents, pixel_norm, dense_gain, upscale, output_activation and others.

    Attributes:
        options: The same, checked, with latent_size filled in.
        label_examples: [64, label_size], rows of labels of the training set (zeros before training), from
            which plausible labels can be drawn; there is none if label_form is `class`.

    Raises:
        ValueError: if an option is unknown or a value out of range.
    """

    kind, chosen_by = "Generator", "model.generator_class"
    options: GeneratorOptions
    label_examples: Tensor

    def __init__(
        self,
        *,
        channels: int = 3,
        base_shape: Sequence[int] = (4, 4),
        max_level: int = 8,
        label_size: int = 0,
        label_form: LabelForm = "class",
        level: int | None = None,
        alpha: float = 1.0,
        label_names: Sequence[str] = (),
        growth: Growth = "fade",
        depth: int = 8,
        **options: Any,
    ) -> None:
        own, read = self.take_own(options), read_options(GeneratorOptions, options)
        if depth not in (8, 16):
            raise ValueError(f"depth {depth}: expected 8 or 16 bits")
        super().__init__(
            own,
            channels,
            base_shape,
            max_level,
            label_size,
            label_form,
            read,
            level,
            alpha,
            label_names,
            growth,
        )
        first, *widths = filters(read, max_level)
        self.depth = depth
        self.latent_size = first if read.latent_size is None else read.latent_size
        self.options = read = read.model_copy(update={"latent_size": self.latent_size})
        inputs, area = self.latent_size + label_size, self.base_shape[0] * self.base_shape[1]
        self.dense = EqualizedLinear(inputs, widths[0] * area, read, gain=_dense_gain(read), bias=False)
        biases = widths[0] * (area if read.dense_bias == "unit" else 1)
        self.dense_bias = nn.Parameter(torch.zeros(biases)) if read.bias else None
        self.after_dense = after_dense(read)
        self.conv = EqualizedConv2d(widths[0], widths[0], read.kernel_size, read)
        self.after = after_convolution(read)
        self.blocks = nn.ModuleList(
            self.make_block(i, widths[i - 1], widths[i]) for i in range(1, max_level + 1)
        )
        gain = _rgb_gain(read)
        self.to_rgb = nn.ModuleList(EqualizedConv2d(width, channels, 1, read, gain=gain) for width in widths)
        if label_form != "class":
            self.register_buffer("label_examples", torch.zeros(LABEL_EXAMPLES, label_size))

    def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:  # noqa: ARG002
        """Return the block of a level, at least 1; a generator of one's own may have another one.

        It maps ([N, inputs, H, W], alpha or None) to [N, outputs, 2H, 2W]; alpha is not None where a level is
        morphed in, which a block that is no `UpBlock` cannot be.
        """
        return UpBlock(inputs, outputs, self.options)

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        level: int | None = None,
        alpha: Tensor | float | None = None,
    ) -> Tensor:
        """Make images.

        Args:
            z: [N, latent_size], standard normal.
            labels: [N, label_size], of the form `label_form`; needed if and only if label_size > 0.
            level: Level to compute; None for how far this generator has grown.
            alpha: How far the level has come in: weight of its own image against the upscaled image of the
                level below, or, with growth 'morph', of the activations and norms of its block. None means
                1 and skips what is left (or, with level None too, this generator's own).

        Returns:
            [N, channels, *resolution(level)], nominally in [-1, 1]; with output_activation tanh always,
            else not clipped.

        Raises:
            ValueError: if a shape, the level or alpha does not fit.
        """
        return self.from_features(self.features(z, labels), level=level, alpha=alpha)

    def features(self, z: Tensor, labels: Tensor | None = None, *, level: int = 0) -> Tensor:
        """Return what the block of a level hands on, with nothing of it faded.

        Args:
            z, labels: As `forward` takes them.
            level: 0 for what the first two layers make of a latent.

        Returns:
            [N, filters of the level, *resolution(level)].

        Raises:
            ValueError: if a shape or the level does not fit.
        """
        if not 0 <= level <= self.max_level:
            raise ValueError(f"level {level}: expected 0..{self.max_level}")
        x = self._base(self._join(z, labels))
        for block in self.blocks[:level]:
            x = block(x)
        return x

    def from_features(
        self, x: Tensor, start: int = 0, *, level: int | None = None, alpha: Tensor | float | None = None
    ) -> Tensor:
        """Make images of what `features` returns, or of anything that was computed with it.

        Args:
            x: [N, filters, *resolution(start)], features of level `start`.
            start: Their level.
            level, alpha: As `forward` takes them; the level is at least `start`, and above it if it is coming
                in.

        Returns:
            [N, channels, *resolution(level)].

        Raises:
            ValueError: if the level or alpha does not fit.
        """
        level, alpha = self.resolve_growth(level, alpha, x)
        if not 0 <= start <= level or (alpha is not None and 0 < start == level):
            raise ValueError(f"features of level {start} do not make images of level {level} (alpha {alpha})")
        if start == level:
            return self._finish(self.to_rgb[level](x))
        for block in self.blocks[start : level - 1]:
            x = block(x)
        if self.growth == "morph":
            return self._finish(self.to_rgb[level](self.blocks[level - 1](x, alpha)))
        image: Tensor = self.to_rgb[level](self.blocks[level - 1](x))
        if alpha is not None:
            # Section 2, figure 2: the old level's image is upscaled after its own toRGB.
            image = fade(upscale2d(self.to_rgb[level - 1](x)), image, alpha)
        return self._finish(image)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON; 8 bits are not named, as files without are."""
        return {**super().config(), **({} if self.depth == 8 else {"depth": self.depth})}

    def trimmed(self, level: int | None = None) -> Generator:
        """Return a generator that ends at a level: it makes the same images there, and has nothing above.

        Args:
            level: The level, up to that to which it has grown; None for that one, with its alpha.

        Returns:
            A generator that shares the memory of its weights with this one, in evaluation mode and without
            gradients.

        Raises:
            ValueError: if it has not grown so far.
        """
        chosen = self.level if level is None else level
        if not 0 <= chosen <= self.level:
            raise ValueError(f"level {chosen}: the generator has grown to level {self.level}")
        growth = {"level": chosen, "max_level": chosen, "alpha": self.alpha if chosen == self.level else 1.0}
        with torch.device("meta"):
            made = type(self)(**{**self.config(), **growth})
        state = self.state_dict()
        made.load_state_dict({name: state[name] for name in made.state_dict()}, assign=True)
        return made.requires_grad_(False).eval()

    def _join(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Check the inputs and return [N, latent_size + label_size], pixel-normalised."""
        read = self.options
        if not is_traced() and (z.ndim != 2 or z.shape[1] != self.latent_size):
            raise ValueError(f"z must be [N, {self.latent_size}], not {list(z.shape)}")
        if self.label_size:
            if read.normalize_latents and read.label_norm != "joined":
                z = self._normalized(z)
            z = torch.cat([z, self.require_labels(labels, z).to(z.dtype)], dim=1)
            if read.label_norm == "apart":
                return z
        elif labels is not None and labels.numel():
            raise ValueError("this generator takes no labels")
        return self._normalized(z) if read.normalize_latents else z

    def _normalized(self, z: Tensor) -> Tensor:
        """Pixel-normalise latents: [N, features]."""
        read = self.options
        eps = read.pixel_norm_eps if read.latent_norm_eps is None else read.latent_norm_eps
        return pixel_norm(z, eps, read.pixel_norm_form)

    def _base(self, x: Tensor) -> Tensor:
        """Map [N, latent + label] to the features of level 0: [N, filters, h0, w0]."""
        x = fresh(self.dense, x)
        if self.options.dense_bias == "unit" and self.dense_bias is not None:
            x = x + self.dense_bias
        # Channel-major, as the original's reshape. No size of the batch is named: a trace would keep it.
        x = torch.unflatten(x, 1, (-1, *self.base_shape))
        if self.options.dense_bias == "channel":
            x = add_bias(x, self.dense_bias)
        x = self.after_dense(x)
        return hidden(self.conv, self.after, x)

    def _finish(self, image: Tensor) -> Tensor:
        """Apply the output activation, after the fade as the older systems that have one."""
        return image.tanh() if self.options.output_activation == "tanh" else image


def _dense_gain(options: GeneratorOptions) -> float:
    """Return the gain of the first dense layer: by default a quarter of that of hidden layers.

    Source: the original networks.py, where it is sqrt(2) / 4. LeCun's initialisation has one deviation for
    all layers.
    """
    if options.dense_gain is not None:
        return options.dense_gain
    return hidden_gain(options) / (1 if options.weight_init == "lecun" else 4)


def _rgb_gain(options: GeneratorOptions) -> float:
    """Return the gain of toRGB: 1, or what its own activation asks for where gains are computed."""
    if options.gain == "activation" and options.output_activation == "tanh":
        return variance_gain("tanh", options.leaky_slope)
    return 1.0

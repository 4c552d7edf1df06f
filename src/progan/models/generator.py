"""The generator of the paper (Table 2, `G_paper` of the original networks.py), for any base shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from progan.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    feature_maps,
    leaky_relu,
    pixel_norm,
    upscale2d,
    upscale2d_conv2d,
)
from progan.models.network import Network, require_fmaps


class UpBlock(nn.Module):
    """Two 3x3 convolutions at a new level; the first doubles the size.

    Args:
        inputs: Channels of the level below.
        outputs: Channels of this level.
        normalize: Pixel norm after each activation.
    """

    def __init__(self, inputs: int, outputs: int, *, normalize: bool) -> None:
        super().__init__()
        self.conv0_up = EqualizedConv2d(inputs, outputs, 3)
        self.conv1 = EqualizedConv2d(outputs, outputs, 3)
        self.normalize = normalize
        self.fused = True

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in, H, W] to [N, out, 2H, 2W]."""
        x = upscale2d_conv2d(x, self.conv0_up.scaled_weight(), fused=self.fused)
        x = activate(x + self.conv0_up.bias.view(1, -1, 1, 1), normalize=self.normalize)
        return activate(self.conv1(x), normalize=self.normalize)


def activate(x: Tensor, *, normalize: bool) -> Tensor:
    """Leaky ReLU, then pixel norm: the order that follows every convolution of G."""
    x = leaky_relu(x)
    return pixel_norm(x) if normalize else x


class Generator(Network):
    """Maps latents to images, at any level up to the one it was built for.

    All levels are allocated from the start; a call computes those up to `level` alone.

    Args:
        channels: Channels of the images.
        base_shape: Height and width at level 0.
        max_level: Highest level; the full size is base_shape * 2**max_level.
        label_size: Length of the label vector joined to the latent; 0 for none.
        latent_size: Length of z; None for min(fmap_base, fmap_max).
        fmap_base, fmap_decay, fmap_max: Filters at level l: min(fmap_base / 2^((l+1) decay), fmap_max).
        normalize_latents: Pixel-normalise the latent together with its label.
        pixel_norm: Pixel norm after every activation.
        level, alpha: How far it has grown: what a call computes unless told otherwise.
        label_names: One name per entry of the label vector, in order; may be empty.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        base_shape: Sequence[int] = (4, 4),
        max_level: int = 8,
        label_size: int = 0,
        latent_size: int | None = None,
        fmap_base: int = 8192,
        fmap_decay: float = 1.0,
        fmap_max: int = 512,
        normalize_latents: bool = True,
        pixel_norm: bool = True,
        level: int | None = None,
        alpha: float = 1.0,
        label_names: Sequence[str] = (),
    ) -> None:
        super().__init__(channels, base_shape, max_level, label_size, level, alpha, label_names)
        require_fmaps(fmap_base, fmap_decay, fmap_max)
        if latent_size is not None and latent_size < 1:
            raise ValueError(f"latent_size {latent_size}: expected at least 1")
        fmaps = {"fmap_base": fmap_base, "fmap_decay": fmap_decay, "fmap_max": fmap_max}
        filters = [
            feature_maps(i, fmap_base=fmap_base, fmap_decay=fmap_decay, fmap_max=fmap_max)
            for i in range(-1, max_level + 1)
        ]
        first, *filters = filters
        self.latent_size = first if latent_size is None else latent_size
        self.normalize_latents = normalize_latents
        self.pixel_norm = pixel_norm
        self._options = {
            **fmaps,
            "latent_size": self.latent_size,
            "normalize_latents": normalize_latents,
            "pixel_norm": pixel_norm,
        }
        area = self.base_shape[0] * self.base_shape[1]
        # The smaller gain of the dense layer matches the original code, where it is sqrt(2) / 4.
        self.dense = EqualizedLinear(
            self.latent_size + label_size, filters[0] * area, gain=math.sqrt(2) / 4, bias=False
        )
        self.dense_bias = nn.Parameter(torch.zeros(filters[0]))
        self.conv = EqualizedConv2d(filters[0], filters[0], 3)
        self.blocks = nn.ModuleList(
            UpBlock(filters[i - 1], filters[i], normalize=pixel_norm) for i in range(1, max_level + 1)
        )
        self.to_rgb = nn.ModuleList(EqualizedConv2d(f, channels, 1, gain=1.0) for f in filters)

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
            labels: [N, label_size], one-hot as in training; needed if and only if label_size > 0.
            level: Level to compute; None for how far this generator has grown.
            alpha: Weight of the level's own image against the upscaled image of the level below;
                None means 1 and skips the lower one (or, with level None too, this generator's own).

        Returns:
            [N, channels, *resolution(level)], nominally in [-1, 1], not clipped.

        Raises:
            ValueError: if a shape, the level or alpha does not fit.
        """
        level, alpha = self.growth(level, alpha, z)
        x = self._base(self._join(z, labels))
        for block in self.blocks[: max(level - 1, 0)]:
            x = block(x)
        if level == 0:
            return self._rgb(0, x)
        image = self._rgb(level, self.blocks[level - 1](x))
        if alpha is None:
            return image
        # Section 2, figure 2: the old level's image is upscaled after its own toRGB.
        return torch.lerp(upscale2d(self._rgb(level - 1, x)), image, alpha.to(image.dtype))

    def _join(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Check the inputs and return [N, latent_size + label_size], pixel-normalised."""
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ValueError(f"z must be [N, {self.latent_size}], not {list(z.shape)}")
        if self.label_size:
            if labels is None or tuple(labels.shape) != (len(z), self.label_size):
                given = "none" if labels is None else list(labels.shape)
                raise ValueError(f"labels must be [{len(z)}, {self.label_size}], not {given}")
            z = torch.cat([z, labels.to(z.dtype)], dim=1)
        elif labels is not None and labels.numel():
            raise ValueError("this generator takes no labels")
        return pixel_norm(z) if self.normalize_latents else z

    def _base(self, x: Tensor) -> Tensor:
        """Map [N, latent + label] to the features of level 0: [N, filters, h0, w0]."""
        x = self.dense(x).view(len(x), -1, *self.base_shape)  # channel-major, as the original's reshape
        x = activate(x + self.dense_bias.view(1, -1, 1, 1), normalize=self.pixel_norm)
        return activate(self.conv(x), normalize=self.pixel_norm)

    def _rgb(self, level: int, x: Tensor) -> Tensor:
        image: Tensor = self.to_rgb[level](x)
        return image

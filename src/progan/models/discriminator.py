"""The discriminator of the paper (Table 2, `D_paper` of the original networks.py), for any base shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from progan.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    conv2d_downscale2d,
    downscale2d,
    feature_maps,
    leaky_relu,
    minibatch_stddev,
)
from progan.models.network import Network, require_fmaps

Downscale = Literal["fused", "separate"]


class DownBlock(nn.Module):
    """Two 3x3 convolutions of a level; the second leads to half the size.

    Args:
        inputs: Channels of this level.
        outputs: Channels of the level below.
        downscale: 'fused' pools before bias and activation (the original's fused_scale=True),
            'separate' pools after them (Table 2). These are different functions.
    """

    def __init__(self, inputs: int, outputs: int, *, downscale: Downscale) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(inputs, inputs, 3)
        self.conv1_down = EqualizedConv2d(inputs, outputs, 3)
        self.downscale = downscale
        self.fused = True

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in, H, W] to [N, out, H/2, W/2]."""
        x = leaky_relu(self.conv0(x))
        if self.downscale == "separate":
            return downscale2d(leaky_relu(self.conv1_down(x)))
        down = self.conv1_down
        return leaky_relu(conv2d_downscale2d(x, down.scaled_weight(), down.bias, fused=self.fused))


class Discriminator(Network):
    """Scores images, at any level up to the one it was built for, and estimates their labels.

    Args:
        channels, base_shape, max_level, label_size: As in `Generator`; the labels are outputs here.
        fmap_base, fmap_decay, fmap_max: As in `Generator`.
        stddev_group: Group size of the minibatch standard deviation; 0 leaves it out.
        downscale: See `DownBlock`.
        level, alpha: How far it has grown: what a call computes unless told otherwise.
        label_names: As in `Generator`.

    Raises:
        ValueError: if a number is out of range or `downscale` is none of the two.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        base_shape: Sequence[int] = (4, 4),
        max_level: int = 8,
        label_size: int = 0,
        fmap_base: int = 8192,
        fmap_decay: float = 1.0,
        fmap_max: int = 512,
        stddev_group: int = 4,
        downscale: Downscale = "fused",
        level: int | None = None,
        alpha: float = 1.0,
        label_names: Sequence[str] = (),
    ) -> None:
        super().__init__(channels, base_shape, max_level, label_size, level, alpha, label_names)
        require_fmaps(fmap_base, fmap_decay, fmap_max)
        if stddev_group < 0:
            raise ValueError(f"stddev_group {stddev_group}: expected 0 or more")
        if downscale not in get_args(Downscale):
            raise ValueError(f"downscale {downscale!r}: expected {' or '.join(get_args(Downscale))}")
        fmaps = {"fmap_base": fmap_base, "fmap_decay": fmap_decay, "fmap_max": fmap_max}
        last, *filters = (
            feature_maps(i, fmap_base=fmap_base, fmap_decay=fmap_decay, fmap_max=fmap_max)
            for i in range(-1, max_level + 1)
        )
        self.stddev_group = stddev_group
        self._options = {**fmaps, "stddev_group": stddev_group, "downscale": downscale}
        self.from_rgb = nn.ModuleList(EqualizedConv2d(channels, f, 1) for f in filters)
        self.blocks = nn.ModuleList(
            DownBlock(filters[i], filters[i - 1], downscale=downscale) for i in range(1, max_level + 1)
        )
        area = self.base_shape[0] * self.base_shape[1]
        self.conv = EqualizedConv2d(filters[0] + (1 if stddev_group else 0), filters[0], 3)
        self.dense0 = EqualizedLinear(filters[0] * area, last)
        self.dense1 = EqualizedLinear(last, 1 + label_size, gain=1.0)

    def forward(
        self, x: Tensor, *, level: int | None = None, alpha: Tensor | float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            x: [N, channels, *resolution(level)] in [-1, 1]; N a multiple of min(stddev_group, N).
            level: Level of the images; None for how far this discriminator has grown.
            alpha: Weight of the level's own block against fromRGB of the halved image; None means 1
                and skips the halved one (or, with level None too, this discriminator's own).

        Returns:
            Scores [N] (higher is more real; not bounded) and label logits [N, label_size].

        Raises:
            ValueError: if a shape, the level or alpha does not fit.
        """
        level, alpha = self.growth(level, alpha, x)
        expected = (self.channels, *self.resolution(level))
        if tuple(x.shape[1:]) != expected:
            raise ValueError(f"images of level {level} must be {['N', *expected]}, not {list(x.shape)}")
        features = self._features(level, x)
        if level > 0:
            features = self.blocks[level - 1](features)
            if alpha is not None:
                old = self._features(level - 1, downscale2d(x))
                features = torch.lerp(old, features, alpha.to(features.dtype))
        for i in range(level - 1, 0, -1):
            features = self.blocks[i - 1](features)
        out = self._judge(features)
        return out[:, 0], out[:, 1:]

    def _features(self, level: int, x: Tensor) -> Tensor:
        """Map an image to features with fromRGB, which has bias and activation: [N, filters, H, W]."""
        return leaky_relu(self.from_rgb[level](x))

    def _judge(self, x: Tensor) -> Tensor:
        """Map the features of level 0 to score and label logits: [N, 1 + label_size]."""
        if self.stddev_group:
            x = minibatch_stddev(x, self.stddev_group)
        x = leaky_relu(self.conv(x))
        # reshape, not view: the features may be channels_last, and the original flattens NCHW.
        x = leaky_relu(self.dense0(x.reshape(len(x), -1)))
        out: Tensor = self.dense1(x)
        return out

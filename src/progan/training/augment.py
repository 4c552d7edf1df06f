"""Differentiable augmentation of what D sees, real and fake (DiffAugment).

Zhao et al. 2020, *Differentiable Augmentation for Data-Efficient GAN Training*; ranges and positions as in
its code (mit-han-lab/data-efficient-gans, DiffAugment_pytorch.py). What is random comes in as numbers;
everything can be differentiated twice with respect to the images, and nothing waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from progan.config import Config, Part, made
from progan.models.autograd import at_least_float32


class Augmentation(Part, ABC):
    """A differentiable change of images that D sees, real and fake. Derive from this for one of your own.

    An image is changed with the probability of the augmentations, and nothing is random but the draws.

    Attributes:
        draws: How many numbers the change of an image needs.
        Options: A model of its own options, each with a default; `self.options` has their values.
    """

    chosen_by = "augment.policy"
    draws: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
        """Change those images that it is applied to.

        Args:
            images: [N, C, H, W] in [-1, 1], of any floating type. The last of 2 or 4 channels is alpha.
            applied: [N], which images are changed; the others keep their bits.
            draws: [N, `draws`], uniform in [0, 1), at least float32.

        Returns:
            [N, C, H, W] of the type and memory format of `images`, differentiable twice with respect to them.
        """


class Color(Augmentation):
    """Brightness, saturation and contrast."""

    draws = 3

    def __call__(self, images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
        """Change colours, which may leave [-1, 1], as in the original."""
        return _color(images, applied, draws)


class Translation(Augmentation):
    """A shift by whole pixels."""

    draws = 2

    def __call__(self, images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
        """Shift, and fill with zeros."""
        return _translate(images, applied, draws)


class Cutout(Augmentation):
    """A rectangle of zeros."""

    draws = 2

    def __call__(self, images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
        """Cut a rectangle out."""
        return _cut_out(images, applied, draws)


SHIPPED: tuple[type[Augmentation], ...] = (Color, Translation, Cutout)

COLUMNS = {"color": slice(0, 4), "translation": slice(4, 7), "cutout": slice(7, 10)}
"""Which draws belong to which augmentation, whatever the policy: the first decides, the others say how."""

DRAWS = 10
"""Numbers that the shipped augmentations of one image need; those of one's own come behind them."""

Policy = tuple[tuple[Augmentation, slice], ...]
"""Augmentations in their order, each with its columns of the draws."""


def policy_of(config: Config) -> Policy:
    """Return the augmentations that a configuration chooses, with their options.

    Raises:
        ConfigError: if the definition of one is not at hand.
    """
    shipped: dict[str, type[Part]] = {part.name: part for part in SHIPPED}
    known, columns = shipped | config.parts.of(Augmentation.chosen_by), dict(COLUMNS)
    chosen, end = list[tuple[Augmentation, slice]](), DRAWS
    for name in config.augment.policy:
        part = made(known[name], Augmentation, config.augment)  # type: ignore[type-abstract]
        if name not in columns:
            columns[name] = slice(end, end := end + 1 + part.draws)
        chosen.append((part, columns[name]))
    return tuple(chosen)


def draws_of(config: Config) -> int:
    """Return how many numbers the augmentation of one image needs; 0 for no augmentation."""
    return max([DRAWS, *(columns.stop for _, columns in policy)]) if (policy := policy_of(config)) else 0


def augment(images: Tensor, draws: Tensor, probability: Tensor, policy: Policy) -> Tensor:
    """Apply each augmentation of the policy, in its order, to each image with the probability.

    Args:
        images: [N, C, H, W] in [-1, 1], of any floating type. The last of 2 or 4 channels is alpha.
        draws: [N, numbers] uniform in [0, 1), at least float32 (half precision would round some up to 1).
        probability: 0-d, in [0, 1].
        policy: Any of the augmentations; none returns the images.

    Returns:
        [N, C, H, W] of the type and memory format of `images`; an image that nothing is applied to keeps
        its bits.
    """
    for change, columns in policy:
        own = draws[:, columns]
        images = change(images, own[:, 0] < probability, own[:, 1:])
    return images


def _color(images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, in this order; alpha is no colour and stays.

    Draws [N, 3] are of an addend in [-0.5, 0.5), a factor in [0, 2) around the mean of each pixel's channels,
    and a factor in [0.5, 1.5) around the mean of the image.
    """
    channels = images.shape[1]
    colors = channels - 1 if channels in (2, 4) else channels
    x = at_least_float32(images[:, :colors])
    brightness, saturation, contrast = draws.to(x.dtype)[..., None, None, None].unbind(1)  # [N, 1, 1, 1] each
    x = x + (brightness - 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (saturation * 2) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean
    x = x.to(images.dtype)
    if colors < channels:
        x = torch.cat([x, images[:, colors:]], dim=1)
    return torch.where(applied.view(-1, 1, 1, 1), x, images)


def _translate(images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
    """Shift by whole pixels, up to an eighth (rounded) of each side; what comes in is zero in all channels.

    Draws [N, 2] are of the vertical and the horizontal shift.
    """
    height, width = images.shape[2:]
    rows, above_or_below = _shifted(height, applied, draws[:, 0])
    columns, beside = _shifted(width, applied, draws[:, 1])
    moved = images.gather(2, rows[:, None, :, None].expand_as(images))
    moved = moved.gather(3, columns[:, None, None, :].expand_as(images))
    outside = above_or_below[:, None, :, None] | beside[:, None, None, :]  # [N, 1, H, W]
    moved = torch.where(outside, 0, moved)
    if images.is_contiguous(memory_format=torch.channels_last):
        moved = moved.contiguous(memory_format=torch.channels_last)
    return moved


def _shifted(size: int, applied: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the pixels along one side come from, and which come from outside: [N, size] each.

    The sources go round, so that they are a permutation: no two gradients meet in one pixel, which keeps
    the backward pass the same each time.
    """
    largest = (size + 4) // 8
    shift = torch.where(applied, _whole(draws, 2 * largest + 1) - largest, 0)
    sources = torch.arange(size, device=draws.device) + shift[:, None]
    return sources.remainder(size), (sources < 0) | (sources >= size)


def _cut_out(images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
    """Set a rectangle of half of each side to zero in all channels; a part of it may lie outside.

    Draws [N, 2] are of the vertical and the horizontal place.
    """
    height, width = images.shape[2:]
    rows, columns = _covered(height, draws[:, 0]), _covered(width, draws[:, 1])
    hole = rows[:, None, :, None] & columns[:, None, None, :] & applied.view(-1, 1, 1, 1)  # [N, 1, H, W]
    return torch.where(hole, 0, images)


def _covered(size: int, draws: Tensor) -> Tensor:
    """Return which pixels along one side the rectangle covers, wherever its middle is: bool [N, size]."""
    length = (size + 1) // 2
    first = _whole(draws, size + 1 - length % 2) - length // 2
    places = torch.arange(size, device=draws.device) - first[:, None]
    return (places >= 0) & (places < length)


def _whole(draws: Tensor, count: int) -> Tensor:
    """Turn numbers uniform in [0, 1) into whole ones uniform in 0 .. count - 1: [N] -> int64 [N]."""
    return (draws * count).to(torch.int64)

"""Differentiable augmentation of what D sees, real and fake (DiffAugment).

Zhao et al. 2020, *Differentiable Augmentation for Data-Efficient GAN Training*; ranges and positions as in
its code (mit-han-lab/data-efficient-gans, DiffAugment_pytorch.py). What is random comes in as numbers;
everything can be differentiated twice with respect to the images, and nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from progan.config import Augmentation
from progan.models.autograd import at_least_float32

COLUMNS: dict[Augmentation, slice] = {
    "color": slice(0, 4),
    "translation": slice(4, 7),
    "cutout": slice(7, 10),
}
"""Which draws belong to which augmentation, whatever the policy: the first decides, the others say how."""

DRAWS = 10
"""Numbers that the augmentation of one image needs."""


def augment(images: Tensor, draws: Tensor, probability: Tensor, policy: tuple[Augmentation, ...]) -> Tensor:
    """Apply each augmentation of the policy, in its order, to each image with the probability.

    Args:
        images: [N, C, H, W] in [-1, 1], of any floating type. The last of 2 or 4 channels is alpha.
        draws: [N, DRAWS] uniform in [0, 1), at least float32 (half precision would round some up to 1).
        probability: 0-d, in [0, 1].
        policy: Any of the augmentations; none returns the images.

    Returns:
        [N, C, H, W] of the type and memory format of `images`; an image that nothing is applied to keeps
        its bits. Colours may leave [-1, 1], as in the original.
    """
    for name in policy:
        own = draws[:, COLUMNS[name]]
        applied, values = own[:, 0] < probability, own[:, 1:]
        match name:
            case "color":
                images = _color(images, applied, values)
            case "translation":
                images = _translate(images, applied, values)
            case "cutout":
                images = _cut_out(images, applied, values)
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

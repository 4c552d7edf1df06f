"""Growth by network morphism: a new level computed from the trained level below, the function unchanged.

A level comes in linear, and its activations and norms are blended in afterwards (`growth='morph'` of both
networks). While it is linear, G's new block and toRGB are three linear maps in a row, which must together be
the old toRGB; D's new fromRGB and block must together be the old fromRGB. So the old map is factored into
three (Wei et al. 2016, *Network Morphism*, section 3, for a change of depth and kernel size, without their
parametric activation: ours is blended).

Wei et al. search the factors by iterated least squares. Here they follow in closed form, as those nearest to
the fresh random weights that the level already has, so that each filter is one of its own and learns as a
fresh one does. Two things are asked for besides:

- Images end. A kernel of 5x5 that two kernels of 3x3 make together is not the one wanted at the border, where
  zeros are padded in between. So the taps around the central one are invisible to the maps beyond them: they
  lie in the null space of toRGB (of fromRGB), and of toRGB and the second convolution together. With as many
  filters as channels there is no such space, and these taps begin at zero.
- A network and its average are to grow alike: what lies at the image's side does not depend on the old map.

Two other ways were tried, with the figures in docs/growth.md: weights that hold hardly more than the old map,
dealt evenly to the three, as a factoring by singular values does; and features in pairs of opposite signs,
which let the function live through the blending, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from progan.models.discriminator import Discriminator, DownBlock
from progan.models.generator import Generator, UpBlock
from progan.models.layers import EqualizedLayer, strided_padding

BlockT = TypeVar("BlockT", bound=nn.Module)


@dataclass(frozen=True)
class Condition:
    """Condition numbers of the new layers: largest over smallest singular value of [out, in * k * k].

    They are toRGB or fromRGB, the convolution `near` it, and the one beyond.
    """

    rgb: float
    near: float
    far: float

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.rgb, self.near, self.far)


@dataclass(frozen=True)
class _Site:
    """Where a level grows: layers and how an image passes through them, named from the image's side.

    Attributes:
        old: toRGB or fromRGB of the level below.
        rgb: That of the new level.
        near, far: The convolution beside it, and the one beyond.
        near_taps, far_taps: [k, k], the wanted kernel of each but for a matrix.
        heir: The layer that takes over the bias of `old`.
        flipped: Whether weights map from the image inwards (D), so that they are read transposed.
    """

    old: EqualizedLayer
    rgb: EqualizedLayer
    near: EqualizedLayer
    far: EqualizedLayer
    near_taps: Tensor
    far_taps: Tensor
    heir: EqualizedLayer
    flipped: bool

    def read(self, layer: EqualizedLayer) -> Tensor:
        """Return a weight as it is used: [out, in, k, k] towards the image.

        On the CPU and in float64, so that every device computes the same.
        """
        weight = layer.weight.detach().to("cpu", torch.float64)
        weight = weight if layer.scale is None else weight * layer.scale
        return weight.transpose(0, 1) if self.flipped else weight

    def write(self, layer: EqualizedLayer, weight: Tensor) -> None:
        """Store what `read` returns: the factor of the equalized learning rate is undone."""
        weight = weight.transpose(0, 1) if self.flipped else weight
        layer.weight.copy_(weight if layer.scale is None else weight / layer.scale)


@torch.no_grad()
def grow(network: Generator | Discriminator, level: int) -> Condition:
    """Compute the weights of a new level from those of the level below, in place.

    With growth 'morph' and alpha 0, G then makes what it made at the level below, each pixel repeated; D
    judges images as it judged their 2x2 means there. The result depends on the weights alone: those that the
    level has (random ones, unless it was trained before), and those trained below. The convolution beside
    toRGB and toRGB itself do not depend on the trained ones, so a network and its average agree in them.

    Args:
        network: Its level `level - 1` is trained; changed in place.
        level: The new level, at least 1.

    Returns:
        The condition of the new layers.

    Raises:
        ValueError: if there is no such level, or it cannot grow out of the one below (`require_morphable`).
    """
    if not 1 <= level <= network.max_level:
        raise ValueError(f"level {level}: expected 1..{network.max_level}")
    require_morphable(network, level)
    site = _site(network, level)
    old, rgb = (site.read(layer)[:, :, 0, 0] for layer in (site.old, site.rgb))
    near, far = site.read(site.near), site.read(site.far)
    rgb, near, far = _factor(old, rgb, near, far, site.near_taps, site.far_taps)
    site.write(site.rgb, rgb[:, :, None, None])
    site.write(site.near, near)
    site.write(site.far, far)
    layers = (site.rgb, site.near, site.far)
    for layer in layers:
        if layer.bias is not None:
            layer.bias.zero_()
    if site.heir.bias is not None and site.old.bias is not None:
        site.heir.bias.copy_(site.old.bias)
    weights = (layer.weight.detach().to("cpu", torch.float64) for layer in layers)  # some devices have none
    return Condition(*(float(torch.linalg.cond(weight.flatten(1))) for weight in weights))


def require_morphable(network: Generator | Discriminator, level: int) -> None:
    """Check that a level of a network can grow out of the one below.

    Raises:
        ValueError: if the level has fewer filters than the images have channels, which all pass through
            them, or a convolution of stride 2 does not reach all four pixels that become one.
    """
    site, kind = _site(network, level), network.kind.lower()
    filters = min(site.near.weight.shape[:2])
    if filters < network.channels:
        raise ValueError(
            f"level {level} of the {kind} has {filters} filters, and pictures of {network.channels} channels "
            f"do not pass through them unchanged: growth by morphing needs at least as many (a larger "
            f"model.{kind}.fmap_base); or let levels fade in (schedule.growth fade)"
        )


def _site(network: Generator | Discriminator, level: int) -> _Site:
    """Return the layers of a level, and how an image passes through them."""
    k, block = network.options.kernel_size, network.blocks[level - 1]
    if isinstance(network, Generator):
        up = _block(block, UpBlock)
        old, rgb = (_layer(network.to_rgb[i]) for i in (level - 1, level))
        far_taps = _box(k) if up.strided else _centre(k)
        return _Site(old, rgb, up.conv1, up.conv0_up, _centre(k), far_taps, heir=rgb, flipped=False)
    down = _block(block, DownBlock)
    old, rgb = (_layer(network.from_rgb[i]) for i in (level - 1, level))
    near_taps, far = _box(k) / 4 if down.downscale == "strided" else _centre(k), down.conv1_down
    return _Site(old, rgb, down.conv0, far, near_taps, _centre(k), heir=far, flipped=True)


def _block(block: nn.Module, kind: type[BlockT]) -> BlockT:
    """Return a block; a ValueError refuses one of one's own, of which it is not known what it computes."""
    if not isinstance(block, kind):
        raise ValueError(
            f"a level with a {type(block).__name__}, which is no {kind.__name__}, cannot grow by morphing: "
            f"let levels fade in (schedule.growth fade)"
        )
    return block


def _layer(module: nn.Module) -> EqualizedLayer:
    assert isinstance(module, EqualizedLayer)
    return module


def _factor(
    old: Tensor, rgb: Tensor, near: Tensor, far: Tensor, near_taps: Tensor, far_taps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Move three maps so that together they are `old` at the wanted taps and nothing at all others.

    rgb near[d] = near_taps[d] middle for each tap d, and middle far[d] = far_taps[d] old; rgb and middle have
    orthogonal rows, so that no inverse is ill-conditioned. Each correction is the smallest one (Frobenius
    norm): the solution of least squares that is nearest to what is there.

    Args:
        old: [c, I].
        rgb, near, far: [c, O], [O, O, k, k], [O, I, k, k]: random weights that the result is near to.
        near_taps, far_taps: [k, k].

    Returns:
        The three maps.
    """
    rgb = _orthogonal(rgb)
    present = torch.einsum("cp,poyx,yx->co", rgb, near, near_taps) / near_taps.square().sum()
    middle = _orthogonal(present)  # [c, O]
    near = near + _smallest(rgb, near, middle, near_taps)
    far = far + _smallest(middle, far, old, far_taps)
    return rgb, near, far


def _orthogonal(matrix: Tensor) -> Tensor:
    """Return the nearest matrix whose rows are orthogonal and equally long: [c, m], c <= m."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest: Tensor = values.mean() * (left @ right)
    return nearest


def _smallest(beyond: Tensor, kernel: Tensor, wanted: Tensor, taps: Tensor) -> Tensor:
    """Return the smallest change of a kernel with which beyond @ kernel[d] = taps[d] * wanted at each tap d.

    [c, m] of orthogonal rows of one length, [m, n, k, k], [c, n] and [k, k] give [m, n, k, k].
    """
    missing = torch.einsum("cn,yx->cnyx", wanted, taps) - torch.einsum("cm,mnyx->cnyx", beyond, kernel)
    inverse = beyond.T / beyond[0].square().sum()
    return torch.einsum("mc,cnyx->mnyx", inverse, missing)


def _centre(k: int) -> Tensor:
    """Return the taps of a convolution that leaves an image as it is: [k, k]."""
    taps = torch.zeros(k, k, dtype=torch.float64)
    taps[k // 2, k // 2] = 1.0
    return taps


def _box(k: int) -> Tensor:
    """Return the taps of a transposed convolution of stride 2 that repeats pixels: [k, k].

    A ValueError tells of a 1x1 kernel, which leaves three pixels of four alone.
    """
    if k < 2:
        raise ValueError(
            "a 1x1 kernel of stride 2 does not see whole pictures, so levels cannot grow by morphing: use a "
            "kernel_size of 3, or let levels fade in (schedule.growth fade)"
        )
    taps = torch.zeros(k, k, dtype=torch.float64)
    start, _ = strided_padding(k)
    taps[start : start + 2, start : start + 2] = 1.0
    return taps

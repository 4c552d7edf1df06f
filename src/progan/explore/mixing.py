"""Two pictures into one: between their latents, half of each, or one arranged in the style of the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import format_resolution
from progan.data.pixels import to_uint8
from progan.errors import ConfigError, DataError
from progan.generation.grids import save_grid
from progan.generation.samples import of_seeds, parse_seeds, read_latents
from progan.generation.sampling import level_of
from progan.generation.walks import slerp
from progan.models.generator import Generator
from progan.system.npy_files import load_arrays

How = Literal["average", "halves", "layers"]

_EPS = 1e-5


@dataclass(frozen=True)
class Ingredient:
    """One of the two pictures.

    Attributes:
        z: [1, latent_size].
        label: [1, label_size] or None.
        features: [1, filters, h0, w0], of level 0, used in place of those that z makes; or None.
    """

    z: Tensor
    label: Tensor | None
    features: Tensor | None = None


def ingredient(G: Generator, what: Ingredient | int | str | Path) -> Ingredient:
    """Return the picture that is meant: by a seed, or a file of one latent, as `progan project` writes it.

    Raises:
        ConfigError, DataError: if it means none.
    """
    if isinstance(what, Ingredient):
        return what
    what = str(what)
    if what.isascii() and what.isdigit():
        return Ingredient(*of_seeds(G, parse_seeds(what)).rows(0, 1))
    path = Path(what)
    if not path.is_file():
        raise ConfigError(f"{what!r} is neither a seed nor a file of latents (.npy, .npz)")
    z, label = read_latents(G, path)
    if len(z) != 1:
        raise DataError(f"{path} holds {len(z)} latents; one is mixed with one")
    if label is None and G.label_size:
        label = of_seeds(G, [0]).rows(0, 1)[1]
    return Ingredient(z, label, _features(G, path))


def mix(
    G: Generator,
    a: Ingredient | int | str | Path,
    b: Ingredient | int | str | Path,
    how: How = "average",
    *,
    share: float = 0.5,
    at: int = 0,
    level: int | None = None,
) -> NDArray[np.uint8]:
    """Return a picture of two.

    Args:
        G: The generator.
        a, b: The two: a seed each, or a file of one latent, as `progan.project` writes it.
        how: average: between the latents (on a great circle), or between features where both have some.
            halves: features of level `at` are a's on the left and b's on the right. layers: layers up to
            level `at` are a's; what is above sees their arrangement with b's means and deviations of each
            channel, as layers of this network take nothing else from elsewhere (adaptive instance
            normalisation: Huang and Belongie, arXiv 1703.06868, equation 8).
        share: How much of b, from 0 to 1.
        at: A level of features, up to `level`.
        level: As `level_of` takes it.

    Returns:
        [channels, *resolution(level)] uint8.

    Raises:
        ConfigError: if an argument cannot be used.
    """
    level = level_of(G, level)
    if how not in get_args(How):
        raise ConfigError(f"how {how!r}: expected {', '.join(get_args(How))}")
    if not 0 <= share <= 1:
        raise ConfigError(f"share {share:g}: expected a number from 0 (the first) to 1 (the second)")
    # Of a level that is coming in the block is blended, so its features are not handed on.
    most = level if level < G.level or G.alpha == 1 else level - 1
    if not 0 <= at <= most:
        raise ConfigError(f"features of level {at}: there are those of level 0 to {most}")
    with torch.inference_mode():
        x = _mixed(G, ingredient(G, a), ingredient(G, b), how, share, at)
        images = to_uint8(G.from_features(x, at, level=None if level == G.level else level))
    picture: NDArray[np.uint8] = images[0]
    return picture


def _mixed(G: Generator, a: Ingredient, b: Ingredient, how: How, share: float, at: int) -> Tensor:
    """Return mixed features of level `at`."""
    if how == "average" and (a.features is None or b.features is None):
        weight = next(G.parameters())
        label = None
        if a.label is not None and b.label is not None:
            label = torch.lerp(a.label, b.label, share).to(weight)
        z = slerp(a.z, b.z, share).to(weight)
        return G.features(z, label, level=at)
    first, second = _at(G, a, at), _at(G, b, at)
    if how == "average":
        return torch.lerp(first, second, share)
    if how == "halves":
        width = first.shape[3]
        cut = min(width, max(0, round(width * (1 - share))))
        return torch.cat([first[..., :cut], second[..., cut:]], dim=3)
    mean_a, mean_b = (x.mean(dim=(2, 3), keepdim=True) for x in (first, second))
    # One number a channel has no deviation.
    if first[0, 0].numel() == 1:
        return torch.lerp(first, second, share)
    std_a, std_b = (x.std(dim=(2, 3), keepdim=True) + _EPS for x in (first, second))
    return torch.lerp(first, (first - mean_a) / std_a * std_b + mean_b, share)


def _at(G: Generator, part: Ingredient, at: int) -> Tensor:
    """Return the features of one picture at a level."""
    weight = next(G.parameters())
    if part.features is None:
        return G.features(part.z.to(weight), None if part.label is None else part.label.to(weight), level=at)
    x = part.features.to(weight)
    for block in G.blocks[:at]:
        x = block(x)
    return x


def save_sheet(
    G: Generator, a: Ingredient, b: Ingredient, out: Path, *, names: tuple[str, str], level: int | None = None
) -> Path:
    """Write all ways to mix two pictures as one sheet, a way a row.

    Args:
        G, a, b, level: As `mix` takes them.
        out: The picture.
        names: Of the two.

    Raises:
        ConfigError: as `mix`, or if the ending is none of a picture.
        StorageError: if it cannot be written.
    """
    level = level_of(G, level)
    shares = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    images = [mix(G, a, b, share=share, level=level) for share in shares]
    captions = [names[0], *(f"{share:.0%}" for share in shares[1:-1]), names[1]]
    ends = (images[0], images[-1])
    most = level if level < G.level or G.alpha == 1 else level - 1
    chosen = sorted({round(most * i / 3) for i in range(4)})
    for how in ("halves", "layers"):
        row = [mix(G, a, b, how, share=0.5 if how == "halves" else 1.0, at=at, level=level) for at in chosen]
        words = [f"{how} {format_resolution(G.resolution(at))}" for at in chosen]
        blank = [np.full_like(row[0], 255)] * (4 - len(row))
        images += [ends[0], *row, *blank, ends[1]]
        captions += [names[0], *words, *[""] * len(blank), names[1]]
    return save_grid(np.stack(images), out, len(shares), captions=captions)


def _features(G: Generator, path: Path) -> Tensor | None:
    """Return the features that a file of `progan project` holds besides the latent.

    Raises:
        DataError: if they are none of this generator.
    """
    if path.suffix.lower() != ".npz":
        return None
    features = load_arrays(path).get("features")
    if features is None:
        return None
    shape = (1, G.conv.weight.shape[0], *G.base_shape)
    if features.shape != shape or features.dtype.kind != "f" or not np.isfinite(features).all():
        raise DataError(f"{path}: features of shape {list(features.shape)}, where this generator has {shape}")
    return torch.from_numpy(features.astype(np.float32))

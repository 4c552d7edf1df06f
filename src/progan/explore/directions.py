"""Directions in latent space along which pictures change in one way: found in weights, features or scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.data.pixels import to_float
from progan.data.showing import on_white
from progan.errors import ConfigError, DataError
from progan.explore.scores import read_scores
from progan.generation.image_files import save_npz
from progan.generation.sampling import batch_size_for, label_vectors, latents, render, whole
from progan.models.generator import Generator
from progan.system.npy_files import load_arrays
from progan.system.progress import Progress, unheard

Method = Literal["sefa", "pca", "looks"]

_SAMPLES = 2000
_SEED = 2**32 + 2
"""Of the samples that directions are fitted to, which nobody asks for by chance."""

_RIDGE = 1e-3
FILE = "directions.npz"


@dataclass(frozen=True)
class Direction:
    """A way to move latents.

    Attributes:
        name: For people.
        vector: [latent_size], of length 1: one step is one standard deviation of a latent's number.
        method: How it was found: sefa, pca, looks, or scores.
        strength: How much it changes in comparison with others of its method, from 0 to 1; of fits the
            correlation of scores with what they are predicted to be.
    """

    name: str
    vector: Tensor
    method: str
    strength: float


def sefa(G: Generator, k: int) -> list[Direction]:
    """Return the directions that the first layer magnifies most: closed-form factorisation.

    They are the eigenvectors of A^T A with the largest eigenvalues, A being the weights by which the first
    dense layer takes latents. Source: Shen and Zhou, arXiv 2007.06600, equation 5.

    Args:
        G: The generator.
        k: How many, from 1 to latent_size.

    Raises:
        ConfigError: if there are not so many.
    """
    _require_count(G, k)
    weights = G.dense.scaled_weight().detach().double().cpu()[:, : G.latent_size]  # [filters * area, latent]
    values, vectors = torch.linalg.eigh(weights.T @ weights)
    shares = (values.clamp(min=0).sqrt() / values[-1].sqrt()).flip(0)
    return [
        Direction(f"sefa {i + 1}", _signed(vectors[:, -1 - i]), "sefa", float(shares[i])) for i in range(k)
    ]


def principal(
    G: Generator, k: int, *, samples: int = _SAMPLES, progress: Progress = unheard
) -> list[Direction]:
    """Return the directions in which the first features vary most, as latents that lead there.

    Features of level 0 of random latents are decomposed into principal components (what labels explain is
    taken out first); latents are then regressed on the coordinates. Source: Härkönen et al. (GANSpace), arXiv
    2004.02546, section 3.2, of models whose first layer takes the latent.

    Args:
        G: The generator.
        k: How many, from 1 to latent_size.
        samples: Random latents, more than latent_size.
        progress: Told of the samples.

    Raises:
        ConfigError: if there are not so many.
    """
    _require_count(G, k)
    if samples <= G.latent_size + G.label_size + 1:
        raise ConfigError(f"samples {samples}: a fit of {G.latent_size} numbers needs more")
    z, labels = latents(_SEED, 0, samples, G.latent_size), label_vectors(G, None, _SEED, 0, samples)
    weight = next(G.parameters())
    parts = []
    with torch.no_grad():
        for i in range(0, samples, 256):
            own = [rows[i : i + 256].to(weight) for rows in (z, labels) if rows is not None]
            parts.append(G.features(*own).flatten(1).double().cpu())
            progress("features", min(i + 256, samples), samples)
    features = _unexplained(torch.cat(parts), labels)
    _, sizes, axes = torch.svd_lowrank(features, q=min(k + 8, *features.shape), niter=4)
    coordinates = features @ axes[:, :k]  # [samples, k]
    coordinates = coordinates / coordinates.std(dim=0)
    # Least squares of z on orthogonal coordinates of deviation 1: products over the number of samples.
    vectors = coordinates.T @ z.double() / samples  # [k, latent_size]
    return [
        Direction(f"pca {i + 1}", _signed(vectors[i]), "pca", float(sizes[i] / sizes[0])) for i in range(k)
    ]


def looks(G: Generator, *, samples: int = 1000, progress: Progress = unheard) -> list[Direction]:
    """Return directions of what every picture has: brightness, contrast, and of coloured ones more.

    Args:
        G: The generator.
        samples: Pictures that are looked at.
        progress: Told of them.
    """
    z, labels = latents(_SEED, 0, samples, G.latent_size), label_vectors(G, None, _SEED, 0, samples)
    batch, columns = batch_size_for(G, G.level), list[NDArray[np.float64]]()
    for i in range(0, samples, batch):
        own = None if labels is None else labels[i : i + batch]
        columns.append(_looks_of(render(G, z[i : i + batch], own)))
        progress("looking at samples", min(i + batch, samples), samples)
    table = np.concatenate(columns)
    names = ("brightness", "contrast", "warmth", "green to magenta", "saturation")[: table.shape[1]]
    scores = {name: table[:, i] for i, name in enumerate(names)}
    return fitted(z, labels, scores, "looks")


def _looks_of(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return brightness and contrast, and of RGB warmth, magenta and saturation, of pictures: [N, 2 or 5]."""
    pixels = to_float(on_white(images)) if images.shape[1] <= 4 else to_float(images)
    grey = pixels.mean(dim=1)
    columns = [grey.mean(dim=(1, 2)), grey.std(dim=(1, 2))]
    if pixels.shape[1] == 3:
        red, green, blue = pixels.mean(dim=(2, 3)).unbind(dim=1)
        columns += [red - blue, (red + blue) / 2 - green]
        columns.append((pixels.amax(dim=1) - pixels.amin(dim=1)).mean(dim=(1, 2)))
    stacked: NDArray[np.float64] = torch.stack(columns, dim=1).double().numpy()
    return stacked


def fitted(
    z: Tensor, labels: Tensor | None, scores: Mapping[str, NDArray[np.float64]], method: str = "scores"
) -> list[Direction]:
    """Return the directions in which scores grow, by a linear fit (ridge regression of scores on latents).

    For scores of two values that is Fisher's discriminant, the normal of the plane between the two groups, as
    InterFaceGAN takes one from a linear classifier. Source: Shen et al., arXiv 1907.10786, section 3.

    Args:
        z: [N, latent_size].
        labels: [N, label_size], what they explain is taken out; or None.
        scores: By name, [N] numbers.
        method: How they are called.

    Raises:
        DataError: if scores are all the same, not finite, or fewer than latents have numbers.
    """
    x = _unexplained(z.double(), labels)
    made = []
    for name, values in scores.items():
        y = torch.from_numpy(np.asarray(values, np.float64))
        if len(y) != len(x) or not bool(torch.isfinite(y).all()):
            raise DataError(f"scores {name!r}: {len(x)} finite numbers are needed")
        y = _unexplained(y[:, None], labels)
        if float(y.std()) < 1e-9:
            if method == "looks":
                continue  # pictures that do not differ in it
            raise DataError(f"scores {name!r} are all the same (for each label); nothing can be learned")
        penalty = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        vector = torch.linalg.solve(x.T @ x + penalty, x.T @ y)[:, 0]
        correlation = torch.corrcoef(torch.stack([x @ vector, y[:, 0]]))[0, 1]
        made.append(Direction(name, (vector / vector.norm()).float(), method, float(correlation.abs())))
    return made


def from_table(G: Generator, table: Path) -> list[Direction]:
    """Return the directions of scores or labels that somebody gave to samples of this generator.

    Args:
        G: The generator.
        table: A CSV file whose first column names pictures of `progan generate`, beside it or by their seed
            (`seed0004.png`), and whose other columns are numbers or labels; or a folder into whose
            sub-folders such pictures were sorted.

    Raises:
        DataError: if it cannot be used.
    """
    z, labels, scores = read_scores(G, table)
    return fitted(z, labels, scores)


def find_directions(
    G: Generator,
    k: int = 8,
    methods: Sequence[Method] = get_args(Method),
    *,
    table: Path | None = None,
    names: Sequence[str] = (),
    progress: Progress = unheard,
) -> list[Direction]:
    """Return directions by several methods.

    Args:
        G: The generator.
        k: How many by each of sefa and pca, from 1 to latent_size.
        methods: Which.
        table: Scores, as `from_table` takes them; their directions come first.
        names: For the first ones, in their order, in place of their own.
        progress: Told of what is done.

    Raises:
        ConfigError: if an argument cannot be used.
        DataError: if the table cannot be used.
    """
    k = whole("K", k, least=1)
    if unknown := [method for method in methods if method not in get_args(Method)]:
        raise ConfigError(f"method {unknown[0]!r}: expected {', '.join(get_args(Method))}")
    made = [] if table is None else from_table(G, table)
    if "looks" in methods:
        made += looks(G, progress=progress)
    if "sefa" in methods:
        made += sefa(G, k)
    if "pca" in methods:
        made += principal(G, k, progress=progress)
    if len(names) > len(made):
        raise ConfigError(f"{len(names)} names for {len(made)} directions")
    named = [replace(way, name=name) for way, name in zip(made, names, strict=False)]
    made[: len(named)] = named
    if len({way.name for way in made}) < len(made):
        raise ConfigError("two directions would have one name; give each another (--names)")
    return made


def moved(z: Tensor, direction: Direction, amounts: Tensor) -> Tensor:
    """Return latents at several places along a direction: [amounts, N, latent_size].

    Args:
        z: [N, latent_size].
        direction: Where to.
        amounts: [amounts] steps, negative ones for the other way.
    """
    return z + amounts[:, None, None] * direction.vector


def save(directions: Sequence[Direction], path: Path) -> None:
    """Write directions to an `.npz`: names, vectors, methods, strengths.

    Raises:
        StorageError: if it cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {
        "names": np.array([way.name for way in directions]),
        "vectors": torch.stack([way.vector for way in directions]).numpy(),
        "methods": np.array([way.method for way in directions]),
        "strengths": np.array([way.strength for way in directions], np.float32),
    }
    save_npz(path, arrays)


def read(path: Path, latent_size: int) -> list[Direction]:
    """Return the directions that `save` wrote.

    Raises:
        DataError: if the file cannot be read, or is for other latents.
    """
    try:
        file = load_arrays(path)
        names, vectors, methods, strengths = (
            file[key] for key in ("names", "vectors", "methods", "strengths")
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no directions can be read from it ({error})") from None
    if vectors.dtype.kind != "f" or strengths.dtype.kind != "f" or names.ndim != 1:
        raise DataError(f"{path} holds no directions")
    if (
        vectors.shape != (len(names), latent_size)
        or len(methods) != len(names)
        or len(strengths) != len(names)
    ):
        raise DataError(f"{path} is for latents of another size; find directions again: progan directions")
    return [
        Direction(str(name), torch.from_numpy(vector.astype(np.float32)), str(method), float(strength))
        for name, vector, method, strength in zip(names, vectors, methods, strengths, strict=True)
    ]


def folder_of(path: Path, images_seen: int | None = None) -> Path:
    """Return where the directions of a generator lie: in its run folder, or beside its weight file.

    Args:
        path: A run folder, or a weight file.
        images_seen: Of a run: which of its generators; None for the newest.
    """
    if not path.is_dir():
        return path.with_name(f"{path.stem}-directions")
    return path / ("directions" if images_seen is None else f"directions-{images_seen:09d}")


def file_name(name: str) -> str:
    """Return a name as part of a file name: letters, digits and hyphens."""
    return re.sub(r"[^\w]+", "-", name, flags=re.UNICODE).strip("-")[:60] or "direction"


def _require_count(G: Generator, k: int) -> None:
    if not 1 <= k <= G.latent_size:
        raise ConfigError(f"K {k}: this generator has from 1 to {G.latent_size} directions")


def _unexplained(values: Tensor, labels: Tensor | None) -> Tensor:
    """Return values [N, M] without their mean and without what labels explain linearly."""
    ones = torch.ones(len(values), 1, dtype=torch.float64)
    known = ones if labels is None else torch.cat([labels.double().cpu(), ones], dim=1)
    fit = torch.linalg.lstsq(known, values, driver="gelsd").solution
    return values - cast(Tensor, known @ fit)


def _signed(vector: Tensor) -> Tensor:
    """Return a vector of length 1 whose largest number is positive: both signs are as good."""
    vector = vector / vector.norm()
    return (vector * vector[vector.abs().argmax()].sign()).float()

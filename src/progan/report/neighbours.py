"""Samples of a run beside the real pictures that are nearest to them: copies, if there are any, are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from progan.data.packed import PackedSet
from progan.data.pixels import to_8_bit, to_float
from progan.data.showing import on_white
from progan.errors import ProganError
from progan.generation.grids import grid_picture
from progan.generation.picture_form import enlarge
from progan.generation.samples import of_seeds
from progan.generation.sampling import render
from progan.metrics.neighbours import nearest, squared_distances
from progan.models.loading import load
from progan.models.weights import Own
from progan.runs.run_folder import RunFolder

ROWS, NEAREST = 6, 5
_MOST = 20_000
"""Real pictures that are looked at; of more, so many, spread evenly."""

_SIDE = 32
"""Pixels of the larger side at which pictures are compared, if they have such a level."""

_PROBES = 64
"""Real pictures whose own nearest neighbours say how far apart reals are."""

_SHOWN = 96


@dataclass(frozen=True)
class Near:
    """Samples and the reals that are nearest to them.

    Attributes:
        picture: A sample a row, at its left; then its nearest reals.
        ratios: [samples], the distance to the nearest real, as a share of what reals are from each other (the
            median of their distances to their nearest). A copy is near 0.
        looked_at: How many reals.
    """

    picture: Image.Image
    ratios: list[float]
    looked_at: int


def near_reals(folder: RunFolder, own: Own = ()) -> Near | str:
    """Look for the reals nearest to the first samples of a run, in pixels of a low level.

    Args:
        folder: The run.
        own: Networks of one's own, one of which its generator may be.

    Returns:
        What was found, or why nothing could be looked for.
    """
    try:
        G, packed = load(folder.generator_file, own=own), PackedSet.open(folder.pictures())
    except ProganError as error:
        return str(error)
    places = packed.indices()
    places = places[:: -(-len(places) // _MOST)]
    if not 1 <= G.channels <= 4 or len(places) <= NEAREST:
        return f"{len(places)} pictures of {G.channels} channels cannot be looked at"
    level = max((i for i in range(G.level + 1) if max(G.resolution(i)) <= _SIDE), default=0)
    samples = on_white(render(G, *of_seeds(G, range(ROWS)).rows(0, ROWS)))
    wanted = _vectors(samples, 2 ** (G.level - level))
    found = nearest(_distances(packed, level, places, wanted), ROWS, NEAREST)
    near = on_white(to_8_bit(packed.read(G.level, places[found.indices.reshape(-1)])))
    rows = np.concatenate([samples[:, None], near.reshape(ROWS, NEAREST, *near.shape[1:])], axis=1).reshape(
        -1, *near.shape[1:]
    )
    picture = grid_picture(enlarge(rows, max(1, round(_SHOWN / max(G.resolution())))), NEAREST + 1)
    between = _between_reals(packed, level, places)
    return Near(
        picture.convert("RGB"), [float(d) / max(between, 1e-9) for d in found.distances[:, 0]], len(places)
    )


def _vectors(images: NDArray[np.uint8], factor: int) -> Tensor:
    """Return images as vectors [N, numbers], made smaller by a whole factor."""
    return torch.nn.functional.avg_pool2d(to_float(images), factor).flatten(1)


def _distances(
    packed: PackedSet, level: int, places: NDArray[np.int64], wanted: Tensor
) -> Iterator[NDArray[np.float64]]:
    """Yield squared distances [reals, samples], some reals at a time."""
    for i in range(0, len(places), 1000):
        reals = on_white(to_8_bit(packed.read(level, places[i : i + 1000])))
        yield squared_distances(_vectors(reals, 1), wanted).numpy()


def _between_reals(packed: PackedSet, level: int, places: NDArray[np.int64]) -> float:
    """Return how far reals are from their nearest: the median over some of them."""
    probes = places[:: -(-len(places) // _PROBES)]
    wanted = _vectors(on_white(to_8_bit(packed.read(level, probes))), 1)
    # The nearest is the picture itself.
    return float(
        np.median(nearest(_distances(packed, level, places, wanted), len(probes), 2).distances[:, 1])
    )

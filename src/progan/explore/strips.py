"""Strips of pictures along directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from progan.explore.directions import Direction, file_name, moved
from progan.generation.grids import save_grid
from progan.generation.samples import Samples
from progan.generation.sampling import render
from progan.models.generator import Generator

STEPS = 7
"""Pictures of a strip; the middle one is the sample itself."""


def save_strips(
    G: Generator,
    directions: Sequence[Direction],
    samples: Samples,
    folder: Path,
    *,
    reach: float = 4.0,
    level: int | None = None,
) -> Iterator[Path]:
    """Write a strip for each direction, a sample a row, and `all.png`: the first sample, a direction a row.

    Args:
        G: The generator.
        directions: At least one.
        samples: A few.
        folder: Gets `01-NAME.png`, ...
        reach: Steps to either side.
        level: As `level_of` returns it.

    Yields:
        Each file, once it is written.

    Raises:
        StorageError: if one cannot be written.
    """
    amounts = torch.linspace(-reach, reach, STEPS)
    z, labels = samples.rows(0, samples.count)
    first = []
    for number, direction in enumerate(directions, 1):
        way = moved(z, direction, amounts).transpose(0, 1)  # [samples, amounts, latent]
        marks = None if labels is None else labels.repeat_interleave(STEPS, dim=0)
        images = render(G, way.flatten(0, 1), marks, level=level)
        first.append(images[:STEPS])
        captions = [f"{amount:+.1f}" if amount else direction.name for amount in amounts.tolist()]
        blank = [""] * (STEPS * (samples.count - 1))
        path = folder / f"{number:02d}-{file_name(direction.name)}.png"
        yield save_grid(images, path, STEPS, captions=[*blank, *captions])
    sheet = torch.cat([torch.from_numpy(images) for images in first]).numpy()
    names = [direction.name for direction in directions for _ in range(STEPS)]
    yield save_grid(sheet, folder / "all.png", STEPS, captions=names)

"""Sample grids of fixed latents, so that the pictures of a run can be compared over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.data.packed import PackedSet
from progan.data.pixels import to_8_bit, to_uint8
from progan.data.showing import Sight
from progan.generation.grids import write_grid
from progan.models.generator import Generator
from progan.runs.checks import Prepared
from progan.system.randomness import random_generator

PIXELS_AT_ONCE = 1 << 21
"""Pixels of samples computed together (32 pictures of 256x256), so that a step needs more memory."""

GRID_PIXELS = 8_000_000
"""A sample grid has about this many pixels at most: 8 pictures of 1024x1024, 122 of 256x256."""

PROBES = 16
"""Pictures among which variation is measured; fewer of large ones."""


def grid_shape(rows: int, columns: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return as many rows and columns, up to those asked for, as make a grid of moderate size.

    Args:
        rows, columns: At least 1.
        size: Height and width of a picture at the highest level.
    """
    while rows * columns > 1 and rows * columns * size[0] * size[1] > GRID_PIXELS:
        rows, columns = (rows, columns - 1) if columns >= rows else (rows - 1, columns)
    return rows, columns


class SampleGrid:
    """A grid of the same latents (and labels, those of G) whenever it is drawn, by the seed of the run.

    For labelled data the pictures of a row have one label: each class in turn, or one of the generator's
    examples.
    """

    def __init__(self, rows: int, columns: int, *, seed: int, G: Generator) -> None:
        n = rows * columns
        rng = random_generator(seed, "sample grid", 0)
        self._latents = torch.from_numpy(rng.standard_normal((n, G.latent_size), dtype=np.float32))
        self._probes = torch.from_numpy(rng.standard_normal((PROBES, G.latent_size), dtype=np.float32))
        self._labels = self._probe_labels = None
        if G.label_size:
            each = torch.eye(G.label_size) if G.label_form == "class" else G.label_examples.cpu()
            self._labels = each[torch.arange(n) // columns % len(each)]
            self._probe_labels = each[torch.arange(PROBES) % len(each)]

    @torch.inference_mode()
    def draw(self, G: Generator) -> NDArray[np.uint8]:
        """Return the pictures of a generator, at the level and alpha it has grown to: [N, C, h, w]."""
        weight = next(G.parameters())
        height, width = G.resolution()
        batch = max(1, min(32, PIXELS_AT_ONCE // (height * width)))
        made = []
        for i in range(0, len(self._latents), batch):
            labels = None if self._labels is None else self._labels[i : i + batch].to(weight)
            made.append(to_uint8(G(self._latents[i : i + batch].to(weight), labels)))
        return np.concatenate(made)

    @torch.no_grad()
    def variation(self, G: Generator) -> Tensor:
        """Return how much pictures of a few latents, the same each time, differ: 0 if they are all the same.

        It is D's minibatch standard deviation (section 3) of pixels instead of features: the deviation of
        each pixel over the pictures, averaged over pixels and channels. 0-d, on the device; pictures are in
        [-1, 1].
        """
        weight = next(G.parameters())
        height, width = G.resolution()
        n = max(4, min(PROBES, PIXELS_AT_ONCE // (height * width)))
        labels = None if self._probe_labels is None else self._probe_labels[:n].to(weight)
        images: Tensor = G(self._probes[:n].to(weight), labels)
        return images.to(torch.promote_types(images.dtype, torch.float32)).std(dim=0, correction=0).mean()


class Snapshots:
    """The grids of a run on disk, which its first process draws and writes.

    Latents and labels are those that the generator G was given.
    """

    def __init__(self, run: Prepared, G: Generator) -> None:
        options, image = run.spec.config.run, run.spec.image
        self._run, self._folder = run, run.folder.samples
        self._rows, self._columns = grid_shape(*options.grid, image.resolution(image.max_level))
        self.grid = SampleGrid(self._rows, self._columns, seed=options.seed, G=G)

    def write(self, G: Generator, images_seen: int) -> None:
        """Write the samples of a generator, named after the clock and their size."""

        def draw() -> None:
            self._run.ranks.at("a sample grid", images_seen)
            height, width = G.resolution()
            name = f"{images_seen:09d}_{height}x{width}.png"
            self._run.callbacks.samples(self._write(self.grid.draw(G), name), images_seen)

        self._run.ranks.first_only(draw)

    def write_reals(self, indices: NDArray[np.int64]) -> None:
        """Write real pictures for comparison, of those that may be shown."""

        def draw() -> None:
            pictures = real_grid(self._run.packed, indices, self._rows, self._columns)
            self._write(pictures, "reals.png")

        self._run.ranks.first_only(draw)

    def _write(self, images: NDArray[np.uint8], name: str) -> Path:
        sight = Sight(self._run.spec.config.run.grid_channels)
        write_grid(images, self._columns, self._folder / name, sight)
        return self._folder / name


def real_grid(packed: PackedSet, indices: NDArray[np.int64], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return real pictures at full size for comparison: [N, C, H, W]; where there are classes a row is one.

    Args:
        packed: The set.
        indices: Which of its pictures may be shown.
        rows, columns: At most rows * columns pictures are shown; a class with few repeats them.
    """
    if packed.label_form == "class" and packed.label_size:
        classes = packed.labels(indices)
        present = np.unique(classes)  # a part of a split may lack some
        of_class = [indices[classes == present[row % len(present)]] for row in range(rows)]
        chosen = np.concatenate([np.resize(some, columns) for some in of_class])
    else:
        count = min(rows * columns, len(indices))
        chosen = indices[np.linspace(0, len(indices) - 1, count).astype(np.int64)]
    pixels = packed.read(packed.max_level, chosen)
    return to_8_bit(pixels)

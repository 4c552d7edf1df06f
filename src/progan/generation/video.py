"""Films of ways through latent space: smooth closed walks, or from one given picture to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progan.data.pixels import tile, to_image
from progan.data.showing import Sight, shown
from progan.errors import ConfigError
from progan.generation.film import check_form, factor_for, write_film
from progan.generation.label_arguments import Label, label_vector
from progan.generation.loudness import paced, read_loudness
from progan.generation.samples import Samples
from progan.generation.sampling import (
    Make,
    batch_size_for,
    label_vectors,
    level_of,
    render,
    whole,
)
from progan.generation.truncation import Truncation
from progan.generation.walks import Interpolation, through, walk
from progan.models.generator import Generator
from progan.system.progress import Progress, reported, unheard

_MOST_NUMBERS = 2**28
"""Of the latents of a walk, which is held whole: 1 GB, 4 hours of one picture at 30 frames a second."""

_PALETTE_FRAMES = 12


def interpolate(
    G: Generator,
    out: str | Path,
    *,
    seconds: float | None = None,
    fps: float = 30.0,
    grid: tuple[int, int] = (1, 1),
    seed: int = 0,
    label: Label | None = None,
    labels: Sequence[Label] = (),
    points: Samples | None = None,
    interp: Interpolation = "slerp",
    w_frames: int = 60,
    loop: bool = True,
    level: int | None = None,
    trunc: float = 1.0,
    audio: str | Path | None = None,
    sight: Sight = Sight(),  # noqa: B008 - a NamedTuple
    progress: Progress = unheard,
) -> Path:
    """Write a film of a way through latent space.

    Without `points` it is a smooth closed walk, as the original's (smoothed over one second, or quicker if
    the film is shorter than ten seconds). With them it leads from each to the next.

    Args:
        G: The generator, on the device that is to make the frames.
        out: `x.mp4` (H.264) or `x.webm` (VP9), which need the extra `video`; `x.webp`, or `x.gif` (256
            colours).
        seconds: Length; None for ten of a walk, and for what `w_frames` make of `points`.
        fps: Frames a second.
        grid: Rows and columns of pictures, each on a way of its own.
        seed: Of the walk, at least 0.
        label: One label for all.
        labels: Several, in place of `label`: of a grid each row has one, in turn; a single picture goes from
            one to the next, and back to the first.
        points: Samples that the way leads through, dealt to the pictures of the grid: as many as a whole
            multiple of those. Each has its own label, unless others are given.
        interp: How, as `through` takes it.
        w_frames: Frames from one point to the next.
        loop: Whether the way leads back to the first point. (A walk always does.)
        level: As `level_of` takes it.
        trunc: psi of `Truncation`; 1 leaves pictures as they are.
        audio: A recording: the film is as long, its way is gone the faster the louder it is, and an .mp4 or
            .webm has its sound.
        progress: Told how many are made.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if an argument cannot be used.
        DataError: if the recording cannot be read.
        DependencyError: if a video needs the extra and it is not installed.
        StorageError: if the file cannot be written; an older one is then unharmed.
    """
    out, seed, level = Path(out), whole("seed", seed), level_of(G, level)
    sight.check(G.channels)
    labels = labels or (() if label is None else (label,))
    count = _frame_count(10.0 if seconds is None else seconds, fps, grid)
    loudness = None if audio is None else read_loudness(Path(audio), fps)
    if loudness is not None:
        count = len(loudness)
        if seconds is not None:
            raise ConfigError("a film to a recording is as long as that; leave seconds out")
    if points is not None:
        count = _way_count(points, grid, whole("w_frames", w_frames, least=1), loop=loop)
        if seconds is not None:
            raise ConfigError("a way through given pictures is as long as w-frames says; leave seconds out")
    size = (G.resolution(level)[0] * grid[0], G.resolution(level)[1] * grid[1])
    factor = factor_for(size)
    length = count if loudness is None else len(loudness)
    check_form(out, length, fps, (size[0] * factor, size[1] * factor))
    _require_room(count, grid, G.latent_size)
    if points is None:
        smoothing = min(1.0, count / fps / 10)
        z = walk(count, grid[0] * grid[1], G.latent_size, seed=seed, smoothing_seconds=smoothing, fps=fps)
        marks = _walked_labels(G, labels, seed, count, grid)
    else:
        z, marks = _way(G, points, labels, grid, w_frames, interp, loop=loop)
    if loudness is not None:
        z, count = paced(z, loudness), length
        marks = None if marks is None else paced(marks, loudness)
    make = Truncation(G, trunc)
    made = _frames(G, z, marks, level, grid[1], factor, make, sight)
    frames = reported(made, progress, "rendering", count, size=lambda _: 1)

    def few() -> Iterator[Image.Image]:
        step = -(-count // _PALETTE_FRAMES)
        own = None if marks is None else marks[::step]
        return _frames(G, z[::step], own, level, grid[1], 1, make, sight)

    sound = None if audio is None else Path(audio)
    return write_film(out, frames, count, fps, few=few, smooth=factor == 1, audio=sound)


def _walked_labels(
    G: Generator, labels: Sequence[Label], seed: int, count: int, grid: tuple[int, int]
) -> Tensor | None:
    """Return the labels of a walk: [frames, cells, label_size]; views, as they may be many."""
    cells = grid[0] * grid[1]
    if not labels:
        drawn = label_vectors(G, None, seed, 0, cells)
        return None if drawn is None else drawn.expand(count, -1, -1)
    vectors = torch.stack([label_vector(G, each) for each in labels])
    if cells > 1 or len(vectors) == 1:
        rows = vectors[torch.arange(cells) // grid[1] % len(vectors)]
        return rows.expand(count, -1, -1)
    # One picture that goes around all of them, at a constant speed.
    place = torch.arange(count) * len(vectors) / count
    before = place.long()
    after = (before + 1) % len(vectors)
    return torch.lerp(vectors[before], vectors[after], (place - before)[:, None])[:, None]


def _way_count(points: Samples, grid: tuple[int, int], w_frames: int, *, loop: bool) -> int:
    """Return the frames of a way through points.

    Raises:
        ConfigError: if the points cannot be dealt to the pictures of the grid.
    """
    cells = grid[0] * grid[1]
    each = points.count // cells
    if each * cells != points.count or each < 2:
        raise ConfigError(
            f"{points.count} pictures to go through: a grid of {grid[0]}x{grid[1]} takes {cells} times "
            f"two or more"
        )
    return each * w_frames if loop else (each - 1) * w_frames + 1


def _way(
    G: Generator,
    points: Samples,
    labels: Sequence[Label],
    grid: tuple[int, int],
    w_frames: int,
    interp: Interpolation,
    *,
    loop: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return latents and labels of a way through points: [frames, cells, ...]."""
    cells = grid[0] * grid[1]
    z, own = points.rows(0, points.count)
    # Cell by cell: the first so many points belong to the first picture.
    way = through(z.view(cells, -1, z.shape[1]).transpose(0, 1), w_frames, interp, loop=loop)
    if labels and (cells > 1 or len(labels) == 1):
        return way, _walked_labels(G, labels, 0, len(way), grid)
    if labels:
        given = torch.stack([label_vector(G, each) for each in labels])
        own = given[torch.arange(points.count) % len(given)]
    if own is None:
        return way, None
    marks = own.view(cells, -1, own.shape[1]).transpose(0, 1)
    return way, through(marks, w_frames, "linear", loop=loop)


def _frame_count(seconds: float, fps: float, grid: tuple[int, int]) -> int:
    """Return how many frames a video has; a ConfigError if none, or if a number is not positive."""
    for name, value, number in (("seconds", seconds, seconds), ("fps", fps, fps), ("grid", grid, min(grid))):
        if not (number > 0 and math.isfinite(number)):
            raise ConfigError(f"{name} {value}: expected a positive number")
    count = seconds * fps
    if not math.isfinite(count) or round(count) < 1:
        made = "no frame" if count < 1 else "too many frames"
        raise ConfigError(f"seconds {seconds:g} at fps {fps:g} are {made}; choose other numbers")
    return round(count)


def _require_room(count: int, grid: tuple[int, int], latent_size: int) -> None:
    """Raise `ConfigError` if the latents of a walk would be too many to hold."""
    most = _MOST_NUMBERS // (grid[0] * grid[1] * latent_size)
    if count > most:
        raise ConfigError(
            f"{count:,} frames are too many: with a grid of {grid[0]}x{grid[1]}, {most:,} are possible; "
            f"ask for a shorter video, fewer frames a second or a smaller grid"
        )


def _frames(
    G: Generator,
    z: Tensor,
    labels: Tensor | None,
    level: int,
    columns: int,
    factor: int,
    make: Make,
    sight: Sight,
) -> Iterator[Image.Image]:
    """Yield the frames of a way [frames, cells, latent] as L or RGB, making several at once if small."""
    cells, batch = z.shape[1], batch_size_for(G, level)
    side = min(G.resolution(level)) * factor
    step = max(batch // cells, 1)
    for i in range(0, len(z), step):
        part = z[i : i + step]
        marks = None if labels is None else labels[i : i + step].flatten(0, 1)
        images = render(G, part.flatten(0, 1), marks, level=level, batch=batch, make=make)
        for frame in np.split(images, len(part)):  # [cells, C, h, w]
            yield to_image(shown(tile(frame, columns, min_side=side)[None], sight)[0])

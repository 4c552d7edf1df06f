"""A film of a training: the same latents from the first level to the last, with a caption."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from PIL import Image, ImageDraw

from progan.data.showing import on_white
from progan.errors import ConfigError, DataError
from progan.generation.film import check_form, even, write_film
from progan.generation.grids import GAP, font_of, grid_picture
from progan.generation.picture_form import enlarge, flat
from progan.generation.samples import of_seed
from progan.generation.sampling import render
from progan.models.loading import load
from progan.models.weights import Own
from progan.runs.logs import Stats, read_stats
from progan.runs.run_folder import RunFolder
from progan.runs.trained.kept_generators import paths
from progan.system.progress import Progress, reported, unheard

Source = Literal["auto", "generators", "grids"]

_ENOUGH = 4
"""Kept generators from which a film is made; of fewer, the sample grids show more of the training."""

_SIDE = 640
"""Pixels of the larger side of a frame, about."""

_INK, _SOFT, _BAR = (30, 30, 34), (130, 130, 138), (90, 75, 214)


@dataclass(frozen=True)
class Shot:
    """A moment of the training.

    Attributes:
        images_seen: The clock.
        caption: What was trained then.
        picture: A grid of samples, RGB.
    """

    images_seen: int
    caption: str
    picture: Image.Image


def make_movie(
    run: str | Path,
    out: str | Path,
    *,
    source: Source = "auto",
    seconds: float = 12.0,
    fps: float = 25.0,
    grid: tuple[int, int] = (3, 5),
    seed: int = 0,
    progress: Progress = unheard,
    own: Own = (),
) -> Path:
    """Write the film of a run's growth.

    Args:
        run: Its folder.
        out: `.mp4`, `.webm`, `.webp` or `.gif`.
        source: generators: those that the run has kept make a grid of their own; grids: its sample grids as
            they are; auto: generators if there are four or more, else grids.
        seconds: Length; every moment has as much of it.
        fps: Frames a second.
        grid: Rows and columns, of generators.
        seed: Of the latents, of generators.
        progress: Told of the frames.
        own: Networks of your own, one of which its generator may be: classes, or Python files that
            define them.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if an argument cannot be used, or this is no run.
        DataError: if the run has nothing to show yet.
        DependencyError: if a video needs the extra `video`, which is not installed.
        StorageError: if it cannot be written.
    """
    folder, out = RunFolder(run), Path(out)
    if not folder.exists():
        raise ConfigError(f"{folder.path} is no run folder (it holds no config.yaml)")
    if source not in get_args(Source):
        raise ConfigError(f"source {source!r}: expected {', '.join(get_args(Source))}")
    if not (seconds > 0 and fps > 0 and math.isfinite(seconds * fps)) or min(grid) < 1:
        raise ConfigError(f"seconds {seconds:g}, fps {fps:g}, grid {grid}: expected positive numbers")
    kept = paths(folder.generators)
    by_generators = source == "generators" or (source == "auto" and len(kept) >= _ENOUGH)
    check_form(out, 1, fps, (_SIDE, _SIDE))
    shots = _by_generators(folder, kept, grid, seed, own) if by_generators else _by_grids(folder)
    if len(shots) < 2:
        raise DataError(
            f"{folder.path} holds {len(shots)} {'generators' if by_generators else 'sample grids'}: a film "
            f"needs two or more; train on"
        )
    count = max(len(shots), round(seconds * fps))
    frames = reported(_frames(shots, count), progress, "rendering", count, size=lambda _: 1)
    first = next(_frames(shots, count))
    check_form(out, count, fps, (first.height, first.width))
    return write_film(out, frames, count, fps, few=lambda: list(_frames(shots, min(count, 24))), smooth=True)


def _by_grids(folder: RunFolder) -> list[Shot]:
    """Return a shot for each sample grid of a run."""
    stats = _stats(folder)
    found = sorted(
        (int(match[1]), match[2], path)
        for path in folder.samples.glob("*.png")
        if (match := re.fullmatch(r"(\d{9,12})_(\d+x\d+)\.png", path.name))
    )
    shots = []
    for images_seen, size, path in found:
        try:
            with Image.open(path) as picture:
                shown = flat(picture.convert("RGBA") if picture.mode == "LA" else picture).convert("RGB")
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); delete it, or train on") from None
        shots.append(Shot(images_seen, _caption(size, stats.get(images_seen)), shown))
    return shots


def _by_generators(
    folder: RunFolder, kept: Sequence[Path], grid: tuple[int, int], seed: int, own: Own
) -> list[Shot]:
    """Return a shot for each generator of a run that is kept."""
    stats = _stats(folder)
    shots = []
    for path in kept:
        G, images_seen = load(path, own=own), int(path.stem)
        classes = range(G.label_size) if G.label_form == "class" else ()
        # A class a row, if there are as many rows; else all that find room, one after the other.
        samples = of_seed(
            G, grid[0] * grid[1], seed, tuple(classes), grid[1] if grid[0] >= len(classes) else 1
        )
        images = on_white(render(G, *samples.rows(0, samples.count)))
        factor = max(1, _SIDE // (max(G.resolution()) * max(grid)))
        picture = grid_picture(enlarge(images, factor), grid[1]).convert("RGB")
        height, width = G.resolution()
        line = stats.get(images_seen) or {"alpha": G.alpha}
        shots.append(Shot(images_seen, _caption(f"{height}x{width}", line), picture))
    return shots


def _stats(folder: RunFolder) -> dict[int, Stats]:
    return {int(line["images_seen"]): line for line in read_stats(folder.stats_file)}


def _caption(size: str, line: Stats | None) -> str:
    """Return `16x16`, or `16x16 coming in, 40%`."""
    alpha = 1.0 if line is None else float(line.get("alpha", 1.0))
    return f"{size} coming in, {alpha:.0%}" if alpha < 0.995 else size


def _frames(shots: Sequence[Shot], count: int) -> Iterator[Image.Image]:
    """Yield frames: each shot stands, then dissolves into the next."""
    size = _frame_size(shots)
    pictures = [shot.picture.resize(size, Image.Resampling.NEAREST) for shot in shots]
    total = shots[-1].images_seen
    for i in range(count):
        place = i * len(shots) / count
        at = min(int(place), len(shots) - 1)
        after = min(at + 1, len(shots) - 1)
        # It stands for the first 40% of its time.
        share = min(1.0, max(0.0, (place - at - 0.4) / 0.6))
        mixed = Image.blend(pictures[at], pictures[after], share * share * (3 - 2 * share))
        shown = shots[at] if share < 0.5 else shots[after]
        clock = shots[at].images_seen + (shots[after].images_seen - shots[at].images_seen) * share
        yield _captioned(mixed, shown.caption, round(clock), total, shots)


def _frame_size(shots: Sequence[Shot]) -> tuple[int, int]:
    """Return (width, height) of what is shown: that of the largest grid, enlarged if it is small."""
    width, height = max((shot.picture.size for shot in shots), key=lambda size: size[0] * size[1])
    factor = max(1, round(_SIDE / max(width, height)))
    return width * factor, height * factor


def _captioned(
    picture: Image.Image, caption: str, clock: int, total: int, shots: Sequence[Shot]
) -> Image.Image:
    """Return a frame with the caption and a bar of the training below it; a mark where a level begins."""
    room = max(40, picture.width // 13)
    sheet = Image.new("RGB", (picture.width, picture.height + room), (255, 255, 255))
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    font, top = font_of(max(14, room * 2 // 5)), picture.height
    draw.rectangle((0, top, sheet.width, top + 3), fill=(228, 228, 232))
    draw.rectangle((0, top, round(sheet.width * clock / total), top + 3), fill=_BAR)
    for before, after in pairwise(shots):
        if before.caption.split()[0] != after.caption.split()[0]:
            place = round(sheet.width * before.images_seen / total)
            draw.rectangle((place, top, place + 1, top + 9), fill=_SOFT)
    middle = top + 3 + (room - 3) // 2
    draw.text((GAP * 5, middle), caption, _INK, font, anchor="lm")
    draw.text((sheet.width - GAP * 5, middle), f"{clock:,} images", _SOFT, font, anchor="rm")
    return even(sheet)

"""Sets that need no pictures: glyphs drawn from the fonts that ship with matplotlib, and synthetic blobs.

The same arguments give the same bytes (with the same version of Pillow).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from progan.config import DataOptions, format_resolution, parse_resolution, split_resolution
from progan.data.packed import PackedSet, is_packed
from progan.errors import ConfigError, DataError
from progan.preparation.drawing import draw_blobs, draw_glyph, find_fonts
from progan.preparation.fitting import digest, pyramid
from progan.preparation.packed_writer import Layout, Writer, check_destination, clear_partial, partial_folder
from progan.system.files import storage_errors

PREFIX = "builtin:"
DRAWING_VERSION = 1
"""Raised whenever the pictures change, so that a cache does not give the old ones."""
GLYPH_CHARACTERS = "AEGJKMRSTX"
"""Ten capitals that are told apart easily, also slanted and small."""
GLYPH_COUNT = 10_000
SYNTHETIC_COUNT = 2_000
BATCH = 256
ALL_TRAIN = (1.0, 0.0, 0.0)
Progress = Callable[[int, int], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class _Drawn:
    """A set that is drawn: `draw(i)` gives picture i, [C, H, W], of class i mod len(classes)."""

    name: str
    draw: Callable[[int], NDArray[np.uint8]]
    count: int
    layout: Layout
    classes: tuple[str, ...]
    labelled: bool
    split: tuple[float, float, float]


def is_builtin(source: str | Path) -> bool:
    """Tell whether a source names a built-in set."""
    return str(source).startswith(PREFIX)


def make_builtin(
    source: str,
    options: DataOptions,
    base_shape: tuple[int, int] | None,
    home_cache: Path,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PackedSet:
    """Return the built-in set called `source`, drawing it into the cache if it is not there.

    Resolution, channels, limit (here: the number of pictures) and split are taken from `options`; the classes
    are stored unless `options.labels` is 'none'. `progress` and `stop` are as in `progan.preparation.pack`.

    Raises:
        DataError: if there is no such set.
        ConfigError: if it cannot be drawn as wanted.
        DependencyError: if the fonts for glyphs are not installed.
        StorageError: if the cache cannot be written.
        KeyboardInterrupt: on `stop`; nothing is kept.
    """
    name = source.removeprefix(PREFIX)
    if name not in {"glyphs", "synthetic"}:
        raise DataError(f"no built-in set is called {source!r}; use builtin:glyphs or builtin:synthetic")
    makers = {"glyphs": glyphs, "synthetic": synthetic}
    counts = {"glyphs": GLYPH_COUNT, "synthetic": SYNTHETIC_COUNT}
    sides = {"glyphs": 32, "synthetic": 128}
    resolution = parse_resolution(options.resolution or sides[name])
    count = options.limit or counts[name]
    labelled = options.labels != "none"
    choices = [DRAWING_VERSION, resolution, base_shape, options.channels, count, options.shares, labelled]
    key = hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:16]
    place = (options.cache or home_cache) / f"{name}-{key}"
    if is_packed(place):
        return PackedSet.open(place)
    return makers[name](
        place,
        count=count,
        resolution=resolution,
        channels=options.channels or 3,
        base_shape=base_shape,
        labelled=labelled,
        split=options.shares,
        progress=progress,
        stop=stop,
    )


def glyphs(
    destination: Path,
    *,
    count: int = GLYPH_COUNT,
    resolution: int | tuple[int, int] = 32,
    channels: int = 3,
    seed: int = 0,
    characters: str = GLYPH_CHARACTERS,
    base_shape: tuple[int, int] | None = None,
    labelled: bool = True,
    split: tuple[float, float, float] = ALL_TRAIN,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PackedSet:
    """Draw a set of single characters: many fonts, slants and colours, a class for each character.

    Args:
        destination: The folder to make.
        count: Number of pictures; all classes are equally frequent.
        resolution: Side, or (height, width), at least 16 pixels.
        channels: 3 (RGB) or 1 (gray).
        seed: Decides every picture.
        characters: The classes.
        base_shape: (height, width) of level 0; default: from the resolution.
        labelled: Store the classes.
        split: Shares of train, validation and test.
        progress: Called with (pictures drawn, pictures in all) after each batch of 256.
        stop: Asked after each batch; if it returns True, KeyboardInterrupt is raised.

    Raises:
        DependencyError: if matplotlib, whose fonts are used, is not installed.
        DataError: if no font has the characters, or the destination is taken.
        ConfigError: if the resolution, channels or characters cannot be drawn.
        StorageError: if writing failed.
        KeyboardInterrupt: on `stop`; nothing is kept.
    """
    size = _size(resolution)
    if min(size) < 16:
        raise ConfigError(
            f"glyphs of {format_resolution(size)} are illegible; use a resolution of at least 16"
        )
    if channels not in {1, 3}:
        raise ConfigError(f"glyphs are drawn in gray or RGB: channels 1 or 3, not {channels}")
    if not characters or len(set(characters)) != len(characters):
        raise ConfigError(f"glyphs: the characters must be different ones, and not {characters!r}")
    draw = partial(draw_glyph, characters=characters, fonts=find_fonts(characters), size=size, seed=seed)
    return _write(
        Path(destination),
        _Drawn(
            name="glyphs",
            draw=draw if channels == 3 else lambda index: _gray(draw(index)),
            count=count,
            layout=_layout(size, channels, base_shape),
            classes=tuple(characters),
            labelled=labelled,
            split=split,
        ),
        progress,
        stop,
    )


def synthetic(
    destination: Path,
    *,
    count: int = SYNTHETIC_COUNT,
    resolution: int | tuple[int, int] = 128,
    channels: int = 3,
    seed: int = 0,
    base_shape: tuple[int, int] | None = None,
    labelled: bool = False,
    split: tuple[float, float, float] = ALL_TRAIN,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> PackedSet:
    """Make a set of soft blobs on gradients, fast and without fonts, for benchmarks and tests.

    Args:
        destination: The folder to make.
        count: Number of pictures.
        resolution: Side, or (height, width).
        channels: 1 to 4.
        seed: Decides every picture.
        base_shape: (height, width) of level 0; default: from the resolution.
        labelled: Store the number of blobs, 1 to 4, as class.
        split: Shares of train, validation and test.
        progress: Called with (pictures drawn, pictures in all) after each batch of 256.
        stop: Asked after each batch; if it returns True, KeyboardInterrupt is raised.

    Raises:
        DataError: if the destination is taken.
        ConfigError: if the resolution is no base shape times a power of two.
        StorageError: if writing failed.
        KeyboardInterrupt: on `stop`; nothing is kept.
    """
    size = _size(resolution)
    return _write(
        Path(destination),
        _Drawn(
            name="synthetic",
            draw=partial(draw_blobs, channels=channels, size=size, seed=seed),
            count=count,
            layout=_layout(size, channels, base_shape),
            classes=("1", "2", "3", "4"),
            labelled=labelled,
            split=split,
        ),
        progress,
        stop,
    )


def _size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def _layout(size: tuple[int, int], channels: int, base_shape: tuple[int, int] | None) -> Layout:
    shape, max_level = split_resolution(size, base_shape)
    return Layout(base_shape=shape, max_level=max_level, channels=channels)


def _gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn [3, H, W] into luminance [1, H, W]."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.rint(np.tensordot(weights, rgb, 1)).astype(np.uint8)[None]


def _write(destination: Path, drawn: _Drawn, progress: Progress | None, stop: Stop | None) -> PackedSet:
    """Draw the pictures and pack them; what is not finished is deleted, for it is soon drawn again."""
    if is_packed(destination):
        raise DataError(f"{destination}: holds a packed set already; delete it or choose another destination")
    check_destination(destination)
    with partial_folder(destination) as folder, storage_errors(destination):
        clear_partial(folder)
        try:
            with closing(Writer(destination, drawn.layout)) as writer:
                for start in range(0, drawn.count, BATCH):
                    _draw_batch(writer, drawn, range(start, min(start + BATCH, drawn.count)))
                    if progress is not None:
                        progress(writer.count, drawn.count)
                    if stop is not None and stop():
                        raise KeyboardInterrupt
                return _finish(writer, drawn)
        except BaseException:
            with suppress(OSError):
                clear_partial(folder)
            raise


def _draw_batch(writer: Writer, drawn: _Drawn, numbers: range) -> None:
    tops = [drawn.draw(i) for i in numbers]
    levels = zip(*(pyramid(top, drawn.layout.max_level) for top in tops), strict=True)
    writer.append([np.stack(pictures) for pictures in levels], [digest(top) for top in tops])


def _finish(writer: Writer, drawn: _Drawn) -> PackedSet:
    labels = [i % len(drawn.classes) for i in range(drawn.count)]
    names = [f"{drawn.classes[label]}/{i:06d}" for i, label in enumerate(labels)]
    return writer.finish(
        names,
        labels if drawn.labelled else None,
        drawn.split,
        [],
        label_kind="folders" if drawn.labelled else "none",
        label_names=drawn.classes if drawn.labelled else (),
        limit=drawn.count,
        source=PREFIX + drawn.name,
        found=drawn.count,
    )

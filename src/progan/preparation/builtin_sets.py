"""Sets that need no pictures: glyphs drawn from the fonts that ship with matplotlib, and synthetic blobs.

The same arguments give the same bytes (with the same version of Pillow).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from progan.config import format_resolution, parse_resolution, split_resolution
from progan.data.packed import PackedSet, is_packed
from progan.errors import ConfigError, DataError
from progan.preparation.drawing import draw_blobs, draw_glyph, find_fonts
from progan.preparation.fitting import digest, pyramid
from progan.preparation.pack import Request, first_writable
from progan.preparation.packed_writer import Layout, Writer, check_destination, clear_partial, partial_folder
from progan.system.files import storage_errors
from progan.system.progress import Progress, unheard

PREFIX = "builtin:"
DRAWING_VERSION = 1
"""Raised whenever the pictures change, so that a cache does not give the old ones."""
GLYPH_CHARACTERS = "AEGJKMRSTX"
"""Ten capitals that are told apart easily, also slanted and small."""
BATCH = 256


class Drawing(TypedDict, total=False):
    """How a set is drawn.

    Attributes:
        count: Number of pictures; all classes are equally frequent.
        resolution: Side, or (height, width).
        channels: 1 to 4.
        seed: Decides every picture.
        base_shape: (height, width) of level 0; default: from the resolution.
        labelled: Store the classes.
        split: Shares of train, validation and test; default: all of it is train.
        progress: Told how many pictures are drawn, after each batch of 256.
        stop: Asked after each batch; if it returns True, KeyboardInterrupt is raised.
        say: Called if another process draws the same set, which is waited for then.
    """

    count: int
    resolution: int | tuple[int, int]
    channels: int
    seed: int
    base_shape: tuple[int, int] | None
    labelled: bool
    split: tuple[float, float, float]
    progress: Progress
    stop: Callable[[], bool] | None
    say: Callable[[str], None] | None


class _Drawn(NamedTuple):
    """A set that is drawn: `draw(i)` gives picture i, [C, H, W], of class i mod len(classes)."""

    name: str
    draw: Callable[[int], NDArray[np.uint8]]
    layout: Layout
    classes: tuple[str, ...]
    how: Drawing


def make_builtin(source: str, asked: Request, cache: Path) -> PackedSet:
    """Return the built-in set called `source`, drawing it into the cache if it is not there.

    Resolution, channels, limit (here: the number of pictures) and split are taken from the options; the
    classes are stored unless the labels asked for are 'none'.

    Raises:
        DataError: if there is no such set.
        ConfigError: if it cannot be drawn as wanted.
        DependencyError: if the fonts for glyphs are not installed.
        StorageError: if the cache cannot be written.
        KeyboardInterrupt: on `asked.stop`; nothing is kept.
    """
    name, options = source.removeprefix(PREFIX), asked.options
    if name not in {"glyphs", "synthetic"}:
        raise DataError(f"no built-in set is called {source!r}; use builtin:glyphs or builtin:synthetic")
    make, count, side = (glyphs, 10_000, 32) if name == "glyphs" else (synthetic, 2_000, 128)
    drawing = Drawing(
        count=options.limit or count,
        resolution=parse_resolution(options.resolution or side),
        channels=options.channels or 3,
        base_shape=asked.base_shape,
        labelled=options.labels != "none",
        split=options.shares,
        progress=asked.progress,
        stop=asked.stop,
        say=asked.say,
    )
    choices = DRAWING_VERSION, drawing["resolution"], asked.base_shape, options.channels, drawing["count"]
    matters = json.dumps([*choices, options.shares, drawing["labelled"]])
    place = cache / f"{name}-{hashlib.sha256(matters.encode()).hexdigest()[:16]}"
    return PackedSet.open(place) if is_packed(place) else make(first_writable([place], asked), **drawing)


def glyphs(destination: Path, *, characters: str = GLYPH_CHARACTERS, **how: Unpack[Drawing]) -> PackedSet:
    """Draw a set of single characters: many fonts, slants and colours, a class for each character.

    Args:
        destination: The folder to make.
        characters: The classes.
        **how: The fields of `Drawing`; here 10,000 labelled RGB pictures of 32x32 by default. They have at
            least 16 pixels a side, and 3 (RGB) or 1 (gray) channels.

    Raises:
        DependencyError: if matplotlib, whose fonts are used, is not installed.
        DataError: if no font has the characters, or the destination is taken.
        ConfigError: if the resolution, channels or characters cannot be drawn.
        StorageError: if writing failed.
        KeyboardInterrupt: on `stop`; nothing is kept.
    """
    defaults = Drawing(count=10_000, resolution=32, channels=3, labelled=True)
    size, how = _complete(defaults, how)
    channels = how["channels"]
    if min(size) < 16:
        raise ConfigError(
            f"glyphs of {format_resolution(size)} are illegible; use a resolution of at least 16"
        )
    if channels not in {1, 3}:
        raise ConfigError(f"glyphs are drawn in gray or RGB: channels 1 or 3, not {channels}")
    if not characters or len(set(characters)) != len(characters):
        raise ConfigError(f"glyphs: the characters must be different ones, and not {characters!r}")
    fonts = find_fonts(characters)
    draw = partial(draw_glyph, characters=characters, fonts=fonts, size=size, seed=how["seed"])
    chosen = draw if channels == 3 else lambda index: _gray(draw(index))
    return _write(Path(destination), _Drawn("glyphs", chosen, _layout(size, how), tuple(characters), how))


def synthetic(destination: Path, **how: Unpack[Drawing]) -> PackedSet:
    """Make a set of soft blobs on gradients, fast and without fonts, for benchmarks and tests.

    Args:
        destination: The folder to make.
        **how: The fields of `Drawing`; here 2,000 unlabelled RGB pictures of 128x128 by default. Their class
            is the number of blobs, 1 to 4.

    Raises:
        DataError: if the destination is taken.
        ConfigError: if the resolution is no base shape times a power of two.
        StorageError: if writing failed.
        KeyboardInterrupt: on `stop`; nothing is kept.
    """
    defaults = Drawing(count=2_000, resolution=128, channels=3, labelled=False)
    size, how = _complete(defaults, how)
    draw = partial(draw_blobs, channels=how["channels"], size=size, seed=how["seed"])
    drawn = _Drawn("synthetic", draw, _layout(size, how), ("1", "2", "3", "4"), how)
    return _write(Path(destination), drawn)


def _complete(defaults: Drawing, how: Drawing) -> tuple[tuple[int, int], Drawing]:
    """Return (height, width) and all fields of a drawing."""
    common = Drawing(seed=0, base_shape=None, split=(1.0, 0.0, 0.0), progress=unheard, stop=None, say=None)
    complete: Drawing = {**common, **defaults, **how}
    resolution = complete["resolution"]
    return (resolution, resolution) if isinstance(resolution, int) else resolution, complete


def _layout(size: tuple[int, int], how: Drawing) -> Layout:
    shape, max_level = split_resolution(size, how["base_shape"])
    return Layout(base_shape=shape, max_level=max_level, channels=how["channels"])


def _gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn [3, H, W] into luminance [1, H, W]."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.rint(np.tensordot(weights, rgb, 1)).astype(np.uint8)[None]


def _write(destination: Path, drawn: _Drawn) -> PackedSet:
    """Draw the pictures and pack them; what is not finished is deleted, for it is soon drawn again."""
    if is_packed(destination):
        raise DataError(f"{destination}: holds a packed set already; delete it or choose another destination")
    check_destination(destination)
    count, progress, stop = drawn.how["count"], drawn.how["progress"], drawn.how["stop"]
    with partial_folder(destination, drawn.how["say"], stop) as folder, storage_errors(destination):
        if is_packed(destination):
            return PackedSet.open(destination)
        clear_partial(folder)
        try:
            with closing(Writer(destination, drawn.layout)) as writer:
                for start in range(0, count, BATCH):
                    _draw_batch(writer, drawn, range(start, min(start + BATCH, count)))
                    progress("drawing pictures", writer.count, count)
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
    count, labelled = drawn.how["count"], drawn.how["labelled"]
    labels = [i % len(drawn.classes) for i in range(count)]
    names = [f"{drawn.classes[label]}/{i:06d}" for i, label in enumerate(labels)]
    return writer.finish(
        names,
        labels if labelled else None,
        drawn.how["split"],
        [],
        label_kind="folders" if labelled else "none",
        label_names=drawn.classes if labelled else (),
        limit=count,
        source=PREFIX + drawn.name,
        found=count,
    )

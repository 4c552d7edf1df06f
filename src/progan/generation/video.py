"""A smooth closed walk through latent space, as .mp4 or .gif."""

from __future__ import annotations

import importlib
import itertools
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from progan.data.pixels import tile, to_image
from progan.errors import ConfigError, DependencyError, StorageError
from progan.generation.grids import check_picture_channels
from progan.generation.image_files import remove_leftovers_of
from progan.generation.label_arguments import Label
from progan.generation.sampling import batch_size_for, label_vectors, latents, level_of, render, whole
from progan.models.generator import Generator
from progan.system.files import atomic_path
from progan.system.progress import Progress, reported, unheard

MIN_SIDE = 256
"""Small images are enlarged until the smaller side of the video has at least this many pixels."""

_GIF_FASTEST = 50.0
"""Programs that show GIFs slow down anything faster, which would need a delay below 2 / 100 s."""

_GIF_MOST_PIXELS = 2**30
_MOST_PIXELS = 2**26
"""Of one frame: 8192x8192. Programs that play videos take half of it at most."""

_MOST_FPS = 1000.0
_MOST_NUMBERS = 2**28
"""Of the latents of a walk, which is held whole: 1 GB, 4 hours of one picture at 30 frames a second."""

_PALETTE_FRAMES = 12


def walk(
    frames: int, cells: int, size: int, *, seed: int = 0, smoothing_seconds: float = 1.0, fps: float = 30.0
) -> Tensor:
    """Return latents that wander smoothly and end where they began.

    Noise in time is smoothed by a Gaussian that wraps around the end, so the first frame follows the last
    as any frame follows another; then all of it is scaled to unit mean square. Source:
    `generate_interpolation_video` of the original util_scripts.py.

    Args:
        frames: Length, at least 1.
        cells: Independent walks, one for each cell of a grid.
        size: Length of a latent.
        seed: At least 0.
        smoothing_seconds: Standard deviation of the Gaussian. Of more than about a tenth of the whole
            length, hardly any motion is left.
        fps: Frames a second.

    Returns:
        [frames, cells, size] float32.
    """
    noise = latents(seed, 0, frames * cells, size).view(frames, cells, size).numpy()
    # The Fourier transform of a Gaussian of deviation s is exp(-2 (pi s f)^2), and multiplying the
    # transforms is convolving around the circle.
    response = np.exp(-2 * (np.pi * smoothing_seconds * fps * np.fft.rfftfreq(frames)) ** 2)
    for cell in range(cells):  # one at a time, as the transform is several times as large as the walk
        spectrum = np.fft.rfft(noise[:, cell], axis=0) * response[:, None]
        noise[:, cell] = np.fft.irfft(spectrum, frames, axis=0)
    noise /= np.sqrt(np.mean(np.square(noise)))
    return torch.from_numpy(noise)


def interpolate(
    G: Generator,
    out: str | Path,
    *,
    seconds: float = 10.0,
    fps: float = 30.0,
    grid: tuple[int, int] = (1, 1),
    seed: int = 0,
    label: Label | None = None,
    level: int | None = None,
    progress: Progress = unheard,
) -> Path:
    """Write a video of a closed walk through latent space; it can be played in a loop.

    The motion is that of the original (smoothed over one second), or quicker if the video is shorter than
    ten seconds. Alpha is laid over white.

    Args:
        G: The generator, on the device that is to make the frames.
        out: `x.mp4` (H.264, yuv420p; needs the extra `video`) or `x.gif` (256 colours, loops).
        seconds: Length.
        fps: Frames a second.
        grid: Rows and columns of pictures, each on a walk of its own.
        seed: At least 0.
        label: One for all cells; None (if the generator has labels) draws one for each cell, which
            keeps it.
        level: Up to the generator's own; None for that.
        progress: Told how many frames are made, at the beginning and after each.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if an argument cannot be used.
        DependencyError: if an .mp4 is asked for and the extra is not installed.
        StorageError: if the file cannot be written; an older one is then unharmed.
    """
    out, seed, level = Path(out), whole("seed", seed), level_of(G, level)
    check_picture_channels(G.channels)
    count = _frame_count(seconds, fps, grid)
    size = (G.resolution(level)[0] * grid[0], G.resolution(level)[1] * grid[1])
    check_form(out, count, fps, size)
    _require_room(count, grid, G.latent_size)
    cells = grid[0] * grid[1]
    labels = label_vectors(G, label, seed, 0, cells)
    smoothing = min(1.0, seconds / 10)
    z = walk(count, cells, G.latent_size, seed=seed, smoothing_seconds=smoothing, fps=fps)
    made = _frames(G, z, labels, level, grid[1], _factor(size))
    frames = reported(made, progress, "rendering", count, size=lambda _: 1)
    remove_leftovers_of(out)
    with atomic_path(out) as temporary:
        if out.suffix.lower() == ".mp4":
            _write_mp4(temporary, frames, count, fps, out)
        else:
            few = z[:: -(-count // _PALETTE_FRAMES)]
            palette = _palette(_frames(G, few, labels, level, grid[1], 1))
            _write_gif(temporary, frames, _delays(count, fps), palette, dither=_factor(size) == 1)
    return out


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


def check_form(out: Path, count: int, fps: float, size: tuple[int, int]) -> None:
    """Check that `count` frames of (height, width) can be written in the form that the name asks for.

    Raises:
        ConfigError: if the ending is none of .mp4 and .gif, or it is too much or too quick.
        DependencyError: if ffmpeg is needed and not installed.
    """
    ending = out.suffix.lower()
    if ending not in (".mp4", ".gif") or out.is_dir():
        raise ConfigError(f"{out}: a video is a file that ends in .mp4 or .gif")
    area = size[0] * size[1] * _factor(size) ** 2
    if area > _MOST_PIXELS:
        raise ConfigError(
            f"frames of {area / 1e6:,.0f} million pixels are larger than programs play; "
            f"ask for a smaller grid or resolution"
        )
    if ending == ".mp4":
        if fps > _MOST_FPS:
            raise ConfigError(f"{fps:g} frames a second: an .mp4 can have {_MOST_FPS:g} at most")
        _ffmpeg()
        return
    if fps > _GIF_FASTEST:
        raise ConfigError(
            f"{fps:g} frames a second: a .gif shows {_GIF_FASTEST:g} at most; or ask for an .mp4"
        )
    if count * area > _GIF_MOST_PIXELS:
        raise ConfigError(
            f"{count} frames of {area / 1e6:.1f} million pixels are too much for a .gif; "
            f"ask for an .mp4, a shorter video, or a smaller grid or resolution"
        )


def on_white(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay pictures with an alpha channel over white.

    Args:
        images: [N, C, H, W] uint8; C of 1 or 3 (returned as they are), or 2 or 4 (the last is alpha).

    Returns:
        [N, 1 or 3, H, W] uint8.
    """
    if images.shape[1] in (1, 3):
        return images
    colour, alpha = images[:, :-1].astype(np.uint16), images[:, -1:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _factor(size: tuple[int, int]) -> int:
    """Return the whole factor that enlarges (height, width) to 256 at least, with even sides."""
    factor = max(1, -(-MIN_SIDE // min(size)))
    odd = size[0] % 2 or size[1] % 2
    return factor + 1 if odd and factor % 2 else factor  # yuv420p has one colour for 2x2 pixels


def _frames(
    G: Generator, z: Tensor, labels: Tensor | None, level: int, columns: int, factor: int
) -> Iterator[Image.Image]:
    """Yield the frames of a walk [frames, cells, latent] as L or RGB, making several at once if small."""
    cells, batch = z.shape[1], batch_size_for(G, level)
    side = min(G.resolution(level)) * factor
    for part in torch.split(z, max(batch // cells, 1)):
        marks = None if labels is None else labels.repeat(len(part), 1)
        images = on_white(render(G, part.flatten(0, 1), marks, level=level, batch=batch))
        for frame in np.split(images, len(part)):  # [cells, C, h, w]
            yield to_image(tile(frame, columns, min_side=side))


def _ffmpeg() -> Any:
    """Return the module `imageio_ffmpeg`, which is part of the extra `video`, with a program to run."""
    try:
        module = importlib.import_module("imageio_ffmpeg")
        module.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise DependencyError(
            'an .mp4 needs ffmpeg: pip install "progan[video]", or ask for a .gif, which needs nothing'
        ) from None
    return module


def _write_mp4(path: Path, frames: Iterable[Image.Image], count: int, fps: float, out: Path) -> None:
    """Write H.264 at a constant quality (CRF 16) that shows no blocks."""
    # Imported here, as it is slow to import and only videos need it.
    import imageio.v2 as imageio

    options: dict[str, Any] = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 2,
                               "ffmpeg_log_level": "quiet"}  # fmt: skip
    # The index goes first, so that a web page can start to play before it has all of the file.
    extra = ["-crf", "16", "-movflags", "+faststart"]
    try:
        writer: Any = imageio.get_writer(
            path, format="FFMPEG", fps=fps, quality=None, output_params=extra, **options
        )
        with writer:
            for frame in frames:
                writer.append_data(np.asarray(frame.convert("RGB")))
    except OSError as error:
        if error.errno is not None:
            raise
        written = 0  # ffmpeg died: imageio tells that without a number
    else:
        written = _frames_in(path)
    if written != count:
        raise StorageError(
            f"cannot write {out}: ffmpeg failed; most often, because there is no space left "
            f"({shutil.disk_usage(out.parent).free / 1e6:,.0f} MB are free now). "
            f"What was there before is unharmed."
        )


def _frames_in(path: Path) -> int:
    """Return how many frames are in a video, 0 if it is broken.

    The writer does not tell a failure of ffmpeg after the last frame, such as a disk that is full.
    """
    try:
        return int(_ffmpeg().count_frames_and_secs(path)[0])
    except RuntimeError:
        return 0


def _write_gif(
    path: Path,
    frames: Iterator[Image.Image],
    delays: list[int],
    palette: Image.Image | None,
    *,
    dither: bool,
) -> None:
    """Write an endless GIF; Pillow holds its frames, a byte a pixel, until the last is there.

    Dithering hides the steps in smooth pictures. In enlarged ones it would be a grain finer than their
    pixels, and twice the bytes.
    """
    how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    made = (frame if palette is None else frame.quantize(palette=palette, dither=how) for frame in frames)
    next(made).save(path, save_all=True, append_images=made, duration=delays, loop=0)


def _palette(frames: Iterable[Image.Image]) -> Image.Image | None:
    """Return 256 colours for all frames, as one set for each would flicker; None for gray, which has 256."""
    sheet = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    return None if sheet.mode == "L" else sheet.quantize(256)


def _delays(count: int, fps: float) -> list[int]:
    """Return how long each frame is shown, in ms: whole hundredths of a second that add up to the length."""
    edges = [round(100 * i / fps) for i in range(count + 1)]
    return [10 * (end - begin) for begin, end in itertools.pairwise(edges)]

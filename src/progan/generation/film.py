"""Frames to a film that can be shown: .mp4, .webm, .webp or .gif."""

from __future__ import annotations

import importlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from progan.errors import ConfigError, DependencyError, StorageError
from progan.generation.image_files import remove_leftovers_of
from progan.system.files import atomic_path

ENDINGS = (".mp4", ".webm", ".webp", ".gif")
_BY_FFMPEG = {
    # H.264 at a constant quality that shows no blocks; the index goes first, so that a web page can start to
    # play before it has all of the file.
    ".mp4": ("libx264", ["-crf", "16", "-movflags", "+faststart"]),
    ".webm": ("libvpx-vp9", ["-crf", "18", "-b:v", "0", "-deadline", "good", "-cpu-used", "4"]),
}
_FASTEST = {".mp4": 1000.0, ".webm": 1000.0, ".webp": 50.0, ".gif": 50.0}
"""Frames a second: what the form can have; programs slow pictures down that need a delay below 2 / 100 s."""

MIN_SIDE = 256
"""Small images are enlarged until the smaller side of the film has at least this many pixels."""

_MOST_PIXELS_HELD = 2**30
"""Of all frames of a .gif or .webp, which are held until the last is there."""

_MOST_PIXELS = 2**26
"""Of one frame: 8192x8192. Programs that play videos take half of it at most."""

_MOST_WEBP_SIDE = 16383
_PALETTE_PIXELS = 1 << 14
"""Pixels that the colours of a .gif are chosen from; from more, the same are chosen, later."""


def check_form(out: Path, count: int, fps: float, size: tuple[int, int]) -> None:
    """Check that `count` frames of (height, width), as they are shown, can be written as the name asks for.

    Raises:
        ConfigError: if the ending is none of a film's, or it is too much or too quick.
        DependencyError: if ffmpeg is needed and not installed.
    """
    ending = out.suffix.lower()
    if ending not in ENDINGS or out.is_dir():
        raise ConfigError(f"{out}: a video is a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    area = size[0] * size[1]
    if area > _MOST_PIXELS or (ending == ".webp" and max(size) > _MOST_WEBP_SIDE):
        raise ConfigError(
            f"frames of {area / 1e6:,.0f} million pixels are larger than programs play; "
            f"ask for a smaller grid or resolution"
        )
    if fps > _FASTEST[ending]:
        other = "" if ending in _BY_FFMPEG else "; or ask for an .mp4"
        raise ConfigError(f"{fps:g} frames a second: a {ending} shows {_FASTEST[ending]:g} at most{other}")
    if ending in _BY_FFMPEG:
        ffmpeg(f"a {ending}")
    elif count * area > _MOST_PIXELS_HELD:
        raise ConfigError(
            f"{count} frames of {area / 1e6:.1f} million pixels are too much for a {ending}; "
            f"ask for an .mp4, a shorter video, or a smaller grid or resolution"
        )


def factor_for(size: tuple[int, int]) -> int:
    """Return the whole factor that enlarges (height, width) to 256 at least, with even sides."""
    factor = max(1, -(-MIN_SIDE // min(size)))
    odd = size[0] % 2 or size[1] % 2
    return factor + 1 if odd and factor % 2 else factor  # yuv420p has one colour for 2x2 pixels


def even(frame: Image.Image) -> Image.Image:
    """Return a frame with even sides, which videos need: an odd one gets a white row or column more."""
    width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
    if (width, height) == frame.size:
        return frame
    canvas = Image.new(frame.mode, (width, height), 255 if frame.mode == "L" else (255, 255, 255))
    canvas.paste(frame)
    return canvas


def write_film(
    out: Path,
    frames: Iterator[Image.Image],
    count: int,
    fps: float,
    *,
    few: Callable[[], Iterable[Image.Image]],
    smooth: bool,
    audio: Path | None = None,
) -> Path:
    """Write a film, which loops where its form can say so.

    Args:
        out: The file, as `check_form` takes it; it appears when it is complete.
        frames: `count` pictures of one size and of mode L or RGB, at least one; asked for one by one.
        count: Their number.
        fps: Frames a second.
        few: Returns some of the frames, at any size, from which the colours of a .gif are chosen.
        smooth: Whether the pictures are not enlarged ones, in which dithering would be a grain finer than
            their pixels, and twice the bytes.
        audio: A file whose sound an .mp4 or .webm gets; the others have none.

    Returns:
        The path.

    Raises:
        StorageError: if the file cannot be written; an older one is then unharmed.
    """
    remove_leftovers_of(out)
    ending = out.suffix.lower()
    with atomic_path(out) as temporary:
        if ending in _BY_FFMPEG:
            _write_by_ffmpeg(temporary, frames, count, fps, out, audio)
        elif ending == ".webp":
            _write_webp(temporary, frames, _delays(count, fps))
        else:
            _write_gif(temporary, frames, _delays(count, fps), palette_of(few()), dither=smooth)
    return out


def ffmpeg(what: str) -> Any:
    """Return the module `imageio_ffmpeg`, which is part of the extra `video`, with a program to run.

    Args:
        what: What needs it, in words.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        module = importlib.import_module("imageio_ffmpeg")
        module.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise DependencyError(
            f'{what} needs ffmpeg: pip install "progan[video]"; .gif, .webp and .wav need nothing'
        ) from None
    return module


def _write_by_ffmpeg(
    path: Path, frames: Iterable[Image.Image], count: int, fps: float, out: Path, audio: Path | None
) -> None:
    """Write a video of a constant quality, with one colour for 2x2 pixels, as all players know it."""
    # Imported here, as it is slow to import and only videos need it.
    import imageio.v2 as imageio

    codec, extra = _BY_FFMPEG[out.suffix.lower()]
    options: dict[str, Any] = {"codec": codec, "pixelformat": "yuv420p", "macro_block_size": 2,
                               "ffmpeg_log_level": "quiet"}  # fmt: skip
    if audio is not None:
        options |= {
            "audio_path": str(audio),
            "audio_codec": "aac" if out.suffix.lower() == ".mp4" else "libopus",
        }
    try:
        writer: Any = imageio.get_writer(
            path, format="FFMPEG", fps=fps, quality=None, output_params=[*extra], **options
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
        return int(ffmpeg("a film").count_frames_and_secs(path)[0])
    except RuntimeError:
        return 0


def _write_webp(path: Path, frames: Iterator[Image.Image], delays: list[int]) -> None:
    """Write an endless WebP animation, which has all colours."""
    shown = (frame.convert("RGB") for frame in frames)
    next(shown).save(path, save_all=True, append_images=shown, duration=delays, loop=0, quality=90, method=3)


def _write_gif(
    path: Path,
    frames: Iterator[Image.Image],
    delays: list[int],
    palette: Image.Image | None,
    *,
    dither: bool,
) -> None:
    """Write an endless GIF; Pillow holds its frames, a byte a pixel, until the last is there."""
    how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    made = (frame if palette is None else frame.quantize(palette=palette, dither=how) for frame in frames)
    next(made).save(path, save_all=True, append_images=made, duration=delays, loop=0)


def palette_of(frames: Iterable[Image.Image]) -> Image.Image | None:
    """Return 256 colours for all frames, as one set for each would flicker; None for gray, which has 256.

    They are first spread over all colours that there are, rare ones too, then moved to the means of those
    that are nearest (k-means). Cutting at medians instead, as most programs do, gives the rare and strong
    colours to their grey neighbours.
    """
    arrays = [np.asarray(frame) for frame in frames]
    if arrays[0].ndim == 2:
        return None
    pixels = np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])
    if len(pixels) > _PALETTE_PIXELS:
        pixels = pixels[np.random.default_rng(0).choice(len(pixels), _PALETTE_PIXELS, replace=False)]
    sheet = Image.fromarray(np.ascontiguousarray(pixels[None]))
    return sheet.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=8)


def _delays(count: int, fps: float) -> list[int]:
    """Return how long each frame is shown, in ms: whole hundredths of a second that add up to the length."""
    edges = [round(100 * i / fps) for i in range(count + 1)]
    return [10 * (end - begin) for begin, end in itertools.pairwise(edges)]

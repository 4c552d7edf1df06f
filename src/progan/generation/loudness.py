"""How loud a recording is at each frame of a film, and ways that are gone the faster the louder it is."""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import DataError
from progan.generation.film import ffmpeg

_RATE = 22050
_STILL = 0.05
"""Speed in silence, as a share of that where it is loud."""

_FADING = 0.15
"""Seconds after which a sound counts for 1 / e: so that pictures do not jerk."""

_MOST_SECONDS = 4 * 3600


def read_loudness(path: Path, fps: float) -> NDArray[np.float64]:
    """Return how loud a recording is at each frame.

    Root mean squares of its samples, which rise at once and fade slowly; divided by their 95th percentile,
    and 1 at most.

    Args:
        path: `.wav`; other forms (mp3, flac, ogg, m4a, films) need the extra `video`.
        fps: Frames a second.

    Returns:
        [frames] from 0 to 1, at least one.

    Raises:
        DataError: if it cannot be read, or is empty or longer than four hours.
        DependencyError: if ffmpeg is needed and not installed.
    """
    samples, rate = _samples(path)
    count = int(len(samples) / rate * fps)
    if count < 1 or len(samples) > _MOST_SECONDS * rate:
        raise DataError(
            f"{path}: {len(samples) / rate:.2f} s of sound; expected a frame at least, and 4 hours at most"
        )
    edges = np.linspace(0, len(samples), count + 1).astype(np.int64)
    loud = np.sqrt(np.add.reduceat(np.square(samples), edges[:-1]) / np.maximum(np.diff(edges), 1))
    kept, share = 0.0, float(np.exp(-1 / (fps * _FADING)))
    for i, value in enumerate(loud):
        kept = max(float(value), kept * share)
        loud[i] = kept
    high = float(np.quantile(loud, 0.95))
    made: NDArray[np.float64] = np.minimum(1.0, loud / high) if high > 0 else loud
    return made


def paced(path: Tensor, loudness: NDArray[np.float64]) -> Tensor:
    """Return a path that is gone from its first to its last point, the faster the louder it is.

    Args:
        path: [points, ...].
        loudness: [frames] from 0 to 1.

    Returns:
        [frames, ...].
    """
    speed = _STILL + loudness
    place = np.cumsum(speed) - speed[0]
    place *= (len(path) - 1) / max(float(place[-1]), 1e-9)
    before = np.minimum(place.astype(np.int64), len(path) - 1)
    after = np.minimum(before + 1, len(path) - 1)
    share = torch.from_numpy((place - before).astype(np.float32)).view(-1, *[1] * (path.ndim - 1))
    return torch.lerp(path[torch.from_numpy(before)], path[torch.from_numpy(after)], share)


def _samples(path: Path) -> tuple[NDArray[np.float64], int]:
    """Return a recording in [-1, 1], of one channel, and its samples a second.

    Raises:
        DataError: if it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a recording")
    try:
        with wave.open(str(path)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(min(file.getnframes(), (_MOST_SECONDS + 1) * rate))
        return _of_bytes(data, width).reshape(-1, channels).mean(axis=1), rate
    except (wave.Error, EOFError, ValueError, ZeroDivisionError):
        return _by_ffmpeg(path), _RATE


def _of_bytes(data: bytes, width: int) -> NDArray[np.float64]:
    """Return samples of 8 bits (without sign), or of 16, 24 or 32, as wave files have them."""
    if width == 1:
        return np.frombuffer(data, np.uint8) / 128.0 - 1
    padded = np.zeros((len(data) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8)[: len(padded) * width].reshape(-1, width)
    return padded.view("<i4")[:, 0] / 2.0**31


def _by_ffmpeg(path: Path) -> NDArray[np.float64]:
    words = [ffmpeg("sound that is no .wav").get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(path),
             "-t", str(_MOST_SECONDS + 1), "-f", "s16le", "-ac", "1", "-ar", str(_RATE), "-"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise DataError(f"{path}: no sound can be read from it; give a .wav, .mp3, .flac or .ogg")
    return _of_bytes(done.stdout, 2)

"""Films follow the loudness of a recording, and have its sound."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progan.errors import ConfigError, DataError
from progan.generation.film import ffmpeg
from progan.generation.loudness import paced, read_loudness
from progan.generation.samples import of_seeds
from progan.generation.video import interpolate
from progan.models.generator import Generator

RATE = 8000


def record(path: Path, *parts: tuple[float, float], width: int = 2, channels: int = 1) -> Path:
    """Write a tone of parts: their seconds, and amplitudes from 0 to 1."""
    loud = np.concatenate([np.full(int(seconds * RATE), amplitude) for seconds, amplitude in parts])
    tone = np.repeat(loud * np.sin(np.arange(len(loud)) * 0.7), channels)
    if width == 1:
        data = ((tone + 1) * 127.5).astype(np.uint8).tobytes()
    else:
        whole = (tone * (2**31 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
        data = whole[:, 4 - width :].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(data)
    return path


def make() -> Generator:
    torch.manual_seed(1)
    G = Generator(max_level=1, fmap_base=64, fmap_max=16, latent_size=8)
    return G.requires_grad_(False).eval()


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 2), (3, 1), (4, 1)])
def test_loudness_of_each_frame(tmp_path: Path, width: int, channels: int) -> None:
    path = record(tmp_path / "x.wav", (1, 0), (1, 0.8), (1, 0.4), width=width, channels=channels)
    loud = read_loudness(path, 10)
    assert len(loud) == 30
    assert loud[:10].max() < 0.02  # 8 bits have no exact silence
    np.testing.assert_allclose(loud[10:20], 1, atol=0.02)
    np.testing.assert_allclose(loud[25:], 0.5, atol=0.02)
    assert loud[20] == pytest.approx(np.exp(-1 / 1.5), abs=0.02)  # a sound fades


def test_a_way_is_gone_the_faster_the_louder_it_is() -> None:
    path = torch.arange(101.0)[:, None]
    made = paced(path, np.repeat([0.0, 1.0], 10))[:, 0]
    assert made[0] == 0
    assert made[-1] == 100
    steps = made.diff()
    assert torch.allclose(steps[:9], steps[0].expand(9), atol=1e-3)
    assert torch.allclose(steps[9:], 21 * steps[0].expand(10), rtol=1e-3)
    even = paced(path, np.zeros(5))[:, 0]
    assert torch.allclose(even, torch.tensor([0.0, 25, 50, 75, 100]))
    assert paced(path, np.zeros(1)).shape == (1, 1)


@pytest.mark.parametrize("points", [False, True])
def test_a_film_stands_still_in_silence(tmp_path: Path, *, points: bool) -> None:
    G, path = make(), record(tmp_path / "x.wav", (1, 0), (1, 1))
    given: dict[str, Any] = {"points": of_seeds(G, [1, 2, 3])} if points else {}
    out = interpolate(G, tmp_path / "x.webp", fps=10, audio=path, **given)
    with Image.open(out) as film:
        frames, length = [], 0
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")).astype(float))
            length += film.info["duration"]
    assert length == 2000
    moves = [np.abs(b - a).mean() for a, b in itertools.pairwise(frames)]
    middle = len(frames) - 10
    assert max(moves[: middle - 1], default=0) < min(moves[middle + 1 :])


def test_a_video_has_the_sound(tmp_path: Path) -> None:
    import subprocess

    pytest.importorskip("imageio_ffmpeg")
    G, path = make(), record(tmp_path / "x.wav", (1, 0.5))
    program = ffmpeg("this test").get_ffmpeg_exe()
    for name in ("x.mp4", "x.webm"):
        out = interpolate(G, tmp_path / name, fps=10, audio=path)
        told = subprocess.run([program, "-i", str(out)], capture_output=True, text=True, check=False).stderr
        assert "Audio: " in told
        assert "Video: " in told
    # Its own film is a recording, too, that wave files' reader does not know.
    loud = read_loudness(tmp_path / "x.mp4", 10)
    assert 9 <= len(loud) <= 12
    assert loud.max() == pytest.approx(1)


def test_recordings_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no sound")
    for name, message in (("x.wav", "no sound can be read"), ("missing.wav", "no such file")):
        with pytest.raises(DataError, match=message):
            read_loudness(tmp_path / name, 10)
    with pytest.raises(DataError, match=r"0\.05 s of sound"):
        read_loudness(record(tmp_path / "short.wav", (0.05, 1)), 10)
    with pytest.raises(ConfigError, match="as long as that"):
        interpolate(make(), tmp_path / "x.gif", seconds=2, audio=record(tmp_path / "y.wav", (1, 1)))

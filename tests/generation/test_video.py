"""Walks through latent space are smooth and closed; videos have the right frames, size and length."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from progan.config import LabelForm
from progan.data.showing import on_white
from progan.errors import ConfigError, DependencyError, StorageError
from progan.generation import video
from progan.generation.film import palette_of
from progan.generation.samples import of_seeds
from progan.generation.sampling import latents, render
from progan.generation.video import interpolate
from progan.generation.walks import slerp, through, walk
from progan.models.generator import Generator


def make(
    channels: int = 3, labels: int = 0, base: tuple[int, int] = (4, 4), form: LabelForm = "class"
) -> Generator:
    torch.manual_seed(0)
    return Generator(
        channels=channels,
        base_shape=base,
        max_level=2,
        label_size=labels,
        label_form=form,
        fmap_base=64,
        fmap_max=8,
    ).eval()


def read_mp4(path: Path) -> tuple[str, int]:
    """Return what ffmpeg says of the video, and the number of frames that it decodes."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    decode = [ffmpeg, "-i", str(path), "-f", "framemd5", "-"]
    result = subprocess.run(decode, capture_output=True, text=True, check=True)
    said = next(line for line in result.stderr.splitlines() if "Video:" in line)
    return said, sum(not line.startswith("#") for line in result.stdout.splitlines())


@given(
    seed=st.integers(0, 2**32), frames=st.integers(20, 90), cells=st.integers(1, 3), odd=st.floats(0.05, 0.2)
)
@settings(max_examples=25, deadline=None)
def test_a_walk_is_closed_smooth_and_normalised(seed: int, frames: int, cells: int, odd: float) -> None:
    z = walk(frames, cells, 64, seed=seed, smoothing_seconds=odd * frames / 10, fps=10).double()
    assert z.shape == (frames, cells, 64)
    assert (z.square().mean().sqrt() - 1).abs() < 1e-5
    steps = (z - z.roll(1, 0)).square().mean(dim=(1, 2)).sqrt()
    others = steps[1:]
    # The step over the end is one like the others, and none is a jump between unrelated latents.
    assert others.min() * 0.3 < steps[0] < others.max() * 3
    if odd * frames > 3:
        assert steps.max() < 0.7


def test_the_end_of_a_walk_is_no_special_place() -> None:
    """Over many seeds the mean square step over the end equals that between any other two frames."""
    steps = torch.stack(
        [
            (z - z.roll(1, 0)).square().mean(dim=(1, 2))
            for z in (walk(24, 2, 64, seed=s, fps=3) for s in range(60))
        ]
    ).mean(dim=0)
    assert (steps / steps.mean() - 1).abs().max() < 0.1


def test_a_walk_is_the_filter_of_the_original() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = latents(3, 0, 90 * 2, 16).view(90, 2, 16).double().numpy()
    smooth = ndimage.gaussian_filter(noise, [6, 0, 0], mode="wrap", truncate=8)
    smooth /= np.sqrt(np.mean(np.square(smooth)))
    np.testing.assert_allclose(walk(90, 2, 16, seed=3, smoothing_seconds=0.5, fps=12), smooth, atol=1e-4)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB")])
def test_gif(tmp_path: Path, channels: int, mode: str) -> None:
    calls: list[tuple[str, int, int]] = []
    out = interpolate(
        make(channels), tmp_path / "new" / "x.gif", seconds=0.5, fps=30, grid=(1, 2),
        progress=lambda *state: calls.append(state),
    )  # fmt: skip
    assert calls == [("rendering", i, 15) for i in range(16)]
    with Image.open(out) as gif:
        assert gif.size == (512, 256)
        assert gif.info["loop"] == 0
        frames, length = [], 0
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            length += gif.info["duration"]
            frames.append(np.asarray(gif.convert(mode)).astype(float))
    assert length == 500
    assert len(frames) == 15
    steps = [np.abs(a - b).mean() for a, b in itertools.pairwise([frames[-1], *frames])]
    assert 0 < steps[0] < 3 * max(steps[1:])


def test_mp4(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    said, frames = read_mp4(interpolate(make(1), tmp_path / "x.mp4", seconds=1, fps=12, grid=(2, 1)))
    for part in ("h264", "yuv420p", "256x512", "12 fps"):
        assert part in said
    assert frames == 12
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_mp4_has_even_sides(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    said, _ = read_mp4(interpolate(make(base=(5, 7)), tmp_path / "x.mp4", seconds=0.2, fps=10, level=0))
    assert "364x260" in said


def test_without_ffmpeg_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DependencyError, match=r'pip install "progan\[video\]"'):
        interpolate(make(), tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_is_silent(tmp_path: Path) -> None:
    """What it says of a disk that is full would stand before our own message."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/words\nexec {ffmpeg} "$@"\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
        interpolate(make(), tmp_path / "x.mp4", seconds=0.2, fps=10)
    writing = next(line for line in (tmp_path / "words").read_text().splitlines() if "libx264" in line)
    assert "-v quiet" in writing


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    others = [
        f".x.{os.getppid()}.tmp.gif",
        f".x.{dead.pid}.tmp.npy",
        f".xy.{dead.pid}.tmp.gif",
        ".x.y.tmp.gif",
    ]
    for name in (f".x.{dead.pid}.tmp.gif", *others):
        (tmp_path / name).write_text("")
    interpolate(make(), tmp_path / "x.gif", seconds=0.2, fps=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "x.gif"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio's pipe to the dead
@pytest.mark.parametrize("script", ["exit 1", "cat > /dev/null; exit 1"])  # fails at once, or at the end
def test_a_failure_of_ffmpeg_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    pytest.importorskip("imageio_ffmpeg")
    program, out = tmp_path / "ffmpeg", tmp_path / "out" / "x.mp4"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    out.parent.mkdir()
    out.write_text("old")
    with pytest.raises(StorageError, match=r"x\.mp4: ffmpeg failed.* MB are free"):
        interpolate(make(), out, seconds=1, fps=2)
    assert out.read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_each_cell_keeps_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = make(labels=3)
    seen = watch(monkeypatch)
    interpolate(G, tmp_path / "x.gif", seconds=1, fps=5, grid=(2, 2), seed=1)
    for _, labels in seen:
        frames = labels.view(-1, 4, 3)
        assert (frames == frames[:1]).all()
    assert len({int(i) for i in seen[-1][1][:4].argmax(dim=1)}) > 1
    seen.clear()
    interpolate(G, tmp_path / "x.gif", seconds=1, fps=5, grid=(2, 2), label=2)
    assert all((labels.argmax(dim=1) == 2).all() for _, labels in seen)


def test_each_cell_keeps_its_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = make(labels=2, form="vector")
    G.label_examples.copy_(torch.arange(128.0).view(64, 2))
    seen = watch(monkeypatch)
    interpolate(G, tmp_path / "x.gif", seconds=1, fps=5, grid=(2, 2), seed=1)
    first = seen[0][1].view(-1, 4, 2)[0]
    cells = {tuple(row) for row in first.tolist()}
    assert len(cells) > 1
    assert cells <= {tuple(row) for row in G.label_examples.tolist()}
    assert all((labels.view(-1, 4, 2) == first).all() for _, labels in seen)
    seen.clear()
    interpolate(G, tmp_path / "x.gif", seconds=1, fps=5, grid=(2, 2), label="0.5,-1")
    assert all((labels == torch.tensor([0.5, -1])).all() for _, labels in seen)


def test_alpha_is_laid_over_white() -> None:
    pixel = np.array([100, 200, 0, 0], np.uint8).reshape(1, 4, 1, 1)
    assert on_white(pixel).ravel().tolist() == [255, 255, 255]
    pixel[0, 3] = 255
    assert on_white(pixel).ravel().tolist() == [100, 200, 0]
    pixel[0, 3] = 51
    assert on_white(pixel).ravel().tolist() == [224, 244, 204]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.avi", {}, r"\.mp4, \.webm, \.webp or \.gif"),
        ("x", {}, r"\.mp4, \.webm, \.webp or \.gif"),
        ("x.gif", {"fps": 60}, "50 at most"),
        ("x.gif", {"seconds": 3600}, "too much for a .gif"),
        ("x.gif", {"seconds": 0}, "seconds 0: expected a positive"),
        ("x.gif", {"seconds": 0.01}, "no frame"),
        ("x.gif", {"seconds": float("nan")}, "positive"),
        ("x.gif", {"fps": -1}, "positive"),
        ("x.gif", {"grid": (0, 2)}, r"grid \(0, 2\): expected a positive"),
        ("x.gif", {"fps": 1e300, "seconds": 1e300}, "too many frames"),
        ("x.gif", {"grid": (1000, 1000)}, "million pixels are larger"),
        ("x.gif", {"fps": 1e-3, "seconds": 1e9, "grid": (10, 100), "level": 0}, "too much for a .gif"),
        ("x.mp4", {"fps": 1e9, "seconds": 100}, "1000 at most"),
        ("x.mp4", {"fps": 1000, "seconds": 1e9}, "1,000,000,000,000 frames .* 33,554,432 are possible"),
        ("x.gif", {"label": "cat"}, "no labels"),
        ("x.gif", {"level": 9}, "no level 9"),
        ("x.gif", {"seed": -1}, "seed -1: expected at least 0"),
        ("x.gif", {"seed": 0.5}, "seed 0.5: expected a whole number"),
    ],
)
def test_wrong_arguments(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interpolate(make(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from(["linear", "slerp", "cubic"]), st.booleans())
def test_a_way_meets_its_points(count: int, steps: int, interp: Any, loop: bool) -> None:
    points = latents(0, 0, count * 2, 6).view(count, 2, 6)
    if count == 1 and not loop:
        with pytest.raises(ConfigError, match="a way with 1 points"):
            through(points, steps, interp, loop=loop)
        return
    way = through(points, steps, interp, loop=loop)
    assert way.shape == (count * steps if loop else (count - 1) * steps + 1, 2, 6)
    torch.testing.assert_close(way[::steps], points)


def test_slerp_keeps_the_length_and_halves_the_angle() -> None:
    a, b = torch.tensor([3.0, 0, 0]), torch.tensor([0, 3.0, 0])
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close(middle, torch.tensor([1.0, 1, 0]) * 3 / 2**0.5)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    torch.testing.assert_close(slerp(a, -a, 0.25), 0.5 * a)


@pytest.mark.parametrize(("interp", "ratio"), [("cubic", 2.0), ("linear", 1.0)])
def test_cubic_has_no_corners(interp: Any, ratio: float) -> None:
    """Of a smooth curve the change of direction at a frame halves with the step; at a corner it does not."""
    points = latents(1, 0, 4, 3).view(4, 1, 3)

    def sharpest(steps: int) -> float:
        way = through(points, steps, interp).squeeze(1).double()
        return float(((way.roll(-1, 0) - 2 * way + way.roll(1, 0)) * steps).norm(dim=1).max())

    assert sharpest(40) / sharpest(80) == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("ending", ["webm", "webp"])
def test_other_forms(tmp_path: Path, ending: str) -> None:
    if ending == "webm":
        pytest.importorskip("imageio_ffmpeg")
    out = interpolate(make(), tmp_path / f"x.{ending}", seconds=1, fps=10)
    if ending == "webm":
        said, frames = read_mp4(out)
        assert "vp9" in said
        assert frames == 10
    else:
        with Image.open(out) as animation:
            assert animation.n_frames == 10  # type: ignore[attr-defined]
            assert animation.info["loop"] == 0


def test_a_way_through_seeds_shows_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = make(labels=3)
    seen = watch(monkeypatch)
    points = of_seeds(G, [5, 6, 7, 8])
    z, labels = points.rows(0, 4)
    assert labels is not None
    calls: list[tuple[str, int, int]] = []
    interpolate(
        G, tmp_path / "x.webp", points=points, w_frames=3, grid=(1, 2), loop=False,
        progress=lambda *state: calls.append(state),
    )  # fmt: skip
    assert calls[-1] == ("rendering", 4, 4)
    frames = [torch.cat([part[i] for part in seen]).view(4, 2, -1) for i in range(2)]
    torch.testing.assert_close(frames[0][[0, 3]], z.view(2, 2, -1).transpose(0, 1))
    torch.testing.assert_close(frames[1][[0, 3]], labels.view(2, 2, -1).transpose(0, 1))
    with pytest.raises(ConfigError, match="2 times two or more"):
        interpolate(G, tmp_path / "x.webp", points=of_seeds(G, [1, 2, 3]), grid=(1, 2))
    with pytest.raises(ConfigError, match="leave seconds out"):
        interpolate(G, tmp_path / "x.webp", points=points, seconds=3)


def test_one_picture_goes_around_several_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = make(labels=3)
    seen = watch(monkeypatch)
    interpolate(G, tmp_path / "x.webp", seconds=0.9, fps=10, labels=[0, 2, 1])
    labels = torch.cat([part[1] for part in seen])
    torch.testing.assert_close(labels[::3], torch.eye(3)[[0, 2, 1]])
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(9))
    torch.testing.assert_close(labels[1], torch.tensor([2 / 3, 0, 1 / 3]))


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return a list that gets latents and labels of all pictures that a film asks for."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(G: Generator, z: torch.Tensor, labels: torch.Tensor, **options: Any) -> Any:
        seen.append((z, labels))
        return render(G, z, labels, **options)

    monkeypatch.setattr(video, "render", watched)
    return seen


def test_the_colours_of_a_gif_keep_rare_strong_ones() -> None:
    """One pixel in 200 is purple, the others are all greys and skin colours there are."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (100, 200, 1)) + rng.integers(-12, 13, (100, 200, 3))
    pixels = grey.clip(0, 255).astype(np.uint8)
    pixels[::20, ::10] = (160, 30, 220)
    frame = Image.fromarray(pixels)
    palette = palette_of([frame, frame])
    shown = np.asarray(frame.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")).astype(int)
    assert np.abs(shown[::20, ::10] - (160, 30, 220)).max() <= 8
    assert np.abs(shown - pixels).mean() < 6

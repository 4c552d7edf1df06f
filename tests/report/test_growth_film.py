"""The film of a training shows its moments in order, each for its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from browser import find_browser, opened
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DataError
from progan.models import weights
from progan.models.generator import Generator
from progan.report.growth_film import make_movie
from progan.runs.run import train
from tiny import options


@pytest.fixture(scope="module", name="run")
def tiny_run(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(train(blobs.path, out=tmp_path_factory.mktemp("runs") / "run", options=options()))


def frames(path: Path) -> list[np.ndarray]:
    shown = []
    with Image.open(path) as film:
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            shown.append(np.asarray(film.convert("RGB")).astype(int))
    return shown


def test_sample_grids_become_a_film(run: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    out = make_movie(
        run, tmp_path / "x.gif", source="grids", seconds=4, fps=5, progress=lambda *state: said.append(state)
    )
    shown = frames(out)
    with Image.open(out) as film:
        length = 0
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            length += film.info["duration"]
    assert length == 4000
    assert said[-1] == ("rendering", 20, 20)
    grids = sorted(run.glob("samples/0*.png"))
    height, width, _ = shown[0].shape
    for frame, grid in ((shown[0], grids[0]), (shown[-1], grids[-1])):
        with Image.open(grid) as picture:
            scale = width // picture.width
            wanted = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), 0)
        pixels = np.asarray(wanted).astype(int)
        shared = frame[: pixels.shape[0], : pixels.shape[1]]
        assert np.corrcoef(shared.ravel(), pixels.ravel())[0, 1] > 0.95  # but for a GIF's colours
        assert height > pixels.shape[0] + 20  # the caption


def test_kept_generators_become_a_film(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "dataset.json", "stats.jsonl"):
        (folder / name).write_bytes((run / name).read_bytes())
    for i, level in enumerate((0, 1, 1, 2)):
        torch.manual_seed(i)
        G = Generator(
            max_level=2, fmap_base=64, fmap_max=8, label_size=4, level=level, alpha=0.5 if i == 1 else 1
        )
        weights.save(G, folder / "generators" / f"{(i + 1) * 1000:09d}.safetensors")
    shown = frames(make_movie(folder, tmp_path / "x.webp", seconds=0.8, fps=5, grid=(2, 3)))
    assert len(shown) == 4
    assert len({frame.tobytes() for frame in shown}) == 4
    assert {frame.shape for frame in shown} == {shown[0].shape}


def test_what_makes_no_film(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        make_movie(tmp_path, tmp_path / "x.gif")
    for name, arguments, message in (
        ("x.txt", {}, "a video is a file"),
        ("x.gif", {"seconds": 0}, "positive"),
        ("x.gif", {"source": "x"}, "auto, generators, grids"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_movie(run, tmp_path / name, **arguments)
    assert list(tmp_path.iterdir()) == []
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    for source, what in (("generators", "generators"), ("auto", "sample grids")):
        with pytest.raises(DataError, match=f"0 {what}: a film needs"):
            make_movie(begun, tmp_path / "x.gif", source=source)  # type: ignore[arg-type]


def test_what_a_run_keeps_is_filmed(run: Path, tmp_path: Path) -> None:
    shown = frames(make_movie(run, tmp_path / "x.webp", seconds=1, fps=5, grid=(2, 2)))
    assert len(shown) >= len(list(run.glob("generators/*.safetensors"))) >= 4
    assert len({frame.shape for frame in shown}) == 1


LOOK = """async () => {
  // All of it is at hand, so that it can be wound to any place.
  const video = document.querySelector("video"), whole = await (await fetch(video.src)).blob();
  await new Promise((go) => { video.oncanplaythrough = go; video.src = URL.createObjectURL(whole); });
  const canvas = document.createElement("canvas"), seen = [];
  const at = (time) => new Promise((go) => { video.onseeked = go; video.currentTime = time; });
  for (const share of [0, 0.999]) {
    await at(share * video.duration);
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0);
    seen.push(Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data));
  }
  return [video.duration, canvas.width, canvas.height, ...seen];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.mp4", "x.webm", "x.webp", "x.gif"])
def test_a_browser_plays_it(run: Path, tmp_path: Path, name: str) -> None:
    """A video from its first grid to its last; of an animation, that it is one that the browser decodes."""
    find_browser()
    pytest.importorskip("imageio_ffmpeg")
    make_movie(run, tmp_path / name, source="grids", seconds=2, fps=10)
    is_video = name.endswith(("mp4", "webm"))
    tag = f'<video src="{name}" muted preload="auto">' if is_video else f'<img src="{name}">'
    (tmp_path / "index.html").write_text(f'<!doctype html><link rel="icon" href="data:,">{tag}')
    grids = sorted(run.glob("samples/0*.png"))
    with opened(tmp_path) as web:
        if is_video:
            web.page.wait_for_function("() => document.querySelector('video').readyState >= 3")
            duration, width, height, *seen = web.page.evaluate(LOOK)
            assert duration == pytest.approx(2, abs=0.15)
            for pixels, grid in zip(seen, (grids[0], grids[-1]), strict=True):
                shown = np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3].astype(int)
                with Image.open(grid) as picture:
                    scale = width // picture.width
                    size = (picture.width * scale, picture.height * scale)
                    wanted = np.asarray(picture.convert("RGB").resize(size, 0)).astype(int)
                part = shown[: wanted.shape[0], : wanted.shape[1]]
                assert np.corrcoef(part.ravel(), wanted.ravel())[0, 1] > 0.9
        else:
            web.page.wait_for_function("() => document.querySelector('img').complete")
            assert web.page.evaluate("() => document.querySelector('img').naturalWidth") > 100
        assert web.said == []
        assert web.elsewhere() == []

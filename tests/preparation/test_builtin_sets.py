"""The built-in sets: deterministic, legible, and explained where they cannot be made."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from found_sets import find_or_prepare
from progan.config import DataOptions
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DataError, DependencyError
from progan.preparation.builtin_sets import glyphs, synthetic
from progan.preparation.drawing import draw_glyph, find_fonts


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return glyphs(tmp_path_factory.mktemp("glyphs") / "set", count=200)


def test_glyphs_are_labelled_rgb_of_32(drawn: PackedSet) -> None:
    assert drawn.resolution(drawn.max_level) == (32, 32)
    assert (drawn.base_shape, drawn.channels, drawn.count) == ((4, 4), 3, 200)
    assert drawn.label_size == 10
    assert drawn.label_vectors(np.arange(200)).sum(axis=0).tolist() == [20] * 10


def test_glyphs_follow_from_their_seed(drawn: PackedSet, tmp_path: Path) -> None:
    same = glyphs(tmp_path / "same", count=200)
    other = glyphs(tmp_path / "other", count=200, seed=1)
    assert same.fingerprint == drawn.fingerprint != other.fingerprint
    more = glyphs(tmp_path / "more", count=210)
    assert (more.read(3, np.arange(200)) == drawn.read(3, np.arange(200))).all()


def test_glyphs_stand_out_and_stay_inside(drawn: PackedSet) -> None:
    pictures = drawn.read(3, np.arange(200)).astype(np.float64)
    luminance = np.tensordot([0.299, 0.587, 0.114], pictures, axes=(0, 1))  # [N, H, W]
    paper = luminance[:, 0, 0]
    distance = np.abs(luminance - paper[:, None, None])
    assert (distance.max(axis=(1, 2)) > 0.35 * 255).all()
    covered = (distance > 0.2 * 255).mean(axis=(1, 2))
    assert (covered > 0.04).all()
    assert (covered < 0.5).all()
    edges = np.concatenate([distance[:, 0], distance[:, -1], distance[:, :, 0], distance[:, :, -1]], axis=1)
    assert (edges.max(axis=1) < 10).all()


def test_strong_text_fonts_of_several_kinds_are_used() -> None:
    fonts = [path.name for path in find_fonts("AEG")]
    assert len(fonts) == 6
    assert {"DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf"} < set(fonts)
    with pytest.raises(DataError, match="no text font"):
        find_fonts("A\u6f22")


def test_every_font_draws_every_character_differently() -> None:
    for font in find_fonts("AEGJKMRSTX"):
        pictures = {
            draw_glyph(i, characters="AEGJKMRSTX", fonts=[font], size=(32, 32), seed=0).tobytes()
            for i in range(10)
        }
        assert len(pictures) == 10


def test_glyphs_in_gray_and_oblong(tmp_path: Path) -> None:
    packed = glyphs(tmp_path / "set", count=4, resolution=(32, 48), channels=1, characters="01")
    assert packed.read(packed.max_level, [0]).shape == (1, 1, 32, 48)
    assert packed.label_names == ("0", "1")


def test_missing_fonts_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DependencyError, match=r'pip install "progan\[glyphs\]"'):
        glyphs(tmp_path / "set", count=1)
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_not_imported() -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}; from progan.preparation.drawing import find_fonts; "
    code += "find_fonts('A'); sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert importlib.util.find_spec("matplotlib") is not None
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [{"resolution": 8}, {"channels": 4}, {"characters": ""}, {"characters": "AA"}, {"resolution": 33}],
)
def test_glyphs_that_cannot_be_drawn_are_explained(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        glyphs(tmp_path / "set", count=1, **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_destination_in_use_is_left_alone(tmp_path: Path) -> None:
    synthetic(tmp_path / "set", count=1, resolution=8)
    with pytest.raises(DataError, match="already"):
        synthetic(tmp_path / "set", count=2, resolution=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    with pytest.raises(DataError, match="is no packed set"):
        synthetic(tmp_path / "mine", count=2, resolution=8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_synthetic_has_any_channels(tmp_path: Path, channels: int) -> None:
    packed = synthetic(tmp_path / "set", count=5, resolution=16, channels=channels)
    assert packed.read(2, [4]).shape == (1, channels, 16, 16)
    assert packed.read(2, [4]).std() > 1


def test_drawing_tells_how_far_it_is_and_can_be_stopped(tmp_path: Path) -> None:
    options = DataOptions(cache=tmp_path / "cache", limit=600, resolution="16")
    for source in ("builtin:glyphs", "builtin:synthetic"):
        seen: list[tuple[int, int]] = []

        def tell(_what: str, done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        def stop(seen: list[tuple[int, int]] = seen) -> bool:
            return len(seen) == 2

        with pytest.raises(KeyboardInterrupt):
            find_or_prepare(source, options, progress=tell, stop=stop)
        assert seen == [(256, 600), (512, 600)]
        assert not list((tmp_path / "cache").iterdir())
        seen.clear()
        packed, _ = find_or_prepare(source, options, progress=tell, stop=lambda: False)
        assert seen == [(256, 600), (512, 600), (600, 600)]
        assert (packed.count, packed.manifest.limit) == (600, 600)
        assert packed.path.parent == tmp_path / "cache"
        shutil.rmtree(packed.path)


def test_builtin_sources_are_drawn_once(tmp_path: Path) -> None:
    options = DataOptions(cache=tmp_path, limit=12, labels="folders", split=(0.5, 0.5, 0.0))
    packed, report = find_or_prepare("builtin:glyphs", options)
    assert report is None
    assert (packed.count, packed.label_size) == (12, 10)
    assert len(packed.indices("validation"))
    again, _ = find_or_prepare(Path("builtin:glyphs"), options)
    assert again.path == packed.path
    unlabelled, _ = find_or_prepare("builtin:glyphs", options.model_copy(update={"labels": "none"}))
    assert unlabelled.label_size == 0
    tiny = options.model_copy(update={"resolution": "16", "channels": 1})
    assert find_or_prepare("builtin:synthetic", tiny)[0].read(2, [0]).shape == (1, 1, 16, 16)
    with pytest.raises(DataError, match="builtin:glyphs"):
        find_or_prepare("builtin:digits", options)

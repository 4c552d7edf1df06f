"""What is decided about pixels is decided over the set, said, and can be decided otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from progan.config import DataOptions, PictureOptions
from progan.data.packed import PackedSet
from progan.preparation.decisions import spelled, unusual_sizes
from progan.preparation.decoding import Header
from progan.preparation.formats.registry import open_pictures
from progan.preparation.picture.value_range import Extent, Kind, ValueRange, decide
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare

N = 40


def disc(i: int, side: int = 16) -> NDArray[np.float64]:
    """A bright disc on a gradient, 0 to 1."""
    y, x = np.mgrid[:side, :side]
    inside = (y - side / 2) ** 2 + (x - side / 2) ** 2 < 4 + i
    made: NDArray[np.float64] = np.clip(x / side / 2 + 0.5 * inside, 0, 1)
    return made


def save_all(folder: Path, arrays: Sequence[NDArray[np.generic]], suffix: str = "tif") -> Path:
    folder.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:02d}.{suffix}")
    return folder


def packed(folder: Path, **options: object) -> tuple[PackedSet, PrepareReport, str]:
    """Prepare a folder; return the set, the report, and all that is said."""
    report = prepare(folder, folder.with_name("set"), PictureOptions.model_validate(options))
    return PackedSet.open(report.path), report, "\n".join(report.lines())


def largest(found: PackedSet) -> list[int]:
    pixels = found.read(found.max_level, np.arange(found.count))
    return [int(value) for value in pixels.max(axis=(1, 2, 3))]


@pytest.mark.parametrize(
    ("kind", "extents", "asked", "expected", "said"),
    [
        ("float", [(0, 1)] * 38 + [(0, 1.002)] * 2, None, (0, 1), "2 pictures go beyond"),
        ("float", [(0, 240)] * 38 + [(0, 0.9)] * 2, None, (0, 255), "0:255 is black to white"),
        ("float", [(-1, 1)] * 40, None, (-1, 1), ""),
        ("float", [(0, 1)] * 39 + [(0, 255)], None, (0, 1), ""),
        ("float", [(0, 3.5)] * 40, None, (0, 3.5), "--range LOW:HIGH"),
        ("float", [(200, 310)] * 40, None, (200, 310), "--range LOW:HIGH"),
        ("float", [(0, 60000)] * 40, None, (0, 65535), ""),
        ("float", [(0, 0.01)] * 40, None, (0, 0.01), "--range LOW:HIGH"),
        ("integer", [(0, 4000)] * 39 + [(0, 4095)], None, (0, 4095), "12 bits (--range 0:4095)"),
        ("integer", [(0, 40000)] * 40, None, (0, 65535), ""),
        ("integer", [(0, 900)] * 39 + [(0, 65535)], None, (0, 65535), "decides that the range is 0:65535"),
        ("integer", [(-1024, 3071)] * 40, None, (-1024, 3071), "--range LOW:HIGH"),
        ("integer", [(0, 70000)] * 40, None, (0, 70000), "--range LOW:HIGH"),
        ("integer", [(10, 900)] * 3, "auto", (10, 900), "10 to 900 become"),
        ("integer", [], "0:4095", (0, 4095), ""),
        ("byte", [], "0:4095", (0, 255), ""),
        ("byte", [], "0:9", (0, 9), ""),
        ("byte", [(3, 8)] * 3, None, (0, 255), ""),
        ("byte", [(3, 8)] * 3, "auto", (3, 8), ""),
    ],
)
def test_range_of_a_set(
    kind: Kind,
    extents: list[tuple[float, float]],
    asked: str | None,
    expected: tuple[float, float],
    said: str,
) -> None:
    decided = decide(kind, {f"{i:02d}": Extent(*each) for i, each in enumerate(extents)}, asked)
    assert decided.range == ValueRange(*expected)
    assert said in decided.fact + decided.warning


def test_a_hair_above_one_is_one(tmp_path: Path) -> None:
    arrays = [disc(i).astype(np.float32) for i in range(N)]
    arrays[3] = arrays[3] * np.float32(1.002) / arrays[3].max()
    found, report, _ = packed(save_all(tmp_path / "p", arrays))
    assert min(largest(found)) >= 190
    assert "floating-point values, 0:1 is black to white; 1 pictures go beyond" in report.facts[0]
    assert not report.warnings


def test_a_nearly_black_picture_stays_black(tmp_path: Path) -> None:
    arrays = [(disc(i) * (0.9 if i == 3 else 255)).astype(np.float32) for i in range(N)]
    found, _, _ = packed(save_all(tmp_path / "p", arrays))
    assert largest(found)[3] == 1
    assert min(largest(found)[4:]) >= 200


def test_a_picture_of_another_range_is_left_out_and_named(tmp_path: Path) -> None:
    arrays = [(disc(i) * (255 if i == 3 else 1)).astype(np.float32) for i in range(N)]
    found, report, _ = packed(save_all(tmp_path / "p", arrays))
    assert (report.used, report.skipped) == (N - 1, 1)
    assert "far beyond the 0:1 of the set; --range" in (found.path / "skipped.csv").read_text()


def test_two_ranges_in_one_set_are_a_warning(tmp_path: Path) -> None:
    arrays = [(disc(i) * (255 if i % 2 else 1)).astype(np.float32) for i in range(N)]
    _, report, text = packed(save_all(tmp_path / "p", arrays))
    assert "warning: 20 of 40 pictures use less than a sixteenth of the range 0:255" in text
    assert report.used == N


def test_twelve_bits_are_bright_and_can_be_given(tmp_path: Path) -> None:
    arrays = [(disc(i) * 4000).astype(np.uint16) for i in range(N)]
    folder = save_all(tmp_path / "p", arrays, "png")
    found, _, text = packed(folder, depth=8)
    assert min(largest(found)) >= 190
    assert "taken as 12 bits (--range 0:4095)" in text
    report = prepare(folder, tmp_path / "given", PictureOptions(range="0:65535", depth=8))
    assert max(largest(PackedSet.open(report.path))) == 15
    assert any("--range 0:3855" in text for text in report.warnings)


def test_labels_in_a_few_grays_are_a_warning(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 10, (16, 16), dtype=np.uint8) for _ in range(4)]
    folder = save_all(tmp_path / "p", arrays, "png")
    _, report, _ = packed(folder)
    assert report.warnings == (
        "all stored values are from 0 to 9 of 255, so the pictures are nearly of one shade: "
        "--range 0:9 makes these black and white",
    )
    other = prepare(folder, tmp_path / "wide", PictureOptions(range="0:9"))
    assert largest(PackedSet.open(other.path)) == [255] * 4
    assert not other.warnings


def cut_outs(folder: Path, modes: list[str], alpha: int = 0) -> Path:
    folder.mkdir()
    for i, mode in enumerate(modes):
        image = Image.new("RGBA", (16, 16), (200, 30, i, alpha))
        image.paste((i, 200, 10, 255), (4, 4, 12, 12))
        image.convert(mode).save(folder / f"{i:02d}.png")
    return folder


def test_opaque_alpha_counts_as_none(tmp_path: Path) -> None:
    found, report, _ = packed(cut_outs(tmp_path / "p", ["RGBA"] * N, alpha=255))
    assert found.channels == 3
    assert report.facts == (
        "40 pictures have an alpha channel that is opaque everywhere, which counts as none",
    )
    kept = prepare(tmp_path / "p", tmp_path / "kept", PictureOptions(channels=4))
    assert kept.channels == 4


def test_transparency_that_is_laid_on_white_is_said(tmp_path: Path) -> None:
    folder = cut_outs(tmp_path / "p", ["RGB"] + ["RGBA"] * (N - 1))
    found, report, _ = packed(folder)
    assert found.channels == 3
    assert found.read(found.max_level, [5])[0, :, 0, 0].tolist() == [255, 255, 255]
    assert report.warnings == (
        "transparency of 39 of 40 pictures is laid on white, as 1 picture (00.png) has none: "
        "--channels 4 keeps it, --background chooses the ground",
    )
    report = prepare(folder, tmp_path / "black", PictureOptions(channels=3, background="black"))
    black = PackedSet.open(report.path)
    assert black.read(black.max_level, [5])[0, :, 0, 0].tolist() == [0, 0, 0]
    assert report.facts == ("39 with transparency, laid on black (--channels 4 keeps it)",)


def test_one_picture_that_decides_for_all_is_a_warning(tmp_path: Path) -> None:
    arrays: list[NDArray[np.generic]] = [(disc(i) * 255).astype(np.uint8) for i in range(N)]
    arrays[7] = np.dstack([arrays[7]] * 3)
    _, report, _ = packed(save_all(tmp_path / "p", arrays, "png"))
    assert report.channels == 3
    assert report.warnings == (
        "1 picture (07.png) has colour, so all are stored as RGB: --channels 1 stores gray",
    )


def header(height: int, width: int) -> Header:
    return Header(width, height, True, False, False)


@pytest.mark.parametrize(
    ("sizes", "level", "expected"),
    [
        ([(64, 1024)] * 20, 4, "94% of each picture is cut away, on average: --fit pad keeps all of it, and "
         "--resolution 64x1024 --base-shape 1 16 is nearer to its shape"),
        ([(480, 640)] * 20, 6, "25% of each picture is cut away, on average: --fit pad keeps all of it, and "
         "--resolution 480x640 --base-shape 15 20 is nearer to its shape"),
        ([(70, 80)] * 270 + [(800, 800)] * 51, 4, "but 51 of 321 have at least 256x256: --min-size 256"),
    ],
)  # fmt: skip
def test_unusual_sizes_are_said(sizes: list[tuple[int, int]], level: int, expected: str) -> None:
    warnings = unusual_sizes([header(*size) for size in sizes], PictureOptions(), (4, 4), level)
    assert any(expected in text for text in warnings), warnings


def test_usual_sizes_are_not_said() -> None:
    usual = [header(100, 100), header(110, 120)] * 10
    assert unusual_sizes(usual, PictureOptions(), (4, 4), 4) == []


def test_options_are_spelled_as_the_command_has_them() -> None:
    text = "--fit pad, or --base-shape 1 16 (--channels 4)"
    assert spelled(text, training=False) == text
    assert spelled(text, training=True) == "--data.fit pad, or --model.base-shape 1 16 (--data.channels 4)"


def test_a_set_made_before_there_were_these_options_is_found_again(tmp_path: Path) -> None:
    folder = cut_outs(tmp_path / "p", ["RGB"] * 4)
    then = {
        "max_resolution": 1024,
        "resolution": None,
        "channels": None,
        "fit": "crop",
        "labels": "none",
        "limit": None,
        "split": "1,0,0",
        "version": 1,
        "base_shape": None,
        "files": open_pictures(folder).listing().digest(),
    }
    found, _, _ = packed(folder)
    key = hashlib.sha256(json.dumps(then, sort_keys=True).encode()).hexdigest()[:16]
    assert found.manifest.key == key
    assert found.fingerprint == "a6c26d97d8093df93029537090fe61ce"


@pytest.mark.parametrize("value", ["4095", "1:0", "a:b", "0:inf", "nan:1"])
def test_what_is_no_range(value: str) -> None:
    with pytest.raises(ValueError, match="range"):
        DataOptions.model_validate({"range": value})

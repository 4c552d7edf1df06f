"""Sixteen bits a value from the file to the packed set, and files that hold more than Pillow reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pngs import write_png
from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.preparation.source import prepare

Deep = NDArray[np.uint16]


def noise(channels: int, count: int = 4, side: int = 16) -> Deep:
    """Pictures [N, H, W, C] that use all values."""
    random = np.random.default_rng(channels)
    return random.integers(0, 65536, (count, side, side, channels), dtype=np.uint16)


def write(path: Path, pixels: Deep) -> None:
    channels = pixels.shape[2]
    if path.suffix == ".png":
        write_png(path, pixels)
    elif channels == 1:
        tifffile.imwrite(path, pixels[..., 0])
    else:
        extra = ["unassalpha"] if channels in (2, 4) else None
        kind = "rgb" if channels >= 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=kind, planarconfig="contig", extrasamples=extra)


def fill(folder: Path, pictures: Deep, ending: str) -> Path:
    folder.mkdir()
    for i, pixels in enumerate(pictures):
        write(folder / f"{i:02d}{ending}", pixels)
    return folder


def prepared(folder: Path, place: str = "set", **options: Any) -> tuple[PackedSet, str]:
    report = prepare(folder, folder.with_name(place), PictureOptions.model_validate(options))
    return PackedSet.open(report.path), "\n".join(report.lines())


def top(packed: PackedSet) -> NDArray[Any]:
    return packed.read(packed.max_level, np.arange(packed.count)).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_went_in_comes_out(tmp_path: Path, channels: int, ending: str) -> None:
    pictures = noise(channels)
    if channels in (2, 4):
        pictures[..., -1] |= 0x8000  # colours of what is transparent are another subject
    packed, text = prepared(fill(tmp_path / "p", pictures, ending))
    assert (packed.depth, packed.channels) == (16, channels)
    assert "16 bits" in text.splitlines()[0]
    np.testing.assert_array_equal(top(packed), pictures)
    shallow, _ = prepared(tmp_path / "p", "shallow", depth=8)
    assert shallow.depth == 8
    np.testing.assert_allclose(top(shallow), pictures / 257, atol=0.501)


def test_levels_below_are_means(tmp_path: Path) -> None:
    pictures = noise(1)
    packed, _ = prepared(fill(tmp_path / "p", pictures, ".png"))
    below = packed.read(0, np.arange(packed.count))[:, 0]
    exact = pictures.reshape(4, 4, 4, 4, 4).astype(float).mean(axis=(2, 4))
    assert packed.resolution(0) == (4, 4)
    np.testing.assert_allclose(below, exact, atol=0.51)


def test_twelve_bits_fill_the_range_and_come_back(tmp_path: Path) -> None:
    pictures = (noise(1) >> 4).astype(np.uint16)
    pictures[0, 0, 0, 0] = 4095
    packed, text = prepared(fill(tmp_path / "p", pictures, ".png"))
    assert packed.manifest.ranges == {"integer": (0, 4095)}
    assert "taken as 12 bits" in text
    np.testing.assert_array_equal(np.rint(top(packed) * (4095 / 65535)), pictures)


def test_mixed_depths_are_said(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", noise(1), ".png")
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(folder / "x.png")
    packed, text = prepared(folder)
    assert packed.depth == 8
    assert "4 of 5 pictures have more than 8 bits and are stored with 8 (--depth 16 keeps them)" in text
    packed, _ = prepared(folder, "deep", depth=16)
    np.testing.assert_array_equal(top(packed)[4, ..., 0].ravel(), np.arange(256) * 257)


def test_a_deep_picture_is_resampled_in_its_depth(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    pictures = np.repeat(np.repeat(ramp[None, None, :, None], 2, 0), 64, 1)
    packed, _ = prepared(fill(tmp_path / "p", pictures, ".png"), resolution="16")
    found = top(packed)[0, 8, :, 0].astype(float)
    np.testing.assert_allclose(found[2:-2], (np.arange(16) * 4 + 1.5)[2:-2] / 63 * 65535, atol=80)
    assert len({int(value) % 257 for value in found}) > 8


@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_many_channels(tmp_path: Path, channels: int, planes: str) -> None:
    pictures = noise(channels)
    (tmp_path / "p").mkdir()
    for i, pixels in enumerate(pictures):
        stored = pixels if planes == "contig" else pixels.transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / "p" / f"{i}.tif", stored, photometric="minisblack", planarconfig=planes)
    packed, text = prepared(tmp_path / "p")
    assert (packed.channels, packed.depth) == (channels, 16)
    assert f"{channels} channels, 16 bits" in text
    np.testing.assert_array_equal(top(packed), pictures)
    three, _ = prepared(tmp_path / "p", "three", channels=3)
    np.testing.assert_array_equal(top(three), pictures[..., :3])


def test_pages_are_channels_if_so_many_are_asked_for(tmp_path: Path) -> None:
    pictures = noise(6)
    (tmp_path / "p").mkdir()
    for i, pixels in enumerate(pictures):
        tifffile.imwrite(tmp_path / "p" / f"{i}.tif", pixels.transpose(2, 0, 1), photometric="minisblack")
    first, text = prepared(tmp_path / "p")
    assert first.channels == 1
    assert "4 animated, first frame used" in text
    packed, _ = prepared(tmp_path / "p", "all", channels=6)
    np.testing.assert_array_equal(top(packed), pictures)


def test_another_number_of_channels_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(4):
        pixels = noise(5 if i else 7)[0]
        tifffile.imwrite(tmp_path / "p" / f"{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
    packed, _ = prepared(tmp_path / "p")
    assert (packed.count, packed.channels) == (4, 5)
    Image.new("RGB", (16, 16)).save(tmp_path / "p" / "x.png")
    packed, _ = prepared(tmp_path / "p", "more")
    assert packed.count == 4
    assert "has 3 channels, where the set has 5" in (packed.path / "skipped.csv").read_text()


def test_without_the_extra_the_upper_bits_are_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = noise(3)
    folder = fill(tmp_path / "p", pictures, ".png")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    packed, text = prepared(folder)
    assert packed.depth == 8
    assert "4 of 16 bits a colour read with 8 (00.png); all of them: pip install 'progan[deep]'" in text
    np.testing.assert_array_equal(top(packed), pictures >> 8)


def test_a_fourth_channel_of_unknown_meaning_is_spoken_of(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(1, 256, (3, 16, 16, 4), dtype=np.uint8)
    np.save(tmp_path / "bands.npy", bands)
    packed, said = prepared(tmp_path / "bands.npy", "arrays")
    assert packed.channels == 4
    assert "3 pictures (000000, ...) have 2 or 4 channels, of which the last is taken as transparency" in said
    folder = tmp_path / "tiffs"
    folder.mkdir()
    for i, one in enumerate(bands):
        tifffile.imwrite(folder / f"{i}.tif", one, photometric="rgb", extrasamples=["unspecified"])
    packed, said = prepared(folder, "left out")
    assert packed.channels == 3
    assert "a channel besides the colours, which is not marked as transparency and is left out" in said
    np.testing.assert_array_equal(top(packed), bands[..., :3])
    packed, said = prepared(folder, "asked", channels=4)
    assert "left out" not in said
    np.testing.assert_array_equal(top(packed), bands)

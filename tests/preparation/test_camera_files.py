"""HEIC files of telephones and RAW files of cameras: read with their extras, named without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camera_files import heic, ramp, save_png, write_dng
from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.picture import deep, opening
from progan.preparation.source import prepare

LIGHT = ramp(32, 32)
PIXELS = (LIGHT * 255).astype(np.uint8)


def test_heic_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    source = tmp_path / "phone"
    source.mkdir()
    for name in ("a.heic", "b.HEIF", "c.jpg", "d"):
        (source / name).write_bytes(heic(PIXELS))
    report = prepare(source, tmp_path / "set")
    assert (report.used, report.skipped, report.ignored) == (4, 0, 0)
    packed = PackedSet.open(report.path)
    stored = packed.read(packed.max_level, np.arange(4)).transpose(0, 2, 3, 1)
    assert np.abs(stored.astype(int) - PIXELS).max() <= 3  # of the conversion to YCbCr


def test_heic_keeps_its_transparency(tmp_path: Path) -> None:
    cover = np.zeros((32, 32, 1), np.uint8)
    cover[8:24, 8:24] = 255
    source = tmp_path / "phone"
    source.mkdir()
    (source / "a.heic").write_bytes(heic(np.concatenate([PIXELS, cover], axis=2)))
    packed = PackedSet.open(prepare(source, tmp_path / "set").path)
    assert packed.channels == 4
    np.testing.assert_array_equal(packed.read(packed.max_level, [0])[0, 3], cover[..., 0])


def test_ten_bits_of_heic_are_kept(tmp_path: Path) -> None:
    wide = (LIGHT * 65535).astype(np.uint16)
    wide[:4] = 65535
    source = tmp_path / "phone"
    source.mkdir()
    (source / "a.heic").write_bytes(heic(wide))
    report = prepare(source, tmp_path / "set")
    packed = PackedSet.open(report.path)
    assert report.depth == 16
    stored = packed.read(packed.max_level, [0])[0].transpose(1, 2, 0).astype(int)
    assert np.abs(stored - wide).max() <= 3 * 64
    assert stored[1, 16].tolist() == [65535] * 3
    assert (stored % 257 > 0).any()  # more than 8 bits


def test_raw_is_developed(tmp_path: Path) -> None:
    source = tmp_path / "camera"
    source.mkdir()
    write_dng(source / "a.dng", ramp(32, 48))
    report = prepare(source, tmp_path / "set", PictureOptions(resolution="16"))
    packed = PackedSet.open(report.path)
    assert (report.used, report.depth, report.channels) == (1, 16, 3)
    red, green, _ = packed.read(packed.max_level, [0])[0].astype(int)
    assert (np.diff(red.mean(0)) > 0).all()
    assert (np.diff(green.mean(1)) > 0).all()


def test_a_pattern_of_camera_files_is_one_of_pictures(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", LIGHT)
    (tmp_path / "b.cr3").write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100))
    (tmp_path / "c.heic").write_bytes(heic(PIXELS))
    report = prepare(
        [str(tmp_path / "*.dng"), str(tmp_path / "*.cr3"), str(tmp_path / "*.heic")], tmp_path / "set"
    )
    assert (report.used, report.skipped) == (2, 1)


@pytest.mark.parametrize(("name", "extra"), [("a.heic", "heic"), ("a.dng", "raw")])
def test_without_the_extra_the_command_is_named_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr(deep, "_module", lambda _name: None)
    monkeypatch.setattr(opening, "_heif_is_read", lambda: False)
    source = tmp_path / "pictures"
    source.mkdir()
    if extra == "heic":
        (source / name).write_bytes(heic(PIXELS))
    else:
        write_dng(source / name, LIGHT)
    command = f"pip install 'progan[{extra}]'"
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "none")
    assert command in str(caught.value)
    save_png(source / "b.png", PIXELS)
    report = prepare(source, tmp_path / "set")
    assert (report.used, report.skipped) == (1, 1)
    assert f"warning: 1 picture is skipped that an extra reads: {command}" in report.lines()
    assert command in (report.path / "skipped.csv").read_text()


def test_damaged_ones_are_skipped_with_a_reason(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    save_png(source / "good.png", PIXELS)
    (source / "cut.heic").write_bytes(heic(PIXELS)[:300])
    (source / "text.heic").write_bytes(b"no picture")
    (source / "text.nef").write_bytes(b"no picture")
    whole = write_dng(source / "cut.dng", LIGHT).read_bytes()
    (source / "cut.dng").write_bytes(whole[:600])
    report = prepare(source, tmp_path / "set")
    assert (report.used, report.skipped) == (1, 4)

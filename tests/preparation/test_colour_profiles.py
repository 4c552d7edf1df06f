"""Colours of files that are not sRGB are converted, counted, and named if they cannot be."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from pngs import write_png
from progan.config import PictureOptions
from progan.preparation.decoding import Rules, develop
from progan.preparation.formats.folder import Folder
from progan.preparation.picture.colour_profiles import to_srgb
from progan.preparation.picture.value_range import ValueRange
from progan.preparation.source import prepare

RED = (230, 40, 20)
BLUE = (20, 40, 230)
WIDE = Rules(3, depth=16, ranges={"integer": ValueRange(0, 65535)})


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """sRGB with the primaries of red and blue exchanged."""
    data = bytearray(srgb())
    count = struct.unpack(">I", data[128:132])[0]
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = (
        data[blue + 4 : blue + 12],
        data[red + 4 : red + 12],
    )
    return bytes(data)


def saved(folder: Path, name: str, image: Image.Image, **arguments: Any) -> str:
    image.save(folder / name, **arguments)
    return name


@pytest.mark.parametrize(
    ("name", "mode", "channels"),
    [("x.png", "RGB", 3), ("x.tif", "RGB", 3), ("x.webp", "RGB", 3), ("x.png", "RGBA", 4), ("x.png", "P", 3)],
)
def test_colours_are_those_that_viewers_show(tmp_path: Path, name: str, mode: str, channels: int) -> None:
    plain = Image.new("RGB", (8, 8), RED)
    image = plain.quantize(4) if mode == "P" else plain.convert(mode)
    options = {"lossless": True} if name.endswith("webp") else {}
    saved(tmp_path, name, image, icc_profile=swapped(), **options)
    found = develop(Folder(tmp_path), name, Rules(channels))
    assert found.notes == ("converted",)
    np.testing.assert_allclose(np.asarray(found.pixels)[4, 4, :3], BLUE, atol=2)


def test_a_turned_picture_with_a_profile_is_turned_and_converted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4), RED)
    saved(tmp_path, "x.jpg", image, icc_profile=swapped(), exif=exif, quality=95)
    found = develop(Folder(tmp_path), "x.jpg", Rules(3))
    pixels = np.asarray(found.pixels)
    assert pixels.shape == (8, 4, 3)
    np.testing.assert_allclose(pixels[4, 2], BLUE, atol=6)


def test_srgb_is_left_alone() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    image.info["icc_profile"] = srgb()
    assert to_srgb(image) == (image, "")


def test_alpha_is_left_alone() -> None:
    image = Image.new("RGBA", (4, 4), (*RED, 77))
    image.info["icc_profile"] = swapped()
    converted, note = to_srgb(image)
    assert (converted.mode, note) == ("RGBA", "converted")
    assert converted.getpixel((0, 0)) == pytest.approx((*BLUE, 77), abs=2)


@pytest.mark.parametrize("profile", [b"no profile", srgb()[:200], b"\0" * 500])
def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path, profile: bytes) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    saved(folder, "a.png", Image.new("RGB", (8, 8), RED))
    saved(folder, "b.png", Image.new("RGB", (8, 8), RED), icc_profile=profile)
    report = prepare(folder, tmp_path / "set", PictureOptions())
    assert report.used == 2
    assert report.facts[0] == (
        "1 with a colour profile that cannot be used (b.png); their values are taken as sRGB"
    )


def test_a_profile_of_other_colours_is_named(tmp_path: Path) -> None:
    gray = Image.new("L", (8, 8), 100)
    name = saved(tmp_path, "x.png", gray, icc_profile=swapped())
    found = develop(Folder(tmp_path), name, Rules(1))
    assert found.notes == ("unreadable",)
    assert found.pixels.getpixel((0, 0)) == 100  # type: ignore[union-attr]


def test_cmyk_goes_by_its_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A CMYK profile is a table of half a megabyte, so what LittleCMS is asked for is looked at instead.
    asked: list[tuple[Any, ...]] = []

    def build(*arguments: Any) -> ImageCms.ImageCmsTransform:
        asked.append(arguments[2:4])
        raise ImageCms.PyCMSError("a stand-in")

    monkeypatch.setattr(ImageCms, "buildTransform", build)
    name = saved(tmp_path, "x.jpg", Image.new("CMYK", (8, 8), (0, 200, 200, 0)), icc_profile=srgb() + b"\0")
    assert develop(Folder(tmp_path), name, Rules(3)).notes == ("unreadable",)
    assert asked == [("CMYK", "RGB")]


def test_gamma_of_a_png_counts(tmp_path: Path) -> None:
    def chunk(gamma: float) -> PngImagePlugin.PngInfo:
        info = PngImagePlugin.PngInfo()
        info.add(b"gAMA", struct.pack(">I", round(gamma * 100000)))
        return info

    image = Image.new("RGB", (8, 8), (55, 128, 255))
    saved(tmp_path, "linear.png", image, pnginfo=chunk(1.0))
    saved(tmp_path, "usual.png", image, pnginfo=chunk(0.45455))
    linear = develop(Folder(tmp_path), "linear.png", Rules(3))
    assert linear.notes == ("gamma",)
    # sRGB of light 55/255 and 128/255, by the formula of IEC 61966-2-1.
    assert np.asarray(linear.pixels)[0, 0].tolist() == [128, 188, 255]
    usual = develop(Folder(tmp_path), "usual.png", Rules(3))
    assert usual.notes == ()
    assert np.asarray(usual.pixels)[0, 0].tolist() == [55, 128, 255]


def test_what_was_converted_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for i in range(3):
        saved(folder, f"{i}.png", Image.new("RGB", (8, 8), RED), icc_profile=swapped() if i else srgb())
    report = prepare(folder, tmp_path / "set", PictureOptions())
    assert report.facts == ("2 converted to sRGB by their colour profiles",)


def deep_file(folder: Path, ending: str, pixels: Any, profile: bytes | None) -> str:
    """Write [H, W, C] uint16 with a profile."""
    if ending == "png":
        write_png(folder / "x.png", pixels, profile)
        return "x.png"
    data = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    extra = ["unassalpha"] if pixels.shape[2] == 4 else None
    kind = "minisblack" if pixels.shape[2] == 1 else "rgb"
    tifffile.imwrite(folder / "x.tif", data, photometric=kind, extrasamples=extra, iccprofile=profile)
    return "x.tif"


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_converted_as_eight_are(tmp_path: Path, ending: str, channels: int) -> None:
    shallow = np.random.default_rng(0).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    saved(tmp_path, "y.png", Image.fromarray(shallow), icc_profile=swapped())
    expected = np.asarray(develop(Folder(tmp_path), "y.png", Rules(channels)).pixels)
    name = deep_file(tmp_path, ending, shallow.astype(np.uint16) * 257, swapped())
    deep = develop(Folder(tmp_path), name, Rules(channels, depth=16))
    eight = develop(Folder(tmp_path), name, Rules(channels))
    assert deep.notes == eight.notes == ("converted",)
    assert np.abs(np.asarray(deep.pixels) / 257 - expected).max() <= 1.5
    assert np.abs(np.asarray(eight.pixels).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_of_srgb_stay_bit_for_bit(tmp_path: Path, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    name = deep_file(tmp_path, ending, pixels, srgb())
    found = develop(Folder(tmp_path), name, Rules(3, depth=16))
    assert found.notes == ()
    np.testing.assert_array_equal(np.asarray(found.pixels), pixels)


def test_a_gamma_of_sixteen_bits_counts(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", np.full((8, 8, 3), 55 * 257, np.uint16), gamma=1.0)
    found = develop(Folder(tmp_path), "x.png", WIDE)
    assert found.notes == ("gamma",)
    # sRGB of light 55/255, by the formula of IEC 61966-2-1.
    assert np.asarray(found.pixels)[0, 0, 0] == round(65535 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055))


def test_a_gray_picture_of_sixteen_bits_goes_by_its_curve(tmp_path: Path) -> None:
    linear = imagecodecs.cms_profile("gray", gamma=1.0)
    name = deep_file(tmp_path, "tif", np.full((8, 8, 1), 14135, np.uint16), linear)
    found = develop(Folder(tmp_path), name, WIDE._replace(channels=1))
    assert found.notes == ("converted",)
    expected = 65535 * (1.055 * (14135 / 65535) ** (1 / 2.4) - 0.055)
    assert float(np.asarray(found.pixels)[0, 0, 0]) == pytest.approx(expected, abs=300)


@pytest.mark.parametrize("profile", [b"no profile", srgb()[:200]])
def test_a_deep_profile_that_cannot_be_read_is_named(tmp_path: Path, profile: bytes) -> None:
    pixels = np.full((8, 8, 3), 12345, np.uint16)
    name = deep_file(tmp_path, "tif", pixels, profile)
    found = develop(Folder(tmp_path), name, WIDE)
    assert found.notes == ("unreadable",)
    np.testing.assert_array_equal(np.asarray(found.pixels), pixels)


def test_sixteen_bits_are_not_converted_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = deep_file(tmp_path, "tif", np.full((8, 8, 3), 12345, np.uint16), swapped())
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert develop(Folder(tmp_path), name, Rules(3, depth=16)).notes == ("not_converted",)


def test_inks_of_sixteen_bits_become_colours(tmp_path: Path) -> None:
    inks = np.zeros((8, 8, 4), np.uint16)
    inks[:4, :, 1:3] = 65535  # magenta and yellow: red
    inks[4:, :, 3] = 65535  # black
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="separated")
    pixels = np.asarray(develop(Folder(tmp_path), "x.tif", Rules(3, depth=16)).pixels)
    assert pixels[0, 0].tolist() == [65535, 0, 0]
    assert pixels[7, 0].tolist() == [0, 0, 0]

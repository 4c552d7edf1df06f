"""Pictures of every mode come out right; whatever is wrong with a file comes out as a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pngs import write_bomb, write_png
from progan.preparation.decoding import Header, Rules, UnusablePictureError, decode, develop, scan
from progan.preparation.formats.folder import Folder
from progan.preparation.picture.value_range import Kind, ValueRange

CORNER = np.zeros((20, 40, 3), dtype=np.uint8)
CORNER[:10, :20] = (255, 0, 0)
RAMP = (np.arange(800, dtype=np.uint16) * 81).reshape(20, 40)


def pixels(folder: Path, name: str, channels: int = 3) -> NDArray[np.uint8]:
    return np.asarray(decode(Folder(folder), name, channels))


def header(folder: Path, name: str) -> Header:
    result = scan(Folder(folder), name)
    assert isinstance(result, Header), result
    return result


def why_not(folder: Path, name: str) -> str:
    """The reason, which scanning and decoding, or decoding alone, give."""
    with pytest.raises(UnusablePictureError) as caught:
        decode(Folder(folder), name, 3)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_pictures_are_turned_upright(
    tmp_path: Path, suffix: str, orientation: int, corner: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(CORNER).save(tmp_path / f"x.{suffix}", exif=exif)
    image = pixels(tmp_path, f"x.{suffix}")
    head = header(tmp_path, f"x.{suffix}")
    assert image.shape == (head.height, head.width, 3)
    assert head.width == (20 if orientation > 4 else 40)
    assert image[corner][0] > 240
    others = {(0, 0), (0, -1), (-1, 0), (-1, -1)} - {corner}
    assert all(image[other].max() < 15 for other in others)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("CMYK", "x.jpg"),
        ("YCbCr", "x.jpg"),
        ("LAB", "x.tif"),
        ("P", "x.png"),
        ("P", "x.gif"),
        ("RGB", "x.qoi"),
    ]
    + [("RGB", f"x.{suffix}") for suffix in ("bmp", "ppm", "tga", "jp2", "webp", "avif", "mpo")],
)
def test_colour_is_kept(tmp_path: Path, mode: str, name: str) -> None:
    Image.fromarray(CORNER).convert(mode).save(tmp_path / name)
    np.testing.assert_allclose(pixels(tmp_path, name)[5, 5], (255, 0, 0), atol=8)
    assert header(tmp_path, name)[:5] == (40, 20, True, False, False)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "big_endian.tif", "int32.tif", "float.tif", "x.pgm"])
def test_deep_gray_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    values: NDArray[np.generic] = RAMP
    if name.startswith("big"):
        values = RAMP.astype(">u2")
    elif name.startswith("int"):
        values = RAMP.astype(np.int32)
    elif name.startswith("float"):
        values = (RAMP / 65535).astype(np.float32)
    Image.fromarray(values).save(tmp_path / name)
    assert not header(tmp_path, name).colour
    np.testing.assert_array_equal(pixels(tmp_path, name, 1), np.rint(RAMP / 257).astype(np.uint8))


DEEP_RGB = (np.arange(2400, dtype=np.uint16) * 27).reshape(20, 40, 3)


@pytest.mark.parametrize("name", ["x.png", "little.tif", "big.tif", "deflated.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_is_scaled(tmp_path: Path, name: str, channels: int) -> None:
    deep = np.dstack([DEEP_RGB, DEEP_RGB[::-1, :, :1]])[..., :channels]
    if name == "x.png":
        write_png(tmp_path / name, deep)
    else:
        tifffile.imwrite(
            tmp_path / name,
            deep,
            photometric="rgb",
            extrasamples=["unassalpha"] * (channels - 3),
            byteorder=">" if name == "big.tif" else "<",
            compression="zlib" if name == "deflated.tif" else None,
        )
    assert header(tmp_path, name)[:5] == (40, 20, True, channels == 4, False)
    # Pillow drops the lower byte, where scaling would round.
    np.testing.assert_allclose(pixels(tmp_path, name, channels), deep / 257, atol=1)


def test_deep_colour_in_separate_planes_needs_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = DEEP_RGB.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "deep.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pixels(tmp_path, "deep.tif"), np.rint(DEEP_RGB / 257))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", None)
        assert "separate colour planes" in str(scan(Folder(tmp_path), "deep.tif"))
        assert "pip install 'progan[deep]'" in why_not(tmp_path, "deep.tif")
    shallow = (planes >> 8).astype(np.uint8)
    tifffile.imwrite(tmp_path / "shallow.tif", shallow, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pixels(tmp_path, "shallow.tif").transpose(2, 0, 1), shallow)


def test_deep_gray_with_alpha_is_gray(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", DEEP_RGB[..., :2])
    assert header(tmp_path, "x.png")[:5] == (40, 20, False, True, False)
    np.testing.assert_allclose(pixels(tmp_path, "x.png", 2), DEEP_RGB[..., :2] / 257, atol=1)


def test_values_that_no_range_is_known_of(tmp_path: Path) -> None:
    for i, values in enumerate(([0, np.inf], [0, np.nan])):
        Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / f"{i}.tif")
        assert "values" in str(scan(Folder(tmp_path), f"{i}.tif"))
        assert "values" in why_not(tmp_path, f"{i}.tif")


def test_values_are_those_of_the_set(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1.002, 300]], dtype=np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.array([[0, 1000, 4095, 5000]], dtype=np.uint16)).save(tmp_path / "b.png")

    def values(name: str, kind: Kind, low: float, high: float, depth: int = 8) -> list[list[int]]:
        rules = Rules(1, depth, {kind: ValueRange(low, high)})
        made = np.asarray(develop(Folder(tmp_path), name, rules).pixels)
        return made.reshape(1, -1).tolist()

    assert values("a.tif", "float", 0, 255) == [[0, 0, 1, 255]]
    assert values("b.png", "integer", 0, 4095) == [[0, 62, 255, 255]]
    assert values("b.png", "integer", 0, 4095, 16) == [[0, 16004, 65535, 65535]]
    assert values("b.png", "integer", 1000, 5000) == [[0, 0, 197, 255]]
    with pytest.raises(UnusablePictureError, match=r"far beyond the 0:1 of the set; --range"):
        values("a.tif", "float", 0, 1)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(CORNER[..., 0] > 0).save(tmp_path / "x.png")
    assert set(np.unique(pixels(tmp_path, "x.png", 1))) == {0, 255}
    assert not header(tmp_path, "x.png").colour


def test_alpha_is_laid_on_white_or_kept(tmp_path: Path) -> None:
    rgba = np.dstack([CORNER, np.where(CORNER[..., 0] > 0, 255, 0).astype(np.uint8)])
    rgba[15, 30] = (0, 0, 0, 51)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    assert header(tmp_path, "x.png").alpha
    flat = pixels(tmp_path, "x.png", 3)
    assert flat[5, 5].tolist() == [255, 0, 0]
    assert flat[12, 30].tolist() == [255, 255, 255]
    assert flat[15, 30].tolist() == [204, 204, 204]
    assert (pixels(tmp_path, "x.png", 4) == rgba).all()
    assert pixels(tmp_path, "x.png", 1)[12, 30] == 255


@pytest.mark.parametrize("name", ["palette.png", "palette.gif", "keyed.png", "gray.png"])
def test_transparent_colours_are_alpha(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(CORNER)
    if name.startswith("palette"):
        converted = image.convert("P")
        converted.save(tmp_path / name, transparency=converted.getpixel((30, 15)))
    elif name.startswith("keyed"):
        image.save(tmp_path / name, transparency=(0, 0, 0))
    else:
        image.convert("L").save(tmp_path / name, transparency=0)
    head = header(tmp_path, name)
    assert head.alpha
    assert head.colour == (name != "gray.png")
    assert pixels(tmp_path, name, 3)[15, 30].tolist() == [255, 255, 255]
    assert pixels(tmp_path, name, 4)[15, 30, 3] == 0
    assert pixels(tmp_path, name, 4)[5, 5, 3] == 255


def test_gray_with_alpha_and_opaque_pictures_in_alpha_sets(tmp_path: Path) -> None:
    Image.fromarray(CORNER).convert("LA").save(tmp_path / "la.png")
    Image.fromarray(CORNER).save(tmp_path / "rgb.png")
    assert header(tmp_path, "la.png") == Header(40, 20, False, True, False, opaque=True)
    assert pixels(tmp_path, "la.png", 2).shape == (20, 40, 2)
    assert (pixels(tmp_path, "rgb.png", 4)[..., 3] == 255).all()
    assert (pixels(tmp_path, "rgb.png", 2)[..., 1] == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert header(tmp_path, f"x.{suffix}").animated
    assert pixels(tmp_path, f"x.{suffix}")[8, 8].tolist() == [255, 0, 0]


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(CORNER).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").rename(tmp_path / "x.png")
    assert pixels(tmp_path, "x.png")[5, 5, 0] > 240
    (tmp_path / "text.png").write_text("no picture")
    assert scan(Folder(tmp_path), "text.png") == "not a picture in a known format"
    assert why_not(tmp_path, "text.png") == "not a picture in a known format"


def test_postscript_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    assert why_not(tmp_path, "x.png") == "not a picture in a known format"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_truncated_pictures_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # Also where the host program has told Pillow to accept such files.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert why_not(tmp_path, file.name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("side", [10_000, 40_000])
@pytest.mark.parametrize("limit", [None, Image.MAX_IMAGE_PIXELS])
def test_decompression_bombs_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    write_bomb(tmp_path / "x.png", side)
    assert "million pixels" in str(scan(Folder(tmp_path), "x.png"))
    assert "million pixels" in why_not(tmp_path, "x.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_jpeg_of_endless_scans_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    # Within a segment, as after the end, these bytes are no scan.
    Image.fromarray(noise).save(file, progressive=True, comment=b"\xff\xda" * 1000)
    whole = file.read_bytes()
    last = whole.rindex(b"\xff\xda")
    for scans, trailer in ((50, b""), (50, b"\xff\xda" * 1000), (1000, b"")):
        file.write_bytes(whole[:last] + whole[last:-2] * scans + whole[-2:] + trailer)
        if scans < 100:
            assert decode(Folder(tmp_path), file.name, 3).size == (64, 64)
        else:
            assert why_not(tmp_path, file.name) == "a JPEG of more than 100 scans"


def test_unreadable_files_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: Folder, _name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Folder, "open", refuse)
    assert why_not(tmp_path, "x.png") == "cannot be read: Permission denied"
    monkeypatch.undo()
    assert "No such file" in why_not(tmp_path, "vanished.png")

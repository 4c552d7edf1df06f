"""What is cut out of pictures, which are left out, and duplicates."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from progan.config import DataOptions, PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.pack import Request
from progan.preparation.picture.cropping import Cropping
from progan.preparation.source import open_source, prepare


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def folder_of(place: Path, *pictures: NDArray[np.uint8]) -> Path:
    place.mkdir()
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(place / f"{i}.png")
    return place


def prepared(folder: Path, place: str = "set", **options: Any) -> tuple[PackedSet, list[str]]:
    report = prepare(folder, folder.with_name(place), PictureOptions.model_validate(options))
    return PackedSet.open(report.path), report.lines()


def top(packed: PackedSet) -> NDArray[Any]:
    return packed.read(packed.max_level, np.arange(packed.count)).transpose(0, 2, 3, 1)


def skipped(packed: PackedSet) -> dict[str, str]:
    with (packed.path / "skipped.csv").open(newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def test_the_crop_of_celeba(tmp_path: Path) -> None:
    picture = noise(218, 178)
    packed, _ = prepared(folder_of(tmp_path / "p", picture, noise(100, 100)), crop="89,121,128")
    assert packed.resolution(packed.max_level) == (128, 128)
    np.testing.assert_array_equal(top(packed)[0], picture[121 - 64 : 121 + 64, 89 - 64 : 89 + 64])
    assert skipped(packed) == {"1.png": "the crop 89,121,128 is not inside 100x100 pixels"}


@pytest.mark.parametrize("header", ["name,left,top,right,bottom", "name,x,y,width,height"])
def test_boxes_of_a_file(tmp_path: Path, header: str) -> None:
    picture = noise(64, 64)
    folder = folder_of(tmp_path / "p", picture, noise(64, 64, 1), noise(64, 64, 2))
    last = "24,36" if "right" in header else "16,16"
    (folder / "boxes.csv").write_text(f"{header}\n0.png,8,20,{last}\n2.png,60,60,99,99\n")
    packed, _ = prepared(folder, crop="boxes.csv", resolution="16")
    np.testing.assert_array_equal(top(packed)[0], picture[20:36, 8:24])
    assert set(skipped(packed)) == {"1.png", "2.png"}
    assert skipped(packed)["1.png"] == "no crop box"
    before = packed.manifest.key
    (folder / "boxes.csv").write_text(f"{header}\n1.png,8,20,{last}\n")
    other, _ = prepared(folder, "other", crop="boxes.csv", resolution="16")
    assert other.manifest.key != before


@pytest.mark.parametrize("text", ["a,b\n", "name,left,top,right,bottom\n0.png,1,2,x,4\n", ""])
def test_what_is_no_file_of_boxes(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path / "p", noise(64, 64))
    (folder / "boxes.csv").write_text(text)
    with pytest.raises(DataError, match=r"line [12]"):
        prepared(folder, crop="boxes.csv")
    with pytest.raises(DataError, match=r"crop 'none\.csv': no such file"):
        prepared(folder, crop="none.csv")


def test_tiles_are_the_picture(tmp_path: Path) -> None:
    picture = noise(34, 48)
    packed, lines = prepared(
        folder_of(tmp_path / "p", picture, noise(16, 16, 1)), fit="tile", resolution="16"
    )
    assert packed.names() == [f"0.png#{i}" for i in range(6)] + ["1.png#0"]
    expected = picture[1:33].reshape(2, 16, 3, 16, 3).transpose(0, 2, 1, 3, 4).reshape(6, 16, 16, 3)
    np.testing.assert_array_equal(top(packed)[:6], expected)
    assert lines[0] == "7 crops of 2 of 2 pictures, 16x16, RGB"
    with pytest.raises(ValueError, match=r"set data\.resolution"):
        PictureOptions(fit="tile")


def test_random_crops_are_the_same_again_and_stay_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", *(noise(40, 60, i) for i in range(12)))
    options: dict[str, Any] = {"crop": "random:5", "resolution": "16", "split": "0.5,0.5,0"}
    packed, lines = prepared(folder, **options)
    again, _ = prepared(folder, "again", **options)
    assert packed.fingerprint == again.fingerprint
    assert packed.count == 60
    assert "60 crops of 12 of 12 pictures" in lines[0]
    assert len(np.unique(top(packed).reshape(60, -1), axis=0)) == 60
    origins = [
        {packed.names()[i].split("#")[0] for i in packed.indices(part)} for part in ("train", "validation")
    ]
    assert all(origins)
    assert not origins[0] & origins[1]


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)), st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.integers(0, 50),
)  # fmt: skip
def test_a_random_crop_is_inside_and_has_the_shape(
    size: tuple[int, int], target: tuple[int, int], number: int
) -> None:
    box = Cropping(target, parts=51).box(f"x#{number}", size)
    assert box is not None
    left, above, right, below = box
    assert 0 <= left < right <= size[1]
    assert 0 <= above < below <= size[0]
    if size[0] >= target[0] and size[1] >= target[1]:
        assert right - left >= target[1]
        assert below - above >= target[0]


def test_labels_belong_to_all_parts(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i, name in enumerate("ab"):
        folder_of(tmp_path / "p" / name, noise(32, 32, i))
    packed, _ = prepared(tmp_path / "p", fit="tile", resolution="16", labels="folders")
    assert packed.labels(range(8)).tolist() == [0] * 4 + [1] * 4


def test_small_pictures_are_left_out_if_that_is_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", *[noise(20, 20)] * 3, *[noise(70, 90)] * 2)
    small, lines = prepared(folder, min_size=64)
    assert (small.count, small.resolution(small.max_level)) == (2, (64, 64))
    assert skipped(small)["0.png"] == "20x20: a side is below 64 (--min-size)"
    never, _ = prepared(folder, "never", resolution="32", upscale="never")
    assert never.count == 2
    assert "nothing is enlarged (--upscale never)" in skipped(never)["0.png"]
    assert not any("enlarged" in line for line in lines)
    with pytest.raises(DataError, match="a side is below 100"):
        prepared(folder, "none", min_size=100)


def test_duplicates_are_left_out_and_named(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(noise(6, 6)).resize((64, 64), Image.Resampling.BICUBIC))
    folder = folder_of(tmp_path / "p", smooth, noise(64, 64, 1), smooth, smooth[:, ::-1])
    Image.fromarray(smooth).save(folder / "4.jpg", quality=90)
    everything, _ = prepared(folder)
    assert everything.count == 5
    exact, lines = prepared(folder, "exact", dedupe="exact")
    assert skipped(exact) == {"2.png": "the same picture as 0.png"}
    assert "1 duplicates left out; skipped.csv names their twins" in lines
    near, _ = prepared(folder, "near", dedupe="near")
    assert skipped(near) == {"2.png": "the same picture as 0.png", "4.jpg": "the same picture as 0.png"}
    assert near.count == 3


def test_duplicates_are_found_after_an_interruption(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", *(noise(8, 8, i % 70) for i in range(140)))
    whole, _ = prepared(folder, dedupe="near", resolution="8")
    seen: list[int] = []
    options = PictureOptions(dedupe="near", resolution="8")
    with pytest.raises(KeyboardInterrupt):
        prepare(
            folder, tmp_path / "stopped", options, workers=1,
            progress=lambda _what, done, _total: seen.append(done), stop=lambda: max(seen) > 0,
        )  # fmt: skip
    prepare(folder, tmp_path / "stopped", options)
    stopped = PackedSet.open(tmp_path / "stopped")
    assert whole.count == 70
    assert (stopped.fingerprint, skipped(stopped)) == (whole.fingerprint, skipped(whole))


def test_training_takes_the_same_options(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", *(noise(40, 60, i) for i in range(4)))
    options = {"crop": "random:3", "resolution": "16"}
    packed, report = open_source(folder).find(Request(DataOptions.model_validate(options)))
    direct, _ = prepared(folder, **options)
    assert report is not None
    assert packed.fingerprint == direct.fingerprint

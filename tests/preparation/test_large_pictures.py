"""Large JPEG files are decoded at a reduced size; what is too large is skipped, naming the option."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from progan.config import DataOptions, PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.source import prepare


def photographs(folder: Path, **options: Any) -> Path:
    """Save a photograph of 900 x 1200 in several forms."""
    folder.mkdir()
    image = Image.fromarray(data.coffee()).resize((1200, 900))  # type: ignore[no-untyped-call]
    image = image.filter(ImageFilter.GaussianBlur(1))
    image.save(folder / "a.jpg", quality=95, **options)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "b.jpg", quality=95, exif=turned)
    return folder


def stored(place: Path, folder: Path, **options: Any) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    report = prepare(folder, place, PictureOptions.model_validate({"resolution": "32", **options}))
    packed = PackedSet.open(report.path)
    return packed.read(packed.max_level, np.arange(packed.count)).astype(int), report.facts


def test_a_reduced_photograph_is_nearly_the_same(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p")
    reduced, facts = stored(tmp_path / "reduced", folder)
    full, none = stored(tmp_path / "full", folder, draft=False)
    assert facts == ("2 JPEG files much larger than wanted, decoded at a reduced size (--no-draft: in full)",)
    assert none == ()
    assert 0 < np.abs(reduced - full).max() <= 4
    np.testing.assert_allclose(reduced[0], reduced[1], atol=12)


def test_of_small_photographs_nothing_is_reduced(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p")
    assert stored(tmp_path / "set", folder, resolution="512")[1] == ()


def test_what_is_above_the_limit(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p")
    with Image.open(folder / "a.jpg") as image:
        image.save(folder / "c.png")
        image.save(folder / "d.jpg", progressive=True)
    options: dict[str, Any] = {"max_pixels": 200_000}
    reduced, _ = stored(tmp_path / "set", folder, **options)
    assert len(reduced) == 2
    with (tmp_path / "set" / "skipped.csv").open() as file:
        skipped = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert set(skipped) == {"c.png", "d.jpg"}
    assert skipped["c.png"] == "1200x900: more than 0.2 million pixels; --max-pixels 2M takes it"
    assert len(stored(tmp_path / "raised", folder, max_pixels="2M")[0]) == 4
    with pytest.raises(DataError, match=r"more than 0.8 million pixels; --max-pixels 2M takes it"):
        stored(tmp_path / "nothing is reduced", folder, max_pixels=800_000, resolution="512")


@pytest.mark.parametrize(
    ("given", "pixels"), [("200M", 200_000_000), ("2e8", 200_000_000), (5, 5), ("1.5 MP", 1_500_000)]
)
def test_a_number_of_pixels(given: object, pixels: int) -> None:
    assert DataOptions.model_validate({"max_pixels": given}).max_pixels == pixels


@pytest.mark.parametrize("given", ["many", "0", -3, "1e99", "."])
def test_no_number_of_pixels(given: object) -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        DataOptions.model_validate({"max_pixels": given})

"""PNG files, and pictures written while others are made."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from progan.generation.image_files import save_npy, save_zip
from progan.generation.picture_form import PictureForm

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PICTURES = arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    return PictureForm().encode(image)


@given(image=PICTURES)
def test_what_is_read_is_what_was_written(image: NDArray[np.uint8]) -> None:
    with Image.open(io.BytesIO(encode_png(image))) as picture:
        assert picture.format == "PNG"
        assert picture.mode == MODES[len(image)]
        read = np.asarray(picture).reshape(*image.shape[1:], len(image))
    assert np.array_equal(read.transpose(2, 0, 1), image)
    assert encode_png(image) == encode_png(image)


def test_even_pictures_take_little_room() -> None:
    flat = np.full((3, 64, 64), 200, np.uint8)
    assert len(encode_png(flat)) < flat.nbytes / 50


@pytest.mark.parametrize("name", ["x.npy", "x.zip"])
def test_the_next_batch_is_made_while_the_last_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Writing waits here until another batch is asked for, which would never be if one waited for writing."""
    asked = threading.Event()
    contiguous = np.ascontiguousarray

    def waiting(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert asked.wait(60)
        return contiguous(array)

    monkeypatch.setattr(np, "ascontiguousarray", waiting)

    def batches() -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((1, 1, 4, 4), np.uint8)
        asked.set()
        yield np.ones((1, 1, 4, 4), np.uint8)

    if name == "x.npy":
        save_npy(batches(), tmp_path / name, (2, 1, 4, 4))
    else:
        save_zip(batches(), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 32

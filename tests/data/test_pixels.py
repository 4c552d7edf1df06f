"""Pixels between disk, networks and pictures, against the original code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from progan.data.pixels import fade_reals, mirror, tile, to_float, to_image, to_uint8

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "train_helpers.npz")
LODS = [float(key.split("=")[1]) for key in GOLDEN.files if key.startswith("process_reals/")]


def seen_by_networks(lod: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """What our pipeline shows D at a fractional level of detail, at the current resolution."""
    pixels = GOLDEN[f"reals_uint8/res={32 >> int(lod)}"]
    return fade_reals(to_float(pixels, dtype), torch.tensor(1 - lod % 1))


@pytest.mark.parametrize("lod", LODS)
def test_reals_equal_the_original(lod: float) -> None:
    factor = 2 ** int(lod)
    ours = seen_by_networks(lod).numpy().repeat(factor, 2).repeat(factor, 3)
    np.testing.assert_allclose(ours, GOLDEN[f"process_reals/lod={lod:g}"], atol=1e-6, rtol=0)


def test_mirrored_reals_equal_the_original() -> None:
    flip = torch.from_numpy(GOLDEN["mirror_uniform"]) >= 0.5  # [N, 1, 1, 1]
    assert 0 < int(flip.sum()) < len(flip)
    pixels = to_float(GOLDEN["reals_uint8/res=32"])
    mirrored = torch.where(flip, pixels.flip(3), pixels)
    ours = fade_reals(mirrored, torch.tensor(1 - 0.35))
    np.testing.assert_allclose(ours, GOLDEN["process_reals_mirror/lod=0.35"], atol=1e-6, rtol=0)


def test_every_byte_survives_both_ways() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert (to_uint8(to_float(values)) == values).all()


@pytest.mark.parametrize("pixels", [np.array([0, 255], np.uint8), np.array([0, 65535], np.uint16)])
def test_range_is_minus_one_to_one(pixels: NDArray[np.uint8]) -> None:
    before = pixels.copy()
    assert to_float(pixels).tolist() == [-1, 1]
    assert to_float(pixels, torch.float64).dtype == torch.float64
    assert (pixels == before).all()


@given(st.floats(-3, 3, width=32))
def test_uint8_is_the_rounded_clipped_value(value: float) -> None:
    got = int(to_uint8(torch.full((1, 1, 1, 1), value)).item())
    assert got == int(np.clip(np.rint(np.float32(value) * np.float32(127.5) + np.float32(127.5)), 0, 255))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_image_has_the_mode_of_its_channels(channels: int, mode: str) -> None:
    pixels = np.arange(channels * 6, dtype=np.uint8).reshape(channels, 2, 3)
    image = to_image(pixels)
    assert (image.mode, image.size) == (mode, (3, 2))
    assert (np.asarray(image).reshape(2, 3, channels).transpose(2, 0, 1) == pixels).all()


def test_tile_lays_out_row_by_row_with_gaps() -> None:
    images = np.stack([np.full((1, 2, 3), i, dtype=np.uint8) for i in range(5)])
    canvas = tile(images, 3, gap=1)
    assert canvas.shape == (1, 5, 11)
    assert canvas[0, 0].tolist() == [0, 0, 0, 255, 1, 1, 1, 255, 2, 2, 2]
    assert canvas[0, 3].tolist() == [3, 3, 3, 255, 4, 4, 4, 255, 255, 255, 255]


def test_tile_enlarges_by_whole_factors() -> None:
    images = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    canvas = tile(images, 1, min_side=30)
    assert canvas.shape == (1, 32, 32)
    assert (canvas[:, ::8, ::8] == images[0]).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_mirror_flips_what_it_is_told_to(dtype: torch.dtype) -> None:
    values = np.arange(2 * 1 * 2 * 3).reshape(2, 1, 2, 3) * (20 if dtype == torch.uint8 else 5000)
    pixels = torch.from_numpy(values.astype(np.uint8 if dtype == torch.uint8 else np.uint16))
    found = mirror(pixels, torch.tensor([False, True]))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.numpy(), np.stack([values[0], values[1, ..., ::-1]]))

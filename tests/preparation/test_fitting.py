"""Geometry of crop, pad and stretch, and the pyramid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage import data

from progan.preparation.fitting import (
    Fit,
    crop_box,
    fit_image,
    fit_pixels,
    needs_upscaling,
    padded_size,
    pyramid,
)

SIDES = st.integers(1, 3000)
SIZES = st.tuples(SIDES, SIDES)
TARGETS = st.tuples(st.sampled_from([8, 96, 128]), st.sampled_from([8, 64, 144]))


@given(SIZES, TARGETS)
def test_crop_box_is_the_largest_centred_box_of_the_aspect(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    left, top, right, bottom = crop_box(size, target)
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    assert left == pytest.approx(size[1] - right, abs=1e-6)
    assert top == pytest.approx(size[0] - bottom, abs=1e-6)
    assert (right - left) * target[0] == pytest.approx((bottom - top) * target[1], rel=1e-6)
    assert min(left, top) == pytest.approx(0, abs=1e-6)


@given(SIZES, TARGETS)
def test_padded_picture_touches_two_sides(size: tuple[int, int], target: tuple[int, int]) -> None:
    height, width = padded_size(size, target)
    assert 1 <= height <= target[0]
    assert 1 <= width <= target[1]
    assert height == target[0] or width == target[1]


@given(SIZES, TARGETS, st.sampled_from(["crop", "pad", "stretch"]))
def test_upscaling_means_a_factor_above_one(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    factors = [want / have for have, want in zip(size, target, strict=True)]
    factor = min(factors) if fit == "pad" else max(factors)
    assert needs_upscaling(size, target, fit) == (factor > 1)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)), TARGETS, st.sampled_from(["crop", "pad", "stretch"])
)
def test_result_has_the_target_size(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    for mode in ("L", "LA", "RGB", "RGBA"):
        result = fit_image(Image.new(mode, (size[1], size[0])), target, fit)
        assert (result.mode, result.height, result.width) == (mode, *target)


def test_crop_keeps_the_middle() -> None:
    wide = np.zeros((100, 300, 3), dtype=np.uint8)
    wide[:, 100:200] = 200
    assert (np.asarray(fit_image(Image.fromarray(wide), (50, 50), "crop"))[:, 3:-3] == 200).all()


@pytest.mark.parametrize(("mode", "border"), [("RGB", (0, 0, 0)), ("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_pad_is_black_or_transparent(mode: str, border: tuple[int, ...]) -> None:
    white = Image.new(mode, (200, 100), "white")
    result = np.asarray(fit_image(white, (64, 64), "pad"))
    assert tuple(result[0, 32]) == tuple(result[-1, 32]) == border
    assert (result[20:44, 10:54] == 255).all()


def test_hidden_colours_do_not_bleed_into_visible_ones() -> None:
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[:, :32] = (255, 0, 0, 255)
    pixels[:, 32:] = (0, 255, 0, 0)  # green, and wholly transparent
    small = np.asarray(fit_image(Image.fromarray(pixels), (20, 20), "stretch"))
    visible = small[small[..., 3] > 8]
    assert len(visible)
    assert (visible[:, 0] > 240).all()
    assert (visible[:, 1] == 0).all()


def test_a_picture_of_the_right_size_is_untouched() -> None:
    image = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]
    assert fit_image(image, (512, 512), "crop") is image


@given(arrays(np.uint8, (3, 16, 24)))
def test_levels_are_box_means_of_the_top(top: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    levels = pyramid(top, 3)
    assert [level.shape for level in levels] == [(3, 2, 3), (3, 4, 6), (3, 8, 12), (3, 16, 24)]
    assert (levels[3] == top).all()
    for i, level in enumerate(levels):
        side = 1 << (3 - i)
        exact = top.reshape(3, 16 // side, side, 24 // side, side).mean(axis=(2, 4))
        assert np.abs(level - exact).max() <= 0.5 + 1e-4


def test_rounding_does_not_add_up() -> None:
    top = np.array([[[0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]], dtype=np.uint8)
    # Means of the quarters: 0.25, 0.5, 0.5, 1 (rounded 0, 0, 0, 1); of the whole: 0.5625.
    assert pyramid(top, 2)[0].item() == 1


def cut_out(side: int, colour: tuple[int, int, int], hidden: int) -> Any:
    """A disc of one colour, soft at its edge, with other values where it is transparent."""
    down, right = np.mgrid[:side, :side] - (side - 1) / 2
    cover = ((side / 3 - np.hypot(down, right)).clip(0, 1) * 255).astype(np.uint8)
    colours = np.full((3, side, side), hidden, np.uint8)
    colours[:, cover > 0] = np.array(colour, np.uint8)[:, None]
    return np.concatenate([colours, cover[None]])


@pytest.mark.parametrize("hidden", [0, 255])
def test_the_colour_of_what_is_seen_goes_on_beneath_what_is_not(hidden: int) -> None:
    top = cut_out(32, (200, 40, 90), hidden)
    levels = pyramid(top, 3)
    for level in levels:
        assert (level[:3] == np.array([200, 40, 90])[:, None, None]).all()
    np.testing.assert_array_equal(levels[-1][3], top[3])


def _hardly_there() -> Any:
    """Return a picture of which a quarter's cover is just half of 1."""
    top = np.zeros((4, 8, 8), np.uint8)
    top[0, 0, 0], top[3, 0, [0, 2]] = 1, 2
    return top


@given(arrays(np.uint8, (4, 8, 8)))
@example(_hardly_there())
def test_levels_with_transparency_show_the_mean_of_what_is_seen(top: Any) -> None:
    levels = pyramid(top, 2)
    seen = top[3] > 0
    np.testing.assert_array_equal(levels[-1][:, seen], top[:, seen])
    np.testing.assert_array_equal(levels[-1][3], top[3])
    weighted = top[:3].astype(float) * top[3]
    for level, parts in ((1, 2), (0, 4)):
        side = 8 // parts
        cover = top[3].reshape(side, parts, side, parts).mean((1, 3))
        assert np.abs(levels[level][3] - cover).max() <= 0.5 + 1e-4
        exact = weighted.reshape(3, side, parts, side, parts).mean((2, 4))
        unseen = levels[level][3] == 0  # of a cover of up to half of 1, which is stored as 0
        assert (np.abs(levels[level][:3] * cover - exact) <= 0.5 * cover + 0.5 * 255 * unseen + 1e-2).all()


def test_colours_of_hardly_visible_pixels_are_not_those_of_rounding() -> None:
    big = cut_out(200, (200, 40, 90), 0).transpose(1, 2, 0)
    small = np.asarray(fit_pixels(Image.fromarray(big), (32, 32), "crop", (200, 200), 1))
    seen = small[..., 3] > 0
    assert (small[..., 3][seen] < 8).any()
    assert np.abs(small[seen][:, :3].astype(int) - (200, 40, 90)).max() <= 1

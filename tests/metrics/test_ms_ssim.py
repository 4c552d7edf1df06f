"""MS-SSIM against the numbers of the original code and of scikit-image, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import structural_similarity as skimage_ssim

from golden_metrics import golden, golden_images
from progan.errors import DataError
from progan.metrics.ms_ssim import (
    MsSsim,
    filtered,
    gaussian_window,
    halved,
    ms_ssim,
    ms_ssim_of_pairs,
    structural_similarity,
)

Pixels = NDArray[np.uint8]


def noise(seed: int, n: int, channels: int = 3, height: int = 16, width: int = 16) -> Pixels:
    shape = (n, channels, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def alike(seed: int, n: int, channels: int = 3) -> Pixels:
    """Images that have a large part in common, so that no similarity is cut off at 0."""
    return (noise(seed, 1, channels) // 2 + noise(seed + 1, n, channels) // 2).astype(np.uint8)


def pairs(images: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (torch.from_numpy(images[k::2].copy()).double() for k in (0, 1))
    return a, b


@pytest.mark.parametrize("name", ["A", "B"])
def test_means_equal_the_originals(name: str) -> None:
    expected = float(golden("ms_ssim")[f"msssim_{name}"])
    assert ms_ssim([golden_images(name)]) == pytest.approx(expected, abs=1e-5)


def test_each_pair_equals_the_originals() -> None:
    arrays = golden("ms_ssim")
    a, b = pairs(arrays["graded_images"].astype(np.uint8))
    expected = arrays["graded_per_pair"]
    assert expected[0] == 0  # a negative similarity
    np.testing.assert_allclose(ms_ssim_of_pairs(a, b), expected, rtol=0, atol=1e-5)
    similarity, contrast = structural_similarity(a, b)
    np.testing.assert_allclose(similarity, arrays["ssim_level0"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(contrast, arrays["cs_level0"], rtol=0, atol=1e-5)


def test_black_and_white_have_the_originals_similarity() -> None:
    images = np.zeros((2, 3, 64, 64), dtype=np.uint8)
    images[1] = 255
    assert ms_ssim([images]) == pytest.approx(float(golden("ms_ssim")["blackwhite"]), abs=1e-5)


@pytest.mark.parametrize("size", [11, 8, 4])
def test_windows_equal_the_originals(size: int) -> None:
    window = np.array(gaussian_window(size))
    np.testing.assert_allclose(np.outer(window, window), golden("ms_ssim")[f"window_{size}"], atol=1e-15)


def test_one_scale_equals_that_of_scikit_image() -> None:
    images = alike(1, 2, channels=1).repeat(2, axis=2)  # [2, 1, 32, 16]
    _, expected = skimage_ssim(  # type: ignore[no-untyped-call]
        *images[:, 0],
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    similarity, _ = structural_similarity(*pairs(images))
    assert float(similarity) == pytest.approx(expected[5:-5, 5:-5].mean(), abs=1e-9)


@given(st.integers(0, 1000), st.integers(1, 11), st.integers(11, 20), st.integers(11, 20))
def test_filter_equals_plain_convolution(seed: int, size: int, height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed)).double()
    window = torch.tensor(gaussian_window(size), dtype=torch.float64)
    assert float(window.sum()) == pytest.approx(1)
    kernel = torch.outer(window, window).expand(3, 1, size, size)
    expected = torch.nn.functional.conv2d(images, kernel, groups=3)
    torch.testing.assert_close(filtered(images, window.tolist()), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 1000))
def test_halved_images_are_means_of_four_pixels(seed: int) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).random((2, 3, 6, 8)))
    expected = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(halved(images), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 1000), st.lists(st.integers(0, 7), max_size=8))
def test_batches_of_any_size_give_the_same(seed: int, sizes: list[int]) -> None:
    images = alike(seed, 21)
    cuts = np.cumsum(sizes).clip(max=len(images))
    expected = float(ms_ssim_of_pairs(*pairs(images[:20])).mean())
    assert ms_ssim(np.split(images, cuts)) == pytest.approx(expected, abs=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However work is cut: tasks of a pair or more, filtered in parts, as soon as they come or later."""
    images = alike(1, 21)
    whole = ms_ssim([images])
    for name, values in (("VALUES_AT_ONCE", 1), ("VALUES_A_TASK", images[:3].size), ("VALUES_WAITING", 0)):
        monkeypatch.setattr(f"progan.metrics.ms_ssim.{name}", values)
        assert ms_ssim(np.split(images, [5, 7])) == pytest.approx(whole, abs=1e-12)


@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 3))
def test_equal_images_give_one_and_others_less(seed: int, channels: int, h: int, w: int) -> None:
    images = noise(seed, 4, channels, 16 * h, 16 * w)
    assert ms_ssim([images.repeat(2, axis=0)]) == 1
    a, b = pairs(images)
    found = ms_ssim_of_pairs(a, b)
    assert ((found >= 0) & (found < 1)).all()
    torch.testing.assert_close(ms_ssim_of_pairs(b, a), found, rtol=0, atol=1e-12)


def test_flat_images_are_told_apart_by_their_brightness_alone() -> None:
    def flat(value: int) -> float:
        return ms_ssim([np.stack([np.full((3, 32, 32), v, np.uint8) for v in (200, value)])])

    assert flat(200) == 1
    luminance = (2 * 200 * 100 + 6.5025) / (200**2 + 100**2 + 6.5025)
    assert flat(100) == pytest.approx(luminance**0.1333, abs=1e-9)


def test_gray_is_measured_as_rgb() -> None:
    gray = alike(1, 8, channels=1)
    assert ms_ssim([gray]) == pytest.approx(ms_ssim([gray.repeat(3, axis=1)]), abs=1e-12)


def test_reals_stand_beside_fakes_and_stay() -> None:
    metric = MsSsim()
    reals, fakes = alike(1, 8), alike(5, 8)
    metric.add_fakes(fakes)
    assert metric.compute() == {"ms_ssim": pytest.approx(ms_ssim([fakes]))}
    metric.add_reals(reals[:3])
    metric.add_reals(reals[3:])
    both = {"ms_ssim": pytest.approx(ms_ssim([fakes])), "ms_ssim_reals": pytest.approx(ms_ssim([reals]))}
    assert metric.compute() == both
    metric.forget_fakes()
    with pytest.raises(DataError, match="only 0 fakes"):
        metric.compute()
    metric.add_fakes(reals)
    numbers = metric.compute()
    assert numbers["ms_ssim"] == numbers["ms_ssim_reals"] == both["ms_ssim_reals"]


def test_forgotten_reals_leave_nothing_behind() -> None:
    metric = MsSsim()
    metric.add_reals(alike(1, 9))
    metric.forget_reals()
    metric.add_fakes(alike(5, 8))
    assert set(metric.compute()) == {"ms_ssim"}
    metric.add_reals(noise(1, 2))
    assert metric.compute()["ms_ssim_reals"] == pytest.approx(ms_ssim([noise(1, 2)]))


@pytest.mark.parametrize("kind", ["flat", "saturated", "halves", "dark", "noise"])
def test_float32_is_as_good_as_float64(kind: str) -> None:
    """Large images are filtered in float32, of which hard cases must not be told."""
    rng = np.random.default_rng(0)
    shape = (8, 3, 128, 128)
    pixels = {
        "flat": np.broadcast_to(rng.integers(0, 256, (8, 3, 1, 1)), shape),
        "saturated": np.broadcast_to((np.arange(8) % 2 * 255)[:, None, None, None], shape),
        "halves": np.broadcast_to(255 * ((np.arange(128) < 64) ^ (rng.random((8, 3, 1, 1)) < 0.5)), shape),
        "dark": rng.integers(0, 3, shape),
        "noise": rng.integers(0, 256, shape),
    }[kind]
    a, b = (torch.from_numpy(pixels[k::2].copy()) for k in (0, 1))
    expected = ms_ssim_of_pairs(a.double(), b.double())
    torch.testing.assert_close(ms_ssim_of_pairs(a.float(), b.float()), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([noise(1, 4, height=8, width=8)], "8x8.*halves images 4 times.*multiples of 16"),
        ([noise(1, 4, height=32, width=24)], "32x24.*multiples of 16"),
        ([noise(1, 4)[:, :, :0]], "0x16.*multiples of 16"),
        ([noise(1, 4), noise(1, 4, height=32)], r"shape \[3, 32, 16\].*those before them \[3, 16, 16\]"),
        ([noise(1, 4, channels=4)], "fakes have 4 channels, so an alpha channel"),
        ([noise(1, 4, channels=5)], "fakes have 5 channels; only gray"),
        ([noise(1, 4).astype(np.float32)], "array of float32; MS-SSIM is defined for NumPy arrays of uint8"),
        ([noise(1, 4)[0]], r"array of shape \[3, 16, 16\]"),
        ([], "only 0 fakes; give 2 or more"),
        ([noise(1, 1)], "only 1 fakes; give 2 or more"),
    ],
)
def test_images_that_cannot_be_measured_are_refused_in_words(batches: list[Pixels], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ms_ssim(batches)


def test_reals_and_fakes_must_be_of_one_shape() -> None:
    metric = MsSsim()
    metric.add_fakes(noise(1, 2))
    with pytest.raises(DataError, match=r"reals have images of shape \[1, 16, 16\].*the fakes \[3, 16, 16\]"):
        metric.add_reals(noise(1, 2, channels=1))
    metric.forget_fakes()
    metric.add_reals(noise(1, 2, channels=1))
    with pytest.raises(DataError, match="fakes have images of shape"):
        metric.add_fakes(noise(1, 2))


def test_threads_share_the_work_and_change_nothing() -> None:
    images = alike(1, 20)
    alone = ms_ssim([images])
    torch.set_num_threads(3)
    with torch.inference_mode():
        assert ms_ssim([images]) == pytest.approx(alone, abs=1e-12)
    assert torch.get_num_threads() == 3

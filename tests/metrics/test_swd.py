"""The sliced Wasserstein distance against the numbers of the original code, and its laws."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from golden_metrics import golden, golden_images
from progan.errors import ConfigError, DataError, ProganError
from progan.metrics.exact_compute import Workers
from progan.metrics.swd.distance import (
    SlicedWasserstein,
    SlicedWassersteinMetric,
    projected_distance,
    sliced_wasserstein,
    sliced_wasserstein_floor,
)
from progan.metrics.swd.laplacian import laplacian_pyramid, pyr_down, pyr_up
from progan.metrics.swd.patches import (
    BLOCK,
    LevelPatches,
    NormalisedSet,
    SeededDraws,
    corners,
    level_sides,
    patches_at,
)

Pixels = NDArray[np.uint8]


class OriginalDraws:
    """The numbers that the original code draws from NumPy's global generator, in its order of calls."""

    def __init__(self, seed: int, images: int = 512, feed: int = 128) -> None:
        rng = np.random.RandomState(seed)
        self.positions: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
        for name in ("reals", "fakes"):
            for _ in range(images // feed):
                for level, side in enumerate((64, 32, 16)):
                    x, y = (rng.randint(3, side - 3, size=(feed * 128, 1, 1, 1)) for _ in range(2))
                    both = np.stack([x.reshape(feed, 128), y.reshape(feed, 128)])
                    self.positions.setdefault((name, level), []).append(both)
            # The end of the reals measures them against themselves, and draws directions for it.
            self.normals = [[rng.randn(147, 128) for _ in range(4)] for _ in range(3)]

    def centres(
        self, images: str, level: int, block: int, shape: tuple[int, int], sides: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        x, y = np.concatenate(self.positions[images, level], axis=1)[:, block * BLOCK :][:, : shape[0]]
        assert x.shape == shape
        assert sides == (64 >> level, 64 >> level)
        return x, y

    def directions(self, level: int, repeat: int, shape: tuple[int, int]) -> NDArray[np.float64]:
        assert shape == (147, 128)
        return self.normals[level][repeat]

    def definition(self) -> dict[str, Any]:
        return {"kind": "original"}


def collapse(pyramid: list[torch.Tensor]) -> torch.Tensor:
    """Put a Laplacian pyramid together again: the inverse of `laplacian_pyramid`, up to rounding."""
    images = pyramid[-1]
    for detail in reversed(pyramid[:-1]):
        images = pyr_up(images) + detail
    return images


def values(result: SlicedWasserstein) -> list[float]:
    return [*result.distances, result.mean]


def noise(seed: int, n: int, channels: int = 3, side: int = 16) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def quick(reals: Iterable[Pixels], fakes: Iterable[Pixels], seed: int = 0) -> SlicedWasserstein:
    return sliced_wasserstein(reals, fakes, seed=seed, repeats=1, directions=8, patches=4)


def quick_floor(reals: Iterable[Pixels]) -> SlicedWasserstein:
    return sliced_wasserstein_floor(reals, repeats=1, directions=8, patches=4)


def test_the_originals_distances_from_the_originals_draws() -> None:
    result = sliced_wasserstein([golden_images("A")], [golden_images("B")], draws=OriginalDraws(0))
    assert result.resolutions == (64, 32, 16)
    assert result.images == 512
    np.testing.assert_allclose(values(result), golden("swd")["swd_AB"][0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("pair", ["AB", "AA"])
def test_our_draws_lie_within_the_originals_spread(pair: str) -> None:
    result = sliced_wasserstein([golden_images(pair[0])], [golden_images(pair[1])])
    expected = golden("swd")[f"swd_{pair}"]
    mean, deviation = expected.mean(axis=0), expected.std(axis=0, ddof=1)
    # Five seeds tell a deviation badly: AA at 16 pixels shows 0.14, but 24 more seeds of the original's
    # generator show 0.27, and means that agree with those of 24 seeds of ours at every level.
    deviation = np.maximum(deviation, [0, 0, 0.27, 0])
    assert (np.abs(values(result) - mean) < 4 * deviation).all()


def test_floor_lies_below_other_images_and_is_that_of_disjoint_halves() -> None:
    images = golden_images("A")[:64]
    floor = sliced_wasserstein_floor([images[:33], images[33:]], patches=16)
    assert floor.images == 32
    assert sliced_wasserstein_floor([images[:63]], patches=16).images == 31
    # Positions depend on the set and the place in it; so near, not equal.
    halves = sliced_wasserstein([images[0::2]], [images[1::2]], patches=16)
    assert floor.mean == pytest.approx(halves.mean, rel=0.5)
    assert sliced_wasserstein_floor([images], patches=16, seed=1) != floor
    other = sliced_wasserstein([images[0::2]], [noise(1, 32, side=64)], patches=16)
    assert floor.mean < 0.7 * other.mean


def test_pyramid_equals_the_originals() -> None:
    arrays = golden("swd")
    images = torch.from_numpy(golden_images("A")[:1]).float()
    down = pyr_down(images)
    np.testing.assert_array_equal(down.numpy(), arrays["pyr_down_once"])
    np.testing.assert_array_equal(pyr_up(down).numpy(), arrays["pyr_up_of_down"])
    pyramid = laplacian_pyramid(images, 3)
    for level, found in enumerate(pyramid):
        np.testing.assert_array_equal(found.numpy(), arrays[f"pyr_level{level}"])
    assert torch.equal(collapse(pyramid), images)


def test_descriptors_equal_the_originals() -> None:
    arrays = golden("swd")
    x, y = (torch.from_numpy(arrays[f"desc_center_{axis}"].reshape(4, 16)) for axis in "xy")
    images = torch.from_numpy(arrays["desc_input_level"])
    starts = corners(x, y, (3, *images.shape[2:]))
    found = patches_at(images, starts)
    by_columns = found.flatten(0, 1).transpose(2, 3)
    np.testing.assert_array_equal(by_columns.numpy(), arrays["desc_raw"])
    level = LevelPatches((3, *images.shape[2:]), 16)
    level.reserve(4)
    level.put(0, images[:1], starts[:1])
    level.put(1, images[1:], starts[1:])
    normalised = torch.empty(147, 64)
    NormalisedSet(level, torch.arange(4)).project(torch.eye(147, dtype=torch.float64), normalised, Workers())
    by_columns = normalised.T.view(-1, 3, 7, 7).transpose(2, 3).flatten(1)
    np.testing.assert_allclose(by_columns, arrays["desc_final"], rtol=0, atol=1e-5)


def test_projected_distance_equals_the_originals() -> None:
    arrays = golden("swd")
    rng = np.random.RandomState(123)
    normals = [rng.randn(147, 128) for _ in range(4)]
    units = np.concatenate([n / np.sqrt(np.square(n).sum(axis=0)) for n in normals], axis=1).T
    a, b = (images_of_one_patch(arrays[name].reshape(64, 3, 7, 7)) for name in ("desc_final", "descB_final"))
    for at_once in (100, 512):
        found = projected_distance(a, b, torch.from_numpy(units), Workers(), torch.empty(2, at_once, 64))
        assert found == pytest.approx(float(arrays["sw_value_seed123"]), abs=1e-6)


def images_of_one_patch(patches: NDArray[np.float32]) -> NormalisedSet:
    """Take patches [n, C, 7, 7] for images that each are one patch."""
    level = LevelPatches((patches.shape[1], 7, 7), 1)
    level.reserve(len(patches))
    level.put(0, torch.from_numpy(patches), torch.zeros(len(patches), 1, dtype=torch.int32))
    return NormalisedSet(level, torch.arange(len(patches)))


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 12), st.data())
def test_patches_are_those_of_the_images_at_any_place(
    seed: int, channels: int, patches: int, data: st.DataObject
) -> None:
    """Whether images or patches are kept, and whichever images are asked for."""
    count, shape = 7, (channels, 16, 20)
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.standard_normal((count, *shape)).astype(np.float32))
    x, y = (torch.from_numpy(rng.integers(3, side - 3, (count, patches))) for side in (20, 16))
    level = LevelPatches(shape, patches)
    level.reserve(count)
    level.put(0, images, corners(x, y, shape))
    asked = torch.tensor(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    found = level.get(asked).view(len(asked), patches, channels, 7, 7)
    for i, image in enumerate(asked):
        for p in range(patches):
            column, row = int(x[image, p]) - 3, int(y[image, p]) - 3
            assert torch.equal(found[i, p], images[image, :, row : row + 7, column : column + 7])
    values = found.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(level.sums(asked), torch.stack([values.sum(1), values.square().sum(1)]))
    assert torch.equal(torch.cat(level.chunks(asked)), asked)


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), st.integers(2, 5))
def test_pyramid_collapses_to_the_images(seed: int, levels: int, channels: int, h: int, w: int) -> None:
    scale = 2 ** (levels - 1)
    shape = (2, channels, 2 * h * scale, 2 * w * scale)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pyramid = laplacian_pyramid(images, levels)
    assert [tuple(band.shape[2:]) for band in pyramid] == [
        (shape[2] >> level, shape[3] >> level) for level in range(levels)
    ]
    torch.testing.assert_close(collapse(pyramid), images, rtol=0, atol=1e-12)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(2, 6))
def test_filters_equal_plain_convolution(seed: int, h: int, w: int) -> None:
    def convolved(images: torch.Tensor, gain: float) -> torch.Tensor:
        kernel = gain * torch.from_numpy(golden("swd")["gaussian_filter"]).double()[None, None]
        padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
        return torch.nn.functional.conv2d(padded, kernel)

    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, 2 * h, 2 * w, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pyr_down(images), convolved(images, 1)[:, :, ::2, ::2], rtol=0, atol=1e-12)
    widened = torch.zeros(2, 1, 4 * h, 4 * w, dtype=torch.float64)
    widened[:, :, ::2, ::2] = images
    torch.testing.assert_close(pyr_up(images), convolved(widened, 4), rtol=0, atol=1e-12)


@given(st.integers(0, 255), st.integers(1, 3))
def test_flat_images_have_no_detail(value: int, levels: int) -> None:
    *bands, rest = laplacian_pyramid(torch.full((1, 1, 16, 24), float(value)), levels)
    assert all(torch.equal(band, torch.zeros_like(band)) for band in bands)
    assert torch.equal(rest, torch.full_like(rest, value))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 40))
def test_batches_of_any_size_give_the_same_bits(sizes: list[int], waiting: int) -> None:
    """Also if only so many images wait for others."""
    reals, fakes = noise(1, 70), noise(2, 70) // 2

    def cut(images: Pixels) -> Iterator[Pixels]:
        start = 0
        for size in sizes:
            yield images[start : start + size]
            start += size
        yield images[start:]

    whole = quick([reals], [fakes]), quick_floor([reals])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("progan.metrics.swd.patches.VALUES_WAITING", waiting * reals[0].size)
        assert (quick(cut(reals), cut(fakes)), quick_floor(cut(reals))) == whole


def test_parts_of_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reals, fakes = [noise(1, 70)], [noise(2, 70) // 2]
    whole = quick(reals, fakes)
    monkeypatch.setattr("progan.metrics.swd.patches.PART", 3)
    monkeypatch.setattr("progan.metrics.swd.patches.VALUES_AT_ONCE", 1)
    monkeypatch.setattr("progan.metrics.swd.patches.VALUES_A_TASK", 1)
    assert values(quick(reals, fakes)) == pytest.approx(values(whole), rel=1e-6)


def test_the_seed_decides_everything() -> None:
    reals, fakes = [noise(1, 40)], [noise(2, 40) // 2]
    state = np.random.get_state()[1].tolist()  # type: ignore[index]
    first = quick(reals, fakes, seed=3)
    torch.manual_seed(5)
    assert quick(reals, fakes, seed=3) == first
    assert quick(reals, fakes, seed=4) != first
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index]


def test_positions_are_inside_and_reach_the_borders() -> None:
    x, y = SeededDraws(0).centres("reals", 0, 0, (BLOCK, 128), (16, 24))
    assert x.shape == y.shape == (BLOCK, 128)
    assert (x.min(), x.max(), y.min(), y.max()) == (3, 20, 3, 12)
    other, _ = SeededDraws(0).centres("fakes", 0, 0, (BLOCK, 128), (16, 24))
    assert (other != x).any()
    fewer, _ = SeededDraws(0).centres("reals", 0, 0, (5, 128), (16, 24))
    np.testing.assert_array_equal(fewer, x[:5])


def test_gray_is_measured_as_rgb() -> None:
    reals, fakes = noise(1, 40, channels=1), noise(2, 40, channels=1) // 2
    as_rgb = quick([reals.repeat(3, axis=1)], [fakes.repeat(3, axis=1)])
    assert values(quick([reals], [fakes])) == pytest.approx(values(as_rgb), rel=1e-6)


def test_detail_shows_at_the_fine_level_only() -> None:
    base = pyr_up(torch.from_numpy(noise(1, 64)).float()).numpy() / 2 + 64
    stripes = np.where(np.arange(32) % 2, 30, -30)  # of a width that the next level does not see
    upright, lying = ((base + s).astype(np.uint8) for s in (stripes, stripes[:, None]))
    fine, coarse = sliced_wasserstein([upright], [lying], patches=64).distances
    assert fine > 3 * coarse


def test_one_flat_colour_has_a_finite_distance() -> None:
    flat = np.full((40, 3, 32, 32), 77, dtype=np.uint8)
    result = quick([noise(1, 40, side=32)], [flat])
    assert all(np.isfinite(d) and d > 100 for d in result.distances)
    assert quick([flat], [flat]).distances == (0, 0)


def test_precision_set_for_training_is_put_aside_and_back() -> None:
    reals, fakes = [noise(1, 40)], [noise(2, 40) // 2]
    expected = quick(reals, fakes)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu"):
            assert quick(reals, fakes) == expected
        assert torch.get_float32_matmul_precision() == "medium"
        with pytest.raises(DataError):
            quick(reals, [])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [
        (64, 64, [(64, 64), (32, 32), (16, 16)]),
        (31, 16, [(31, 16)]),
        (32, 48, [(32, 48), (16, 24)]),
        (36, 50, [(36, 50), (18, 25)]),
    ],
)
def test_levels(height: int, width: int, sides: list[tuple[int, int]]) -> None:
    assert level_sides(height, width) == sides
    images = noise(0, 2)[:, :, :1, :1].repeat(height, axis=2).repeat(width, axis=3)
    assert quick([images], [images]).resolutions == tuple(min(s) for s in sides)


@given(st.integers(16, 300), st.integers(16, 300))
def test_sides_that_are_refused_are_told_what_would_do(height: int, width: int) -> None:
    try:
        sides = level_sides(height, width)
    except DataError as error:
        step = int(str(error).split()[-1].rstrip("."))
        sides = level_sides(height // step * step, width // step * step)
    assert 16 <= min(sides[-1]) < 32


GOOD = noise(1, 4)


@pytest.mark.parametrize(
    ("reals", "fakes", "words"),
    [
        ([noise(1, 4, side=15)], [GOOD], "15x15 are too small"),
        ([noise(1, 4, side=33)], [GOOD], "33x33 cannot be halved.*multiples of 2"),
        ([noise(1, 4, side=66)], [GOOD], "66x66 cannot be halved.*multiples of 4"),
        (
            [GOOD],
            [noise(1, 4, side=32)],
            r"fakes have images of shape \[3, 32, 32\].*the reals \[3, 16, 16\]",
        ),
        ([GOOD], [noise(1, 4, channels=1)], "fakes have images of shape"),
        ([GOOD, noise(1, 4, side=32)], [GOOD], "reals have images of shape .*those before them"),
        ([noise(1, 4, channels=4)], [GOOD], "reals have 4 channels, so an alpha channel"),
        ([GOOD], [noise(1, 4, channels=2)], "fakes have 2 channels, so an alpha channel"),
        ([noise(1, 4, channels=5)], [GOOD], "reals have 5 channels; only gray"),
        ([GOOD], [GOOD[:3]], "4 reals but only 3 fakes"),
        ([GOOD], [GOOD, GOOD[:1]], "4 reals but more fakes"),
        ([], [GOOD], "There are no reals"),
        ([GOOD[:0]], [GOOD], "There are no reals"),
        ([GOOD], [], "There are no fakes"),
        ([GOOD.astype(np.float32)], [GOOD], "reals hold an array of float32"),
        ([GOOD], [torch.from_numpy(GOOD)], "fakes hold a Tensor"),
        (GOOD, [GOOD], r"array of shape \[3, 16, 16\].*goes into a list"),
    ],
)
def test_images_that_cannot_be_measured_are_refused_in_words(
    reals: list[Pixels], fakes: list[Pixels], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        quick(reals, fakes)


def test_more_fakes_are_refused_without_waiting_for_their_end() -> None:
    def endless() -> Iterator[Pixels]:
        while True:
            yield GOOD

    with pytest.raises(DataError, match="more fakes"):
        sliced_wasserstein([GOOD], endless())


def test_floor_of_one_image_is_refused() -> None:
    for images in ([GOOD[:1]], [GOOD[:0]], []):
        with pytest.raises(DataError, match="at least 2 reals"):
            sliced_wasserstein_floor(images)


@pytest.mark.parametrize("option", ["repeats", "directions", "patches", "seed"])
def test_options_out_of_range_are_refused(option: str) -> None:
    wrong: dict[str, int] = {option: -1}
    with pytest.raises(ConfigError, match=f"{option} must be at least"):
        sliced_wasserstein([GOOD], [GOOD], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ProganError, match=f"{option} must be at least"):
        sliced_wasserstein_floor([GOOD], **wrong)  # type: ignore[arg-type]


def test_pyramids_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="6x5"):
        pyr_down(torch.zeros(1, 1, 6, 5))
    with pytest.raises(ValueError, match="2x4"):
        pyr_down(torch.zeros(1, 1, 2, 4))
    with pytest.raises(ValueError, match="1x4"):
        pyr_up(torch.zeros(1, 1, 1, 4))
    with pytest.raises(ValueError, match="not 0"):
        laplacian_pyramid(torch.zeros(1, 1, 4, 4), 0)


def small_metric() -> SlicedWassersteinMetric:
    return SlicedWassersteinMetric(repeats=1, directions=8, patches=4)


def test_the_metric_gives_distances_and_floor_by_name() -> None:
    reals, fakes = noise(1, 40, side=32), noise(2, 40, side=32) // 2
    metric = SlicedWassersteinMetric()
    assert metric.name == "swd"
    metric.add_fakes(fakes)
    metric.add_reals(reals)
    distance, floor = sliced_wasserstein([reals], [fakes]), sliced_wasserstein_floor([reals])
    assert metric.compute() == {
        "swd/32": distance.distances[0],
        "swd/16": distance.distances[1],
        "swd/mean": distance.mean,
        "swd_floor/32": floor.distances[0],
        "swd_floor/16": floor.distances[1],
        "swd_floor/mean": floor.mean,
        "swd_floor/images": 20,
    }
    json.dumps(metric.definition())


def test_other_options_are_another_name() -> None:
    metric = small_metric()
    assert metric.name == "swd_4x1x8"
    metric.add_reals(GOOD)
    metric.add_fakes(GOOD)
    assert set(metric.compute()) == {
        f"swd_4x1x8{kind}/{end}" for kind in ("", "_floor") for end in ("16", "mean")
    } | {"swd_4x1x8_floor/images"}


def test_reals_serve_many_generators_and_may_grow() -> None:
    reals = noise(1, 70)
    metric = small_metric()
    metric.add_reals(reals[:37])
    for seed, count in ((2, 37), (3, 37), (4, 70)):
        fakes = noise(seed, count) // seed
        if count > 37:
            metric.add_reals(reals[37:])
        metric.add_fakes(fakes)
        fresh = small_metric()
        fresh.add_reals(reals[:count])
        fresh.add_fakes(fakes)
        assert metric.compute() == pytest.approx(fresh.compute(), rel=1e-9)
        metric.forget_fakes()
    with pytest.raises(DataError, match="no fakes"):
        metric.compute()


def test_the_floor_of_twice_as_many_reals_belongs_to_the_distance() -> None:
    reals, fakes = noise(1, 40), noise(2, 20) // 2
    metric = small_metric()
    metric.add_reals(reals)
    metric.add_fakes(fakes)
    assert metric.floor().images == metric.distance().images == 20
    # Against a half of the reals: the other one may be anything.
    same = 0
    for place in range(40):
        changed = reals.copy()
        changed[place] = 0
        other = small_metric()
        other.add_reals(changed)
        other.add_fakes(fakes)
        same += values(other.distance()) == pytest.approx(values(metric.distance()), rel=1e-6)
        assert other.floor() != metric.floor()
    assert same == 20


def test_halves_of_a_sorted_set_are_random_ones() -> None:
    """Every second image of a sorted set would make halves that are more alike than any two sets are."""
    shades = np.arange(256, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, 16, 16), np.uint8)
    mixed = np.random.default_rng(0).permutation(shades)
    by_place = sliced_wasserstein([shades[0::2]], [shades[1::2]], patches=4).mean
    floors = [sliced_wasserstein_floor([images], patches=4).mean for images in (shades, mixed)]
    assert floors[0] == pytest.approx(floors[1], rel=0.5)
    assert min(floors) > 5 * by_place


def test_forgotten_reals_leave_nothing_behind() -> None:
    used, fresh = small_metric(), small_metric()
    used.add_reals(noise(1, 40, side=32))
    used.floor()
    used.forget_reals()
    for metric in (used, fresh):
        metric.add_reals(noise(3, 20))
        metric.add_fakes(noise(2, 20) // 2)
    assert used.compute() == fresh.compute()


def test_other_draws_are_another_definition() -> None:
    definitions = [
        SlicedWassersteinMetric(draws=draws).definition()
        for draws in (None, SeededDraws(1), OriginalDraws(0))
    ]
    assert definitions[0] == SlicedWassersteinMetric(draws=SeededDraws(0)).definition()
    assert definitions[0] != definitions[1] != definitions[2]


def test_floor_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = small_metric()
    metric.add_reals(GOOD)
    floor = metric.floor()
    with monkeypatch.context() as patch:
        patch.setattr("progan.metrics.swd.distance.projected_distance", lambda *_: -1.0)
        assert metric.floor() == floor
        metric.add_reals(GOOD)
        assert metric.floor().mean < 0


def test_nearly_flat_sets_lose_no_precision() -> None:
    # The same pictures in full contrast and darker by so much that they differ by one step only.
    bits = np.random.default_rng(0).integers(0, 2, (2, 64, 1, 16, 16), dtype=np.uint8)
    strong, weak = bits * 128, bits + 200
    expected = sliced_wasserstein([strong[0]], [strong[1]], patches=16).mean
    assert sliced_wasserstein([weak[0]], [weak[1]], patches=16).mean == pytest.approx(expected, rel=1e-5)


def test_threads_share_the_work_and_change_nothing() -> None:
    reals, fakes = noise(1, 150, side=32), noise(2, 150, side=32) // 2
    alone = values(sliced_wasserstein([reals], [fakes], patches=16))
    torch.set_num_threads(3)
    with torch.inference_mode():
        assert values(sliced_wasserstein([reals], [fakes], patches=16)) == pytest.approx(alone, rel=1e-6)
    assert torch.get_num_threads() == 3

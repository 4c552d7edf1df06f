"""Perceptual path length on generators whose length is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from progan.errors import ConfigError, DataError
from progan.metrics import path_length
from progan.metrics.extractor import Extractor
from progan.metrics.path_length import EPSILON, PathLength, box_down, face, slerp, trimmed_mean


def pixels() -> Extractor:
    """Features that are the image in -1..1."""
    return Extractor(lambda x: x.flatten(1), "pixels", normalisation="-1..1")


def isometry(z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Put latents of up to 48 numbers into images of 4x4, lengths kept."""
    assert labels is None
    return torch.nn.functional.pad(z, (0, 48 - z.shape[1])).reshape(-1, 3, 4, 4)


@pytest.mark.parametrize(
    ("size", "mean_square_angle"),
    [
        # The angle of two directions of the plane is uniform in 0..pi, whose middle 98 % are kept.
        (2, np.pi**2 * (0.99**3 - 0.01**3) / (3 * 0.98)),
        # Its cosine is uniform in space: the mean of acos(1 - 2u)^2 over the middle 98 % of u.
        (3, float(np.mean(np.arccos(1 - 2 * np.linspace(0.01, 0.99, 100_001)) ** 2))),
    ],
)
def test_a_linear_generator_has_the_length_of_the_great_circle(size: int, mean_square_angle: float) -> None:
    """|dz/dt| = angle * sqrt(size) everywhere on a path, and the generator and features keep lengths."""
    path = PathLength(pixels(), samples=40_000)
    found = path.measure(isometry, size, batch=10_000, dtype=torch.float64)
    # The standard error is 0.5 %; the chord is shorter than the arc by 1e-9.
    assert found == {"ppl_zfull_pixels_-1..1": pytest.approx(size * mean_square_angle, rel=0.02)}


def test_the_length_grows_with_the_square_of_the_features_and_float32_is_exact_enough() -> None:
    path = PathLength(pixels(), samples=200)
    one = path.measure(isometry, 5, dtype=torch.float64)[path.name]
    three = path.measure(lambda z, _: 3 * isometry(z), 5, dtype=torch.float64)[path.name]
    assert three == pytest.approx(9 * one, rel=1e-6)
    assert path.measure(isometry, 5)[path.name] == pytest.approx(one, rel=1e-2)


def test_a_generator_that_makes_one_image_has_no_length() -> None:
    path = PathLength(pixels(), samples=10)
    assert path.measure(lambda z, _: torch.ones(len(z), 1, 4, 4), 5) == {path.name: 0}


def test_batches_change_nothing_and_the_seed_does() -> None:
    def length(batch: int, seed: int) -> float:
        path = PathLength(pixels(), samples=25, seed=seed)
        return path.measure(isometry, 5, batch=batch, dtype=torch.float64)[path.name]

    assert length(4, 0) == pytest.approx(length(25, 0), rel=1e-9)
    assert length(4, 0) != pytest.approx(length(4, 1), rel=1e-3)


@given(st.permutations(range(7)), st.integers(1, 5))
def test_paths_are_those_of_their_indices_whatever_was_asked_before(order: list[int], skipped: int) -> None:
    """However many are drawn at once on the way to those that are asked for."""
    path, parts = PathLength(pixels(), samples=20), np.array_split(np.arange(20), 7)
    whole = np.split(path.speeds(isometry, 5)(np.arange(20)), np.cumsum([len(part) for part in parts])[:-1])
    speeds = path.speeds(isometry, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_length, "SKIPPED", skipped)
        for i in order:
            np.testing.assert_array_equal(speeds(parts[i]), whole[i])


def test_both_ends_of_a_path_have_its_label_and_are_a_step_apart() -> None:
    labels = torch.arange(7.0)[:, None]
    seen: list[Tensor] = []
    told: list[tuple[str, int, int]] = []

    def render(z: Tensor, some: Tensor | None) -> Tensor:
        assert some is not None
        start, end = z.chunk(2)
        assert torch.equal(*some.chunk(2))
        assert z.norm(dim=1).tolist() == pytest.approx([5**0.5] * len(z))
        steps = (end - start).norm(dim=1) / EPSILON
        assert (steps > 0).all()
        assert (steps < np.pi * 5**0.5).all()
        seen.append(some[: len(start)])
        return isometry(z)

    PathLength(pixels(), samples=7).measure(
        render,
        5,
        lambda first, n: labels[first : first + n],
        batch=3,
        dtype=torch.float64,
        progress=lambda *done: told.append(done),
    )
    assert torch.equal(torch.cat(seen), labels)
    assert told == [("ppl_zfull_pixels_-1..1", done, 7) for done in (0, 3, 6, 7)]


def test_the_face_alone_is_seen_if_asked() -> None:
    def render(z: Tensor, _: Tensor | None) -> Tensor:
        images = torch.zeros(len(z), 1, 8, 8, dtype=z.dtype)
        images[:, 0, 0, 0] = 100 * z[:, 0]  # in a corner
        images[:, 0, 3, 2] = z[:, 1]
        return images

    whole, part = PathLength(pixels(), samples=50), PathLength(pixels(), samples=50, crop=True)
    lengths = [path.measure(render, 2, dtype=torch.float64)[path.name] for path in (whole, part)]
    assert 0 < lengths[1] < lengths[0] / 1000
    assert part.name == "ppl_zfull_crop_pixels_-1..1"


def test_the_face_is_where_stylegan_has_it() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert face(images)[0, 0].tolist() == [[8 * y + x for x in range(2, 6)] for y in range(3, 7)]
    with pytest.raises(DataError, match="12x8"):
        face(torch.zeros(1, 1, 12, 8))


def test_large_images_are_averaged_down_to_256() -> None:
    assert box_down(torch.zeros(1, 1, 511, 600)).shape == (1, 1, 511, 600)
    images = torch.rand(1, 2, 512, 1024)
    assert torch.allclose(box_down(images), images.reshape(1, 2, 256, 2, 512, 2).mean((3, 5)))
    assert box_down(torch.zeros(1, 1, 1024, 1024)).shape == (1, 1, 256, 256)


@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0, 1))
def test_slerp_is_that_of_scipy(seed: int, size: int, t: float) -> None:
    geometric_slerp = pytest.importorskip("scipy.spatial").geometric_slerp
    a, b = np.random.default_rng(seed).standard_normal((2, 1, size))
    found = slerp(torch.from_numpy(a), torch.from_numpy(b), torch.tensor([[t]], dtype=torch.float64))
    expected = geometric_slerp(a[0] / np.linalg.norm(a), b[0] / np.linalg.norm(b), t)
    assert found[0].numpy() == pytest.approx(expected * size**0.5, abs=1e-6)


def test_the_lowest_and_the_highest_percent_are_left_out() -> None:
    values = np.arange(1001.0)  # percentiles are 10 and 990
    values[[0, 1000]] = -1e9, 1e12
    assert trimmed_mean(values[::-1]) == np.arange(10, 991).mean()
    assert trimmed_mean(np.array([1.0, 2.0, 6.0])) == 3


def test_generators_that_make_no_images_are_refused() -> None:
    path = PathLength(pixels(), samples=4)
    with pytest.raises(DataError, match="not finite"):
        path.measure(lambda z, _: isometry(z) * float("nan"), 5)
    with pytest.raises(DataError, match=r"\[8, 4, 4, 3\]"):
        path.measure(lambda z, _: torch.zeros(len(z), 4, 4, 3), 5)


def test_unusable_options_are_named() -> None:
    with pytest.raises(ConfigError, match="samples of the path length"):
        PathLength(pixels(), samples=0)
    with pytest.raises(ConfigError, match="seed of the path length"):
        PathLength(pixels(), seed=-1)
    path = PathLength(pixels(), samples=4)
    with pytest.raises(ConfigError, match="at least 2 numbers"):
        path.measure(isometry, 1)


def test_the_definition_is_json_and_says_everything() -> None:
    definition = json.loads(json.dumps(PathLength(pixels(), samples=9, crop=True, seed=4).definition()))
    assert definition == {
        "extractor": "pixels",
        "extractor_sha256": None,
        "resize": "none",
        "normalisation": "-1..1",
        "samples": 9,
        "epsilon": 1e-4,
        "crop": True,
        "seed": 4,
    }

"""Nearest real images against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray

from progan.errors import ConfigError, DataError
from progan.metrics.extractor import Extractor
from progan.metrics.metric import Images
from progan.metrics.neighbours import nearest_reals, share_inside, squared_distances, squared_radii

VALUES = hn.arrays(
    np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.floats(-1e3, 1e3, width=32)
)


def pixels() -> Extractor:
    return Extractor(lambda x: x.flatten(1), "pixels")


def pictures(n: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, size=(n, 3, 4, 4), dtype=np.uint8)


def cdist(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = pytest.importorskip("scipy.spatial.distance").cdist(a, b)
    return found


@given(VALUES, VALUES)
def test_distances_are_those_of_scipy(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    found = squared_distances(torch.from_numpy(a), torch.from_numpy(b))
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(np.square(cdist(a, b)), rel=1e-6, abs=1e-7)


def test_copies_are_at_no_distance_and_neighbours_of_float32_are_told_apart() -> None:
    a = torch.rand(20, 2048, generator=torch.Generator().manual_seed(0)) * 100
    b = a.clone()
    b[:, 5] = torch.nextafter(b[:, 5], torch.tensor(torch.inf)) + 1e-2
    assert torch.equal(squared_distances(a, a).diagonal(), torch.zeros(20, dtype=torch.float64))
    assert (squared_distances(a, b).diagonal() > 0).all()


@given(st.integers(0, 2**31), st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_neighbours_are_those_of_brute_force_however_reals_are_cut(
    seed: int, k: int, sizes: list[int]
) -> None:
    sizes = [*sizes, k]
    reals, samples = pictures(sum(sizes), seed), pictures(3, seed + 1)
    batches = np.split(reals, np.cumsum(sizes)[:-1])
    found = nearest_reals(samples, iter(batches), pixels(), k)
    distances = cdist(samples.reshape(3, -1).astype(float), reals.reshape(len(reals), -1).astype(float))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    assert np.array_equal(found.indices, order)
    assert found.distances == pytest.approx(np.take_along_axis(distances, order, axis=1))


def test_a_copy_of_a_training_image_is_found_and_the_first_of_equals_comes_first() -> None:
    reals = pictures(10)
    reals[7] = reals[2]
    found = nearest_reals(reals[[2, 5]], [reals[:4], reals[4:]], pixels(), k=2)
    assert found.indices[:, 0].tolist() == [2, 5]
    assert found.indices[0].tolist() == [2, 7]
    assert found.distances[0].tolist() == [0, 0]
    assert found.distances[1, 0] == 0 < found.distances[1, 1]


def test_the_extractor_decides_what_is_near() -> None:
    reals = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    reals[0, 0], reals[1, 1] = 10, 200  # a little red, much green
    sample = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    assert nearest_reals(sample, [reals], pixels(), 1).indices.tolist() == [[0]]
    red = Extractor(lambda x: x[:, 0].flatten(1), "red")
    assert nearest_reals(sample, [reals], red, 1).indices.tolist() == [[1]]


def test_too_few_reals_and_wrong_images_are_refused() -> None:
    with pytest.raises(DataError, match="only 2 reals; to find 3 neighbours there must be at least 3"):
        nearest_reals(pictures(1), [pictures(2)], pixels())
    with pytest.raises(DataError, match="make them equal"):
        nearest_reals(pictures(1), [pictures(2)[:, :1]], pixels())
    with pytest.raises(DataError, match="no samples"):
        nearest_reals(pictures(0), [pictures(2)], pixels())
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        nearest_reals(pictures(1), [pictures(2)], pixels(), k=0)


def test_radii_and_balls_on_a_line() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_radii(line, 1).tolist() == [1, 1, 4, 16]
    assert squared_radii(line, 3).tolist() == [49, 36, 16, 49]
    # The balls of 0, 1 and 3 reach to 5, borders included, that of 7 from 3 to 11.
    probes = torch.tensor([[-1.0], [-1.01], [11.0], [11.01]])
    assert share_inside(probes, line, squared_radii(line, 1)) == 0.5

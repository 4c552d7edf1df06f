"""Improved precision and recall against brute force, and where they are plain to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from progan.metrics import neighbours
from progan.metrics.extractor import Extractor
from progan.metrics.metric import Images
from progan.metrics.precision_recall import PrecisionRecall


def pixels() -> Extractor:
    return Extractor(lambda x: x[:, 0].flatten(1), "pixels")


def pictures(values: NDArray[np.int64]) -> Images:
    """Gray images of one row from their pixels [n, d]."""
    return values.astype(np.uint8)[:, None, None, :]


def covered(probes: NDArray[np.int64], centres: NDArray[np.int64], k: int) -> float:
    """Equations 1 and 2 of the paper, word for word."""
    inside = 0
    for probe in probes:
        for i, centre in enumerate(centres):
            others = np.delete(centres, i, axis=0)
            radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
            if np.linalg.norm(probe - centre) <= radius:
                inside += 1
                break
    return inside / len(probes)


@given(
    st.integers(0, 2**31),
    st.integers(5, 14),
    st.integers(5, 14),
    st.sampled_from([1, 3, 4]),
    st.integers(2, 20),
)
def test_both_are_those_of_brute_force(seed: int, reals: int, fakes: int, k: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that there are equal images and equal distances.
    a, b = (rng.integers(0, high, size=(n, 3)) for n, high in ((reals, 6), (fakes, 9)))
    metric = PrecisionRecall(pixels(), k=k)
    metric.add_reals(pictures(a))
    metric.add_fakes(pictures(b))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        found = metric.compute()
    assert found == {f"{metric.name}_precision": covered(b, a, k), f"{metric.name}_recall": covered(a, b, k)}


def test_a_set_covers_itself_and_far_sets_do_not_cover_each_other() -> None:
    a = np.random.default_rng(0).integers(0, 60, size=(30, 5))
    metric = PrecisionRecall(pixels())
    metric.add_reals(pictures(a))
    metric.add_fakes(pictures(a))
    assert list(metric.compute().values()) == [1, 1]
    metric.forget_fakes()
    metric.add_fakes(pictures(a + 190))
    assert list(metric.compute().values()) == [0, 0]


def test_a_generator_of_few_good_images_has_precision_but_no_recall() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 200, size=(60, 8))
    metric = PrecisionRecall(pixels())
    metric.add_reals(pictures(a))
    metric.add_fakes(pictures(a[:1].repeat(60, axis=0) + rng.integers(0, 3, size=(60, 8))))
    found = metric.compute()
    assert found["pr_pixels_precision"] == 1
    assert found["pr_pixels_recall"] < 0.1


def test_flat_colour_lies_on_its_own_point() -> None:
    """Balls of radius 0 cover their centre, though distances of features of any size are rounded."""
    one = torch.rand(1, 300, generator=torch.Generator().manual_seed(0)) * 1000
    same = Extractor(lambda x: one.expand(len(x), -1).clone(), "same")
    metric = PrecisionRecall(same)
    metric.add_reals(pictures(np.zeros((9, 4), dtype=np.int64)))
    metric.add_fakes(pictures(np.zeros((7, 4), dtype=np.int64)))
    assert list(metric.compute().values()) == [1, 1]

"""FID, KID and the Inception score against closed forms, SciPy and scikit-learn, on a tiny extractor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import ConfigError, DataError, DependencyError
from progan.metrics.extractor import Extractor
from progan.metrics.fid_kid_is import FeatureMetric, FrechetDistance, InceptionScore, KernelDistance
from progan.metrics.metric import Images
from progan.metrics.precision_recall import PrecisionRecall

FEATURES = 6


def tiny() -> Extractor:
    """Six mixed sums of pixels: of about the size of Inception's features, and correlated."""
    mixing = torch.randn(48, FEATURES, generator=torch.Generator().manual_seed(0)) / 300
    return Extractor(lambda x: x.flatten(1) @ mixing, "tiny")


def pixels() -> Extractor:
    """The red channel of images of 2x2."""
    return Extractor(lambda x: x[:, 0].flatten(1), "pixels")


def classifier() -> Extractor:
    return Extractor(lambda x: (x.mean((2, 3)) / 8).softmax(1), "classes")


def pictures(n: int, seed: int = 0, high: int = 256, side: int = 4) -> Images:
    return np.random.default_rng(seed).integers(0, high, size=(n, 3, side, side), dtype=np.uint8)


def features(images: Images) -> NDArray[np.float64]:
    return tiny()(images).double().numpy()


def measured(metric: FeatureMetric, reals: Images, fakes: Images, batch: int = 64) -> dict[str, float]:
    for images, add in ((reals, metric.add_reals), (fakes, metric.add_fakes)):
        for first in range(0, len(images), batch):
            add(images[first : first + batch])
    return metric.compute()


METRICS: dict[str, Callable[[], FeatureMetric]] = {
    "fid": lambda: FrechetDistance(tiny()),
    "kid": lambda: KernelDistance(tiny(), subsets=5, subset_size=20),
    "is": lambda: InceptionScore(classifier(), splits=3),
    "pr": lambda: PrecisionRecall(tiny()),
}
every_metric = pytest.mark.parametrize("metric", METRICS)


# FID


def scipy_fid(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    linalg = pytest.importorskip("scipy.linalg")
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(ca @ cb)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * np.real(root)))


@given(st.integers(0, 2**31), st.integers(FEATURES + 2, 40), st.integers(FEATURES + 2, 40))
@settings(max_examples=15)
def test_fid_is_that_of_scipy(seed: int, reals: int, fakes: int) -> None:
    a, b = pictures(reals, seed), pictures(fakes, seed + 1, high=200)
    found = measured(FrechetDistance(tiny()), a, b)
    assert found == {"fid_tiny": pytest.approx(scipy_fid(features(a), features(b)), rel=1e-6, abs=1e-6)}


def test_fid_of_two_gaussians_has_a_closed_form() -> None:
    """Features made exactly with mean m and covariance c I: (m1 - m2)^2 d + d (sqrt(c1) - sqrt(c2))^2."""
    corners = np.array(np.meshgrid(*[[-1, 1]] * 4), dtype=np.int64).reshape(4, 16).T.reshape(16, 1, 2, 2)
    scale = 16 / 15  # n / (n - 1)
    reals, fakes = ((m + s * corners).astype(np.uint8) for m, s in ((100, 10), (150, 30)))
    found = measured(FrechetDistance(pixels()), reals, fakes)
    assert found["fid_pixels"] == pytest.approx(4 * 50**2 + 4 * scale * (30 - 10) ** 2)


def test_fid_of_a_set_with_itself_is_zero_and_a_shift_adds_its_square() -> None:
    reals = pictures(50, high=200, side=2)
    metric = FrechetDistance(pixels())
    assert measured(metric, reals, reals)["fid_pixels"] == pytest.approx(0, abs=1e-4)
    metric.forget_fakes()
    metric.add_fakes(reals + np.uint8(30))
    assert metric.compute()["fid_pixels"] == pytest.approx(4 * 30**2)


def test_fid_with_fewer_images_than_features_warns_and_is_still_right() -> None:
    a, b = pictures(5), pictures(40, seed=1)
    with pytest.warns(UserWarning, match="fid_tiny is measured on 5 reals, but has 6 features.*KID"):
        found = measured(FrechetDistance(tiny()), a, b)
    # SciPy's root is not exact for singular matrices; tr (Ca Cb)^(1/2) is the sum of these singular values.
    x, y = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (features(a), features(b)))
    means = np.square(features(a).mean(0) - features(b).mean(0)).sum()
    expected = means + np.square(x).sum() + np.square(y).sum() - 2 * np.linalg.norm(x @ y.T, "nuc")
    assert found["fid_tiny"] == pytest.approx(expected, rel=1e-5)


# KID


def sklearn_mmd(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The unbiased estimate, over all of two sets."""
    kernel = pytest.importorskip("sklearn.metrics.pairwise").polynomial_kernel
    n, m = len(a), len(b)
    aa, bb, ab = (kernel(x, y, degree=3, coef0=1) for x, y in ((a, a), (b, b), (a, b)))
    within = (aa.sum() - aa.trace()) / (n * (n - 1)) + (bb.sum() - bb.trace()) / (m * (m - 1))
    return float(within - 2 * ab.mean())


@given(st.integers(0, 2**31), st.integers(2, 40))
@settings(max_examples=15)
def test_kid_of_whole_sets_is_that_of_scikit_learn(seed: int, n: int) -> None:
    a, b = pictures(n, seed), pictures(n, seed + 1, high=200)
    found = measured(KernelDistance(tiny(), subsets=2), a, b)
    expected = sklearn_mmd(features(a), features(b))
    assert found["kid2x1000_tiny"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found["kid2x1000_tiny_std"] == pytest.approx(0, abs=1e-9)


def test_kid_of_subsets_is_their_mean_and_deviation() -> None:
    a, b = pictures(30), pictures(50, seed=1, high=200)
    found = measured(KernelDistance(tiny(), subsets=200, subset_size=10, seed=3), a, b)
    value, deviation = found["kid200x10_tiny"], found["kid200x10_tiny_std"]
    assert deviation > 0
    # No bias: subsets scatter around the estimate on all images.
    assert abs(value - sklearn_mmd(features(a), features(b))) < 4 * deviation / np.sqrt(200)
    single = measured(KernelDistance(tiny(), subsets=1, subset_size=10, seed=3), a, b)
    rng = np.random.Generator(np.random.Philox(3))
    chosen = [x[rng.choice(len(x), 10, replace=False)] for x in (features(a), features(b))]
    assert single["kid1x10_tiny"] == pytest.approx(sklearn_mmd(chosen[0], chosen[1]))


def test_the_seed_of_kid_decides_the_subsets() -> None:
    a, b = pictures(30), pictures(30, seed=1)
    found = [measured(KernelDistance(tiny(), subset_size=10, subsets=3, seed=s), a, b) for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


# Inception score


def original_score(p: NDArray[np.float64], splits: int) -> tuple[float, float]:
    """As compute_is of StyleGAN2-ADA's inception_score.py describes it."""
    scores = []
    for part in np.array_split(p, splits):
        divergence = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores)), float(np.std(scores))


@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(2, 6))
@settings(max_examples=15)
def test_the_inception_score_is_that_of_the_published_formula(seed: int, splits: int, each: int) -> None:
    fakes = pictures(max(each, splits) * splits, seed)
    metric = InceptionScore(classifier(), splits=splits, seed=seed)
    metric.add_fakes(fakes)
    p = classifier()(fakes).double().numpy()
    order = torch.randperm(len(fakes), generator=torch.Generator().manual_seed(seed)).numpy()
    mean, deviation = original_score(p[order], splits)
    expected = {f"is{splits}_classes": mean, f"is{splits}_classes_std": deviation}
    assert metric.compute() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_inception_score_has_closed_forms() -> None:
    """One for images that are all alike; the number of classes if each is certain and all are as frequent."""
    alike, certain = np.zeros((100, 3, 4, 4), dtype=np.uint8), np.zeros((9000, 3, 1, 1), dtype=np.uint8)
    certain[np.arange(9000), np.arange(9000) % 3] = 255

    def hard(x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x.sum((2, 3)).argmax(1), 3).float()

    metric = InceptionScore(Extractor(hard, "hard"))
    metric.add_fakes(alike)
    assert metric.compute() == {"is_hard": pytest.approx(1), "is_hard_std": pytest.approx(0, abs=1e-6)}
    metric = InceptionScore(Extractor(hard, "hard"))
    metric.add_fakes(certain)
    metric.add_reals(certain)
    found = metric.compute()
    assert found["is_hard"] == pytest.approx(3, abs=0.02)
    assert found["is_hard_reals"] == found["is_hard"]


def test_the_inception_score_refuses_what_is_no_probability() -> None:
    with pytest.raises(ConfigError, match="tiny made other numbers; put a softmax behind it"):
        InceptionScore(tiny()).add_fakes(pictures(3))


# All of them


@every_metric
def test_batches_of_any_size_give_the_same_numbers(metric: str) -> None:
    a, b = pictures(40), pictures(40, seed=1, high=200)
    expected = measured(METRICS[metric](), a, b, batch=40)
    assert measured(METRICS[metric](), a, b, batch=7) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@every_metric
def test_fakes_come_and_go_and_reals_stay(metric: str) -> None:
    a, b, c = pictures(40), pictures(40, seed=1, high=200), pictures(20, seed=2, high=100)
    kept = METRICS[metric]()
    measured(kept, a, c)
    kept.forget_fakes()
    kept.add_fakes(b)
    assert kept.compute() == pytest.approx(measured(METRICS[metric](), a, b), rel=1e-5, abs=1e-6)
    kept.add_reals(c)
    assert kept.compute() == pytest.approx(
        measured(METRICS[metric](), np.concatenate([a, c]), b), rel=1e-5, abs=1e-6
    )


@every_metric
def test_definitions_are_json_and_numbers_begin_with_the_name(metric: str) -> None:
    found = METRICS[metric]()
    definition = json.loads(json.dumps(found.definition()))
    assert definition["extractor"] in found.name
    assert definition["resize"] == "none"
    assert all(name.startswith(found.name) for name in measured(found, pictures(30), pictures(30)))


def test_unusual_options_are_in_the_name() -> None:
    names = [
        KernelDistance(tiny()).name,
        KernelDistance(tiny(), subset_size=10).name,
        InceptionScore(classifier()).name,
        InceptionScore(classifier(), splits=5).name,
        PrecisionRecall(tiny()).name,
        PrecisionRecall(tiny(), k=5).name,
    ]
    assert names == ["kid_tiny", "kid100x10_tiny", "is_classes", "is5_classes", "pr_tiny", "pr5_tiny"]


@pytest.mark.parametrize(
    ("metric", "reals", "fakes", "words"),
    [
        ("fid", 1, 10, "fid_tiny needs at least 2 reals, but there are 1"),
        ("fid", 10, 0, "fid_tiny needs at least 2 fakes, but there are 0"),
        ("kid", 10, 1, "needs at least 2 fakes, but there are 1"),
        ("is", 0, 8, "is3_classes needs at least 9 fakes, but there are 8"),
        ("is", 3, 9, "is3_classes needs at least 9 reals, but there are 3"),
        ("pr", 3, 9, "pr_tiny needs at least 4 reals, but there are 3"),
    ],
)
def test_too_few_images_say_how_many_are_needed(metric: str, reals: int, fakes: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        measured(METRICS[metric](), pictures(reals), pictures(fakes))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KernelDistance(tiny(), subsets=0), "subsets of KID"),
        (lambda: KernelDistance(tiny(), subset_size=1), "subset_size of KID"),
        (lambda: KernelDistance(tiny(), seed=-1), "seed of KID"),
        (lambda: InceptionScore(tiny(), splits=1), "splits of the Inception score"),
        (lambda: InceptionScore(tiny(), seed=-1), "seed of the Inception score"),
        (lambda: PrecisionRecall(tiny(), k=0), "k of precision and recall"),
    ],
)
def test_options_out_of_range_are_named(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@every_metric
def test_images_that_do_not_fit_are_refused(metric: str) -> None:
    found = METRICS[metric]()
    found.add_reals(pictures(4))
    with pytest.raises(DataError, match="make them equal"):
        found.add_fakes(pictures(4, side=8))
    with pytest.raises(DataError, match="alpha"):
        found.add_fakes(np.zeros((4, 4, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="uint8"):
        found.add_fakes(np.zeros((4, 3, 4, 4), dtype=np.float32))


def test_features_that_are_not_finite_are_refused() -> None:
    broken = Extractor(lambda x: x.flatten(1) * float("nan"), "broken")
    with pytest.raises(DataError, match="broken made features that are not finite"):
        FrechetDistance(broken).add_reals(pictures(4))


@every_metric
def test_random_numbers_of_pytorch_are_left_alone(metric: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measured(METRICS[metric](), pictures(30), pictures(30))
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture(name="without_torchmetrics")
def no_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fid", "kid", "inception"):
        monkeypatch.setitem(sys.modules, f"torchmetrics.image.{module}", None)


@pytest.mark.usefixtures("without_torchmetrics")
@pytest.mark.parametrize("make", [FrechetDistance, KernelDistance, InceptionScore])
def test_without_torchmetrics_the_extra_is_named(make: Any) -> None:
    with pytest.raises(DependencyError, match=r'pip install "progan\[metrics\]"'):
        make(tiny())

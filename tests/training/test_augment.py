"""Augmentation against the original's numbers and its definition, and the adaptive probability.

`golden/diffaugment.npz` was computed in float64 by the original DiffAugment_pytorch.py (data-efficient-gans,
revision ce71c7e), its random numbers replaced by given ones: u for `rand`, floor(u (high - low)) + low for
`randint`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from golden_weights import golden
from progan.config import Augmentation, AugmentOptions, make_config
from progan.system import tensor_file
from progan.training.adaptive_augment import ADJUST_INTERVAL, Augmenter
from progan.training.augment import COLUMNS, DRAWS, draws_of, policy_of
from progan.training.augment import augment as apply

Images = NDArray[np.float64]
ALL: tuple[Augmentation, ...] = ("color", "translation", "cutout")
POLICIES = [policy for n in range(4) for policy in itertools.permutations(ALL, n)]
ALWAYS, NEVER = torch.tensor(1.0), torch.tensor(0.0)
LAST = float(np.nextafter(np.float32(1), np.float32(0)))
CPU = torch.device("cpu")


def augment(images: Tensor, draws: Tensor, probability: Tensor, policy: tuple[Augmentation, ...]) -> Tensor:
    config = make_config({"augment": {"policy": policy}})
    assert draws_of(config) == (DRAWS if policy else 0)
    return apply(images, draws, probability, policy_of(config))


def random_case(n: int, channels: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and draws, float64."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, height, width, generator=rng, dtype=torch.float64) * 2 - 1
    return images, torch.rand(n, DRAWS, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("case", ["rgb", "gray", "odd"])
@pytest.mark.parametrize("policy", [("color",), ALL, ("cutout", "translation", "color")])
def test_original_numbers(case: str, policy: tuple[Augmentation, ...]) -> None:
    arrays = golden("diffaugment")
    images, draws = (torch.from_numpy(arrays[f"{case}/{name}"]) for name in ("images", "draws"))
    ours = augment(images, draws, ALWAYS, policy)
    np.testing.assert_allclose(ours, arrays[f"{case}/{','.join(policy)}"], rtol=0, atol=1e-14)


def colored(image: Images, addend: float, saturation: float, contrast: float) -> Images:
    """One picture with other colours, pixel by pixel."""
    colors = {1: 1, 2: 1, 3: 3, 4: 3}.get(len(image), len(image))
    result = image.copy()
    for y, x in np.ndindex(image.shape[1:]):
        pixel = image[:colors, y, x] + addend
        gray = sum(pixel) / colors
        result[:colors, y, x] = gray + (pixel - gray) * saturation
    mean = result[:colors].sum() / result[:colors].size
    result[:colors] = mean + (result[:colors] - mean) * contrast
    return result


def translated(image: Images, u: float, v: float) -> Images:
    """One picture that is shifted by whole pixels, pixel by pixel."""
    height, width = image.shape[1:]
    most_y, most_x = int(height / 8 + 0.5), int(width / 8 + 0.5)
    dy, dx = int(u * (2 * most_y + 1)) - most_y, int(v * (2 * most_x + 1)) - most_x
    result = np.zeros_like(image)
    for y, x in np.ndindex(height, width):
        if 0 <= y + dy < height and 0 <= x + dx < width:
            result[:, y, x] = image[:, y + dy, x + dx]
    return result


def with_hole(image: Images, u: float, v: float) -> Images:
    """One picture with a rectangle set to zero, pixel by pixel."""
    result = image.copy()
    sides = [int(side / 2 + 0.5) for side in image.shape[1:]]
    ranges = [side + 1 - hole % 2 for side, hole in zip(image.shape[1:], sides, strict=True)]
    top, left = (int(d * n) - hole // 2 for d, n, hole in zip((u, v), ranges, sides, strict=True))
    for y, x in itertools.product(range(top, top + sides[0]), range(left, left + sides[1])):
        if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
            result[:, y, x] = 0
    return result


def by_definition(images: Images, draws: Images, probability: float, policy: tuple[str, ...]) -> Images:
    """DiffAugment for each image by itself."""
    results = []
    for image, u in zip(images, draws.tolist(), strict=True):
        for name in policy:
            if name == "color" and u[0] < probability:
                image = colored(image, u[1] - 0.5, 2 * u[2], u[3] + 0.5)
            if name == "translation" and u[4] < probability:
                image = translated(image, u[5], u[6])
            if name == "cutout" and u[7] < probability:
                image = with_hole(image, u[8], u[9])
        results.append(image)
    return np.stack(results)


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 4),
    channels=st.integers(1, 5),
    sides=st.tuples(st.integers(4, 13), st.integers(4, 13)),
    probability=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    policy=st.sampled_from(POLICIES),
    extreme=st.sampled_from([None, 0.0, LAST]),
)
def test_definition(
    seed: int,
    n: int,
    channels: int,
    sides: tuple[int, int],
    probability: float,
    policy: tuple[Augmentation, ...],
    extreme: float | None,
) -> None:
    images, draws = random_case(n, channels, *sides, seed)
    if extreme is not None:
        draws[0] = extreme
    draws = draws.float()
    ours = augment(images, draws, torch.tensor(probability), policy)
    expected = by_definition(images.numpy(), draws.numpy(), probability, policy)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_each_augmentation_has_its_own_draws() -> None:
    """Leaving one out does not change the others, and no column is left over."""
    images, draws = random_case(6, 3, 8, 8)
    probability = torch.tensor(0.5)
    together = augment(images, draws, probability, ALL)
    one_by_one = images
    for name in ALL:
        others = torch.full_like(draws, LAST)
        others[:, COLUMNS[name]] = draws[:, COLUMNS[name]]
        one_by_one = augment(one_by_one, others, probability, (name,))
    assert torch.equal(together, one_by_one)
    for column in range(DRAWS):
        other = draws.clone()
        other[:, column] = (draws[:, column] + 0.5) % 1
        assert not torch.equal(augment(images, other, probability, ALL), together), column


def test_alpha_has_no_colour_but_a_place() -> None:
    images, draws = random_case(3, 4, 8, 8)
    assert torch.equal(augment(images, draws, ALWAYS, ("color",))[:, 3], images[:, 3])
    moved = augment(images, draws, ALWAYS, ("translation", "cutout"))
    alpha = augment(images[:, 3:], draws, ALWAYS, ("translation", "cutout"))
    assert torch.equal(moved[:, 3:], alpha)
    assert not torch.equal(alpha, images[:, 3:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_types_and_layouts(dtype: torch.dtype, layout: torch.memory_format) -> None:
    images, draws = random_case(4, 3, 6, 8)
    images = images.to(dtype).contiguous(memory_format=layout)
    images[0, 0, 0, :3] = torch.tensor([-0.0, float("inf"), -float("inf")])
    draws = draws.float()
    untouched = augment(images, draws, NEVER, ALL)
    assert untouched.contiguous().view(torch.uint8).equal(images.contiguous().view(torch.uint8))
    ours = augment(images[1:], draws[1:], ALWAYS, ALL)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=layout)
    expected = augment(images[1:].double(), draws[1:], ALWAYS, ALL)
    # Computed at least in float32 and rounded once, so one rounding is all that may be lost.
    error = (ours.double() - expected).abs().max()
    assert error <= 2 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("name", ALL)
def test_differentiable_twice(name: Augmentation) -> None:
    images, draws = random_case(2, 4, 4, 5)
    draws[:, COLUMNS[name].start] = torch.tensor([0.2, 0.8])  # the first image is changed, the second is not

    def curved(x: Tensor) -> Tensor:
        return augment(x, draws, torch.tensor(0.5), (name,)).tanh()

    images.requires_grad_(True)
    assert not torch.equal(curved(images)[0], images[0].tanh())
    assert torch.autograd.gradcheck(curved, (images,))
    assert torch.autograd.gradgradcheck(curved, (images,))


def test_penalty_sees_through_augmentation() -> None:
    """|grad|^2 of a quadratic score, and how it changes with the score's weights, against both by hand."""
    images, draws = random_case(3, 2, 8, 8)
    policy: tuple[Augmentation, ...] = ("translation", "cutout")
    seen = augment(images, draws, ALWAYS, policy)
    weights = random_case(1, 2, 8, 8, seed=1)[0].requires_grad_(True)
    images.requires_grad_(True)
    scores = (augment(images, draws, ALWAYS, policy) * weights).square().sum() / 2
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    squared = gradient.square().sum()
    (by_weights,) = torch.autograd.grad(squared, weights)
    torch.testing.assert_close(squared, (seen * weights**2).square().sum())
    torch.testing.assert_close(by_weights, 4 * weights**3 * seen.square().sum(dim=0))


def test_nothing_waits_for_the_device() -> None:
    """Tensors without data cannot be read by the host."""
    images = torch.empty(4, 3, 8, 8, device="meta", requires_grad=True)
    augmenter = adaptive(device=torch.device("meta"))
    assert augmenter.probability is not None
    changed = augment(images, torch.empty(4, DRAWS, device="meta"), augmenter.probability, ALL)
    assert changed.shape == images.shape
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    assert gradient.shape == images.shape
    for _ in range(2 * ADJUST_INTERVAL):
        augmenter.observe(torch.empty((), device="meta"), 4)


def adaptive(device: torch.device = CPU, **options: Any) -> Augmenter:
    """An adaptive probability that goes from 0 to 1 in 320 images, unless told otherwise."""
    given_options: dict[str, Any] = {"policy": ("color",), "adaptive": True, "adapt_kimg": 0.32, **options}
    return Augmenter(AugmentOptions(**given_options), device)


def value(augmenter: Augmenter) -> float:
    assert augmenter.probability is not None
    return float(augmenter.probability)


def test_speed() -> None:
    """With all reals positive it rises from 0 to 1 in adapt_kimg, a step an interval; with none it falls."""
    augmenter = adaptive()
    rising = np.arange(1, 11) / 10  # after each interval of 32 images
    for share, values in ((1.0, rising), (0.0, 1 - rising)):
        for after in values.tolist():
            before = value(augmenter)
            for _ in range(ADJUST_INTERVAL):
                assert value(augmenter) == before
                augmenter.observe(torch.tensor(share), 8)
            assert value(augmenter) == pytest.approx(after, abs=1e-6)


updates = st.lists(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=30
)


@given(
    updates=updates,
    target=st.sampled_from([0.0, 0.5, 0.6, 0.8, 1.0]),
    adapt_kimg=st.sampled_from([0.5, 3.0, 500.0]),
    initial=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_rises_above_the_target_and_falls_below(
    updates: list[tuple[int, int]], target: float, adapt_kimg: float, initial: float
) -> None:
    augmenter = adaptive(target=target, adapt_kimg=adapt_kimg, probability=initial)
    expected, positives, count = initial, 0, 0
    for i, (positive, n) in enumerate(updates, start=1):
        augmenter.observe(torch.tensor(positive / n), n)
        positives, count = positives + positive, count + n
        if i % 4 == 0:
            step = count / (adapt_kimg * 1000)
            share = np.float32(positives) / np.float32(count)
            up, down = share > np.float32(target), share < np.float32(target)
            expected = min(1.0, expected + step) if up else max(0.0, expected - step) if down else expected
            positives = count = 0
        assert 0 <= value(augmenter) <= 1
        assert value(augmenter) == pytest.approx(expected, abs=1e-6)


def test_stays_at_the_target() -> None:
    augmenter = adaptive(target=0.8, probability=0.5)
    for _ in range(ADJUST_INTERVAL):
        augmenter.observe(torch.tensor(0.8), 5)
    assert value(augmenter) == 0.5
    assert augmenter.tensors()["count"] == 0  # it has been adjusted, by nothing


@pytest.mark.parametrize("n", [1, 12, 41, 96, 300])
def test_parts_of_a_batch_in_any_order(n: int) -> None:
    """The share as training steps add it up, in float32, part by part, gives whole images."""
    rng = np.random.default_rng(n)
    for positives in range(n + 1):
        shuffled = torch.from_numpy(rng.permutation(n) < positives).float()
        cuts = sorted(rng.integers(0, n + 1, size=5).tolist())
        share = sum(
            (shuffled[i:j].sum() / n for i, j in itertools.pairwise([0, *cuts, n])), torch.tensor(0.0)
        )
        augmenter = adaptive()
        augmenter.observe(share, n)
        assert augmenter.tensors()["positives"] == positives


@pytest.mark.parametrize("cut", range(2 * ADJUST_INTERVAL + 1))
def test_goes_on_where_it_was_saved(cut: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(cut)
    shares = [(torch.tensor(rng.integers(n + 1) / n), int(n)) for n in rng.integers(1, 40, size=13)]
    whole = adaptive(probability=0.5, target=0.5)
    before = adaptive(probability=0.5, target=0.5)
    after = adaptive(target=0.5)
    kept = after.probability
    for share in shares:
        whole.observe(*share)
    for share in shares[:cut]:
        before.observe(*share)
    tensor_file.write(tmp_path / "state", "test", {}, before.tensors())
    after.load(tensor_file.read(tmp_path / "state", "test")[1])
    for share in shares[cut:]:
        after.observe(*share)
    assert value(whole) != 0.5
    assert {k: v.item() for k, v in after.tensors().items()} == {
        k: v.item() for k, v in whole.tensors().items()
    }
    assert after.probability is kept  # who holds the tensor sees it change


def test_constant_probability() -> None:
    constant = Augmenter(AugmentOptions(policy=("cutout",), probability=0.25), CPU)
    for _ in range(2 * ADJUST_INTERVAL):
        constant.observe(torch.tensor(1.0), 100)
    constant.load(adaptive().tensors())  # of a run that was adaptive before
    assert value(constant) == 0.25
    assert constant.tensors() == {}
    assert value(Augmenter(AugmentOptions(policy=("cutout",)), CPU)) == 1
    assert Augmenter(AugmentOptions(), CPU).probability is None


def test_state_of_another_run() -> None:
    augmenter = adaptive(probability=0.25)
    augmenter.load({})  # a run that was not adaptive before
    assert value(augmenter) == 0.25
    for name in augmenter.tensors():
        partial = {key: tensor for key, tensor in augmenter.tensors().items() if key != name}
        with pytest.raises(KeyError, match=name):
            adaptive().load(partial)

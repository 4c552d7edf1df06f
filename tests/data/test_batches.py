"""Batches as functions of the clock: order, streams, flips, labels, micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from progan.config import make_config, merge
from progan.data import batches as data_batches
from progan.data.batches import Batches, DiscriminatorBatch, micro_batches, sample_order
from progan.data.packed import PackedSet
from progan.data.pixels import fade_reals, to_float
from progan.system.randomness import random_generator

seeds = st.integers(0, 2**63 - 1)
PURPOSES = (
    "order",
    "target noise",
    "augment real D",
    "augment fake D",
    "augment fake G",
    "flip",
    "mixing",
    "latents D",
    "latents G",
    "labels G",
    "sample grid",
)


@given(seeds, st.integers(1, 60), st.integers(0, 10**6))
def test_every_round_shows_every_picture_once(seed: int, count: int, epoch: int) -> None:
    order = sample_order(seed, epoch * count, count, count)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))


@given(seeds, st.integers(1, 40), st.integers(0, 10**5), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_order_does_not_depend_on_the_batches(seed: int, count: int, start: int, sizes: list[int]) -> None:
    whole = sample_order(seed, start, sum(sizes), count)
    starts = start + np.cumsum([0, *sizes[:-1]])
    parts = [sample_order(seed, int(s), n, count) for s, n in zip(starts, sizes, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_rounds_and_seeds_differ() -> None:
    rounds = {tuple(sample_order(0, epoch * 20, 20, 20)) for epoch in range(10)}
    assert len(rounds) == 10
    assert len({tuple(sample_order(seed, 0, 20, 20)) for seed in range(10)}) == 10


@given(seeds, st.integers(0, 10**12))
def test_streams_differ_by_purpose_seed_and_clock(seed: int, clock: int) -> None:
    def first(seed: int, purpose: str, clock: int) -> int:
        return int(random_generator(seed, purpose, clock).integers(2**62))

    assert first(seed, "flip", clock) == first(seed, "flip", clock)
    drawn = [first(seed, purpose, clock) for purpose in PURPOSES]
    drawn += [first(seed, "flip", clock + 1), first((seed + 1) % 2**63, "flip", clock)]
    assert len(set(drawn)) == len(drawn)


def groups_of(positions: NDArray[np.int64], group: int, contiguous: bool) -> set[frozenset[int]]:
    """The stddev groups that the rule finds in a batch made of these positions."""
    group = min(group, len(positions))
    rows = positions.reshape(-1, group) if contiguous else positions.reshape(group, -1).T
    return {frozenset(row) for row in rows.tolist()}


@given(st.integers(1, 8), st.integers(1, 16), st.one_of(st.none(), st.integers(1, 80)), st.booleans())
def test_parts_are_whole_stddev_groups(
    group: int, columns: int, largest: int | None, contiguous: bool
) -> None:
    n = group * columns
    parts = micro_batches(n, group, largest, contiguous=contiguous)
    assert sorted(np.concatenate(parts)) == list(range(n)), "a partition"
    found = set.union(*(groups_of(part, group, contiguous) for part in parts))
    assert found == groups_of(np.arange(n), group, contiguous)
    if largest is None:
        assert len(parts) == 1
    else:
        assert all(len(part) <= max(largest, group) for part in parts)
    if len(parts) == 1:
        np.testing.assert_array_equal(parts[0], np.arange(n))


@given(st.integers(1, 40), st.integers(1, 40))
def test_parts_without_groups(n: int, largest: int) -> None:
    parts = micro_batches(n, 0, largest)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
    assert [len(part) for part in parts[:-1]] == [min(largest, n)] * (len(parts) - 1)


def make(blobs: PackedSet, *, mirror: bool = False, seed: int = 5, **choices: Any) -> Batches:
    config = make_config(merge({"data": {"mirror": mirror}, "run": {"seed": seed}}, choices))
    return Batches(blobs, config, latent_size=7, draws=3 if config.augment.policy else 0)


def tensors_of(batch: object) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if value is not None}


@pytest.mark.parametrize("mirror", [False, True])
def test_equal_clocks_give_equal_batches(blobs: PackedSet, mirror: bool) -> None:
    one, other = make(blobs, mirror=mirror), make(blobs, mirror=mirror)
    other.discriminator(8, 8, 2, None), other.generator(8, 8, 2, None)  # what was made before does not matter
    for clock in (0, 40, 96):
        pairs = [
            (a.discriminator(clock, 16, 1, torch.tensor(0.3)), a.generator(clock, 16, 1, None))
            for a in (one, other)
        ]
        for first, second in zip(*pairs, strict=True):
            for name, value in tensors_of(first).items():
                assert torch.equal(value, tensors_of(second)[name]), name
    now, later = one.discriminator(0, 16, 1, None), one.discriminator(16, 16, 1, None)
    for name, value in tensors_of(now).items():
        assert not torch.equal(value, tensors_of(later)[name]), name
    different = make(blobs, mirror=mirror, seed=6).discriminator(0, 16, 1, None)
    assert not torch.equal(now.latents, different.latents)
    assert not torch.equal(now.latents, one.generator(0, 16, 1, None).latents)


def test_pictures_and_labels_belong_together(blobs: PackedSet) -> None:
    batch = make(blobs).discriminator(30, 24, 2, None)  # crosses from one round to the next
    chosen = sample_order(5, 30, 24, 48)
    assert torch.equal(batch.reals, to_float(blobs.read(2, chosen)))
    np.testing.assert_array_equal(batch.labels.argmax(1).numpy(), blobs.labels(chosen))
    assert torch.equal(batch.labels.sum(1), torch.ones(24))
    assert batch.reals.shape == (24, 3, 16, 16)
    assert batch.latents.shape == (24, 7)
    assert batch.mixing.shape == (24,)
    assert 0 <= float(batch.mixing.min()) <= float(batch.mixing.max()) < 1


def test_only_the_part_that_is_asked_for_is_shown(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": np.array([3, 5, 8, 13, 21]), "validation": np.array([1, 2])}
    monkeypatch.setattr(blobs, "indices", lambda part: parts[part])
    for part, indices in parts.items():
        shown = make(blobs, data={"part": part}).discriminator(0, len(indices), 0, None).reals
        expected = to_float(blobs.read(0, indices))
        assert sorted(float(x.sum()) for x in shown) == sorted(float(x.sum()) for x in expected)


def test_in_order(blobs: PackedSet) -> None:
    shown = make(blobs, data={"order": "sequential"}).discriminator(40, 16, 0, None).reals
    assert torch.equal(shown, to_float(blobs.read(0, np.arange(40, 56) % 48)))


def test_a_level_in_memory_gives_the_same_batches(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(blobs, "hold", held.append)
    for in_memory in (False, True):
        make(blobs, data={"in_memory": in_memory}).enter(1)
        assert held == [1] * in_memory


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_target_noise(blobs: PackedSet, per: str) -> None:
    made = make(blobs, loss={"adversarial": "least_squares", "target_noise": 0.5, "target_noise_per": per})
    drawn = [made.discriminator(clock, 16, 0, None).noise for clock in range(0, 16 * 400, 16)]
    noise = torch.stack([noise for noise in drawn if noise is not None])
    assert noise.shape == (400, 16, 2)
    assert float(noise[:, 0].std()) == pytest.approx(0.5, abs=0.05)
    assert float(noise[:, 0].mean()) == pytest.approx(0, abs=0.06)
    assert not torch.equal(noise[..., 0], noise[..., 1])
    assert bool((noise == noise[:, :1]).all()) == (per == "batch")
    assert make(blobs).discriminator(0, 16, 0, None).noise is None


def test_partners_of_a_relativistic_loss(blobs: PackedSet) -> None:
    """G is shown the reals, and the labels, of the D update of its iteration."""
    made = make(blobs, mirror=True, loss={"adversarial": "relativistic"}, augment={"policy": ["color"]})
    alpha = torch.tensor(0.5)
    d, g = made.discriminator(32, 16, 1, alpha), made.generator(32, 16, 1, alpha)
    assert g.reals is not None
    assert torch.equal(g.reals, d.reals)
    assert torch.equal(g.labels, d.labels)
    assert g.augment_real is not None
    assert d.augment_real is not None
    assert not torch.equal(g.augment_real, d.augment_real)
    assert make(blobs).generator(32, 16, 1, None).reals is None


def test_draws_of_the_augmentation(blobs: PackedSet) -> None:
    d = make(blobs, augment={"policy": ["color"]}).discriminator(0, 16, 0, None)
    assert d.augment_real is not None
    assert d.augment_fake is not None
    assert d.augment_real.shape == d.augment_fake.shape == (16, 3)
    assert 0 <= float(d.augment_real.min()) <= float(d.augment_real.max()) < 1
    assert make(blobs).discriminator(0, 16, 0, None).augment_real is None


def test_mirror_flips_about_half_of_them_exactly(blobs: PackedSet) -> None:
    plain, mirrored = make(blobs), make(blobs, mirror=True)
    flipped = 0
    for clock in range(0, 480, 48):
        a = plain.discriminator(clock, 48, 2, None).reals
        b = mirrored.discriminator(clock, 48, 2, None).reals
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y) or torch.equal(x.flip(-1), y)
            flipped += int(not torch.equal(x, y))
    assert 180 < flipped < 300  # 480 throws


def test_fading_reals_are_blended_with_their_half(blobs: PackedSet) -> None:
    alpha = torch.tensor(0.25)
    sharp = make(blobs).discriminator(0, 8, 2, None).reals
    faded = make(blobs).discriminator(0, 8, 2, alpha).reals
    assert torch.equal(faded, fade_reals(sharp, alpha))
    assert not torch.equal(faded, sharp)


def test_labels_of_the_generator_follow_the_set(blobs: PackedSet) -> None:
    drawn = torch.cat([make(blobs).generator(clock, 64, 0, None).labels for clock in range(0, 640, 64)]).sum(
        0
    )
    assert int(drawn.sum()) == 640
    assert int(drawn.min()) > 100  # four classes of equal size


def test_taking_a_part(blobs: PackedSet) -> None:
    batch = make(blobs).discriminator(0, 16, 0, None)
    part = batch.take(np.array([1, 5, 9, 13]))
    assert isinstance(part, DiscriminatorBatch)
    assert len(part) == 4
    for name, value in tensors_of(part).items():
        assert torch.equal(value, tensors_of(batch)[name][[1, 5, 9, 13]]), name


def test_each_kind_of_choice_has_a_stream_of_its_own(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two choices from one stream would be related: pictures with a large mixing factor never flipped."""
    used: list[str] = []

    def note(seed: int, purpose: str, clock: int, attempt: int) -> np.random.Generator:
        if clock == 0:  # the next pictures are read ahead
            used.append(purpose)
        return random_generator(seed, purpose, clock, attempt)

    monkeypatch.setattr(data_batches, "random_generator", note)
    noisy = {"adversarial": "least_squares"}
    made = make(blobs, mirror=True, loss=noisy, augment={"policy": ["color"]})
    made.discriminator(0, 8, 0, None), made.generator(0, 8, 0, None)
    used = [purpose for purpose in used if purpose != "order"]  # remembered from earlier calls, or not
    assert len(used) == len(set(used)) == 9

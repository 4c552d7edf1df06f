"""A seed's picture has the same bits however many are asked for, from where on, among which others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import progan
from progan.evaluation.generated_images import GeneratedImages
from progan.generation.samples import Samples, of_latents, of_seeds
from progan.generation.sampling import Stored, batch_size_for, generate, in_batches, render
from progan.generation.save_samples import save_samples
from progan.models.generator import Generator


def make(labels: int = 0, filters: int = 64) -> Generator:
    torch.manual_seed(1)
    G = Generator(
        channels=3, max_level=2, label_size=labels, fmap_base=8 * filters, fmap_max=filters, latent_size=32
    )
    return G.eval()


def stack(G: Generator, n: int, **options: Any) -> Stored:
    return np.concatenate(list(generate(G, n, seed=5, depth=16, **options)))


@pytest.mark.parametrize(("labels", "filters", "level"), [(0, 64, 2), (3, 200, 0), (0, 12, 1)])
def test_it_does_not_depend_on_how_many_are_asked_for(labels: int, filters: int, level: int) -> None:
    G = make(labels, filters)
    whole = stack(G, 70, level=level)
    for n in (1, 5, 33, 64):
        assert np.array_equal(stack(G, n, level=level), whole[:n])
    for start, n in ((1, 1), (7, 20), (63, 7)):
        assert np.array_equal(stack(G, n, start=start, level=level), whole[start : start + n])
    own = stack(G, 40, level=level, batch_size=5)
    assert np.array_equal(stack(G, 7, start=3, level=level, batch_size=5), own[3:10])


@pytest.mark.parametrize("threads", [1, 2])
def test_it_does_not_depend_on_what_is_asked_for_besides(threads: int) -> None:
    torch.set_num_threads(threads)
    G = make(3)
    seeds = [9, 4, 9, 0, 11, 5, 2]

    def made(samples: Samples) -> Stored:
        return render(G, *samples.rows(0, samples.count), depth=16)

    alone = np.concatenate([next(generate(G, 1, seed=seed, depth=16)) for seed in seeds])
    assert np.array_equal(made(of_seeds(G, seeds)), alone)
    z, labels = of_seeds(G, seeds[::-1]).rows(0, len(seeds))
    assert np.array_equal(made(of_latents(G, z, labels)), alone[::-1])


def test_a_measurement_measures_what_is_generated() -> None:
    G = make()
    images = GeneratedImages(G, seed=5)
    expected = np.concatenate(list(generate(G, 90, seed=5)))
    chosen = np.array([80, 3, 4, 89, 0])
    assert np.array_equal(images.read(chosen), expected[chosen])
    assert np.array_equal(np.concatenate(list(images.batches(np.arange(41)))), expected[:41])
    with images.kept(43, None) as kept:
        assert np.array_equal(kept.read(np.arange(43)), expected[:43])


def test_a_folder_that_is_extended_holds_what_one_call_makes(tmp_path: Path) -> None:
    G = make()
    for n in (1, 5, 40):
        save_samples(G, tmp_path / "steps", n)
    save_samples(G, tmp_path / "once", 40)
    for path in (tmp_path / "once").iterdir():
        assert (tmp_path / "steps" / path.name).read_bytes() == path.read_bytes()
    assert progan.generate is generate


@given(st.integers(0, 300), st.integers(0, 200), st.integers(1, 64))
@settings(max_examples=200)
def test_batches_begin_at_multiples(start: int, count: int, size: int) -> None:
    parts = in_batches(range(start, start + count), size)
    assert [i for part in parts for i in part] == list(range(start, start + count))
    assert all(len(part) > 0 and part.start // size == (part.stop - 1) // size for part in parts)


def test_as_many_at_once_as_are_computed_alike() -> None:
    """A batch of 5, 6 or 7 gives a row other bits at another place (two threads, AVX-512)."""
    for filters in (8, 12, 64, 200, 512):
        for level in range(3):
            size = batch_size_for(make(filters=filters), level)
            assert 1 <= size <= 256
            assert size & (size - 1) == 0

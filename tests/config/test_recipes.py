"""The shipped recipes: what they say, their numbers against the sources', and a real step at every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from progan.config import Config, file_schema, load_config, make_config, per_level
from progan.config.recipes import DEFAULT_RECIPE, read_recipe, recipe_about, recipe_head, recipe_names
from progan.data.packed import PackedSet
from progan.preparation.builtin_sets import synthetic
from progan.runs.checks import Prepared, check
from progan.runs.reporter import Reporter
from progan.system.signals import StopRequest
from progan.training.iteration import Iteration
from progan.training.precision import settings
from progan.training.schedule import Schedule

NAMES = recipe_names()
DIVISOR = 128
"""What the widths are divided by, so that 1024x1024 fits."""
WGAN_GP = {"D/gp", "D/drift"}
PENALTIES: dict[str, set[str]] = {"celeba-256-lsgan": set(), "small-data-256": {"D/r1"}}
"""What regularises D where it is not the paper's loss."""


@pytest.fixture(scope="module", name="pictures")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    """Four pictures of 1024x1024: every level of every recipe."""
    return synthetic(tmp_path_factory.mktemp("sets") / "large", count=4, resolution=1024)


def small(config: Config) -> dict[str, Any]:
    """Options that make a recipe fit: thin networks, and one small stddev group a batch."""
    # Morphing needs a filter for each channel at every level.
    divisor = 8 if config.schedule.growth == "morph" else DIVISOR
    widths = {
        name: {"fmap_base": network.fmap_base // divisor, "fmap_max": max(4, network.fmap_max // DIVISOR)}
        for name, network in (
            ("generator", config.model.generator),
            ("discriminator", config.model.discriminator),
        )
    }
    sizes = config.schedule.batch_size
    batches = [min(per_level(sizes, level), 4 if level < 4 else 2) for level in range(9)]
    return {"model": widths, "schedule": {"batch_size": batches}, "run": {"device": "cpu", "threads": 1}}


def prepare(name: str, pictures: PackedSet, out: Path) -> Prepared:
    """Check a recipe, made small, as `progan train --dry-run` does."""
    return check(pictures.path, out, name, small(load_config(name)), Reporter(), StopRequest())


def test_the_recipes_there_are() -> None:
    assert set(NAMES) == {
        *("paper-celebahq-1024", "paper-celebahq-1024-v2", "paper-light-128", "paper-cifar10", "lsun-256"),
        *(f"paper-celebahq-1024-v2-{gpus}gpus" for gpus in (2, 4, 8)),
        *("celebahq-256-stages", "celeba-256-lsgan", "celeba-128-bf16", "celeba-128-morph"),
        *("small-data-256", "quickstart"),
    }
    assert DEFAULT_RECIPE in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    about = recipe_about(name)
    for text in (about.what, about.source, about.published):
        assert len(text) >= len("none.")
        assert text.endswith(".")
    assert len(about.what) <= 140
    assert max(map(len, recipe_head(name).splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid(name: str) -> None:
    tree = read_recipe(name)
    make_config(tree)
    assert not list(Draft202012Validator(file_schema()).iter_errors(tree))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_at_every_level(name: str, pictures: PackedSet, tmp_path: Path) -> None:
    """Dry-run, then one update of D and one of G in the midst of each level's fade or morph."""
    prepared = prepare(name, pictures, tmp_path / "run")
    spec = prepared.spec
    assert not (tmp_path / "run").exists()
    side = int(name.split("-")[2]) if name.startswith("paper-celebahq") else spec.config.data.max_resolution
    assert spec.image.resolution(spec.image.max_level) == (side, side)
    said: list[str] = []
    with settings(spec.config.run, prepared.device):
        updates = Iteration(spec, prepared.packed, prepared.device, said.append)
        for level in range(spec.image.max_level + 1):
            phase = next(phase for phase in spec.schedule.phases if phase.level == level)
            assert phase.kind == (spec.config.schedule.growth if level else "stabilise")
            updates.state.images_seen = (phase.start + phase.end) // 2
            networks = {"G": updates.state.G, "D": updates.state.D, "G_ema": updates.state.G_ema}
            before = {key: [p.detach().clone() for p in net.parameters()] for key, net in networks.items()}
            point = spec.schedule.at(updates.state.images_seen)
            terms = {key: float(value) for part in updates(point) for key, value in part.items()}
            assert {"D/adversarial", "G/adversarial"} <= set(terms)
            penalties = {"D/gp", "D/r1", "D/r2", "D/drift"} & set(terms)
            assert penalties == PENALTIES.get(name, WGAN_GP)
            assert all(value == value and abs(value) < 1e6 for value in terms.values()), terms
            for key, net in networks.items():
                assert all(torch.isfinite(p).all() for p in net.parameters())
                moved = [bool((p != old).any()) for p, old in zip(net.parameters(), before[key], strict=True)]
                # The average follows G with the next update of D, so it stands still at the first.
                assert any(moved) or (key == "G_ema" and level == 0), (level, key)
    morphs = spec.image.max_level if spec.config.schedule.growth == "morph" else 0
    assert sum("grows out of" in line for line in said) == len(said) == morphs, "memory suffices"


def by_resolution(values: tuple[Any, ...]) -> dict[int, Any]:
    """Spell out a per-level list of a 1024x1024 run."""
    return {4 << level: per_level(values, level) for level in range(9)}


OFFICIAL: dict[str, tuple[int, dict[int, int], dict[int, float]]] = {
    "paper-celebahq-1024-v2": (
        4,
        {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4},
        {1024: 0.0015},
    ),
    "paper-celebahq-1024-v2-2gpus": (
        8,
        {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8},
        {512: 0.0015, 1024: 0.002},
    ),
    "paper-celebahq-1024-v2-4gpus": (
        16,
        {4: 512, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16},
        {256: 0.0015, 512: 0.002, 1024: 0.003},
    ),
    "paper-celebahq-1024-v2-8gpus": (
        32,
        {4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
        {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003},
    ),
    "paper-celebahq-1024": (16, {256: 14, 512: 6, 1024: 3}, {}),
}
"""Presets of the authors' config.py: minibatch_base, minibatch_dict, and the rates that are not 0.001."""


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_presets(name: str) -> None:
    base, sizes, rates = OFFICIAL[name]
    config = load_config(name)
    assert by_resolution(config.schedule.batch_size) == {4 << level: base for level in range(9)} | sizes
    expected = {4 << level: 0.001 for level in range(9)} | rates
    assert by_resolution(config.optimizer.g_lr) == by_resolution(config.optimizer.d_lr) == expected
    length, total = (800, 19000) if name == "paper-celebahq-1024" else (600, 12000)
    assert {*config.schedule.stabilise_kimg, *config.schedule.fade_kimg} == {length}
    assert config.schedule.total_kimg == total
    assert config.data.mirror
    ticks = (160, 140, 120, 100, 80, 60, 40, 20, 10)
    assert by_resolution(config.run.log_kimg) == {4 << level: tick for level, tick in enumerate(ticks)}


def test_numbers_of_the_paper() -> None:
    paper = load_config("paper-celebahq-1024")
    assert (paper.optimizer.g_lr, paper.optimizer.beta1, paper.optimizer.beta2) == ((0.001,), 0.0, 0.99)
    assert (paper.loss.gp_lambda, paper.loss.drift, paper.optimizer.ema_decay) == (10, 0.001, 0.999)
    cifar = load_config("paper-cifar10")
    assert (cifar.loss.gp_target, cifar.model.conditioning, cifar.data.mirror) == (750, "none", False)


def test_stages_of_equal_length() -> None:
    schedule = Schedule(load_config("celebahq-256-stages"), 6, 30_000)
    lengths = [(phase.level, phase.kind, (phase.end - phase.start) // 1000) for phase in schedule.phases]
    middle = [entry for level in range(1, 6) for entry in ((level, "fade", 810), (level, "stabilise", 810))]
    # The source trains 432 epochs of 30,000 pictures, which is one stage more than there are levels.
    last = [(6, "fade", 810), (6, "stabilise", 810 + 1620)]
    assert lengths == [(0, "stabilise", 1620), *middle, *last]
    assert schedule.total == 432 * 30_000


def test_fading_over_most_of_a_stage() -> None:
    schedule = Schedule(load_config("celeba-128-bf16"), 5, 200_000)
    steps, sizes = (20, 40, 80, 160, 320, 640), (512, 256, 128, 64, 32, 32)
    ends = [schedule.phases[0].end, *(phase.end for phase in schedule.phases[2::2])]
    assert ends == [sum(1000 * n * b for n, b in zip(steps[:i], sizes[:i], strict=True)) for i in range(1, 7)]
    fade = schedule.phases[1]
    assert (fade.level, fade.kind) == (1, "fade")
    delay = 1000 * 256
    assert schedule.at(fade.start + delay).alpha == 0
    assert schedule.at(fade.start + delay + 8_192_000 // 2).alpha == pytest.approx(0.5)
    assert fade.end - fade.start == delay + 8_192_000

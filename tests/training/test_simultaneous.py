"""Simultaneous updates: both gradients of one batch are those of two updates at the same weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import progan
from own_parts import plugin
from progan.config import Config, make_config, merge, read_plugins
from progan.data.batches import Batches, DiscriminatorBatch, GeneratorBatch
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.performance.iteration_cost import Costs
from progan.runs.logs import read_stats
from progan.training.augment import draws_of
from progan.training.compiled_gradients import CompiledGradients, summed
from progan.training.losses import Conditions, Objective, shared_losses
from progan.training.spec import ImageSpec
from progan.training.state import build_networks
from progan.training.step import EagerGradients, Found, Networks
from small_updates import SMOOTH, run, weights
from tiny import last_tensors, options, require_equal

SIMULTANEOUS: dict[str, Any] = {"loss": {"updates": "simultaneous"}}
POLICY = {"augment": {"policy": ["color", "translation", "cutout"], "probability": 0.7}}
PROJECTION: dict[str, Any] = {"model": {"conditioning": "projection"}}
ONE_PASS: dict[str, dict[str, Any]] = {
    "wgan, gp, drift": PROJECTION,
    "wgan, gp, r1, augmentation": merge(PROJECTION, POLICY, {"loss": {"r1_gamma": 2.0}}),
    "wgan, no penalties": merge(PROJECTION, {"loss": {"gp_lambda": 0.0, "drift": 0.0}}),
}
TWO_PASSES: dict[str, dict[str, Any]] = {
    "wgan, AC-GAN": {},
    "wgan, r1, r2": merge(PROJECTION, {"loss": {"gp_lambda": 0.0, "r1_gamma": 3.0, "r2_gamma": 2.0}}),
    "wgan, gp, r2": merge(PROJECTION, {"loss": {"r2_gamma": 2.0}}),
    "least squares": {"loss": {"adversarial": "least_squares"}},
    "logistic, r1, AC-GAN, augmentation": merge(POLICY, {"loss": {"adversarial": "logistic"}}),
    "hinge, gp": merge(PROJECTION, {"loss": {"adversarial": "hinge"}}),
    "relativistic, r1, r2, augmentation": merge(POLICY, {"loss": {"adversarial": "relativistic"}}),
    "own loss and penalty": {
        "loss": {"adversarial": "tempered", "penalties": ["smooth"], "tempered": {"temperature": 3.0}}
    },
}
CASES = {**ONE_PASS, **TWO_PASSES}


def made(blobs: PackedSet, branches: dict[str, Any], file: Path) -> tuple[Config, Networks]:
    """Return a configuration, and networks of float64 whose scores are not all near 0."""
    config = make_config(options(), merge(SIMULTANEOUS, branches), parts=read_plugins([file]))
    image = ImageSpec(blobs.channels, blobs.base_shape, blobs.max_level, blobs.label_names)
    torch.manual_seed(1)
    G, D = build_networks(config, image)
    return config, (G.double(), D.double())


def batches_of(blobs: PackedSet, config: Config, G: Any) -> tuple[DiscriminatorBatch, GeneratorBatch]:
    """Return a batch of D, and G's that has the same fakes."""
    batches = Batches(blobs, config, latent_size=G.latent_size, draws=draws_of(config), dtype=torch.float64)
    batches.enter(2)
    d = batches.discriminator(0, 8, 2, None)
    reals = (d.reals, d.augment_real) if config.loss.facts.paired else (None, None)
    return d, GeneratorBatch(d.latents, d.labels, reals[0], reals[1], d.augment_fake)


def conditions(config: Config, alpha: float | None) -> Conditions:
    on = torch.tensor(config.augment.probability, dtype=torch.float64) if config.augment.policy else None
    return Conditions(2, None if alpha is None else torch.tensor(alpha, dtype=torch.float64), on)


def require_near(ours: Found, expected: Iterable[Found]) -> None:
    """Compare gradients and terms; what the loss does not depend on may have zeros or nothing."""
    found, terms = summed(expected)
    assert ours[1].keys() == terms.keys()
    for name, value in terms.items():
        torch.testing.assert_close(ours[1][name], value, rtol=1e-11, atol=1e-12, msg=name)
    assert {name[0] for name in found} == {"G", "D"}
    for name in found.keys() | ours[0].keys():
        one, other = ours[0].get(name), found.get(name)
        if one is None or other is None:
            assert not (one if one is not None else other).any(), name  # type: ignore[union-attr]
        else:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("penalize", [True, False])
@pytest.mark.parametrize("alpha", [None, 0.4])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_two_updates_at_the_same_weights(
    blobs: PackedSet, tmp_path: Path, case: str, alpha: float | None, penalize: bool
) -> None:
    config, networks = made(blobs, CASES[case], plugin(tmp_path))
    batch, of_g = batches_of(blobs, config, networks[0])
    at = replace(conditions(config, alpha), penalize=penalize)
    shared = shared_losses(*networks, batch, at, Objective.of(config))
    assert shared.mirrored == (case in ONE_PASS)
    apart = [
        *EagerGradients(networks, "D", config)(batch, at, 8),
        *EagerGradients(networks, "G", config)(of_g, at, 8),
    ]
    require_near(summed(EagerGradients(networks, "both", config)(batch, at, 8)), apart)


@pytest.mark.parametrize("case", ["wgan, gp, r1, augmentation", "relativistic, r1, r2, augmentation"])
def test_scaled_losses(blobs: PackedSet, tmp_path: Path, case: str) -> None:
    """Each network's gradients are multiplied by its own scale, which is what float16 asks for."""
    config, networks = made(blobs, CASES[case], plugin(tmp_path))
    batch, _ = batches_of(blobs, config, networks[0])
    at, both = conditions(config, None), EagerGradients(networks, "both", config)
    plain, _ = summed(both(batch, at, 8))
    scales = {"D": torch.tensor(64.0), "G": torch.tensor(0.5)}
    scaled, _ = summed(both(batch, replace(at, d_scale=scales["D"], g_scale=scales["G"]), 8))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value * scales[name[0]], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("case", ["wgan, gp, drift", "own loss and penalty"])
def test_compiled_gradients(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **told: compiled(f, **told, backend="eager"))
    config, networks = made(blobs, CASES[case], plugin(tmp_path))
    batch, _ = batches_of(blobs, config, networks[0])
    at = conditions(config, 0.4)
    [found] = CompiledGradients(networks, "both", config)(batch, at, 8)
    require_near(found, EagerGradients(networks, "both", config)(batch, at, 8))


def test_both_networks_move_at_once(blobs: PackedSet) -> None:
    """The first updates of both are those of the first of each at the weights before, with the same fakes."""
    alone = run(blobs, 0, None, **PROJECTION, optimizer=SMOOTH)
    before = {name: value.clone() for name, value in alone.state.G.state_dict().items()}
    at = alone.conditions(alone.spec.schedule.at(0))
    batch = alone.batches.discriminator(0, 16, 0, None)
    of_g = GeneratorBatch(batch.latents, batch.labels)
    for name, part in (("G", of_g), ("D", batch)):  # D is still that of before when G is updated
        alone.steps[name](part, at, {"D": 0.001, "G": 0.001})  # type: ignore[index]
    both = run(blobs, 1, **merge(PROJECTION, SIMULTANEOUS), optimizer=SMOOTH)
    found, expected = both.state.G.state_dict(), alone.state.G.state_dict()
    assert any(not torch.equal(found[name], before[name]) for name in before)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)
    assert both.state.images_seen == 16


def test_the_step_of_g_is_not_d_updated_first(blobs: PackedSet) -> None:
    """Alternating updates give G another gradient, which the comparison above would notice."""
    found, other = (
        run(blobs, 1, **merge(PROJECTION, more), optimizer=SMOOTH).state.G.state_dict()
        for more in (SIMULTANEOUS, {})
    )
    assert max(float((found[name] - other[name]).abs().max()) for name in found) > 1e-5


def test_micro_batches(blobs: PackedSet) -> None:
    branches = merge(SIMULTANEOUS, PROJECTION, {"optimizer": SMOOTH})
    whole, parts = (weights(run(blobs, 5, **branches, run={"micro_batch": size})) for size in (None, 4))
    for name, value in whole.items():
        if name.startswith(("G/", "D/", "G_ema/")):
            torch.testing.assert_close(parts[name], value, rtol=0, atol=5e-6, msg=name)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_small_types_train_nearly_as_float32(blobs: PackedSet, precision: str) -> None:
    branches = merge(SIMULTANEOUS, PROJECTION, {"optimizer": SMOOTH})
    start = weights(run(blobs, 0, **branches))
    exact, rounded = (
        weights(run(blobs, 8, **branches, run={"precision": p})) for p in ("float32", precision)
    )
    for network in ("G/", "D/"):
        names = [name for name in start if name.startswith(network)]
        moved = torch.cat([(exact[name] - start[name]).flatten() for name in names])
        other = torch.cat([(rounded[name] - start[name]).flatten() for name in names])
        assert float(torch.nn.functional.cosine_similarity(moved, other, dim=0)) > 0.9
        assert not torch.equal(moved, other), "the type is used"


def test_stopped_and_resumed_to_the_same_bits(blobs: PackedSet, tmp_path: Path) -> None:
    told = options(**merge(SIMULTANEOUS, {"loss": {"penalty_interval": 2}}))
    whole = progan.train(blobs.path, tmp_path / "whole", options=told)
    stopped = merge(told, {"run": {"stop_after": "phase"}})
    parts = progan.train(blobs.path, tmp_path / "parts", options=stopped)
    for _ in range(2):
        progan.resume(parts)
    progan.resume(parts, options={"run": {"stop_after": "end"}})
    require_equal(last_tensors(Path(parts))[1], last_tensors(Path(whole))[1])
    terms = read_stats(Path(whole) / "stats.jsonl")[-1].keys()
    assert {"D/gp", "D/loss", "G/loss", "G/adversarial"} <= terms


def test_one_update_of_d_for_each_of_g() -> None:
    with pytest.raises(ConfigError, match=r"loss\.updates simultaneous has one update .*loss\.d_steps 3"):
        make_config(merge(SIMULTANEOUS, {"loss": {"d_steps": 3}}))


class Mistaken(progan.AdversarialLoss):
    """Says that its halves are mirrored, which they are not."""

    facts = progan.LossFacts(mirrored=True)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is None
        return -2 * fake


def test_a_loss_that_is_not_mirrored_is_told(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mistaken.*leave mirrored out"):
        progan.train(blobs.path, tmp_path / "run", options=options(), loss=Mistaken)


def test_what_it_costs() -> None:
    """Counted: about 15 passes through a network, not 18, an iteration; of other losses one more."""
    image = ImageSpec(3, (4, 4), 2, ())

    def passes(**loss: Any) -> float:
        equal = {"fmap_base": 64, "fmap_max": 8}
        config = make_config(options(model={"generator": equal, "discriminator": equal}, loss=loss))
        return Costs(config, image).iteration(2, fading=False).work.operations

    wgan = passes(updates="simultaneous") / passes()
    hinge = passes(updates="simultaneous", adversarial="hinge") / passes(adversarial="hinge")
    assert 0.80 < wgan < 0.87
    assert wgan < hinge < 0.95

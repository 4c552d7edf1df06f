"""Losses, gradients, two whole iterations and the schedule against the original code's numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden_weights import at_lod, golden, networks, state_dict
from progan.config import make_config, per_level
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.data.pixels import fade_reals
from progan.interop.systems.tensorflow import translate
from progan.models.autograd import with_squares
from progan.training.losses import (
    Conditions,
    Objective,
    discriminator_stages,
    discriminator_terms,
    generator_terms,
    total,
)
from progan.training.optimizer import Optimizer, update_average
from progan.training.schedule import Schedule
from progan.training.step import Step
from progan.training.terms.shipped import gradient_penalty

CASES = [("A", 0.0), ("A", 0.35), ("C", 0.0), ("C", 0.35)]
CONFIG = make_config({})
OBJECTIVE = Objective.of(CONFIG)


def tensor(config: str, key: str) -> Tensor:
    return torch.from_numpy(golden(f"losses_{config}")[key]).double()


def batches(config: str) -> tuple[DiscriminatorBatch, GeneratorBatch]:
    d = DiscriminatorBatch(
        tensor(config, "reals"),
        tensor(config, "D_labels"),
        tensor(config, "D_latents"),
        tensor(config, "mixing_factors").reshape(-1),
    )
    return d, GeneratorBatch(tensor(config, "G_latents"), tensor(config, "G_labels"))


def close(ours: Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    """Compare with a tolerance relative to the largest expected magnitude."""
    expected = np.asarray(expected).reshape(tuple(ours.shape))
    np.testing.assert_allclose(
        ours.detach().numpy(), expected, rtol=0, atol=tolerance * max(1e-300, np.abs(expected).max())
    )


@pytest.mark.parametrize(("config", "lod"), CASES)
def test_loss_terms(config: str, lod: float) -> None:
    G, D, top = networks(config, torch.float64)
    at = Conditions(*at_lod(lod, top, torch.float64))
    d_batch, g_batch = batches(config)
    expected, key = golden(f"losses_{config}"), f"lod={lod:g}/f64"
    terms = discriminator_terms(G, D, d_batch, at, OBJECTIVE)
    close(terms["real_score"], expected[f"D.real_scores/{key}"])
    close(terms["fake_score"], expected[f"D.fake_scores/{key}"])
    close(terms["gp"], (expected[f"D.mixed_norms/{key}"] - 1) ** 2)
    close(terms["drift"], expected[f"D.epsilon_penalty/{key}"])
    close(total(terms, OBJECTIVE).mean(), expected[f"D.loss_mean/{key}"])
    g_terms = generator_terms(G, D, g_batch, at, OBJECTIVE)
    close(g_terms["adversarial"], -expected[f"G.fake_scores/{key}"])
    close(total(g_terms, OBJECTIVE).mean(), expected[f"G.loss_mean/{key}"])
    if config == "C":
        close(terms["label_real"], expected[f"D.label_penalty_reals/{key}"])
        close(terms["label_fake"], expected[f"D.label_penalty_fakes/{key}"])
        close(g_terms["label_fake"], expected[f"G.label_penalty_fakes/{key}"])


@pytest.mark.parametrize(("config", "lod"), CASES)
def test_every_gradient(config: str, lod: float) -> None:
    G, D, top = networks(config, torch.float64)
    at = Conditions(*at_lod(lod, top, torch.float64))
    d_batch, g_batch = batches(config)
    for stage in discriminator_stages(G, D, d_batch, at, OBJECTIVE):
        torch.autograd.backward(total(stage(), OBJECTIVE).mean())
    compare_gradients(config, "D", D, top, lod)
    torch.autograd.backward(total(generator_terms(G, D, g_batch, at, OBJECTIVE), OBJECTIVE).mean())
    compare_gradients(config, "G", G, top, lod)


def compare_gradients(config: str, name: str, network: torch.nn.Module, top: int, lod: float) -> None:
    ours = dict(network.named_parameters())
    suffix = f"/lod={lod:g}/f64"
    compared = set()
    for key, value in golden(f"losses_{config}").items():
        if key.startswith(f"{name}.grads/") and key.endswith(suffix):
            official = key.removeprefix(f"{name}.grads/").removesuffix(suffix)
            parameter, expected = translate(official, value, top, name)
            gradient = ours[parameter].grad
            if gradient is None:  # the original has zeros where ours has nothing
                assert not expected.any()
            else:
                close(gradient, expected)
            compared.add(parameter)
    assert compared == set(ours)


@pytest.mark.parametrize("target", [1.0, 750.0])
def test_penalty_is_relative_to_the_target(target: float) -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    slope = torch.randn(3, 8, 8, dtype=torch.float64)
    _, _, squares = with_squares(lambda images: ((images * slope).sum((1, 2, 3)), images), x)
    penalty = gradient_penalty(squares, target, one_sided=False)
    close(penalty, np.full(4, (float(slope.norm()) / target - 1) ** 2))


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_two_whole_iterations(micro_batch: int | None) -> None:
    arrays = golden("losses_C")
    opt = json.loads(str(arrays["opt_json"]))
    G, D, top = networks("C", torch.float64)
    average, _, _ = networks("C", torch.float64)
    at = Conditions(*at_lod(opt["lod"], top, torch.float64))
    adam = {"beta1": opt["beta1"], "beta2": opt["beta2"], "eps": opt["epsilon"]}
    config = make_config({"optimizer": adam, "run": {"micro_batch": micro_batch}})
    g_adam, d_adam = Optimizer(G, config.optimizer), Optimizer(D, config.optimizer)
    d_batch, g_batch = batches("C")
    for round_ in (1, 2):
        Step((G, D), {"D": d_adam}, config)(d_batch, at, {"D": opt["lr"]})
        update_average(average, G, opt["gs_beta"])
        Step((G, D), {"G": g_adam}, config)(g_batch, at, {"G": opt["lr"]})
        for name, network in (("G", G), ("D", D), ("Gs", average)):
            expected = state_dict(arrays, name, top, f"after_round{round_}/", "/f64")
            ours = network.state_dict()
            assert expected.keys() == ours.keys()
            for key, value in expected.items():
                np.testing.assert_allclose(ours[key].numpy(), value.numpy(), rtol=0, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("lod", [0, 0.35, 1, 1.5, 2, 2.75, 3])
def test_real_images(lod: float) -> None:
    arrays = golden("train_helpers")
    level, alpha = at_lod(lod, 3, torch.float64)
    side = 4 << level
    reals = torch.from_numpy(arrays[f"reals_uint8/res={side}"]).double() / 127.5 - 1
    if alpha is not None:
        reals = fade_reals(reals, alpha)
    factor = 32 // side
    shown = reals.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    np.testing.assert_allclose(shown.numpy(), arrays[f"process_reals/lod={lod:g}"], rtol=0, atol=1e-6)


TICKS = {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 20, 1024: 10}
SCHEDULES = [key.split("/")[1] for key in golden("train_helpers") if key.startswith("schedule/")]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_tables(name: str) -> None:
    arrays = golden("train_helpers")
    preset = json.loads(str(arrays[f"schedule_kwargs_json/{name}"]))
    kwargs, devices, log2 = preset["kwargs"], preset["num_gpus"], preset["resolution_log2"]
    sides = [4 << level for level in range(log2 - 1)]

    def batch_size(side: int) -> int:
        size = kwargs.get("minibatch_dict", {}).get(str(side), kwargs.get("minibatch_base", 16))
        size -= size % devices
        return int(min(size, kwargs.get("max_minibatch_per_gpu", {}).get(str(side), size) * devices))

    config = make_config(
        {
            "schedule": {
                "start_level": sides.index(kwargs.get("lod_initial_resolution", 4)),
                "stabilise_kimg": kwargs.get("lod_training_kimg", 600),
                "fade_kimg": kwargs.get("lod_transition_kimg", 600),
                "batch_size": [batch_size(side) for side in sides],
            },
            "optimizer": {
                "g_lr": [kwargs.get("G_lrate_dict", {}).get(str(side), 0.001) for side in sides],
                "d_lr": [kwargs.get("D_lrate_dict", {}).get(str(side), 0.001) for side in sides],
            },
            "model": {"discriminator": {"stddev_group": 0}},
            "run": {"log_kimg": [TICKS[side] for side in sides]},
        }
    )
    schedule = Schedule(config, log2 - 2, pictures=1)
    assert len(arrays[f"schedule/{name}"]) > 40
    for row in arrays[f"schedule/{name}"]:
        clock, lod, side, minibatch, g_lr, d_lr, tick = (float(x) for x in row)
        point = schedule.at(int(clock))
        assert 4 << point.level == side, row
        assert log2 - 2 - point.level + (1 - point.alpha) == pytest.approx(lod, abs=1e-9), row
        assert (point.batch_size, point.g_lr, point.d_lr) == (minibatch, g_lr, d_lr), row
        assert per_level(config.run.log_kimg, point.level) == tick, row

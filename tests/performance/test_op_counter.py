"""Counts against closed forms worked out by hand, and what must hold of any count."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from progan.config import Config, load_config, make_config, merge
from progan.models.fused.functions import biased_leaky
from progan.models.layers import upscale2d
from progan.performance.estimate import WORKSPACE
from progan.performance.iteration_cost import ADAM, AVERAGE, FLOAT32, LAUNCH, Ceiling, Costs, IterationCost
from progan.performance.op_counter import Counter, OpCounts
from progan.training.spec import ImageSpec

SPEC = ImageSpec(3, (4, 4), 2)
LATENT, W0, W1, W2 = 6, 8, 4, 2
"""Latent, and filters of levels 0, 1 and 2; level -1 has as many as level 0."""
NETWORK = {"fmap_base": 16, "fmap_max": W0}


def configuration(**branches: dict[str, Any]) -> Config:
    base: dict[str, Any] = {
        "model": {"generator": {**NETWORK, "latent_size": LATENT}, "discriminator": NETWORK},
        "run": {"precision": "float32"},
    }
    return make_config(merge(base, branches))


def counted(config: Config, level: int = 1, *, fading: bool = False) -> dict[str, float]:
    cost = Costs(config, SPEC).iteration(level, fading=fading)
    return {name: getattr(cost, name).operations for name in ("d", "penalty", "g", "optimizer")}


def conv(inputs: int, outputs: int, kernel: int, side: int) -> int:
    """Operations of a convolution of one image: the kernel at each pixel of a side (of the smaller image)."""
    return 2 * inputs * outputs * kernel**2 * side**2


def dense(inputs: int, outputs: int) -> int:
    return 2 * inputs * outputs


G_DENSE = dense(LATENT, W0 * 16)
G_FIRST = conv(W0, W0, 3, 4)
G_BLOCK = conv(W0, W1, 4, 4) + conv(W1, W1, 3, 8)  # the first with the summed kernel of 4x4
G_RGB = conv(W1, 3, 1, 8)
D_RGB = conv(3, W1, 1, 8)
D_BLOCK = conv(W1, W1, 3, 8) + conv(W1, W0, 4, 4)
D_LAST = conv(W0 + 1, W0, 3, 4) + dense(W0 * 16, W0)
D_SCORE = dense(W0, 1)
N = 8


def test_the_operations_of_an_iteration_are_those_of_its_convolutions() -> None:
    found = counted(configuration(schedule={"batch_size": N}))
    fakes = G_DENSE + G_FIRST + G_BLOCK + G_RGB
    # Forward, gradient of the weights, and, but for the images, of the inputs; reals and fakes.
    judged = 2 * (2 * D_RGB + 3 * (D_BLOCK + D_LAST + D_SCORE))
    assert found["d"] == N * (fakes + judged)
    # The latents have no gradient, nor have D's weights.
    assert found["g"] == N * (
        2 * G_DENSE + 3 * (G_FIRST + G_BLOCK + G_RGB) + 2 * (D_RGB + D_BLOCK + D_LAST + D_SCORE)
    )
    # Forward and the slope; the gradients of the slope with respect to the weights and to what it came from;
    # and, as the slope depends on the features by way of the minibatch stddev, both gradients once more.
    # The slope at the score is the constant 1, and nobody asks for the last gradient of the images.
    assert found["penalty"] == N * (5 * D_RGB + 6 * (D_BLOCK + D_LAST) + 3 * D_SCORE)


def test_fading_adds_the_old_layers_of_the_images() -> None:
    config = configuration(schedule={"batch_size": N})
    new, fading = counted(config), counted(config, fading=True)
    g_old, d_old = conv(W0, 3, 1, 4), conv(3, W0, 1, 4)
    assert fading["g"] - new["g"] == N * (3 * g_old + 2 * d_old)
    assert fading["d"] - new["d"] == N * (g_old + 2 * 2 * d_old)


def test_adam_and_the_average_by_parameters() -> None:
    cost = Costs(configuration(), SPEC).iteration(0, fading=True)
    g = LATENT * W0 * 16 + W0 + W0 * W0 * 9 + W0 + W0 * 3 + 3
    d = 3 * W0 + W0 + (W0 + 1) * W0 * 9 + W0 + W0 * 16 * W0 + W0 + W0 + 1
    assert cost.optimizer.operations == 12 * (g + d) + 3 * g
    assert cost.optimizer.least_bytes == FLOAT32 * (7 * (g + d) + 3 * g)
    assert not cost.fading, "nothing fades in at level 0"


def test_bytes_of_a_convolution() -> None:
    x = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    weight = torch.empty(5, 3, 3, 3, device="meta", requires_grad=True)
    sizes = x_bytes, w_bytes, y_bytes = 4 * x.numel(), 4 * weight.numel(), 4 * 2 * 5 * 64
    with Counter() as forward:
        y = F.conv2d(x, weight, padding=1)
    assert forward.work == OpCounts(2 * 2 * 5 * 3 * 9 * 64, sum(sizes), sum(sizes), 1)
    with Counter() as both:
        (slope,) = torch.autograd.grad(y, x, torch.empty_like(y), create_graph=True)
        torch.autograd.grad(slope, weight, torch.empty_like(slope))
    # The slope reads the gradient and the weight. PyTorch computes its gradient with respect to both.
    assert both.work.least_bytes == 3 * (y_bytes + w_bytes + x_bytes)
    assert both.work.operations == 3 * forward.work.operations


def test_a_bias_is_added_after_the_convolution_and_its_gradient_summed_apart() -> None:
    x = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    weight = torch.empty(5, 3, 3, 3, device="meta", requires_grad=True)
    bias = torch.empty(5, device="meta", requires_grad=True)
    x_bytes, w_bytes, b_bytes, y_bytes = 4 * x.numel(), 4 * weight.numel(), 4 * 5, 4 * 2 * 5 * 64
    with Counter() as forward:
        y = F.conv2d(x, weight, bias, padding=1)
    assert forward.work.bytes == x_bytes + w_bytes + y_bytes + b_bytes + 2 * y_bytes
    assert forward.work.operators == 2
    with Counter() as backward:
        torch.autograd.grad(y, (x, weight, bias), torch.empty_like(y))
    convolutions = 2 * (x_bytes + w_bytes + y_bytes)
    assert backward.work.least_bytes == convolutions
    assert backward.work.bytes == convolutions + y_bytes + b_bytes
    assert backward.work.operators == 3


@pytest.mark.parametrize(("eps", "factors"), [(None, 0), (1e-8, 4 * 2 * 64)])
def test_a_fused_kernel_reads_and_writes_once(eps: float | None, factors: int) -> None:
    x = torch.empty(2, 5, 8, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    bias = torch.empty(5, device="meta", requires_grad=True)
    x_bytes, b_bytes = 2 * x.numel(), 4 * 5
    y = F.conv2d(x, torch.empty(5, 5, 1, 1, device="meta", dtype=torch.bfloat16))
    with Counter() as forward:
        z = biased_leaky(y, bias, 0.2, eps)
    assert forward.work == OpCounts(0, 0, 2 * x_bytes + b_bytes + factors, 1)
    with Counter() as backward:
        torch.autograd.grad(z, (y, bias), torch.empty_like(z))
    # The sums of the bias come in parts, which are added by another operator.
    assert backward.work == OpCounts(0, 0, 3 * x_bytes + factors + b_bytes + 2 * b_bytes, 2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("scaling", ["fused", "separate", "strided"])
@pytest.mark.parametrize("growth", ["fade", "morph"])
def test_every_way_to_scale_and_grow_is_counted(scaling: str, growth: str, precision: str) -> None:
    small = {"fmap_base": 64, "fmap_max": 8}
    config = make_config(
        {
            "model": {
                "generator": {**small, "upscale": scaling},
                "discriminator": {**small, "downscale": scaling},
            },
            "schedule": {"growth": growth, "batch_size": 8},
            "run": {"precision": precision},
        }
    )
    costs = Costs(config, ImageSpec(3, (4, 4), 2))
    for fading in (True, False):
        assert costs.iteration(2, fading=fading).work.bytes > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_iteration_with_fused_kernels_moves_a_quarter_less(precision: str) -> None:
    moved = []
    for fused in (False, True):
        run = {"run": {"fused_kernels": fused, "precision": precision}}
        config = load_config("paper-celebahq-1024-v2-8gpus", run)
        image = ImageSpec(3, (4, 4), 8)
        moved.append(Costs(config, image).iteration(8, fading=False).work.bytes)
    assert 0.65 < moved[1] / moved[0] < 0.75


def test_what_is_computed_pixel_by_pixel_moves_bytes_operator_by_operator_alone() -> None:
    x = torch.empty(4, 4, device="meta")
    with Counter() as counter:
        y = (x.view(2, 8).t() + 1).expand(3, 8, 2)
        upscale2d(y[None])
    added, repeated = 2 * x.numel(), x.numel() + 3 * 16 * 4
    assert counter.work == OpCounts(0, 0, FLOAT32 * (added + repeated), 2)


def test_the_peak_counts_what_is_alive_at_once() -> None:
    x = torch.empty(100, device="meta")
    with Counter() as counter:
        a = x + 1
        b = a.view(10, 10) * 2  # with a: 800 bytes
        del a
        c = b + b  # with b
        del b
        c.add_(1)
    assert counter.peak == 800


@lru_cache
def of_batch(batch: int, level: int, fading: bool) -> IterationCost:
    return Costs(configuration(schedule={"batch_size": batch}), SPEC).iteration(level, fading=fading)


@given(groups=st.integers(2, 6), level=st.integers(0, 1), fading=st.booleans())
@settings(max_examples=8)
def test_an_iteration_costs_as_its_batch_is_large(groups: int, level: int, fading: bool) -> None:
    one, many = of_batch(4, level, fading), of_batch(4 * groups, level, fading)
    assert many.images == groups * one.images
    for name in ("d", "penalty", "g"):
        work, times = getattr(one, name), getattr(many, name)
        assert times.operations == groups * work.operations
        assert work.least_bytes < times.least_bytes <= groups * work.least_bytes
        assert 0 < work.least_bytes < work.bytes
    assert many.optimizer == one.optimizer
    assert one.activation_bytes < many.activation_bytes <= groups * one.activation_bytes
    assert many.state_bytes == one.state_bytes


def test_parts_of_a_batch_cost_the_same_operations_in_less_memory() -> None:
    whole = Costs(configuration(), SPEC).iteration(2, fading=True)
    parts = Costs(configuration(run={"micro_batch": 4}), SPEC).iteration(2, fading=True)
    assert parts.work.operations == whole.work.operations
    assert parts.activation_bytes < whole.activation_bytes / 3
    assert parts.g.operators == 4 * whole.g.operators


def test_the_penalty_and_the_verdicts_are_not_in_memory_at_once() -> None:
    """The penalty keeps about as much of an image as the verdicts of two: at once, twice that."""
    costs = Costs(configuration(), SPEC)
    whole, verdicts = (costs.update("D", 2, fading=False, penalize=due).peak for due in (True, False))
    assert verdicts < whole < 1.4 * verdicts


def test_any_batch_of_the_paper_fits_8_gb_in_float32_with_its_workspace() -> None:
    config = load_config("paper-celebahq-1024-v2-8gpus", {"run": {"precision": "float32"}})
    costs = Costs(config, ImageSpec(3, (4, 4), 8))
    assert costs.largest_part(8e9 / WORKSPACE, 8, fading=True) >= 4
    assert costs.iteration(8, fading=True).memory * WORKSPACE < 80e9


def test_small_types_halve_the_least_bytes_of_products() -> None:
    wide, small = (
        Costs(configuration(run={"precision": precision}), SPEC).iteration(2, fading=False)
        for precision in ("float32", "bfloat16")
    )
    assert small.d.least_bytes == wide.d.least_bytes / 2
    assert small.d.operations == wide.d.operations
    assert small.activation_bytes < wide.activation_bytes


def test_penalties_count_as_often_as_they_are_due() -> None:
    always = counted(configuration(loss={"d_steps": 2}))
    seldom = counted(configuration(loss={"d_steps": 2, "penalty_interval": 4}))
    assert seldom == {**always, "penalty": always["penalty"] / 4}
    once = counted(configuration())
    assert always == {
        **once,
        "d": 2 * once["d"],
        "penalty": 2 * once["penalty"],
        "optimizer": always["optimizer"],
    }
    assert counted(configuration(loss={"gp_lambda": 0}))["penalty"] == 0


def test_the_largest_part_fits_and_the_next_does_not() -> None:
    costs = Costs(configuration(schedule={"batch_size": 24}), SPEC)
    need = {batch: of_batch(batch, 1, True).memory for batch in (4, 12)}
    for memory, largest in ((need[12], 12), (need[12] - 1, 8), (need[4] - 1, 0), (1e12, 24)):
        assert costs.largest_part(memory, 1, fading=True) == largest


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    ceiling = Ceiling(operations=100, bandwidth=10)
    assert ceiling.floor(OpCounts(operations=200, least_bytes=10)) == 2
    assert ceiling.floor(OpCounts(operations=200, least_bytes=50)) == 5
    # Operator by operator, what is moved beside the convolutions comes on top; and each has to be begun.
    assert ceiling.one_by_one(OpCounts(operations=200, least_bytes=10, bytes=40, operators=2)) == 2 + 3
    assert ceiling.one_by_one(OpCounts(200, 10, 40, operators=2e6)) == 2e6 * LAUNCH
    assert ADAM.operations > AVERAGE.operations

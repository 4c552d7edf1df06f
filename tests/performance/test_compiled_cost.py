"""Kernels of compiled functions against what was worked out by hand; nothing is compiled to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from progan.config import make_config
from progan.errors import ConfigError
from progan.models.layers import pixel_norm
from progan.performance import compiled_cost
from progan.performance.compiled_cost import CompiledCosts, Kernels, kernels_of
from progan.performance.iteration_cost import Costs
from progan.training.spec import ImageSpec

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # PyTorch's own, in its use of torch.jit

SHAPE = (4, 16, 32, 32)
FEATURES = 4 * 16 * 32 * 32 * 4
"""Bytes of features in float32."""

BIAS = 16 * 4


def asked(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Kernels:
    """Ask for the kernels of a function of tensors without numbers, laid out as in training."""
    with FakeTensorMode():
        tensors = [
            torch.empty(
                shape, memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format
            )
            for shape in shapes
        ]
        return kernels_of(lambda: torch.compile(function, fullgraph=True)(*tensors))


def test_what_lies_between_convolutions_is_one_kernel() -> None:
    def layers(x: Tensor, weight: Tensor) -> Tensor:
        y = F.leaky_relu(F.conv2d(x, weight, padding=1), 0.2) * 2 + 1
        return F.conv2d(y, weight, padding=1)

    assert asked(layers, SHAPE, (16, 16, 3, 3)) == Kernels(3, 2 * FEATURES)


def test_a_pixel_norm_reads_and_writes_once() -> None:
    assert asked(lambda x: pixel_norm(F.leaky_relu(x, 0.2)), SHAPE) == Kernels(1, 2 * FEATURES)


def test_the_gradient_of_a_bias_is_a_sum_as_on_a_gpu() -> None:
    """Of the gradient, which is made in a kernel of its own; what convolutions move is not counted here."""

    def slope(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        def loss(weight: Tensor, bias: Tensor) -> Tensor:
            return F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.2).square().sum()

        return torch.func.grad(loss, argnums=(0, 1))(weight, bias)

    # Forward, the slope of what follows (read and write), its sum, and the gradient of the weight.
    assert asked(slope, SHAPE, (16, 16, 3, 3), (16,)) == Kernels(4, 2 * FEATURES + FEATURES + BIAS)


def test_a_product_is_a_kernel_whose_bytes_are_counted_elsewhere() -> None:
    assert asked(lambda x, weight: x @ weight, (64, 32), (32, 8)) == Kernels(1, 0)


CONFIG: dict[str, Any] = {
    "model": {
        "generator": {"fmap_base": 64, "fmap_max": 16, "latent_size": 16},
        "discriminator": {"fmap_base": 64, "fmap_max": 16},
    },
    "schedule": {"batch_size": 16},
}


def require_less(precision: str, level: int, *, fading: bool) -> None:
    config = make_config({**CONFIG, "run": {"precision": precision}})
    spec = ImageSpec(3, (4, 4), 2)
    cost = Costs(config, spec).iteration(level, fading=fading)
    found, work = CompiledCosts(config, spec).iteration(cost), cost.work
    assert work.least_bytes < found.bytes < work.bytes
    assert 50 < found.operators < 0.6 * work.operators
    assert (found.operations, found.least_bytes) == (work.operations, work.least_bytes)


def test_a_compiled_iteration_moves_less_in_fewer_kernels() -> None:
    require_less("bfloat16", 0, fading=False)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_iteration_moves_less_while_a_level_comes_in(precision: str) -> None:
    require_less(precision, 2, fading=True)


def test_a_compiler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cost, "_added", lambda _: 1 / 0)
    with pytest.raises(ConfigError, match=r"does not answer \(.*division by zero.*leave it out"):
        asked(lambda x: x + 1, SHAPE)

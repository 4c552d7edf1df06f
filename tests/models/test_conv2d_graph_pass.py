"""Convolutions with images as kernels in a graph: replaced where they are that, with the same outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from progan.models import conv2d_graph_pass
from progan.models.conv2d_graph_pass import ask_for_weight_gradients, weight_gradients_asked_for


def slope_of_slope(stride: int, padding: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function whose gradient with respect to the weight needs that of a convolution's gradient."""

    def squares(x: Tensor, weight: Tensor) -> Tensor:
        def scores(x: Tensor) -> Tensor:
            return F.conv2d(x, weight, stride=stride, padding=padding).sin().sum()

        slope: Tensor = torch.func.grad(scores)(x)
        return slope.square().sum()

    gradient: Callable[[Tensor, Tensor], Tensor] = torch.func.grad(squares, argnums=1)
    return gradient


def leaves(kernel: int, side: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, side, side + 2, dtype=torch.float64, generator=rng)
    return x, torch.randn(4, 3, kernel, kernel, dtype=torch.float64, generator=rng)


@pytest.mark.parametrize(
    ("stride", "kernel", "padding", "side"),
    [(1, 3, 1, 8), (1, 1, 0, 6), (2, 4, 1, 14), (2, 3, 0, 15), (2, 3, 1, 14), (3, 3, 0, 20), (1, 7, 3, 9)],
)
def test_the_replaced_convolution_gives_the_same(stride: int, kernel: int, padding: int, side: int) -> None:
    """Also where the stride does not divide the sides: there, PyTorch cuts what it has computed too much."""
    function, inputs = slope_of_slope(stride, padding), leaves(kernel, side)
    traced = make_fx(function, tracing_mode="fake")(*inputs)
    assert ask_for_weight_gradients(traced.graph) >= 1
    traced.graph.lint()
    traced.recompile()
    torch.testing.assert_close(traced(*inputs), function(*inputs), rtol=1e-12, atol=1e-12)


def test_convolutions_of_images_with_kernels_are_left_alone() -> None:
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=3) + F.conv_transpose2d(x, weight.transpose(0, 1), padding=3)

    traced = make_fx(forward, tracing_mode="fake")(*leaves(7, 16))
    code = str(traced.graph)
    assert ask_for_weight_gradients(traced.graph) == 0
    assert str(traced.graph) == code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiler_uses_the_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    replaced: list[int] = []

    def counted(graph: torch.fx.Graph) -> int:
        replaced.append(ask_for_weight_gradients(graph))
        return replaced[-1]

    monkeypatch.setattr(conv2d_graph_pass, "ask_for_weight_gradients", counted)
    function, inputs = slope_of_slope(1, 1), leaves(3, 8)

    def gradient(x: Tensor, weight: Tensor) -> Tensor:
        slope: Tensor = function(x, weight)
        return slope

    with weight_gradients_asked_for():
        found = torch.compile(gradient, fullgraph=True)(*inputs)
    torch.testing.assert_close(found, function(*inputs), rtol=1e-12, atol=1e-12)
    assert sum(replaced) == 1

"""Our convolution against PyTorch's own, to the third derivative, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from progan.models import conv2d_gradfix
from progan.models.conv2d_gradfix import convolve

SHAPES = [(1, 3, 1, 5), (2, 4, 1, 6), (2, 3, 0, 7), (2, 3, 1, 6), (1, 1, 0, 4)]
"""Stride, kernel, padding, side: those of the networks, and sides that the stride does not divide."""


def leaves(kernel: int, side: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, side, side + 2), (4, 3, kernel, kernel), (4,)]
    return [torch.randn(s, dtype=torch.float64, generator=rng).requires_grad_() for s in shapes]


@pytest.mark.parametrize(("stride", "kernel", "padding", "side"), SHAPES)
def test_gradients(stride: int, kernel: int, padding: int, side: int) -> None:
    inputs = leaves(kernel, side)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(x, weight, bias, stride=stride, padding=padding)

    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.integers(0, 1), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 9),
)
def test_derivatives_in_any_order_are_those_of_pytorch(
    shape: tuple[int, int, int, int], order: list[int], scaled: bool, seed: int
) -> None:
    """With respect to input (0) and weight (1), one after the other; as leaves and as results of others."""
    stride, kernel, padding, side = shape
    found = []
    functions: list[Callable[..., Tensor]] = [convolve, F.conv2d]
    for function in functions:
        inputs = leaves(kernel, side, seed)
        x, weight, bias = (value * 1.5 for value in inputs) if scaled else inputs
        value = function(x, weight, bias, stride=stride, padding=padding).square().sum()
        derivatives = [value]
        for which in order:
            (slope,) = torch.autograd.grad(value, inputs[which], create_graph=True)
            derivatives.append(slope)
            value = (slope.square() * torch.linspace(0.5, 1, slope.numel()).double().view_as(slope)).sum()
        value.backward()  # type: ignore[no-untyped-call]
        found.append(derivatives + [each.grad for each in inputs if each.grad is not None])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.detach().abs().max()))


def test_under_autocast_it_is_that_of_pytorch() -> None:
    found = []
    functions: list[Callable[..., Tensor]] = [convolve, F.conv2d]
    for function in functions:
        x, weight, bias = (value.detach().float().requires_grad_() for value in leaves(3, 8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(x, weight, bias, stride=1, padding=1)
            assert y.dtype == torch.bfloat16
            (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        slope.square().sum().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        found.append((y.float(), slope, weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.02 * float(other.detach().abs().max()))


def test_gradients_are_computed_outside_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU they are computed in a thread that does not know autocast's type."""
    enabled: list[bool] = []
    transposed = conv2d_gradfix._transposed

    def noting(*arguments: Any) -> Tensor:
        enabled.append(torch.is_autocast_enabled("cpu"))
        return transposed(*arguments)

    monkeypatch.setattr(conv2d_gradfix, "_transposed", noting)
    x, weight, bias = (value.detach().float().requires_grad_() for value in leaves(3, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolve(x, weight, bias, padding=1)
        torch.autograd.grad(y.float().sum(), x, create_graph=True)
        assert torch.is_autocast_enabled("cpu")
    assert enabled == [False]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes note of the largest kernel of a convolution, and of gradients of weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest_kernel = self.weight_gradients = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.largest_kernel = max(self.largest_kernel, args[1].shape[-1])
        if func is torch.ops.aten.convolution_backward.default:
            self.weight_gradients += bool(args[-1][1])
        return func(*args, **(kwargs or {}))


def penalised(function: Callable[..., Tensor]) -> tuple[Operations, Operations]:
    """Differentiate as a gradient penalty does; returns what the two passes computed."""
    x, weight, bias = (value.float() for value in leaves(3, 16))
    x, scaled = x.detach().requires_grad_(), weight * 0.5
    with Operations() as first:
        y = function(x, scaled, bias, stride=1, padding=1)
        (slope,) = torch.autograd.grad(F.leaky_relu(y, 0.2).sum(), x, create_graph=True)
    with Operations() as second:
        slope.square().sum().backward()  # type: ignore[no-untyped-call]
    return first, second


def test_a_penalty_needs_no_kernel_as_large_as_the_image() -> None:
    first, second = penalised(convolve)
    assert first.weight_gradients == 0, "nobody asks for them"
    assert second.largest_kernel <= 3
    assert second.weight_gradients > 0
    assert penalised(F.conv2d)[1].largest_kernel > 16, "PyTorch's own way; else ours is not needed any more"


def test_without_the_answer_of_pytorch_everything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_will_engine_execute_node")
    x, weight, bias = leaves(3, 5)
    (slope,) = torch.autograd.grad(convolve(x, weight * 2, bias).sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    ours, weight.grad = weight.grad, None
    (slope,) = torch.autograd.grad(F.conv2d(x, weight * 2, bias).sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, weight.grad)

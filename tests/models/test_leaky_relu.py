"""Our leaky ReLU is PyTorch's, to the second derivative, without the zeros that PyTorch adds there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from progan.models.activations import LeakyReLU


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 99))
def test_values_and_both_derivatives_are_those_of_pytorch(slope: float, seed: int) -> None:
    """The result is used by a function whose slope changes, as the layers of D that follow."""
    x, weight = features(3, 4, 2, 2, seed=seed), features(3, 4, 2, 2, seed=seed + 1)
    results = []
    ours = LeakyReLU(slope, inplace=True)
    for function in (ours, lambda x: F.leaky_relu(x, slope)):
        start, factor = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(start * factor)
        (first,) = torch.autograd.grad(y.sin().sum(), start, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), (start, factor))
        results.append((y, first, *second))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_derivatives_are_those_of_differences(slope: float) -> None:
    layer, x = LeakyReLU(slope, inplace=True), features(2, 5, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x.clone()), x)
    assert torch.autograd.gradgradcheck(lambda x: layer(x.clone()), x)


def test_no_zeros_are_made_and_nothing_is_copied() -> None:
    class Names(TorchDispatchMode):  # type: ignore[no-untyped-call]
        seen: list[str]

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    x = features(2, 3, 4, 4).requires_grad_()
    names = Names()  # type: ignore[no-untyped-call]
    names.seen = []
    layer = LeakyReLU(0.2, inplace=True)
    with names:
        (first,) = torch.autograd.grad(layer(x * 2).sin().sum(), x, create_graph=True)
        torch.autograd.grad(first.sin().sum(), x)
    assert "aten::zeros_like" not in names.seen
    assert names.seen.count("aten::leaky_relu_") == 1
    assert names.seen.count("aten::leaky_relu_backward") == 3


def test_where_nothing_is_followed_it_works_in_place() -> None:
    x = features(2, 3)
    memory = x.data_ptr()
    with torch.no_grad():
        assert LeakyReLU(0.2, inplace=True)(x).data_ptr() == memory

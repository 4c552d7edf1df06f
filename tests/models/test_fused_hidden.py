"""Bias, leaky ReLU and pixel norm in one operation: the function of its parts, and both derivatives."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from progan.config import Growth
from progan.models.discriminator import Discriminator
from progan.models.fused import check
from progan.models.fused.functions import biased_leaky
from progan.models.fused.operators import bias_leaky_, bias_leaky_backward
from progan.models.generator import Generator
from progan.models.layers import EqualizedConv2d, pixel_norm
from progan.training import acceleration

SMALL: dict[str, Any] = {"fmap_base": 64, "fmap_max": 8, "max_level": 2}
CUDA = torch.device("cuda", 0)


def features(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(memory_format=torch.channels_last) if drawn.dim() == 4 else drawn


def parts(x: Tensor, bias: Tensor, slope: float, eps: float | None) -> Tensor:
    a = F.leaky_relu(x + bias.view(1, -1, 1, 1), slope)
    return a if eps is None else pixel_norm(a, eps)


class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("eps", [None, 1e-8, 1.0])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_values_and_both_derivatives_are_those_of_the_parts(slope: float, eps: float | None) -> None:
    """The second derivative is asked of the bias, too, and of what comes before the convolution."""
    results = []
    for function in (biased_leaky, parts):
        start, weight = features(3, 5, 2, 4).requires_grad_(), features(3, 5, 2, 4, seed=1).requires_grad_()
        bias = features(5, seed=2).requires_grad_()
        y = function(start * weight, bias, slope, eps)
        first = torch.autograd.grad(y.sin().sum(), (start, bias), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), (start, weight, bias))
        plain = torch.autograd.grad(function(start * weight, bias, slope, eps).sin().sum(), (start, bias))
        results.append((y, *first, *second, *plain))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_small_types_are_rounded_once(kind: torch.dtype) -> None:
    x, bias = features(2, 7, 3, 3).to(kind), features(7, seed=1)
    exact = parts(x.float(), bias, 0.2, 1e-8)
    made, factors = bias_leaky_(x.clone(), bias, 0.2, 1e-8)
    assert torch.equal(made, exact.to(kind))
    assert factors.dtype == torch.float32
    dx, to_bias = bias_leaky_backward(x, made, factors, 0.2, sums=True)
    assert dx.dtype == kind
    assert to_bias is not None
    assert to_bias.dtype == torch.float32


def losses(G: Generator, D: Discriminator, level: int, alpha: float | None) -> list[Tensor]:
    """Return what WGAN-GP asks for: scores, slopes, and gradients of both networks."""
    images = G(features(4, G.latent_size), level=level, alpha=alpha)
    for_g = torch.autograd.grad(
        -D(images, level=level, alpha=alpha)[0].mean(), list(G.parameters()), allow_unused=True
    )
    reals = images.detach().requires_grad_()
    scores, _ = D(reals, level=level, alpha=alpha)
    (slopes,) = torch.autograd.grad(scores.sum(), reals, create_graph=True)
    penalty = (slopes.square().sum(dim=(1, 2, 3)).sqrt() - 1).square().mean()
    for_d = torch.autograd.grad(scores.mean() + 10 * penalty, list(D.parameters()), allow_unused=True)
    return [images, scores, slopes, *(g for g in (*for_g, *for_d) if g is not None)]


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, {}),
    "separate": ({"upscale": "separate"}, {"downscale": "separate"}),
    "strided": ({"upscale": "strided"}, {"downscale": "strided"}),
    "without norm": ({"pixel_norm": False}, {}),
    "without bias": ({"bias": False}, {"bias": False}),
    "another activation": ({"activation": "silu"}, {"activation": "elu"}),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("growth", "alpha"), [("fade", None), ("fade", 0.3), ("morph", 0.3)])
def test_networks_are_the_same_but_for_rounding(name: str, growth: Growth, alpha: float | None) -> None:
    results = []
    for kernels in (False, True):
        torch.manual_seed(0)
        g, d = VARIANTS[name]
        G = Generator(**SMALL, latent_size=6, growth=growth, **g).place("cpu").use_kernels(kernels)
        D = Discriminator(**SMALL, growth=growth, **d).place("cpu").use_kernels(kernels)
        with Seen() as seen:
            results.append(losses(G, D, 2, alpha))
        used = any(name.startswith("progan::") for name in seen.names)
        assert used == (kernels and name not in ("without bias", "another activation"))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_hooks_see_what_they_saw() -> None:
    torch.manual_seed(0)
    G = Generator(**SMALL, latent_size=6).place("cpu")
    seen: list[Tensor] = []
    G.blocks[1].conv1.register_forward_hook(lambda *of: seen.append(of[2].clone()))  # type: ignore[union-attr]
    for kernels in (False, True):
        G.use_kernels(kernels)(features(2, 6))
    torch.testing.assert_close(*seen)


class Doubled(EqualizedConv2d):
    """Does something else than its base."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_layers_of_ones_own_are_called() -> None:
    torch.manual_seed(0)
    D = Discriminator(**SMALL).place("cpu")
    D.from_rgb[2] = nn.Sequential(D.from_rgb[2])
    D.blocks[1].conv0 = Doubled(8, 8, 3, D.options).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = features(4, 3, 16, 16)
    expected = D(x)[0]
    torch.testing.assert_close(D.use_kernels(True)(x)[0], expected, rtol=1e-4, atol=1e-6)


def test_float64_and_other_layouts_are_computed_by_the_parts() -> None:
    torch.manual_seed(0)
    D = Discriminator(**SMALL).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = D(x)[0]
    with Seen() as seen:
        made = D.use_kernels(True)(x)[0]
    assert torch.equal(made, expected)
    assert not any(name.startswith("progan::") for name in seen.names)


def test_a_device_is_tried_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert check.wrong(cpu) is None
    assert check.missing(cpu) == "it is made for CUDA"

    def halves(*_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
        dx, to_bias = bias_leaky_backward(*_, **__)
        return dx, None if to_bias is None else to_bias / 2

    computed = check._computed
    turn = iter((True, False) * 9)

    def one_side_wrong(*of: Any) -> list[Tensor]:
        with monkeypatch.context() as patch:
            if next(turn):
                patch.setattr(check, "bias_leaky_backward", halves)
            return computed(*of)

    monkeypatch.setattr(check, "_computed", one_side_wrong)
    assert check.wrong(cpu) == "its gradient of the bias is off by 0.5 of its norm in torch.float32"


def test_where_a_device_has_no_kernels_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    check.missing.cache_clear()
    networks = Generator(**SMALL).use_kernels(True), Discriminator(**SMALL).use_kernels(True)
    said: list[str] = []
    acceleration.use_kernels(networks, CUDA, said.append)
    assert said == [
        "going on without fused kernels: the package triton is missing (run.fused_kernels false leaves the "
        "attempt out)"
    ]
    assert not any(getattr(module, "kernels", False) for one in networks for module in one.modules())
    check.missing.cache_clear()


def test_any_error_of_the_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.device) -> str | None:
        raise AssertionError("no ptxas\nand more")

    monkeypatch.setattr(check, "wrong", fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    check.missing.cache_clear()
    assert check.missing(CUDA) == "AssertionError: no ptxas"
    check.missing.cache_clear()


@pytest.fixture(scope="module", name="kernels")
def kernels_by_the_interpreter() -> ModuleType:
    """Triton's interpreter carries kernels out on the CPU, if that is asked for before Triton is loaded."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("`make test-kernels` has Triton and its interpreter")
    from progan.models.fused import kernels

    return kernels


@pytest.mark.parametrize("eps", [None, 1e-8])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [*check.SHAPES, (1, 3, 1, 1), (5, 1, 33, 65)])
def test_kernels_compute_what_plain_operations_do(
    kernels: ModuleType, shape: tuple[int, ...], kind: torch.dtype, eps: float | None
) -> None:
    x, dy, bias = features(*shape).to(kind), features(*shape, seed=1).to(kind), features(shape[1], seed=2)
    expected, expected_factors = bias_leaky_(x.clone(), bias, 0.2, eps)
    factors = kernels.forward(x, bias, 0.2, eps)
    allowed = check.LARGEST_ERROR[kind]
    torch.testing.assert_close(x, expected, rtol=allowed, atol=allowed)
    torch.testing.assert_close(factors, expected_factors, rtol=1e-5, atol=1e-6)
    given = None if eps is None else expected_factors
    slopes, sums = bias_leaky_backward(dy, expected, given, 0.2, sums=True)
    dx, shares = kernels.backward(dy, expected, given, 0.2, sums=True)
    torch.testing.assert_close(dx, slopes, rtol=allowed, atol=allowed)
    torch.testing.assert_close(shares.sum(dim=0), sums, rtol=1e-4, atol=1e-4)
    assert kernels.backward(dy, expected, given, 0.2, sums=False)[1].shape == (0, shape[1])

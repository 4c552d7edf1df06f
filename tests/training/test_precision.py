"""Small types train nearly as float32, devices that lack them are refused, and settings are put back."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.config import OptimizerOptions, Precision, RunOptions
from progan.errors import ConfigError
from progan.models.autograd import autocast
from progan.training import precision
from progan.training.optimizer import Optimizer

CPU = torch.device("cpu")


class Scores(nn.Module):
    """A discriminator of one block: [N, 1, 8, 8] -> [N]."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first = nn.Conv2d(1, 16, 3, padding=1)
            self.second = nn.Conv2d(16, 16, 3, padding=1)
            self.dense = nn.Linear(16 * 4 * 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.silu(self.first(images))
        x = F.avg_pool2d(F.silu(self.second(x)), 2)
        scores: Tensor = self.dense(x.flatten(1)).flatten().float()
        return scores


def trained(kind: Precision, steps: int = 4) -> tuple[Tensor, Tensor]:
    """Return all weights of `Scores` before and after some updates with WGAN-GP's loss in a precision."""
    network = Scores()
    # Epsilon far above the gradients makes the update linear in them. Else it would be lr * sign(gradient)
    # at first, and the tiniest gradients, whose signs are rounding errors, would decide the difference.
    options = OptimizerOptions(beta1=0.5, eps=100.0)
    optimizer = Optimizer(network, options, loss_scaling=precision.needs_loss_scaling(kind))
    draw = torch.Generator().manual_seed(4)
    reals, fakes = torch.randn(2, 8, 1, 8, 8, generator=draw)
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    made = 0
    while made < steps:  # WGAN's slope of 1 overflows at the first loss scale, 2^16, and is tried again
        mixed = ((reals + fakes) / 2).requires_grad_()
        with autocast(precision.SMALL_TYPES.get(kind), CPU):
            scores = network(fakes) - network(reals)
            (slopes,) = torch.autograd.grad(
                (network(mixed) * optimizer.scale).sum(), mixed, create_graph=True
            )
        norms = (slopes.float() / optimizer.scale).flatten(1).norm(dim=1)
        loss = (scores + 10 * (norms - 1).square()).mean() * optimizer.scale
        parameters = dict(network.named_parameters())
        slope = torch.autograd.grad(loss, list(parameters.values()))
        optimizer.add(dict(zip(parameters, slope, strict=True)))
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
        made += optimizer.step(1.0)
    return before, nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.mark.parametrize(("kind", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_small_types_train_nearly_as_float32(kind: Precision, bits: int) -> None:
    start, exact = trained("float32")
    _, ours = trained(kind)
    assert ours.dtype == torch.float32
    difference = float((ours - exact).norm() / (exact - start).norm())
    # Rounding to a significand of `bits` bits errs by up to 2^-bits at each of some ten operations of the
    # forward, backward and double backward pass; independent errors add up to about sqrt(10) of them.
    assert 2.0**-bits / 16 < difference < 4 * 2.0**-bits


def test_float32_is_left_alone() -> None:
    _, exact = trained("float32")
    _, tf32 = trained("tf32")
    assert torch.equal(tf32, exact)  # TF32 is CUDA's
    with torch.autocast("cpu", torch.bfloat16), autocast(None, CPU):
        assert F.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == torch.float32
    with autocast(None, CPU):
        assert F.linear(torch.ones(2, 3).double(), torch.ones(4, 3).double()).dtype == torch.float64


@pytest.mark.parametrize("kind", ["float32", "tf32", "bfloat16", "float16"])
def test_the_cpu_can_do_every_precision(kind: Precision) -> None:
    precision.check_settings(RunOptions(precision=kind), CPU)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_precision_that_the_device_has_not_is_refused(
    kind: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"run.precision {kind} cannot .* on meta: .*meta.*; use float32"):
        precision.check_precision(kind, torch.device("meta"))
    precision.check_precision("float32", torch.device("meta"))

    def without(*_: object) -> AbstractContextManager[None]:
        return nullcontext()  # what autocast becomes, with a warning, where a type is missing

    monkeypatch.setattr(precision, "autocast", without)
    with pytest.raises(ConfigError, match=f"run.precision {kind} .* computes in torch.float32 instead"):
        precision.check_precision(kind, CPU)


@pytest.mark.parametrize("fast", [False, True])
def test_auto_is_what_the_device_is_made_for(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "bfloat16" if fast else "tf32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: fast)
    for capability, older in (((6, 1), "tf32"), ((7, 0), "float16"), ((7, 5), "float16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, is_of=capability: is_of)
        assert precision.choose_precision("auto", torch.device("cuda")) == ("bfloat16" if fast else older)
    for name in precision.BFLOAT16_PROCESSORS:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, precision.BFLOAT16_PROCESSORS[1], lambda: fast, raising=False)
    assert precision.choose_precision("auto", CPU) == expected
    assert precision.choose_precision("auto", torch.device("mps")) == "tf32"
    assert precision.choose_precision("float16", CPU) == "float16"
    for name in precision.BFLOAT16_PROCESSORS:
        monkeypatch.delattr(torch.cpu, name)
    assert precision.choose_precision("auto", CPU) == "tf32", "an older PyTorch does not tell"


def test_a_limit_of_memory_is_for_cuda() -> None:
    with pytest.raises(ConfigError, match=r"run.memory_fraction 0.5 .* CUDA .* cpu; leave it out"):
        precision.check_settings(RunOptions(memory_fraction=0.5), CPU)


def state() -> tuple[Any, ...]:
    """Return what `settings` sets in the process."""
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize(
    ("options", "device", "expected"),
    [
        ({"precision": "tf32"}, "cuda", ("high", True, True, False, 1)),
        ({"precision": "float32"}, "cuda", ("highest", False, True, False, 1)),
        ({"precision": "bfloat16"}, "cuda", ("highest", False, True, False, 1)),
        ({"precision": "tf32"}, "cpu", ("highest", False, True, False, 1)),
        ({"deterministic": True, "threads": 2}, "cpu", ("highest", False, False, True, 2)),
    ],
)
def test_settings_are_set_and_put_back(
    options: dict[str, Any], device: str, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = state()
    with suppress(KeyboardInterrupt), precision.settings(RunOptions(**options), torch.device(device)):
        assert state() == expected
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == ("deterministic" in options)
        raise KeyboardInterrupt  # however a run ends
    assert state() == before


def test_a_process_that_is_deterministic_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with precision.settings(RunOptions(), CPU):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
        with precision.settings(RunOptions(deterministic=True), CPU):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_switched_that_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch takes PyTorch more than a second, in which it loads its compiler."""
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: pytest.fail("switched"))
    with precision.settings(RunOptions(), CPU):
        assert not torch.are_deterministic_algorithms_enabled()

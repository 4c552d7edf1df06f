"""The updates of Adam and AdamW, clipping, loss scaling, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from progan.config import OptimizerOptions
from progan.errors import DivergenceError
from progan.training.optimizer import (
    GROWTH_TRACKER,
    SCALE,
    Optimizer,
    average_decay,
    update_average,
)
from tiny import require_equal

INITIAL_SCALE = 2.0**16
Gradients = dict[str, Tensor]


class Toy(nn.Module):
    """Weights of levels 0 and 1, and a buffer."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.dense = nn.Linear(3, 2, dtype=dtype)
        self.blocks = nn.ModuleList([nn.Linear(2, 2, bias=False, dtype=dtype)])
        self.count: Tensor
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))


def gradients(step: int, names: set[str]) -> Gradients:
    """Gradients that differ in size from step to step, so that clipping some of them changes the outcome."""
    draw = torch.Generator().manual_seed(100 + step)
    return {
        name: torch.randn(value.shape, generator=draw, dtype=torch.float64) * 3.0 ** (step % 3 - 1)
        for name, value in Toy().named_parameters()
        if name in names
    }


def training(steps: int) -> list[Gradients]:
    """Gradients of some steps; those of level 1 begin with the third."""
    both = {name for name, _ in Toy().named_parameters()}
    return [gradients(i, both if i >= 2 else {"dense.weight", "dense.bias"}) for i in range(steps)]


def give(network: nn.Module, optimizer: Optimizer, grads: Gradients) -> None:
    """Accumulate gradients, scaled as those of a scaled loss are."""
    parameters = dict(network.named_parameters())
    scale = optimizer.scale
    optimizer.add({name: grad.to(parameters[name].dtype, copy=True) * scale for name, grad in grads.items()})


def reference(options: OptimizerOptions, lr: float, steps: list[Gradients]) -> dict[str, np.ndarray]:
    """Adam as TensorFlow writes it, in NumPy: epsilon outside the bias correction."""
    weights = {name: value.detach().numpy().copy() for name, value in Toy().named_parameters()}
    m, v = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    t = dict.fromkeys(weights, 0)
    for tensors in steps:
        grads = {name: value.numpy() for name, value in tensors.items()}
        norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
        factor = 1.0 if options.clip_norm is None else min(1.0, options.clip_norm / (norm + 1e-6))
        for name, unclipped in grads.items():
            g = unclipped * factor
            t[name] += 1
            m[name] = options.beta1 * m[name] + (1 - options.beta1) * g
            v[name] = options.beta2 * v[name] + (1 - options.beta2) * g**2
            rate = lr * math.sqrt(1 - options.beta2 ** t[name]) / (1 - options.beta1 ** t[name])
            weights[name] -= lr * options.weight_decay * weights[name]
            weights[name] -= rate * m[name] / (np.sqrt(v[name]) + options.eps)
    return weights


OPTIONS: list[dict[str, Any]] = [
    {"name": "adam"},
    {"name": "adam", "clip_norm": 1.0},
    {"name": "adamw", "weight_decay": 0.3},
    {"name": "adamw", "weight_decay": 0.3, "clip_norm": 2.0},
]


@pytest.mark.parametrize("loss_scaling", [False, True])
@pytest.mark.parametrize("given_options", OPTIONS)
def test_updates_are_those_of_the_reference(given_options: dict[str, Any], loss_scaling: bool) -> None:
    options = OptimizerOptions(beta1=0.5, beta2=0.9, eps=0.1, **given_options)
    network, steps = Toy(), training(6)
    optimizer = Optimizer(network, options, loss_scaling=loss_scaling)
    for grads in steps:
        give(network, optimizer, grads)
        assert optimizer.step(0.05)
    for name, expected in reference(options, 0.05, steps).items():
        ours = dict(network.named_parameters())[name].detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("kind", "name"), [(torch.optim.Adam, "adam"), (torch.optim.AdamW, "adamw")])
def test_without_epsilon_updates_are_those_of_torch(kind: Callable[..., Any], name: str) -> None:
    decay = 0.3 if name == "adamw" else 0.0
    options = OptimizerOptions.model_validate(
        {"name": name, "beta1": 0.5, "beta2": 0.9, "eps": 1e-30, "weight_decay": decay, "clip_norm": 1.0}
    )
    ours, theirs = Toy(), Toy()
    optimizer = Optimizer(ours, options)
    other = kind(theirs.parameters(), lr=0.05, betas=(0.5, 0.9), eps=0, weight_decay=decay)
    for grads in training(6):
        give(ours, optimizer, grads)
        optimizer.step(0.05)
        other.zero_grad()
        for parameter_name, parameter in theirs.named_parameters():
            if parameter_name in grads:
                parameter.grad = grads[parameter_name].clone()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        other.step()
    for value, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_gradients_of_micro_batches_add_up_and_can_be_dropped() -> None:
    whole, parts = Toy(), Toy()
    options = OptimizerOptions(eps=0.1)
    one, several = Optimizer(whole, options), Optimizer(parts, options)
    first, second = training(2)
    give(whole, one, {name: first[name] + second[name] for name in first})
    one.step(0.05)
    give(parts, several, training(4)[3])
    several.drop_gradients()
    give(parts, several, first)
    give(parts, several, second)
    several.step(0.05)
    for value, expected in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
        assert value.grad is None


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_a_step_for_which_memory_is_short_can_be_made_again(
    loss_scaling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OptimizerOptions(beta1=0.5, eps=0.1, clip_norm=1.0)
    network, undisturbed = Toy(torch.float32), Toy(torch.float32)
    one, another = (Optimizer(model, options, loss_scaling=loss_scaling) for model in (network, undisturbed))
    zeros_like = torch.zeros_like

    def short(like: Tensor) -> Tensor:
        if like is network.blocks[0].weight:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros_like(like)

    for i, grads in enumerate(training(4)):
        if i == 2:  # when the moments of level 1 are made
            before = {name: value.clone() for name, value in network.state_dict().items()}
            give(network, one, grads)
            monkeypatch.setattr(torch, "zeros_like", short)
            with pytest.raises(torch.OutOfMemoryError):
                one.step(0.05)
            monkeypatch.undo()
            one.drop_gradients()
            require_equal(network.state_dict(), before)
        for model, chosen in ((network, one), (undisturbed, another)):
            give(model, chosen, grads)
            chosen.step(0.05)
    require_equal(network.state_dict(), undisturbed.state_dict())
    require_equal(one.tensors(), another.tensors())


def test_reset_forgets_moments_and_step_counts() -> None:
    network, fresh = Toy(), Toy()
    options = OptimizerOptions(beta1=0.5, eps=0.1)
    optimizer = Optimizer(network, options)
    for grads in training(4):
        give(network, optimizer, grads)
        optimizer.step(0.05)
    assert optimizer.tensors()["step.blocks.0.weight"] == 2
    optimizer.reset()
    assert optimizer.tensors() == {}
    network.load_state_dict(fresh.state_dict())
    another = Optimizer(fresh, options)
    for model, chosen in ((network, optimizer), (fresh, another)):
        give(model, chosen, training(4)[3])
        chosen.step(0.05)
    require_equal(network.state_dict(), fresh.state_dict())


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often a number is read from a tensor, for which a host would wait for its device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_only_loss_scaling_waits_for_the_device() -> None:
    options = OptimizerOptions.model_validate({"name": "adamw", "weight_decay": 0.1, "clip_norm": 1.0})
    counts = []
    for loss_scaling in (False, True):
        network = Toy(torch.float32)
        optimizer = Optimizer(network, options, loss_scaling=loss_scaling)
        with HostReads() as reads:
            for grads in training(3):
                give(network, optimizer, grads)
                assert isinstance(optimizer.scale, Tensor) == loss_scaling
                optimizer.step(0.01)
        counts.append(reads.count)
    assert counts[0] == 0
    assert counts[1] >= 3  # what is counted does happen where it must


def overflow(network: nn.Module, optimizer: Optimizer) -> None:
    """Accumulate gradients that are finite, but not when they are scaled."""
    give(network, optimizer, {"dense.bias": torch.full_like(network.get_parameter("dense.bias"), 1e36)})


def test_overflow_skips_the_update_and_halves_the_scale() -> None:
    options = OptimizerOptions(beta1=0.5, eps=0.1, clip_norm=1.0)
    network, plain = Toy(torch.float32), Toy(torch.float32)
    optimizer, unscaled = Optimizer(network, options, loss_scaling=True), Optimizer(plain, options)
    for i, grads in enumerate(training(4)):
        if i in (0, 3):  # before there are any moments, and after
            before = {key: value.clone() for key, value in network.state_dict().items()}
            scale = float(optimizer.scale)
            overflow(network, optimizer)
            assert optimizer.step(0.05) is False
            assert float(optimizer.scale) == scale / 2
            assert all(p.grad is None for p in network.parameters())
            require_equal(network.state_dict(), before)
        for model, chosen in ((network, optimizer), (plain, unscaled)):
            give(model, chosen, grads)
            assert chosen.step(0.05) is True
    # Powers of two scale exactly, so the skipped steps left no trace in moments and step counts.
    assert float(optimizer.scale) == INITIAL_SCALE / 4
    require_equal(network.state_dict(), plain.state_dict())
    held = optimizer.tensors()
    moments = {name: value for name, value in held.items() if name not in (SCALE, GROWTH_TRACKER)}
    require_equal(moments, unscaled.tensors())


def test_a_checkpoint_goes_on_in_the_same_bits() -> None:
    options = OptimizerOptions(beta1=0.5, eps=0.1)
    network, copy = Toy(torch.float32), Toy(torch.float32)
    optimizer, resumed = (Optimizer(model, options, loss_scaling=True) for model in (network, copy))
    overflow(network, optimizer)
    optimizer.step(0.05)
    # One update before the scale grows, to show that the count towards it is kept.
    optimizer.load({**optimizer.tensors(), GROWTH_TRACKER: torch.tensor(1997, dtype=torch.int32)})
    for i, grads in enumerate(training(6)):
        if i == 2:
            copy.load_state_dict(network.state_dict())
            resumed.load({name: value.clone() for name, value in optimizer.tensors().items()})
        for model, chosen in ((network, optimizer), (copy, resumed)):
            give(model, chosen, grads)
            chosen.step(0.05)
    assert float(resumed.scale) == INITIAL_SCALE
    assert int(resumed.tensors()[GROWTH_TRACKER]) == 3
    require_equal(resumed.tensors(), optimizer.tensors())
    require_equal(copy.state_dict(), network.state_dict())


def test_checkpoints_with_and_without_a_loss_scale() -> None:
    network = Toy(torch.float32)
    scaled = Optimizer(network, OptimizerOptions(), loss_scaling=True)
    plain = Optimizer(network, OptimizerOptions())
    overflow(network, scaled)
    scaled.step(0.05)
    with_scale = scaled.tensors()
    assert with_scale[SCALE] == INITIAL_SCALE / 2
    plain.load(with_scale)
    assert plain.scale == 1.0
    assert plain.tensors().keys() == with_scale.keys() - {SCALE, GROWTH_TRACKER}
    scaled.load(plain.tensors())
    assert scaled.scale == INITIAL_SCALE
    with pytest.raises(KeyError, match="elsewhere"):
        plain.load({"exp_avg.elsewhere": torch.zeros(2)})


def test_gradients_that_are_never_finite_end_in_words() -> None:
    network = Toy(torch.float32)
    optimizer = Optimizer(network, OptimizerOptions(), loss_scaling=True)
    for _ in range(40):  # from 2^16 to 2^-24
        give(network, optimizer, {"dense.bias": torch.full_like(network.dense.bias, math.nan)})
        assert not optimizer.step(0.05)
    give(network, optimizer, {"dense.bias": torch.full_like(network.dense.bias, math.nan)})
    with pytest.raises(DivergenceError, match=r"gradients are not finite.*bfloat16"):
        optimizer.step(0.05)


@given(
    decay=st.floats(0, 0.99999),
    half_life=st.none() | st.floats(1e-3, 1e5),
    warmup=st.none() | st.floats(1e-3, 1e3),
    n=st.integers(1, 4096),
    earlier=st.integers(0, 10**8),
    more=st.integers(0, 10**8),
)
def test_decay_of_the_average(
    decay: float, half_life: float | None, warmup: float | None, n: int, earlier: int, more: int
) -> None:
    options = OptimizerOptions(ema_decay=decay, ema_half_life_kimg=half_life, ema_warmup=warmup)
    seen = n + earlier
    ours = average_decay(options, n, seen)
    assert 0 <= ours < 1
    assert ours <= average_decay(options, n, seen + more)
    # As half-lives in images, written with logarithms.
    if half_life is not None:
        images = half_life * 1000
    else:
        images = n * math.log(0.5) / math.log(decay) if decay > 0 else 0.0
    if warmup is not None:
        images = min(images, warmup * seen)
    expected = math.exp(n * math.log(0.5) / images) if images > 0 else 0.0
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_half_life_is_what_it_says() -> None:
    options = OptimizerOptions(ema_half_life_kimg=0.064, ema_warmup=None)
    kept = math.prod(average_decay(options, 8, 8 * (i + 1)) for i in range(8))
    assert kept == pytest.approx(0.5)
    early = OptimizerOptions(ema_half_life_kimg=0.064, ema_warmup=0.05)
    assert average_decay(early, 8, 8) == pytest.approx(0.5**20)
    assert average_decay(early, 8, 8000) == average_decay(options, 8, 8000)


def test_the_average_moves_weights_and_copies_buffers() -> None:
    average, network = Toy(), Toy()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network.count.fill_(7)
    before = [parameter.detach().clone() for parameter in average.parameters()]
    update_average(average, network, 0.75)
    for value, old in zip(average.parameters(), before, strict=True):
        torch.testing.assert_close(value.detach(), old + 0.25, rtol=0, atol=1e-12)
    assert average.count.tolist() == [7, 7]


def test_gradients_are_kept_where_they_are_the_parameters_own() -> None:
    """In another layout, or where two parameters have one gradient, each has a copy."""
    network = nn.Module()
    network.a = nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    network.b, network.c = (nn.Parameter(torch.zeros(2, 3, 4, 4)) for _ in range(2))
    optimizer, one = Optimizer(network, OptimizerOptions()), torch.ones(2, 3, 4, 4)
    optimizer.add({"a": one, "b": one, "c": one})
    a, b, c = (parameter.grad for parameter in network.parameters())
    assert a is not None
    assert b is one
    assert c is not None
    assert a.is_contiguous(memory_format=torch.channels_last)
    assert c.data_ptr() != b.data_ptr()
    optimizer.add({"c": one})
    assert [float(grad.mean()) for grad in (a, b, c)] == [1.0, 1.0, 2.0]

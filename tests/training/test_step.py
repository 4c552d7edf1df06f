"""Updates when memory runs out, when penalties are lazy, and in each precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from progan.config import make_config, merge
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.runs import checks
from progan.training import losses, step
from progan.training.iteration import Iteration
from progan.training.losses import Stage
from progan.training.step import PartSizes, Trained
from small_updates import CPU, SMOOTH, run, spec_of, weights

STAGES_OF = dict(step.STAGES)


class SmallMemory:
    """Fails like a full GPU whenever D is shown more than `holds` images at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holds: int) -> None:
        self.holds, self.attempts = holds, list[int]()
        for name, stages in STAGES_OF.items():
            monkeypatch.setitem(step.STAGES, name, self.limited(stages))

    def limited(self, stages: Any) -> Any:
        def limited(G: Any, D: Any, batch: Any, *rest: Any) -> list[Stage]:
            self.attempts.append(len(batch))
            if len(batch) > self.holds:
                # As on a GPU: after some of the work is done, and gradients of other parts are there.
                D.conv.weight.grad = torch.full_like(D.conv.weight, 7.0)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            result: list[Stage] = stages(G, D, batch, *rest)
            return result

        return limited


def test_less_memory_gives_the_same_update(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(run(blobs, 4, optimizer=SMOOTH))
    said: list[str] = []
    memory_ = SmallMemory(monkeypatch, holds=4)
    parts = weights(run(blobs, 4, said, optimizer=SMOOTH))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6, msg=name)
    assert memory_.attempts[:3] == [16, 8, 4]
    assert max(memory_.attempts[3:]) == 4, "what was found is remembered"
    assert len(said) == 1, "one warning"
    assert "level 0" in said[0]
    assert "16 images" in said[0]
    assert "--run.micro-batch" in said[0]


def test_a_group_is_the_least(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_ = SmallMemory(monkeypatch, holds=3)
    with pytest.raises(ConfigError, match=r"level 0.*does not hold 4 images.*stddev-group"):
        run(blobs, 1)
    assert memory_.attempts == [16, 8, 4]


def test_without_groups_single_images_are_the_least(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_ = SmallMemory(monkeypatch, holds=1)
    run(blobs, 1, model={"discriminator": {"stddev_group": 0}})
    assert memory_.attempts[:5] == [16, 8, 4, 2, 1]


def test_micro_batches_per_level(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_ = SmallMemory(monkeypatch, holds=99)
    run(blobs, 12, run={"micro_batch": [8, 4]}, schedule={"stabilise_kimg": 0.048, "batch_size": [16, 8]})
    first = 4 * 2 * 2  # four iterations of two updates of two parts: a fade is open at its start
    assert set(memory_.attempts[:first]) == {8}
    assert set(memory_.attempts[first:]) == {4}


def test_sizes_never_exceed_the_batch() -> None:
    sizes = PartSizes(make_config({"run": {"micro_batch": [64]}}), print)
    assert sizes.largest(0, 16) == 16


def test_running_out_in_a_later_part_repeats_the_whole_step(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the parts before have added to the gradients is dropped; G's step can fail as D's."""
    small: dict[str, Any] = {
        "optimizer": SMOOTH,
        "model": {"discriminator": {"stddev_group": 2}},
        "run": {"micro_batch": 8},
    }
    whole = weights(run(blobs, 3, **small))
    calls = {"D": 0, "G": 0}

    def failing_once(name: Trained, at: int) -> Any:
        stages = STAGES_OF[name]

        def limited(*arguments: Any) -> list[Stage]:
            calls[name] += 1
            if calls[name] == at:
                raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
            result: list[Stage] = stages(*arguments)
            return result

        return limited

    monkeypatch.setitem(step.STAGES, "D", failing_once("D", 4))
    monkeypatch.setitem(step.STAGES, "G", failing_once("G", 2))
    parts = weights(run(blobs, 3, **small))
    assert calls["D"] > 4
    for name, value in whole.items():
        if name.startswith(("G/", "D/", "G_ema/")):
            torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6, msg=name)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[Stage]:
        raise RuntimeError("something else")

    monkeypatch.setitem(step.STAGES, "D", broken)
    with pytest.raises(RuntimeError, match="something else"):
        run(blobs, 1)


@pytest.mark.parametrize(("free", "kept", "scarce"), [(9, 0, True), (40, 0, False), (2, 60, False)])
def test_a_convolution_without_a_kernel_is_no_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, kept: int, scarce: bool
) -> None:
    """CuDNN says the same where no workspace has room: then little is free, what PyTorch keeps included."""
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    assert not step.is_out_of_memory(error), "there is no such device here"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: kept + 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5)
    assert step.is_out_of_memory(error) is scarce


def test_the_memory_check_computes_penalties_and_has_moments(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    stages_of = losses.discriminator_stages

    def note(G: Any, D: Any, batch: Any, at: Any, config: Any) -> list[Stage]:
        stages = stages_of(G, D, batch, at, config)
        seen.append((len(stages), at.alpha is not None))
        return stages

    monkeypatch.setitem(step.STAGES, "D", note)
    checks.try_largest(spec_of(blobs, loss={"penalty_interval": 16}), blobs, CPU)
    assert seen == [(2, True)] * 2, "of a fade, twice: the second time with Adam's moments"


def test_memory_check(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.try_largest(spec_of(blobs), blobs, CPU) == "memory check: level 2 (16x16) fits"
    SmallMemory(monkeypatch, holds=4)
    assert "parts" in checks.try_largest(spec_of(blobs), blobs, CPU)
    SmallMemory(monkeypatch, holds=1)
    with pytest.raises(ConfigError, match="level 2"):
        checks.try_largest(spec_of(blobs), blobs, CPU)


def test_lazy_penalties(blobs: PackedSet) -> None:
    spec = spec_of(blobs, loss={"penalty_interval": 3, "d_steps": 2}, schedule={"stabilise_kimg": 1})
    updates = Iteration(spec, blobs, CPU, print)
    had = []
    for _ in range(6):
        terms = updates(spec.schedule.at(updates.state.images_seen))
        had += ["D/gp" in each for each in terms if "D/loss" in each]
    assert had == [True, False, False] * 4


def test_a_lazy_penalty_is_as_many_times_as_strong() -> None:
    terms = {"adversarial": torch.zeros(1), "gp": torch.ones(1), "r1": torch.ones(1), "drift": torch.ones(1)}
    loss = {"gp_lambda": 5.0, "r1_gamma": 3.0, "drift": 0.25, "penalty_interval": 4}
    assert (
        float(losses.total(terms, losses.Objective.of(make_config({"loss": loss})))) == 4 * (5 + 1.5) + 0.25
    )


@pytest.mark.parametrize("loss", ["wgan", "least_squares", "logistic", "hinge", "relativistic"])
def test_terms_of_each_loss(blobs: PackedSet, loss: str) -> None:
    spec = spec_of(blobs, loss={"adversarial": loss})
    d, g = Iteration(spec, blobs, CPU, print)(spec.schedule.at(0))
    always = {"real_score", "fake_score", "adversarial", "label_real", "label_fake", "loss"}
    if loss not in ("wgan", "relativistic"):
        always.add("real_positive")
    penalties = {
        "wgan": {"gp", "drift"}, "least_squares": set(), "logistic": {"r1"}, "hinge": {"gp"},
        "relativistic": {"r1", "r2"},
    }  # fmt: skip
    assert {name.removeprefix("D/") for name in d} == always | penalties[loss]
    assert set(g) == {"G/adversarial", "G/label_fake", "G/loss"}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_small_types_train_nearly_as_float32(blobs: PackedSet, precision: str) -> None:
    """Weights stay float32 and move almost as they do in float32; float16 may skip its first updates."""
    start = weights(run(blobs, 0))
    exact, rounded = (
        weights(run(blobs, 8, optimizer=SMOOTH, run={"precision": p})) for p in ("float32", precision)
    )
    moved = torch.cat([(exact[n] - start[n]).flatten() for n in start if n.startswith(("G/", "D/"))])
    other = torch.cat([(rounded[n] - start[n]).flatten() for n in start if n.startswith(("G/", "D/"))])
    assert all(value.dtype == torch.float32 for n, value in rounded.items() if n.startswith(("G/", "D/")))
    assert float(torch.nn.functional.cosine_similarity(moved, other, dim=0)) > 0.9
    assert not torch.equal(moved, other), "the type is used"


def test_compiled_updates_are_the_eager_ones(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a fade, with lazy penalties, augmentation and micro-batches; without making machine code."""
    compile_ = torch.compile
    graphs: list[object] = []

    def quickly(function: Any, **options: Any) -> Any:
        graphs.append(function)
        return compile_(function, **options, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", quickly)
    branches: dict[str, Any] = {
        "optimizer": SMOOTH,
        "loss": {"r1_gamma": 1.0, "penalty_interval": 2},
        "augment": {"policy": ["color", "translation"]},
        "schedule": {"stabilise_kimg": 0.032, "fade_kimg": 0.032},
        "run": {"micro_batch": 8},
    }
    eager = weights(run(blobs, 5, **branches))
    compiled = weights(run(blobs, 5, **merge(branches, {"run": {"compile": True}})))
    assert len(graphs) == 2
    assert compiled.keys() == eager.keys(), "the same parameters were trained"
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=2e-5, msg=name)

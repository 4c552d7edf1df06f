"""Gradients recorded and replayed, compiled where it pays, and what happens where that is not possible."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from progan.config import make_config
from progan.data.batches import Batch, GeneratorBatch
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.training import acceleration, iteration
from progan.training.acceleration import Acceleration, Moment, pays
from progan.training.compiled_gradients import CheckedGradients
from progan.training.cuda_graphs import CudaCapture, RecordedGradients, Shelf
from progan.training.iteration import Iteration
from progan.training.losses import Conditions
from progan.training.schedule import Phase, Point
from progan.training.step import Found
from small_updates import SMOOTH, run, spec_of, weights

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BRANCHES: dict[str, Any] = {
    "optimizer": SMOOTH,
    "loss": {"r1_gamma": 1.0, "penalty_interval": 2},
    "augment": {"policy": ["color", "translation"]},
    "schedule": {"stabilise_kimg": 0.032, "fade_kimg": 0.032},
}


class Tape:
    """Records as CUDA does: what is replayed reads the tensors of the recording, and fills the same ones."""

    def __init__(self) -> None:
        self.tried = self.recorded = self.replayed = 0

    def __call__(self, function: Callable[[], Found], again: bool) -> tuple[Found, Callable[[], None]]:
        found = function()
        self.tried += not again
        self.recorded += again

        def replay() -> None:
            self.replayed += 1
            for kept, new in zip(found, function(), strict=True):
                for name, value in kept.items():
                    value.copy_(new[name].detach())

        return found, replay


def with_capture(monkeypatch: pytest.MonkeyPatch, capture: Any) -> None:
    monkeypatch.setattr(iteration, "Acceleration", functools.partial(Acceleration, capture=capture))


@pytest.mark.parametrize("micro_batch", [16, 4])
def test_replayed_updates_are_the_plain_ones(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    """Through fades, with lazy penalties, augmentation and micro-batches."""
    branches = {**BRANCHES, "run": {"micro_batch": micro_batch}}
    plain = weights(run(blobs, 12, **branches))
    tape, said = Tape(), list[str]()
    with_capture(monkeypatch, tape)
    replayed = weights(run(blobs, 12, said, **branches))
    assert plain.keys() == replayed.keys(), "the same parameters were trained"
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, rtol=0, atol=2e-5, msg=name)
    assert said == []
    schedule, clock, kinds = spec_of(blobs, **branches).schedule, 0, set[tuple[int, object]]()
    for _ in range(12):
        point = schedule.at(clock)
        kinds |= {(point.phase.index, "G"), (point.phase.index, point.update % 2)}
        clock += point.batch_size
    assert tape.tried == len(kinds), "one of G in each phase, and two of D, with penalties and without"
    assert 0 < tape.recorded <= tape.replayed - tape.tried, "each is replayed once to be checked"


def gradients_of(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, capture: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    with_capture(monkeypatch, capture)
    return weights(run(blobs, 4, said, **BRANCHES)), said


def test_a_recording_that_fails_is_done_without(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = weights(run(blobs, 4, **BRANCHES))

    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    found, said = gradients_of(blobs, monkeypatch, refuse)
    assert all(torch.equal(found[name], value) for name, value in plain.items())
    assert len(said) == 2, "once for each network"
    assert "(operation not permitted when stream is capturing)" in said[0]
    assert "run.cuda_graphs false" in said[0]


def test_a_recording_with_other_gradients_is_not_used(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights(run(blobs, 4, **BRANCHES))

    def wrong(function: Callable[[], Found], _: bool) -> tuple[Found, Callable[[], None]]:
        found = function()
        return found, lambda: next(iter(found[0].values())).mul_(-1)  # type: ignore[return-value]

    found, said = gradients_of(blobs, monkeypatch, wrong)
    assert all(torch.equal(found[name], value) for name, value in plain.items())
    assert len(said) == 2
    assert "its gradients differ by" in said[0]


def test_where_memory_holds_no_recording_batches_stay_whole(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights(run(blobs, 4, **BRANCHES))

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    found, said = gradients_of(blobs, monkeypatch, full)
    assert all(torch.equal(found[name], value) for name, value in plain.items())
    assert said
    assert all("memory does not hold CUDA graphs" in message for message in said)
    assert len(said) == len(set(said)), "once for both networks"


def once(*arguments: Any) -> Callable[..., Found]:
    """Return what records, as a function that returns what it finds of a whole batch."""
    recorded = RecordedGradients(*arguments)

    def call(batch: Batch, at: Conditions, n: int) -> Found:
        [found] = recorded(batch, at, n)
        return found

    return call


def test_recordings_make_room_for_what_is_computed_plainly() -> None:
    """Before batches are halved, the memory of recordings is given back."""
    shelf, said, refused = Shelf(), list[str](), list[int]()

    def function(batch: Any, *_: Any) -> list[Found]:
        if len(batch) > 2 and shelf.recordings:
            refused.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [({"weight": batch.latents.sum() + 1}, {})]

    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    tape = Tape()
    recorded, plain = once(function, tape, said.append, shelf), once(function, refuse, said.append, shelf)
    plain(batch_of(4), Conditions(level=0), 4)
    for _ in range(2):
        recorded(batch_of(), Conditions(level=0), 2)
    assert len(shelf.recordings) == 1
    assert plain(batch_of(4), Conditions(level=0), 4)[0]["weight"] == 1
    assert (refused, len(shelf.recordings), tape.recorded) == ([4], 0, 1)
    assert said[1:] == ["level 0: memory does not hold CUDA graphs of the updates, so they are left out"]
    recorded(batch_of(), Conditions(level=0), 2)
    assert (tape.tried, tape.recorded) == (1, 1), "not in this phase any more"
    recorded(batch_of(), Conditions(level=1), 2)
    assert tape.tried == 2, "in the next it is tried again"


def test_nothing_is_computed_plainly_beside_a_recording() -> None:
    """Of D and G, and of a further kind of update that comes later: what each needs is in memory once."""
    shelf, tape, held = Shelf(), Tape(), list[int]()

    def function(*_: Any) -> list[Found]:
        held.append(len(shelf.recordings))
        return [({"weight": torch.ones(1)}, {})]

    first, second = (once(function, tape, print, shelf) for _ in range(2))
    for penalize in (True, True, True, False, False, True, False):
        for recorded in (first, second):
            at = Conditions(level=0, penalize=penalize)
            before = tape.tried
            recorded(batch_of(), at, 2)
            if tape.tried > before:  # computed plainly, then as it was recorded and replayed
                assert held[-3:] == [0, 0, 0]
    assert tape.tried == 4
    assert len(shelf.recordings) == 4


def test_a_recording_that_has_no_room_costs_its_level_the_recordings() -> None:
    shelf, said = Shelf(), list[str]()

    class Full(Tape):
        def __call__(self, function: Callable[[], Found], again: bool) -> Any:
            if again and self.tried == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return super().__call__(function, again)

    def function(*_: Any) -> list[Found]:
        return [({"weight": torch.ones(1)}, {})]

    tape = Full()
    first, second = (once(function, tape, said.append, shelf) for _ in range(2))
    for level in (0, 1):
        for recorded in (first, second, first, second):
            assert recorded(batch_of(), Conditions(level=level), 2)[0]["weight"] == 1
    assert said == ["level 0: memory does not hold CUDA graphs of the updates, so they are left out"]
    assert len(shelf.recordings) == 2, "those of the next level"


def test_running_out_of_memory_is_not_hidden() -> None:
    def function(*_: Any) -> list[Found]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    recorded = once(function, Tape(), print, Shelf())
    with pytest.raises(torch.OutOfMemoryError):
        recorded(batch_of(), Conditions(level=0), 2)


def test_recordings_of_a_phase_go_together() -> None:
    def function(*_: Any) -> list[Found]:
        return [({"weight": torch.ones(1)}, {})]

    shelf = Shelf()
    first, second = (once(function, Tape(), print, shelf) for _ in range(2))
    for recorded in (first, second, first, second):
        recorded(batch_of(), Conditions(level=0), 2)
    assert len(shelf.recordings) == 2
    for _ in range(2):
        first(batch_of(), Conditions(level=1), 2)
    assert len(shelf.recordings) == 1


def test_a_recording_of_nothing_is_not_used() -> None:
    """As of a device that is not the one that computes: its tensors hold the right values once."""
    said: list[str] = []

    def function(*_: Any) -> list[Found]:
        return [({"weight": torch.ones(1)}, {})]

    recorded = once(function, lambda f, _: (f(), lambda: None), said.append, Shelf())
    for _ in range(2):
        assert recorded(batch_of(), Conditions(level=0), 2)[0]["weight"] == 1
    assert "its gradients differ by nan" in said[0]


def test_what_is_not_finite_is_not_recorded() -> None:
    tape, slope = Tape(), torch.tensor(torch.inf)

    def function(*_: Any) -> list[Found]:
        return [({"weight": slope.clone()}, {"loss": torch.ones(2)})]

    recorded = once(function, tape, print, Shelf())
    batch, at = batch_of(), Conditions(level=0)
    assert recorded(batch, at, 2)[0]["weight"] == torch.inf
    assert tape.tried == 0
    slope.fill_(3.0)
    recorded(batch, at, 2)
    assert tape.tried == 1


def batch_of(n: int = 2) -> Any:
    return GeneratorBatch(latents=torch.zeros(n, 3), labels=torch.zeros(n, 0))


@given(st.integers(0, 10**7), st.floats(0.1, 1e5), st.floats(0, 1e4))
def test_compiling_pays_where_it_saves_more_than_it_takes(images: int, rate: float, seconds: float) -> None:
    saved = images / rate * acceleration.SAVED
    assert pays(images, rate, seconds) == (saved > seconds)
    assert not pays(0, rate, seconds)


class Chosen:
    """An acceleration on a device that is not there, with a clock of its own."""

    def __init__(self, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, seconds: float, **run: Any) -> None:
        spec = spec_of(blobs, run={"fused_kernels": False, **run})
        state = Iteration(spec, blobs, torch.device("cpu"), print).state
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
        self.now, self._seconds, self.said = 0.0, seconds, list[str]()
        self.acceleration = Acceleration(
            (state.G, state.D), spec.config, CUDA, self.said.append, capture=Tape(), clock=lambda: self.now
        )

    def go(self, iterations: int, images: int = 10**6, index: int = 0) -> list[Any]:
        phase = Phase(index, 0, "stabilise", 0, images)
        point = Point(phase, alpha=1.0, batch_size=10, g_lr=0.0, d_lr=0.0, update=0)
        chosen = []
        for i in range(iterations):
            chosen.append(self.acceleration.functions(point, 10 * i))
            self.now += self._seconds
        return chosen


def test_auto_compiles_where_many_images_are_left(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "check_compiler", lambda _: None)
    slow = Chosen(blobs, monkeypatch, seconds=0.1)
    chosen = slow.go(Moment.COMPILED + 2)
    assert chosen[Moment.DECIDE - 2] is chosen[0]
    assert chosen[-1] is not chosen[0]
    assert [words.split(":")[1].split()[0] for words in slow.said] == ["compiling", "compiled"]
    assert "100 images/s" in slow.said[0]
    assert "in 0 s" in slow.said[1], "what it took is measured"
    again = slow.go(Moment.COMPILED + 2, index=1)
    assert again[0] is chosen[0], "the next phase is measured anew"
    assert again[-1] is chosen[-1]
    assert len(set(map(id, slow.go(Moment.COMPILED, images=600, index=2)))) == 1, "too few are left"


@pytest.mark.parametrize("run", [{"compile": "never"}, {"deterministic": True}])
def test_auto_compiles_not_where_it_should_not(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]
) -> None:
    chosen = Chosen(blobs, monkeypatch, seconds=10.0, **run)
    assert len(set(map(id, chosen.go(Moment.COMPILED + 1)))) == 1
    assert chosen.said == []


def test_without_a_compiler_auto_goes_on(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: torch.device) -> None:
        raise ConfigError("run.compile cannot be used on cuda: no Triton")

    monkeypatch.setattr(acceleration, "check_compiler", missing)
    chosen = Chosen(blobs, monkeypatch, seconds=10.0)
    assert len(set(map(id, chosen.go(2 * Moment.COMPILED)))) == 1
    assert chosen.said == ["going on without compiling: run.compile cannot be used on cuda: no Triton"]


def test_on_a_cpu_nothing_is_chosen(blobs: PackedSet) -> None:
    spec = spec_of(blobs)
    made = Iteration(spec, blobs, torch.device("cpu"), print)
    point = spec.schedule.at(0)
    chosen = Acceleration((made.state.G, made.state.D), spec.config, torch.device("cpu"), print)
    assert len({id(chosen.functions(point, 0)) for _ in range(Moment.COMPILED)}) == 1


GRADIENTS = {"weight": torch.tensor([3.0, 4.0])}


def checked(compiled: Any, said: list[str], **run: Any) -> CheckedGradients:
    """What stands for a compiled function, checked against gradients of 3 and 4."""
    return CheckedGradients(
        compiled, lambda *_: [(GRADIENTS, {"loss": torch.ones(2)})], make_config({"run": run}), said.append
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("BackendCompilerFailed: no such thing\nlong trace"),
        AssertionError(),
        ValueError("from a worker of the compiler"),
        RuntimeError(
            "backend='inductor' raised:\nInvalidCxxCompiler: no working compiler\n\nSet TORCHDYNAMO"
        ),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_what_cannot_be_compiled_is_computed_plainly(error: Exception) -> None:
    """The check of the compiler may pass where the updates do not compile, with errors of any kind."""

    def fail(*_: Any) -> list[Found]:
        raise error

    said: list[str] = []
    careful = checked(fail, said)
    for _ in range(2):
        [(gradients, _)] = careful(batch_of(), Conditions(level=0), 2)
        assert gradients is GRADIENTS
    lines = [line for line in str(error).splitlines() if not line.endswith("raised:")]
    first = (lines or [type(error).__name__])[0]
    assert said == [f"going on without compiling: {first}"]
    with pytest.raises(type(error)):
        list(checked(fail, said, compile="always")(batch_of(), Conditions(level=0), 2))


def test_no_memory_for_compiled_updates_is_not_hidden() -> None:
    def full(*_: Any) -> list[Found]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        list(checked(full, [])(batch_of(), Conditions(level=0), 2))


def test_compiled_gradients_are_compared_in_each_phase() -> None:
    """With 3 and 4, norm 5, off by 0.45 in one of them."""
    wrong, calls, said = {"weight": torch.tensor([3.0, 4.45])}, list[int](), list[str]()

    def right_at_level_0(_batch: Any, at: Conditions, _n: int) -> list[Found]:
        calls.append(at.level)
        return [({"weight": GRADIENTS["weight"] * 1.0001} if at.level == 0 else wrong, {})]

    careful = checked(right_at_level_0, said)
    for level in (0, 0, 1, 1):
        [(gradients, _)] = careful(batch_of(), Conditions(level=level), 2)
    assert gradients is GRADIENTS, "those of the operations"
    assert calls == [0, 0, 1], "the wrong ones are not asked for again"
    assert len(said) == 1
    assert "differ by 0.09 of their norm" in said[0]
    with pytest.raises(ConfigError, match=r"differ by 0\.09 of their norm.*run\.compile always"):
        list(checked(right_at_level_0, said, compile="always")(batch_of(), Conditions(level=1), 2))


@pytest.mark.parametrize(
    ("precision", "bounds"),
    [
        ("float32", (1e-4, 2e-3)),
        ("tf32", (0.04, 0.06)),
        ("bfloat16", (0.15, 0.45)),
        ("float16", (0.15, 0.45)),
    ],
)
def test_what_compiled_gradients_may_be_off_by_is_a_matter_of_rounding(
    precision: str, bounds: tuple[float, float]
) -> None:
    """The compiler rounds elsewhere than the operations, which in bfloat16 are off by 0.09 themselves."""
    for error, refused in zip(bounds, (False, True), strict=True):
        said: list[str] = []
        off = {"weight": GRADIENTS["weight"] * (1 + error)}
        careful = checked(lambda *_, off=off: [(off, {})], said, precision=precision)
        [(gradients, _)] = careful(batch_of(), Conditions(level=0), 2)
        assert (gradients is GRADIENTS) is refused
        assert bool(said) is refused


def test_where_compiled_updates_are_slower_they_are_left_out(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the next phase what compiling saves is known: here nothing, so it is not tried again."""
    monkeypatch.setattr(acceleration, "check_compiler", lambda _: None)
    slower = Chosen(blobs, monkeypatch, seconds=0.1)
    chosen = slower.go(Moment.COMPARE + 1)
    assert chosen[Moment.COMPARE - 2] is not chosen[0]
    assert chosen[-1] is chosen[0]
    assert slower.said[-1].endswith(
        "100 images/s compiled and 100 before, so its updates are not compiled any more"
    )
    assert len(set(map(id, slower.go(Moment.COMPARE + 1, index=1)))) == 1


def on_cuda(blobs: PackedSet, **run: Any) -> dict[str, Tensor]:
    spec = spec_of(blobs, **{**BRANCHES, "run": {"precision": "float32", **run}})
    made = Iteration(spec, blobs, CUDA, print)
    for _ in range(12):
        made(spec.schedule.at(made.state.images_seen))
    return {name: value.cpu() for name, value in weights(made).items()}


@needs_cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_updates_recorded_on_cuda_are_those_of_the_cpu(blobs: PackedSet, compiled: bool) -> None:
    plain = weights(run(blobs, 12, **BRANCHES))
    recorded = on_cuda(blobs, cuda_graphs=True, compile="always" if compiled else "never")
    for name, value in plain.items():
        torch.testing.assert_close(recorded[name], value, rtol=0, atol=1e-4, msg=name)


@needs_cuda
def test_a_recording_reads_its_tensors_anew() -> None:
    x = torch.ones(4, device=CUDA)
    (gradients, _), replay = CudaCapture(CUDA)(lambda: ({"x": x * 2}, {}), False)
    x.fill_(5.0)
    replay()
    torch.cuda.synchronize()
    assert gradients["x"].tolist() == [10.0] * 4


@needs_cuda
def test_a_recording_that_failed_leaves_streams_as_they_were() -> None:
    capture, x = CudaCapture(CUDA), torch.ones(4, device=CUDA)
    present = torch.cuda.current_stream()

    def waits() -> Found:
        return {"x": x * float(x.sum())}, {}

    with pytest.raises(RuntimeError):
        capture(waits, False)
    assert torch.cuda.current_stream() == present
    for _ in range(2):  # the second time, nothing of the first is left
        (gradients, _), replay = capture(lambda: ({"x": x * 2}, {}), False)
        replay()
        torch.cuda.synchronize()
        assert gradients["x"].tolist() == [2.0] * 4
        del gradients, replay


@needs_cuda
def test_another_thread_may_reserve_host_memory_during_a_recording() -> None:
    x = torch.ones(4, device=CUDA)
    sizes = iter(range(1, 10**6))

    def function() -> Found:
        thread = threading.Thread(target=lambda: torch.empty(next(sizes) * 2**20).pin_memory())
        thread.start()
        thread.join()
        return {"x": x * 2}, {}

    (gradients, _), replay = CudaCapture(CUDA)(function, False)
    replay()
    torch.cuda.synchronize()
    assert gradients["x"].tolist() == [2.0] * 4

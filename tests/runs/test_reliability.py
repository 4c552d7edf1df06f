"""A run that cannot be lost, within one process: background writing, divergence and the way back, alarms."""

from __future__ import annotations

import errno
import json
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.hooks import RemovableHandle

import progan
from progan.__main__ import main
from progan.config import make_config
from progan.data.batches import Batches, sample_order
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, DataError, DivergenceError, StorageError
from progan.evaluation.monitor import Monitor
from progan.models.generator import Generator
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint, log_points, loop
from progan.runs.divergence import NEEDED, Alarm
from progan.runs.logs import read_stats
from progan.runs.reporter import Reporter
from progan.runs.run_folder import RunFolder
from progan.runs.sample_grid import SampleGrid
from progan.system import tensor_file
from progan.system.background import BackgroundWriter
from progan.training import iteration, step
from progan.training.interval import Interval
from progan.training.optimizer import Optimizer
from progan.training.schedule import Point
from threads import no_thread_left
from tiny import OPTIONS, TOTAL, Listener, last_tensors, options, require_equal, words


def train(packed: PackedSet, out: Path, reporter: Reporter | None = None, **branches: Any) -> Path:
    return progan.train(packed.path, out, options=options(**branches), reporter=reporter)


# The background writer


def test_writing_goes_on_beside_the_work_and_never_piles_up() -> None:
    """No times: the first piece ends when it is let, the second begins when the first has ended."""
    order: list[str] = []
    let = [threading.Event(), threading.Event()]
    begun = [threading.Event(), threading.Event()]

    def piece(i: int) -> Callable[[], None]:
        def write() -> None:
            begun[i].set()
            assert let[i].wait(60)
            order.append(f"written {i}")

        return write

    with no_thread_left(), BackgroundWriter() as writer:
        writer.submit(piece(0))
        assert begun[0].wait(60)
        order.append("work while 0 is written")
        second = threading.Thread(target=lambda: writer.submit(piece(1)))
        second.start()
        assert not begun[1].wait(0.05), "the second waits for the first"
        let[0].set()
        second.join(60)
        assert begun[1].wait(60)
        order.append("work while 1 is written")
        let[1].set()
    assert order == ["work while 0 is written", "written 0", "work while 1 is written", "written 1"]


def failing() -> None:
    raise StorageError("no space")


def training_that_fails(writer: BackgroundWriter) -> None:
    with writer:
        writer.submit(failing)
        raise ValueError("of the training")


def test_errors_of_the_writer_reach_who_asked_for_it() -> None:
    writer = BackgroundWriter()
    writer.submit(failing)
    with pytest.raises(StorageError, match="no space"):
        writer.wait()
    writer.check()  # told once
    writer.submit(failing)
    with pytest.raises(StorageError, match="no space"):
        writer.submit(lambda: pytest.fail("is not begun"))
    with pytest.raises(StorageError, match="no space"), writer:
        writer.submit(failing)
    with pytest.raises(ValueError, match="of the training"):
        training_that_fails(writer)


class Slow:
    """Holds up the writing of each checkpoint until training has made some more iterations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.moved = 0, threading.Condition()
        self.beside: list[int] = []
        save, iterate = checkpoint.save, loop.Trainer._iterate

        def slow(folder: Path, record: checkpoint.Record, *rest: Any) -> Path:
            with self.moved:
                enough = self.moved.wait_for(lambda: self.clock >= record.images_seen + 16, timeout=60)
            self.beside.append(self.clock - record.images_seen if enough else 0)
            return save(folder, record, *rest)

        def count(which: loop.Trainer, point: Point) -> None:
            iterate(which, point)
            with self.moved:
                self.clock = which.state.images_seen
                self.clock += 10**6 if self.clock >= TOTAL else 0
                self.moved.notify_all()

        monkeypatch.setattr(checkpoint, "save", slow)
        monkeypatch.setattr(loop.Trainer, "_iterate", count)


@pytest.fixture(scope="module", name="done")
def finished_run(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(blobs, tmp_path_factory.mktemp("runs") / "done")


def test_a_slow_disk_does_not_stall_training(
    done: Path, blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write waits for two iterations that are made after it has begun: else this would never end."""
    slow = Slow(monkeypatch)
    run = train(blobs, tmp_path / "run", run={"keep_checkpoints": 9})
    monkeypatch.undo()
    assert len(slow.beside) == 5
    assert all(images >= 16 for images in slow.beside)
    require_equal(last_tensors(run)[1], last_tensors(done)[1])
    assert (run / "generator.safetensors").read_bytes() == (done / "generator.safetensors").read_bytes()
    # What is saved is the state of its clock, not that of when it was written.
    for path in checkpoint.paths(done / "checkpoints"):
        assert (run / "checkpoints" / path.name).exists()
        require_equal(checkpoint.load(run / "checkpoints" / path.name)[1], checkpoint.load(path)[1])


def test_a_full_disk_stops_the_run_at_the_next_iteration(
    done: Path, blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def full(path: Path, *arguments: Any) -> None:
        if path.parent.name != "generators":  # those that are kept along the run are written in between
            calls.append(1)
        if len(calls) == 4:
            with saving_errors(path):
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write(path, *arguments)

    write, saving_errors = tensor_file.write, progan.system.files.storage_errors
    monkeypatch.setattr(tensor_file, "write", full)
    with no_thread_left(), pytest.raises(StorageError, match="quota is used up"):
        train(blobs, tmp_path / "run")
    monkeypatch.undo()
    assert len(checkpoint.paths(tmp_path / "run" / "checkpoints")) == 2
    run = train(blobs, tmp_path / "run")
    require_equal(last_tensors(run)[1], last_tensors(done)[1])


# Numbers that are not finite


class Poison:
    """Makes a number NaN in one update of D."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, what: str, times: int = 1) -> None:
        self._at, self._what, self._times, self.clock = at, what, times, 0
        self._update = step.Step.__call__
        monkeypatch.setattr(step.Step, "__call__", lambda which, *rest: self.update(which, *rest))
        enter = iteration.Iteration._enter

        def note(which: iteration.Iteration, point: Point) -> None:
            self.clock = which.state.images_seen
            enter(which, point)

        monkeypatch.setattr(iteration.Iteration, "_enter", note)

    def update(self, which: step.Step, *rest: Any) -> Any:
        of_d, weight = "D" in which.optimizers, which._networks[1].get_parameter("conv.weight")
        now = of_d and self.clock == self._at and self._times > 0
        if now and self._what == "weight":
            weight.data[0] = math.inf
        if now and self._what == "gradient":
            hook: RemovableHandle = weight.register_hook(lambda slope: slope * math.nan)  # type: ignore[no-untyped-call]
        terms = self._update(which, *rest)
        if now and self._what == "gradient":
            hook.remove()
        if now and self._what == "loss":
            terms["D/loss"] = terms["D/loss"] * math.nan
        self._times -= now
        return terms


@pytest.mark.parametrize("what", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("device_waits", [True, False])
def test_what_is_not_finite_stops_before_it_is_saved(
    done: Path,
    blobs: PackedSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    device_waits: bool,
) -> None:
    """On a GPU terms are read at log points only, so that is played on the CPU too."""
    Poison(monkeypatch, 120, what)
    if not device_waits:
        monkeypatch.setattr(log_points, "READ_AT_ONCE", ())
    run = tmp_path / "run"
    with pytest.raises(DivergenceError, match=r"became NaN or infinite at 1[23]. images") as caught:
        train(blobs, run, run={"checkpoint_kimg": 0.008, "log_kimg": 0.024})
    monkeypatch.undo()
    text = str(caught.value)
    report = json.loads((run / "divergence.json").read_text())
    assert report["images_seen"] in (120, 128, 136)
    assert f"{report['phase']}, alpha" in text
    # The batch can be made again from what is told.
    config = RunFolder(run).config()
    batches = Batches(blobs, config, latent_size=6)
    assert report["pictures"] == batches.chosen(report["images_seen"], report["batch_size"]).tolist()
    assert f"pictures {', '.join(map(str, report['pictures']))}" in text
    for path in checkpoint.paths(run / "checkpoints"):
        record, tensors = checkpoint.load(path)
        assert record.images_seen <= 120
        assert checkpoint.not_finite(tensors) == []
    progan.resume(run, options={"run": {"log_kimg": 0.032}})
    require_equal(last_tensors(run)[1], last_tensors(done)[1])


def test_means_and_the_first_that_was_not_finite() -> None:
    interval = Interval()
    assert (interval.means(), interval.first_not_finite()) == ({}, None)
    for clock, d, g in ((0, 1.0, 2.0), (8, 3.0, math.nan), (16, math.inf, 4.0)):
        interval.add(clock, {"D/loss": torch.tensor(d), "D/gp": torch.tensor(d * 2)})
        interval.add(clock, {"G/loss": torch.tensor(g)})
        if clock == 0:
            assert (interval.means(), interval.first_not_finite()) == (
                {"D/loss": 1.0, "D/gp": 2.0, "G/loss": 2.0},
                None,
            )
    assert interval.first_not_finite() == 8
    interval.add(24, {})  # float16 skipped it
    assert interval.means()["D/gp"] == math.inf
    assert math.isnan(interval.means()["G/loss"])


# Going back


ROLLBACK = {"on_divergence": "rollback", "rollback_lr": 0.5, "checkpoint_kimg": 0.04}


def test_going_back_takes_another_way(
    done: Path, blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 136, "loss", times=2)
    listener = Listener()
    run = train(blobs, tmp_path / "run", listener, run=ROLLBACK)
    monkeypatch.undo()
    backs = [line for line in listener.said if "back at" in line]
    assert len(backs) == 2
    assert "learning rates times 0.5 (rollback 1 of 3)" in backs[0]
    assert "learning rates times 0.25 (rollback 2 of 3)" in backs[1]
    clocks = [int(line.split("back at ")[1].split()[0]) for line in backs]
    assert clocks[1] < clocks[0] < 136, "the second time it was the one before"
    record, tensors = last_tensors(run)
    assert (record.images_seen, record.attempt) == (TOTAL, 2)
    assert not torch.equal(tensors["G/conv.weight"], last_tensors(done)[1]["G/conv.weight"])
    points = read_stats(run / "stats.jsonl")
    assert [line["g_lr"] for line in points if int(line["images_seen"]) > 136] == [0.00025] * sum(
        int(line["images_seen"]) > 136 for line in points
    )
    seen = [int(line["images_seen"]) for line in points]
    assert seen == sorted(set(seen)), "what was lost is not in the log"


def test_a_run_that_went_back_resumes_exactly(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with monkeypatch.context() as patch:
        Poison(patch, 136, "loss")
        train(blobs, whole, run=ROLLBACK)
    with monkeypatch.context() as patch:
        Poison(patch, 136, "loss")
        train(blobs, parts, run={**ROLLBACK, "stop_after": "phase"})  # stabilise level 0
        while last_tensors(parts)[0].images_seen < TOTAL:
            progan.resume(parts)
    assert last_tensors(parts)[0].attempt == 1
    require_equal(last_tensors(parts)[1], last_tensors(whole)[1])


def test_the_very_first_updates_can_be_gone_back_from(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 16, "loss")
    run = train(blobs, tmp_path / "run", run={"on_divergence": "rollback"}, schedule={"total_kimg": 0.064})
    assert last_tensors(run)[0].attempt == 1


def test_it_goes_back_so_often_and_no_more(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, 136, "loss", times=99)
    listener = Listener()
    with pytest.raises(DivergenceError, match=r"has gone back 2 times \(run.max_rollbacks\)"):
        train(blobs, tmp_path / "run", listener, run={**ROLLBACK, "max_rollbacks": 2})
    assert len([line for line in listener.said if "back at" in line]) == 2
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[1] == []


def test_lower_rates_save_a_run(blobs: PackedSet, tmp_path: Path) -> None:
    """A learning rate that is mad diverges; three times a thousandth of it does not."""
    mad = {"g_lr": 1e6, "d_lr": 1e6}
    rollback = {"on_divergence": "rollback", "rollback_lr": 1e-3}
    short = {"total_kimg": 0.096}
    with pytest.raises(DivergenceError):
        train(blobs, tmp_path / "stop", optimizer=mad, schedule=short)
    run = train(blobs, tmp_path / "run", optimizer=mad, run=rollback, schedule=short)
    assert last_tensors(run)[0].attempt >= 1


def test_the_short_form_on_the_command_line(blobs: PackedSet, tmp_path: Path) -> None:
    tree = words(options(schedule={"total_kimg": 0.016}))
    with pytest.raises(SystemExit) as end:
        main(["train", str(blobs.path), "--out", str(tmp_path / "run"), "--on-divergence", "rollback", *tree])
    assert end.value.code == 0
    assert RunFolder(tmp_path / "run").config().run.on_divergence == "rollback"
    # There is a state to go back to from the first update on.
    clocks = [int(path.stem) for path in checkpoint.paths(tmp_path / "run" / "checkpoints")]
    assert clocks == [0, 16]


def test_each_attempt_has_batches_of_its_own(blobs: PackedSet) -> None:
    config = make_config(OPTIONS)
    batches = Batches(blobs, config, latent_size=6)
    first = batches.discriminator(32, 8, 1, None)
    batches.attempt = 1
    other = batches.discriminator(32, 8, 1, None)
    for name in ("reals", "latents", "mixing"):
        assert not torch.equal(getattr(first, name), getattr(other, name)), name
    batches.attempt = 0
    assert torch.equal(batches.discriminator(32, 8, 1, None).latents, first.latents)


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_each_attempt_shows_every_picture(count: int, epoch: int, attempt: int) -> None:
    order = sample_order(7, epoch * count, count, count, attempt=attempt)
    assert sorted(order) == list(range(count))


# The alarm


def point(clock: int, **changes: float) -> dict[str, float | int | str]:
    usual: dict[str, float | int | str] = {
        "images_seen": clock,
        "phase": "fade",
        "D/gradient_norm": 3.0,
        "G/gradient_norm": 0.5,
        "D/real_score": 8.0,
        "D/fake_score": -7.0,
        "G/variation": 0.4,
    }
    return {**usual, **{name.replace("_", "/", 1): value for name, value in changes.items()}}


WRONG = {
    "D_gradient_norm": (1e4, "gradients of D explode"),
    "G_gradient_norm": (1e3, "gradients of G explode"),
    "D_fake_score": (-1e4, "scores of D run away"),
    "D_real_score": (1e4, "scores of D run away"),
    "G_variation": (1e-3, "lost their variation"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_sets_the_alarm_off(name: str) -> None:
    value, text = WRONG[name]
    usual = [point(i) for i in range(NEEDED)]
    alarm = Alarm(usual)
    assert alarm.observe(point(5)) == []
    (told,) = alarm.observe(point(6, **{name: value}))
    assert text in told
    assert "what usually helps: " in told
    assert alarm.observe(point(7, **{name: value})) == [], "told once"
    assert alarm.observe(point(8)) == []
    assert len(alarm.observe(point(9, **{name: value}))) == 1, "and again when it comes again"
    # A resumed run, which reads its log points, hears the same.
    assert Alarm([*usual, point(5)]).observe(point(6, **{name: value})) == [told]
    assert Alarm(usual[1:]).observe(point(6, **{name: value})) == [], "too early to tell"


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=60))
def test_no_alarm_while_numbers_move_by_a_few_times(factors: list[float]) -> None:
    alarm = Alarm()
    for i, f in enumerate(factors):
        assert alarm.observe(point(i, D_gradient_norm=3 * f, D_real_score=8 * f, G_variation=0.4 * f)) == []


def test_an_alarm_warns_or_stops(
    done: Path, blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G's pictures become all the same at 160 images: as they are seen; the weights are not touched."""
    variation = SampleGrid.variation

    def collapsed(self: SampleGrid, G: Generator) -> torch.Tensor:
        return variation(self, G) * (1e-4 if state["clock"] >= 160 else 1)

    class Clock(Listener):
        def advance(self, point: Point, images_seen: int) -> None:  # noqa: ARG002
            state["clock"] = images_seen

    state = {"clock": 0}
    monkeypatch.setattr(SampleGrid, "variation", collapsed)
    warned = Clock()
    run = train(blobs, tmp_path / "warn", warned, run={"log_kimg": 0.008})
    assert [
        line.startswith("warning: at 168 images the pictures of G have lost") for line in warned.said
    ] == [True]
    require_equal(last_tensors(run)[1], last_tensors(done)[1])
    state["clock"] = 0
    with pytest.raises(DivergenceError, match=r"at 168 images the pictures of G .* what usually helps"):
        train(
            blobs,
            tmp_path / "stop",
            Clock(),
            run={"log_kimg": 0.008, "on_alarm": "stop", "checkpoint_kimg": 0.016},
        )
    assert last_tensors(tmp_path / "stop")[0].images_seen < 168


@pytest.mark.parametrize("loss", ["wgan", "logistic"])
def test_a_hundredfold_learning_rate_sets_it_off(blobs: PackedSet, tmp_path: Path, loss: str) -> None:
    """And the usual one does not."""
    quiet, told = Listener(), Listener()
    run = train(
        blobs,
        tmp_path / "run",
        quiet,
        schedule={"stabilise_kimg": 0.8, "total_kimg": 0.24, "batch_size": 8},
        loss={"adversarial": loss},
        optimizer={"g_lr": 0.003, "d_lr": 0.003},
        run={"log_kimg": 0.024, "grid": [1, 1]},
    )
    assert quiet.said == []
    hundredfold = {"optimizer": {"g_lr": 0.3, "d_lr": 0.3}, "schedule": {"total_kimg": 0.32}}
    progan.resume(run, options=hundredfold, reporter=told)
    assert any("lost their variation" in line for line in told.said)
    with pytest.raises(DivergenceError, match=r"lost their variation.*the last checkpoint in .* is whole"):
        # The log points of before are remembered, and those of the bad stretch are not many.
        progan.resume(
            back_to(run, 240), options={**hundredfold, "run": {"on_alarm": "stop"}}, reporter=Listener()
        )
    assert last_tensors(run)[0].images_seen == 240


def back_to(run: Path, clock: int) -> Path:
    """Take a run back to an earlier checkpoint, as its user may."""
    for path in checkpoint.paths(run / "checkpoints"):
        if int(path.stem) > clock:
            path.unlink()
    return run


def test_the_gradient_norm_is_that_of_the_gradients() -> None:
    G = Generator(max_level=1, fmap_base=16, fmap_max=4, latent_size=4)
    optimizer = Optimizer(G, make_config(OPTIONS).optimizer)
    assert float(optimizer.gradient_norm()) == 0
    torch.manual_seed(0)
    squares = []
    for _ in range(2):
        gradients = {p: torch.randn_like(p) for p in G.parameters()}
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        optimizer.step(0.0)
        squares.append(sum(float(g.double().square().sum()) for g in gradients.values()))
        # A mean with the weights beta2 (of the older) and 1; with one update, the norm itself.
        weights = [0.99, 1.0][-len(squares) :] if len(squares) > 1 else [1.0]
        mean = np.average(squares, weights=weights)
        assert float(optimizer.gradient_norm()) == pytest.approx(mean**0.5, rel=1e-5)


def test_variation_is_none_where_all_pictures_are_the_same() -> None:
    G = Generator(max_level=1, fmap_base=16, fmap_max=4, latent_size=4)
    grid = SampleGrid(1, 1, seed=0, G=G)
    assert float(grid.variation(G)) > 0.01
    for parameter in G.parameters():
        parameter.data.zero_()
    assert float(grid.variation(G)) == 0


# Data that changes under a run


@pytest.fixture(name="own")
def set_of_its_own(tmp_path: Path) -> PackedSet:
    return synthetic(tmp_path / "own", count=48, resolution=16, labelled=True)


class Meanwhile(Reporter):
    """Does something to the pictures while a run goes on."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self._at, self._act = at, act

    def advance(self, point: Point, images_seen: int) -> None:  # noqa: ARG002
        if images_seen == self._at:
            self._act()


def truncate(folder: Path) -> None:
    for path in folder.glob("level_*"):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


def replace(folder: Path) -> None:
    other = synthetic(folder.with_name("other"), count=48, resolution=16, labelled=True, seed=5)
    shutil.rmtree(folder)
    other.path.rename(folder)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "deleted": (shutil.rmtree, "is missing"),
    "truncated": (truncate, r"bytes instead of"),
    "replaced": (replace, "other pictures"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_pictures_that_change_during_a_run(done: Path, own: PackedSet, tmp_path: Path, change: str) -> None:
    """At the next level it is noticed, and a checkpoint is there; nothing was learned from anything else."""
    act, message = CHANGES[change]
    kept = Path(shutil.copytree(own.path, tmp_path / "kept"))
    run = tmp_path / "run"
    with pytest.raises(DataError, match=message) as caught:
        train(own, run, Meanwhile(32, lambda: act(own.path)))
    assert str(own.path) in str(caught.value)
    # What is good is saved: a replaced set goes unnoticed, with its old pixels, until the next level.
    clock = last_tensors(run)[0].images_seen
    assert f"\nstopped at {clock} images, checkpoint written" in str(caught.value)
    assert (clock == 64) if change == "replaced" else (32 <= clock < 64)
    with pytest.raises((DataError, progan.errors.CheckpointError)):
        progan.resume(run)
    shutil.rmtree(own.path, ignore_errors=True)
    kept.rename(own.path)
    progan.resume(run)
    require_equal(last_tensors(run)[1], last_tensors(done)[1])


def test_nothing_is_saved_amid_an_iteration(
    own: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures go missing between two updates of D: that state is not one to go on from."""
    batch, run = Batches.discriminator, tmp_path / "run"

    def gone(which: Batches, clock: int, *rest: Any) -> Any:
        if clock == 48:
            raise DataError("gone")
        return batch(which, clock, *rest)

    branches: dict[str, Any] = {
        "loss": {"d_steps": 2},
        "run": {"checkpoint_minutes": 0},
        "schedule": {"total_kimg": 0.096},
    }
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "discriminator", gone)
        with pytest.raises(
            DataError, match=r"^gone\nstopped amid an iteration; .* checkpoint after 32 images"
        ):
            train(own, run, **branches)
    assert last_tensors(run)[0].images_seen == 32
    whole = train(own, tmp_path / "whole", **branches)
    progan.resume(run)
    require_equal(last_tensors(run)[1], last_tensors(whole)[1])


def test_training_waits_for_a_disk_that_is_too_slow(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an interval of no time nothing is trained that is in no checkpoint."""
    iterate, run = iteration.Iteration.__call__, tmp_path / "run"

    def iterate_(which: iteration.Iteration, point: Point) -> Any:
        newest = [int(path.stem) for path in checkpoint.paths(run / "checkpoints")][-1:]
        found.append((which.state.images_seen, *newest))
        return iterate(which, point)

    found: list[tuple[int, ...]] = []
    monkeypatch.setattr(iteration.Iteration, "__call__", iterate_)
    train(blobs, run, schedule={"total_kimg": 0.08}, run={"checkpoint_minutes": 0})
    assert found == [(0,), (16, 16), (32, 32), (48, 48), (64, 64), (72, 72)]


def test_a_generator_without_its_checkpoints_is_not_replaced(done: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(done, tmp_path / "run"))
    before = (run / "generator.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint any more.*put one back, or begin a new"):
        progan.resume(run)
    assert (run / "generator.safetensors").read_bytes() == before
    (run / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"checkpoints cannot be read \(Not a directory\)"):
        progan.resume(run)


def test_no_memory_for_a_measurement_ends_no_training(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Monitor, "measure", full)
    told = Listener()
    watched = {"metrics": ["swd"], "num_images": 8, "interval_kimg": 0.016}
    train(blobs, tmp_path / "run", told, monitor=watched, schedule={"total_kimg": 0.032})
    said = [line for line in told.said if "not measured at" in line]
    assert said == [f"not measured at {clock} images: CUDA out of memory" for clock in (16, 32)]

"""The duality gap: its value against other formulas, what it leaves alone, and what it says of a run."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from measured_commands import done, mistake, rows
from progan.config import Adversarial, Config, make_config, merge
from progan.data.packed import PackedSet
from progan.data.pixels import fade_reals, to_float
from progan.distributed.ranks import Ranks
from progan.distributed.work_sharing import alone
from progan.errors import CheckpointError, ConfigError, DataError, DivergenceError, ProganError
from progan.evaluation.duality_gap import DualityGap
from progan.evaluation.results import Result, read_results
from progan.models.loading import load
from progan.models.weights import save
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.gap_of_run import GapOfRun
from progan.runs.logs import read_stats
from progan.runs.monitors import GapWatch
from progan.runs.resolve import resolve
from progan.runs.run import resume, train
from progan.runs.run_folder import RunFolder
from progan.training import step
from progan.training.iteration import Iteration
from progan.training.spec import ImageSpec, make_spec
from progan.training.state import TrainState
from progan.training.step import Step
from tiny import OPTIONS, TOTAL, Listener, last_tensors, options, require_equal

sklearn_metrics = pytest.importorskip("sklearn.metrics")
CPU = torch.device("cpu")
NAMES = {f"duality_gap/{name}" for name in ("gap", "minmax", "maxmin", "value")}


def duality_gap(
    run: Path, data: Path | None = None, *, out: Path | None = None, force: bool = False, **how: Any
) -> Result:
    return GapOfRun.open(run, data, **how).measure(out=out, force=force)


QUICK = {"duality_gap": True, "gap_steps": 2, "num_images": 16}
"""The gauge with hardly any training: what is tested is not how good the answers are."""


@pytest.fixture(scope="module", name="split")
def pictures_in_three_parts(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    folder = tmp_path_factory.mktemp("sets") / "split"
    return synthetic(folder, count=96, resolution=16, labelled=True, split=(0.4, 0.3, 0.3))


def begun(
    pictures: PackedSet, *, level: int = 2, alpha: float = 1.0, **branches: dict[str, Any]
) -> tuple[Config, TrainState]:
    """Return a run whose networks have grown so far, with the weights that it begins with."""
    tree = merge(OPTIONS, {"monitor": QUICK, "schedule": {"batch_size": 8}}, branches)
    config = resolve(make_config(tree), pictures)
    image = ImageSpec(pictures.channels, pictures.base_shape, pictures.max_level, pictures.label_names)
    state = TrainState.create(config, image, CPU)
    state.set_growth(level, alpha)
    return config, state


def scores(pictures: PackedSet, state: TrainState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score the first test pictures, and as many samples of a generator that always makes the same image."""
    G, D = state.G, state.D
    chosen = pictures.indices("test")
    reals = to_float(pictures.read(G.level, chosen))
    alpha = torch.tensor(G.alpha)
    if G.growth == "fade" and G.alpha < 1:
        reals = fade_reals(reals, alpha)
    labels = torch.from_numpy(pictures.label_vectors(chosen))
    with torch.no_grad():
        fakes = G(torch.randn(len(chosen), G.latent_size), labels, level=G.level, alpha=alpha)
        found = [
            D(images, labels, level=G.level, alpha=alpha)[0].double().numpy() for images in (reals, fakes)
        ]
    return found[0], found[1]


def flat(state: TrainState) -> None:
    """Let G make one image whatever the latent."""
    for layer in state.G.to_rgb:
        layer.requires_grad_(False)
        for parameter in layer.parameters():
            parameter.zero_()
        layer.requires_grad_(True)


def probability(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-score))


def value_of(loss: str, real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """The value of the game by other formulas; classifiers' losses are means over both kinds of image."""
    both, classes = np.concatenate([real, fake]), np.repeat([1, -1], [len(real), len(fake)])
    match loss:
        case "wgan":
            return float(real.mean() - fake.mean())
        case "logistic":
            return -2 * float(sklearn_metrics.log_loss(classes > 0, probability(both)))
        case "hinge":
            return -2 * float(sklearn_metrics.hinge_loss(classes, both))
        case "relativistic":
            return -float(np.logaddexp(0, fake - real).mean())
        case _:
            return -float(((real - 1) ** 2).mean() + (fake**2).mean()) / 2


GROWN: dict[str, dict[str, Any]] = {
    "whole": {"level": 2},
    "first level": {"level": 0},
    "fading": {"level": 1, "alpha": 0.25},
    "morphing": {"level": 1, "alpha": 0.25, "schedule": {"growth": "morph", "fade_kimg": 600.0}},
}


@pytest.mark.parametrize(
    ("loss", "grown"),
    [*((loss, "whole") for loss in get_args(Adversarial)), *(("wgan", grown) for grown in list(GROWN)[1:])],
)
def test_the_value_of_the_game(split: PackedSet, loss: str, grown: str) -> None:
    """It is over the whole test part, as D sees it now, without penalties and noise on the targets."""
    # So that every picture counts, and none because of those beside it.
    alone = {"schedule": {"batch_size": 1}, "model": {"discriminator": {"stddev_group": 0}}}
    branches = merge(alone, {"monitor": {"num_images": 999, "gap_steps": 1}}, GROWN[grown])
    config, state = begun(split, **branches, loss={"adversarial": loss})
    flat(state)
    found = DualityGap(config, split, CPU).measure(state)
    assert found is not None
    assert found.value == pytest.approx(value_of(loss, *scores(split, state)), rel=1e-4, abs=1e-5)


def test_what_it_is_made_of(split: PackedSet) -> None:
    """The worst D separates what can be separated, and the worst G fools a D that does not answer."""
    thorough = {**QUICK, "gap_steps": 40, "gap_lr": 0.01, "num_images": 99}
    config, state = begun(split, loss={"adversarial": "logistic"}, monitor=thorough)
    flat(state)
    found = DualityGap(config, split, CPU).measure(state)
    assert found is not None
    nothing = -2 * np.log(2)  # the value where D says nothing
    assert found.value == pytest.approx(nothing, abs=0.3)
    assert nothing / 2 < found.minmax <= 0, "one grey is not hard to tell from pictures"
    assert found.maxmin < found.value - 0.01
    assert found.gap == found.minmax - found.maxmin
    assert found.numbers() == {
        "duality_gap/gap": found.gap,
        "duality_gap/minmax": found.minmax,
        "duality_gap/maxmin": found.maxmin,
        "duality_gap/value": found.value,
    }


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("loss", ["wgan", "least_squares", "relativistic"])
def test_it_leaves_everything_alone(split: PackedSet, loss: str, precision: str) -> None:
    augment = {"policy": ["color", "cutout"], "probability": 0.5}
    config, state = begun(
        split, level=1, alpha=0.5, loss={"adversarial": loss}, augment=augment, run={"precision": precision}
    )
    state.images_seen = 320
    before, torch_state = copy.deepcopy(state.tensors()), torch.get_rng_state()
    gap = DualityGap(config, split, CPU)
    found = gap.measure(state)
    require_equal(state.tensors(), before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    for parameter in [*state.G.parameters(), *state.D.parameters()]:
        assert parameter.requires_grad
        assert parameter.grad is None
    assert gap.measure(state) == found, "nothing is left of a measurement that the next one could see"
    state.images_seen = 640
    later = gap.measure(state)
    assert found is not None
    assert later is not None
    assert later.value == found.value, "of the same networks on the same pictures and latents"
    if precision == "float32":  # two updates of float16 may both be skipped
        assert later.minmax != found.minmax
        assert later.maxmin != found.maxmin
    other = DualityGap(config, split, CPU, seed=1).measure(state)
    assert other is not None
    assert other.value != later.value


@pytest.mark.parametrize(
    ("option", "value"), [("gap_steps", 3), ("gap_lr", 0.002), ("gap_beta1", 0.0), ("gap_beta2", 0.5)]
)
def test_how_the_copies_are_trained(split: PackedSet, option: str, value: float) -> None:
    config, state = begun(split)
    usual = DualityGap(config, split, CPU).measure(state)
    changed = config.monitor.model_copy(update={option: value})
    other = DualityGap(config.model_copy(update={"monitor": changed}), split, CPU).measure(state)
    assert usual is not None
    assert other is not None
    assert other.value == usual.value
    assert other.minmax != usual.minmax
    assert other.maxmin != usual.maxmin


def test_parts_of_batches_change_nothing(split: PackedSet) -> None:
    config, state = begun(split)
    whole = DualityGap(config, split, CPU).measure(state)
    smaller = config.model_copy(update={"run": config.run.model_copy(update={"micro_batch": (4,)})})
    parts = DualityGap(smaller, split, CPU).measure(state)
    assert whole is not None
    assert parts is not None
    assert parts.numbers() == pytest.approx(whole.numbers(), rel=1e-4, abs=1e-5)


def test_float64_stays_float64(split: PackedSet) -> None:
    config, state = begun(split, level=1, alpha=0.5)
    single = DualityGap(config, split, CPU).measure(state)
    state.G, state.D = state.G.double(), state.D.double()
    double = DualityGap(config, split, CPU).measure(state)
    assert single is not None
    assert double is not None
    assert double.value == pytest.approx(single.value, rel=1e-4)
    assert double.value != float(np.float32(double.value))


def test_how_many_pictures_are_scored(split: PackedSet) -> None:
    config, _ = begun(split, schedule={"batch_size": [8, 4]})
    held = len(split.indices("test"))
    assert held % 8
    assert DualityGap(config, split, CPU).count(0) == 16
    assert DualityGap(config, split, CPU, num_images=999).count(0) == held // 8 * 8
    assert DualityGap(config, split, CPU, num_images=2).count(1) == 4, "a batch at least"


def test_it_can_be_given_up(split: PackedSet) -> None:
    config, state = begun(split)
    before, asked = copy.deepcopy(state.tensors()), iter([False, False, False, True])
    told: list[tuple[str, int, int]] = []
    gap = DualityGap(config, split, CPU)
    assert gap.measure(state, lambda: next(asked), lambda *args: told.append(args)) is None
    assert told == [("duality_gap", done, 4) for done in (1, 2, 3)]
    require_equal(state.tensors(), before)
    assert GapWatch(gap, Ranks()).lead(state, lambda: True, alone) == {}


def test_values_that_are_not_finite(split: PackedSet) -> None:
    config, state = begun(split, monitor={**QUICK, "gap_lr": 1e30})
    with pytest.raises(DivergenceError, match=r"worst D ran away .*monitor\.gap_lr .*--gap-lr"):
        DualityGap(config, split, CPU).measure(state)
    with torch.no_grad():
        next(state.G.parameters()).fill_(torch.nan)
    with pytest.raises(DivergenceError, match="G and D as they are the value is nan") as caught:
        DualityGap(config, split, CPU).measure(state)
    assert "gap_lr" not in str(caught.value), "it is no copy that ran away"


def test_a_worst_generator_that_is_not_finite(split: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    config, state = begun(split)
    made = iter([0.0, 1.0, -np.inf])
    monkeypatch.setattr(DualityGap, "_value", lambda *_: next(made))
    with pytest.raises(DivergenceError, match="worst G ran away"):
        DualityGap(config, split, CPU).measure(state)


@pytest.mark.parametrize("copied", ["Discriminator", "Generator"])
def test_copies_that_overflow_float16(split: PackedSet, monkeypatch: pytest.MonkeyPatch, copied: str) -> None:
    """What is told is of the copy; the advice for a run that overflows, an earlier checkpoint, is not."""
    enough = {**QUICK, "gap_steps": 60}  # the scale is halved 40 times, from 2^16 to 2^-24
    config, state = begun(split, monitor=enough, run={"precision": "float16"})

    def overflow(which: Step, *_: object) -> dict[str, torch.Tensor]:
        [(trained, optimizer)] = which.optimizers.items()
        if trained != copied[0]:
            return {}
        network = which._networks[0 if copied == "Generator" else 1]
        assert float(optimizer.scale) > 0
        optimizer.add({name: torch.full_like(p, torch.inf) for name, p in network.named_parameters()})
        optimizer.step(0.001)
        return {}

    monkeypatch.setattr(Step, "__call__", overflow)
    with pytest.raises(DivergenceError, match=rf"a copy of {copied} overflow float16 .*gap_lr") as caught:
        DualityGap(config, split, CPU).measure(state)
    assert "checkpoint" not in str(caught.value)


def test_no_memory_for_copies(split: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    config, state = begun(split)
    monkeypatch.setattr("progan.evaluation.duality_gap.copy.deepcopy", full)
    with pytest.raises(ConfigError, match=r"second copy .* out of memory\)"):
        DualityGap(config, split, CPU).measure(state)


@pytest.mark.parametrize("copied", ["discriminator", "generator"])
def test_no_memory_for_updates_of_copies(
    split: PackedSet, monkeypatch: pytest.MonkeyPatch, copied: str
) -> None:
    """Smaller parts are tried and told first; what is said at last is about the gap, not the training."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    config, state = begun(split)
    said: list[str] = []
    monkeypatch.setitem(step.STAGES, "D" if copied == "discriminator" else "G", full)
    with pytest.raises(
        ConfigError, match=r"^memory does not hold a second copy .* out of memory\)"
    ) as caught:
        DualityGap(config, split, CPU, say=said.append).measure(state)
    assert "fmap" not in str(caught.value)
    assert said
    assert all(line.startswith("for the duality gap, level ") for line in said)


def test_training_is_untouched_and_goes_on(split: PackedSet, tmp_path: Path) -> None:
    """Bit by bit, with the gauge on or off, in one piece or in five, and so are the gauge's numbers."""
    watched = {**QUICK, "interval_kimg": 0.048}
    adaptive = {"policy": ["color"], "adaptive": True, "probability": 0.5, "adapt_kimg": 0.4}
    tree = options(loss={"adversarial": "logistic"}, augment=adaptive, run={"log_kimg": 0.016, "seed": 3})
    plain = train(split.path, tmp_path / "plain", options=tree)
    listener = Listener()
    run = train(split.path, tmp_path / "run", options={**tree, "monitor": watched}, reporter=listener)
    require_equal(last_tensors(run)[1], last_tensors(plain)[1])
    lines = measured(run)
    assert {line["phase"] for line in lines} == {"fade", "stabilise"}
    assert [line["images_seen"] for line in lines][-1] == TOTAL
    assert all(0 < float(line["duality_gap/share"]) < 1 for line in lines)
    assert any("the duality gap took" in line for line in listener.said)
    pieces = {**tree, "monitor": watched, "run": {**tree["run"], "stop_after": "phase"}}
    for piece in range(5):
        other = train(split.path, tmp_path / "pieces", options=pieces)
        if piece == 1:  # a fade, so that alpha counts
            ended = measured(other)[-1]
            expected = {name: ended[name] for name in NAMES}
            found = duality_gap(other)
            assert (found.numbers, found.seed) == (expected, 3), "evaluate says what the monitor said"
    require_equal(last_tensors(other)[1], last_tensors(plain)[1])
    assert [numbers(line) for line in measured(other)] == [numbers(line) for line in lines]


def test_a_measurement_is_seen_to_move(
    split: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes wait for it: at each of its updates they learn that it gets on."""
    places: list[str] = []
    monkeypatch.setattr(Ranks, "at", lambda _self, what, *_: places.append(what))
    tree = options(monitor={**QUICK, "interval_kimg": 0.048}, schedule={"total_kimg": 0.096})
    run = train(split.path, tmp_path / "run", options=tree)
    assert len(measured(run)) == 2
    assert places.count("a measurement") == 2 * (1 + 2 * QUICK["gap_steps"])


def measured(run: Path) -> list[dict[str, Any]]:
    """Return the log points with a duality gap."""
    return [line for line in read_stats(RunFolder(run).stats_file) if "duality_gap/gap" in line]


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in (*NAMES, "images_seen")}


def test_what_cannot_be_measured_is_said(split: PackedSet, tmp_path: Path) -> None:
    listener = Listener()
    monitor = {**QUICK, "gap_lr": 1e30}
    run = train(split.path, tmp_path / "run", options=options(monitor=monitor), reporter=listener)
    assert last_tensors(run)[0].images_seen == TOTAL
    assert any("not measured" in line and "gap_lr" in line for line in listener.said)
    assert not measured(run)
    resume(run, options={"monitor": {**QUICK, "gap_lr": 0.001}, "schedule": {"total_kimg": 0.248}})
    assert len(measured(run)) == 1, "the options may change within a run"


class TestEarlyRefusals:
    def refused(self, source: object, tmp_path: Path, **branches: dict[str, Any]) -> str:
        run = tmp_path / "run"
        tree = merge(options(monitor=QUICK), branches)
        with pytest.raises(ProganError) as caught:
            train(str(source), run, options=tree)
        assert not run.exists()
        return str(caught.value)

    def test_a_packed_set_without_parts(self, blobs: PackedSet, tmp_path: Path) -> None:
        message = self.refused(blobs.path, tmp_path)
        assert str(blobs.path) in message
        assert "validation part has no pictures" in message
        assert "progan prepare PICTURES DESTINATION --split 0.8,0.1,0.1" in message

    @pytest.mark.parametrize("source", ["builtin:synthetic", "no/such/folder"])
    def test_before_pictures_are_prepared(self, source: str, tmp_path: Path) -> None:
        message = self.refused(source, tmp_path, data={"split": "0.9,0.1,0"})
        assert "--data.split 0.8,0.1,0.1" in message
        assert "0.9,0.1,0" in message

    def test_too_few_pictures(self, split: PackedSet, tmp_path: Path) -> None:
        message = self.refused(split.path, tmp_path, schedule={"batch_size": [32]})
        assert f"{len(split.indices('validation'))} pictures, fewer than a batch of 32" in message

    @pytest.mark.parametrize("part", ["all", "test", "validation"])
    def test_training_on_other_parts(self, split: PackedSet, tmp_path: Path, part: str) -> None:
        assert f"data.part {part}" in self.refused(split.path, tmp_path, data={"part": part})

    def test_a_builtin_set_with_parts(self, tmp_path: Path) -> None:
        small = {"limit": 96, "split": "0.4,0.3,0.3", "resolution": "8x8"}
        run = train("builtin:synthetic", tmp_path / "run", options=options(monitor=QUICK, data=small))
        assert measured(run)


@pytest.fixture(scope="module", name="run")
def finished_run(split: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = options(monitor={"gap_steps": 2})
    return train(split.path, tmp_path_factory.mktemp("runs") / "run", options=tree)


class TestEvaluate:
    def test_the_command(self, run: Path, split: PackedSet, capsys: pytest.CaptureFixture[str]) -> None:
        words = ("evaluate", run, "--metrics", "duality_gap", "ms_ssim", "--num-images", 8, "--device", "cpu")
        out = done(capsys, *words)
        gap = next(found for found in read_results(run / "metrics.jsonl") if found.metric == "duality_gap")
        assert set(gap.numbers) == NAMES
        assert rows(out)["duality_gap/gap"] == [f"{gap.numbers['duality_gap/gap']:.4f}", "8", "8"]
        assert "ms_ssim" in rows(out), "measured as well"
        assert gap.definition["steps"] == 2
        assert gap.definition["loss"]["adversarial"] == "wgan"
        assert gap.reals is not None
        assert gap.reals["fingerprint"] == split.fingerprint
        assert gap.about["images"] == {"path": str(run), "images_seen": last_tensors(run)[0].images_seen}
        assert "among" not in out.splitlines()[1], "reals have no duality gap"
        newest = last_tensors(run)[0]
        said = " ".join(out.split())
        assert f"of G and D at 16x16, alpha 1, after {newest.images_seen} images;" in said
        assert "copies trained for 2 updates at 0.001; seed 0" in said
        again = rows(done(capsys, *words))
        assert again["duality_gap/gap"][-1] == "known"

    def test_what_decides_the_numbers(
        self, run: Path, split: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "results.jsonl"
        one = duality_gap(run, num_images=8, out=out)
        monkeypatch.setattr(DualityGap, "measure", lambda *_, **__: pytest.fail("it is known"))
        assert duality_gap(run, split.path, num_images=8, out=out).numbers == one.numbers
        monkeypatch.undo()
        other = duality_gap(run, num_images=8, seed=1, out=out)
        assert other.numbers != one.numbers
        more = duality_gap(run, num_images=16, out=out)
        assert (one.num_images, more.num_images) == (8, 16)
        assert duality_gap(run, num_images=8, out=out, force=True).numbers == one.numbers
        assert len(read_results(out)) == 4

    def test_other_pictures(self, run: Path, blobs: PackedSet, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="validation part has no pictures") as caught:
            duality_gap(run, blobs.path)
        assert "--data OTHER.packed" in str(caught.value), "the run is over: nothing of it can be split"
        assert "progan train" not in str(caught.value)
        gray = synthetic(tmp_path / "gray", count=96, resolution=16, channels=1, split=(0.4, 0.3, 0.3))
        with pytest.raises(DataError, match=r"does not fit pictures like those of .*gray"):
            duality_gap(run, gray.path)

    @pytest.mark.parametrize("part", ["all", "test"])
    def test_a_run_that_was_trained_on_other_parts(self, split: PackedSet, tmp_path: Path, part: str) -> None:
        tree = options(monitor={"gap_steps": 2}, data={"part": part}, schedule={"total_kimg": 0.032})
        run = train(split.path, tmp_path / "run", options=tree)
        for same in (None, split.path):
            with pytest.raises(ConfigError, match=rf"data\.part {part} of .*--data OTHER\.packed"):
                duality_gap(run, same)
        other = synthetic(
            tmp_path / "other", count=96, resolution=16, seed=1, labelled=True, split=(0.4, 0.3, 0.3)
        )
        assert set(duality_gap(run, other.path).numbers) == NAMES

    def test_how_the_copies_are_trained(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "results.jsonl"
        words = ("evaluate", run, "--metrics", "duality_gap", "--device", "cpu", "--out", out)
        done(capsys, *words)
        done(capsys, *words, "--gap-steps", 3)
        said = done(capsys, *words, "--gap-lr", 0.01)
        assert "2 updates at 0.01" in " ".join(said.split())
        usual, longer, faster = read_results(out)
        assert (longer.definition["steps"], faster.definition["optimizer"]["lr"]) == (3, 0.01)
        assert longer.numbers["duality_gap/value"] == usual.numbers["duality_gap/value"]
        assert len({found.numbers["duality_gap/gap"] for found in (usual, longer, faster)}) == 3
        assert "monitor.gap_lr: -1.0 is not allowed" in mistake(capsys, *words, "--gap-lr", "-1")
        assert "gap_steps" in mistake(capsys, *words, "--gap-steps", 0)
        message = mistake(capsys, "evaluate", run, "--gap-steps", 3)
        assert "add it to --metrics" in message

    def test_what_other_metrics_miss_is_found_before_it(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DualityGap, "measure", lambda *_, **__: pytest.fail("it takes minutes"))
        copied = tmp_path / "run"
        shutil.copytree(run, copied)
        words = ("evaluate", copied, "--force", "--metrics", "duality_gap")
        assert "none.pt" in mistake(capsys, *words, "fid", "--extractor", tmp_path / "none.pt")
        RunFolder(copied).generator_file.unlink()
        assert "generator.safetensors" in mistake(capsys, *words, "ms_ssim")

    def test_what_has_no_discriminator(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = tmp_path / "g.safetensors"
        save(load(run), weights)
        message = mistake(capsys, "evaluate", weights, "--metrics", "duality_gap")
        assert f"{weights} is no run folder" in message
        assert "discriminator" in message
        folder = RunFolder(tmp_path / "empty")
        folder.begin(RunFolder(run).config(), RunFolder(run).dataset())
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            duality_gap(folder.path)

    def test_options_that_do_not_belong(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ("evaluate", run, "--metrics", "duality_gap")
        assert "leave out --label" in mistake(capsys, *words, "--label", "1")
        assert "--resolution" in mistake(capsys, *words, "--resolution", "4")
        assert "--part" in mistake(capsys, *words, "--part", "test")
        assert "ms_sim" in mistake(capsys, *words, "ms_sim")
        message = mistake(capsys, "compare", run, run, "--metrics", "duality_gap")
        assert "progan evaluate RUN --metrics duality_gap" in message

    def test_a_damaged_checkpoint_is_passed_over(self, run: Path, tmp_path: Path) -> None:
        copied = tmp_path / "run"
        shutil.copytree(run, copied)
        newest = checkpoint.paths(RunFolder(copied).checkpoints)[-1]
        newest.write_bytes(newest.read_bytes()[:-1])
        found = duality_gap(copied, num_images=8)
        assert str(newest) in found.notes[0]
        assert found.about["images"]["images_seen"] < last_tensors(run)[0].images_seen


def small_game(pictures: PackedSet, factor: float) -> tuple[Iteration, DualityGap]:
    """Return a logistic game of tiny networks that comes to rest, or not with a larger factor."""
    sizes, rate = {"fmap_base": 32, "fmap_max": 8}, 0.003 * factor
    tree = {
        "model": {"generator": {**sizes, "latent_size": 8}, "discriminator": sizes},
        "schedule": {"growth": "none", "batch_size": 8},
        "loss": {"adversarial": "logistic"},
        "optimizer": {"g_lr": rate, "d_lr": rate},
        "run": {"device": "cpu", "seed": 1},
        "monitor": {"duality_gap": True, "gap_steps": 40, "num_images": 96},
    }
    config = resolve(make_config(tree), pictures)
    image = ImageSpec(pictures.channels, pictures.base_shape, pictures.max_level)
    updates = Iteration(make_spec(config, image, 300), pictures, CPU, print)
    return updates, DualityGap(config, pictures, CPU)


def gap_at(clock: int, updates: Iteration, gap: DualityGap) -> float:
    """Train up to a clock and measure."""
    while updates.state.images_seen < clock:
        updates(updates.spec.schedule.at(updates.state.images_seen))
    found = gap.measure(updates.state)
    assert found is not None
    return found.gap


def test_it_falls_where_training_converges_and_rises_where_it_collapses(tmp_path: Path) -> None:
    """With six seeds it fell to a third or less and rose to eighty times that or more."""
    pictures = synthetic(tmp_path / "blobs", count=512, resolution=4, channels=1, split=(0.6, 0.2, 0.2))
    updates, gap = small_game(pictures, 1)
    early, late = (gap_at(clock, updates, gap) for clock in (256, 3200))
    assert 0 < late < early / 2
    wild, gap = small_game(pictures, 100)
    wild.state.load_tensors(updates.state.tensors())
    wild.state.images_seen, wild.state.phase = updates.state.images_seen, updates.state.phase
    assert max(gap_at(3200 + more, wild, gap) for more in (64, 128)) > 10 * late

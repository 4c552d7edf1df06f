"""A whole run from Python: what it writes, what it refuses, how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import progan
from progan.config import Config, differing_keys, load_config
from progan.data.packed import PackedSet
from progan.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergenceError,
    Interrupted,
    StorageError,
)
from progan.models.weights import save as save_weights
from progan.runs import checkpoint, loop
from progan.runs.logs import read_stats
from progan.runs.reporter import Reporter
from progan.runs.run_folder import RunFolder
from progan.runs.sample_grid import grid_shape
from progan.training import step
from progan.training.schedule import Point
from tiny import TOTAL, Listener, last_tensors, options, require_equal


def train(source: PackedSet | Path, out: Path, reporter: Reporter | None = None, **branches: Any) -> Path:
    path = source.path if isinstance(source, PackedSet) else source
    return progan.train(path, out, options=options(**branches), reporter=reporter)


@pytest.fixture(scope="module", name="done")
def finished_run(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(blobs, tmp_path_factory.mktemp("runs") / "done")


@pytest.fixture(name="copy")
def copy_of_the_finished_run(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_what_a_run_leaves(done: Path, blobs: PackedSet) -> None:
    folder = RunFolder(done)
    events = list(done.glob("events.out.tfevents.*"))
    assert {path.name for path in done.iterdir()} - {".lock", *(path.name for path in events)} == {
        "config.yaml",
        "dataset.json",
        "stats.jsonl",
        "machines.jsonl",
        "samples",
        "checkpoints",
        "generators",
        "generator.safetensors",
    }
    config = folder.config()
    assert load_config(folder.config_file) == config, "the file is itself a recipe"
    assert (config.data.resolution, config.data.channels, config.model.base_shape) == ("16x16", 3, (4, 4))
    assert config.schedule.batch_size == (16, 8)
    assert folder.dataset().fingerprint == blobs.fingerprint
    assert [int(path.stem) for path in checkpoint.paths(folder.checkpoints)] == [152, 192, TOTAL]
    assert len(events) == 1
    assert events[0].stat().st_size > 1000


def test_log_points(done: Path) -> None:
    text = (done / "stats.jsonl").read_text()
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    clocks = [line["images_seen"] for line in lines]
    assert clocks == sorted(set(clocks))
    assert clocks[-1] == TOTAL
    assert all(line.keys() == lines[0].keys() for line in lines)
    names = {"D/loss", "G/loss", "D/gp", "D/drift", "D/label_real", "D/label_fake", "G/label_fake"}
    assert names < lines[0].keys()
    assert all(np.isfinite(value) for line in lines for value in line.values() if not isinstance(value, str))
    assert {(line["resolution"], line["phase"]) for line in lines} == {
        ("4x4", "stabilise"),
        ("8x8", "fade"),
        ("8x8", "stabilise"),
        ("16x16", "fade"),
        ("16x16", "stabilise"),
    }
    for line in lines:
        assert line["batch_size"] == (16 if line["level"] == 0 else 8)
        assert (line["phase"] == "fade") == (line["alpha"] < 1)
        # The terms are weighted and added up as the configuration says.
        total = line["D/adversarial"] + 10 * line["D/gp"] + 0.001 * line["D/drift"]
        assert line["D/loss"] == pytest.approx(total + line["D/label_real"] + line["D/label_fake"], rel=1e-4)
        difference = line["D/fake_score"] - line["D/real_score"]
        assert line["D/adversarial"] == pytest.approx(difference, abs=1e-4)


def test_samples_of_every_log_point(done: Path) -> None:
    clocks = [int(line["images_seen"]) for line in read_stats(done / "stats.jsonl")]
    grids = sorted(path for path in (done / "samples").iterdir() if path.name != "reals.png")
    assert [int(path.name.split("_")[0]) for path in grids] == clocks
    assert {path.stem.split("_")[1] for path in grids} == {"4x4", "8x8", "16x16"}
    for path in [*grids, done / "samples" / "reals.png"]:
        with Image.open(path) as image:
            # 2 rows of 4 pictures, enlarged to 64 pixels each, 2 pixels between them
            assert image.size == (4 * 66 - 2, 2 * 66 - 2), path
            assert image.mode == "RGB"


def test_the_generator_is_the_average_of_the_last_checkpoint(done: Path) -> None:
    G = progan.load(done)
    record, tensors = last_tensors(done)
    assert record.images_seen == TOTAL
    assert (G.level, G.alpha, G.label_names) == (2, 1.0, ("1", "2", "3", "4"))
    average = {k.removeprefix("G_ema/"): v for k, v in tensors.items() if k.startswith("G_ema/")}
    require_equal(dict(G.state_dict()), average)
    assert G(torch.randn(2, 6), torch.eye(4)[:2]).shape == (2, 3, 16, 16)
    assert not torch.equal(average["conv.weight"], tensors["G/conv.weight"])


def test_the_average_lives_through_growth(done: Path) -> None:
    """Each D update moves it by 1 - 0.999: after 28 of them it is still nearest to where it began."""
    _, tensors = last_tensors(done)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = progan.Generator(
            max_level=2, label_size=4, fmap_base=64, fmap_max=8, latent_size=6
        ).state_dict()
    for name in ("conv.weight", "blocks.0.conv1.weight"):
        moved = (tensors[f"G/{name}"] - start[name]).norm()
        assert 0 < (tensors[f"G_ema/{name}"] - start[name]).norm() < 0.05 * moved


def test_the_same_call_again_does_nothing_more(copy: Path, blobs: PackedSet) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and "tfevents" not in p.name}
    listener = Listener()
    assert train(blobs, copy, listener) == copy
    assert listener.said == ["going on from 240 images", f"{copy} is complete at 240 images"]
    after = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and "tfevents" not in p.name}
    assert after == before


def test_two_runs_are_equal(done: Path, blobs: PackedSet, tmp_path: Path) -> None:
    other = train(blobs, tmp_path / "other")
    require_equal(last_tensors(other)[1], last_tensors(done)[1])
    different = train(blobs, tmp_path / "seed", run={"seed": 1})
    assert not torch.equal(
        last_tensors(different)[1]["G/conv.weight"], last_tensors(done)[1]["G/conv.weight"]
    )


def test_what_is_free_changes_nothing(done: Path, blobs: PackedSet, tmp_path: Path) -> None:
    """Checkpoints after each iteration, other grids: the same bits."""
    run = {"checkpoint_minutes": 0, "keep_checkpoints": 1, "grid": [1, 1]}
    other = train(blobs, tmp_path / "other", run=run)
    require_equal(last_tensors(other)[1], last_tensors(done)[1])
    assert len(checkpoint.paths(other / "checkpoints")) == 1


def test_another_configuration_is_refused(copy: Path, blobs: PackedSet) -> None:
    before = (copy / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="belongs to a run of another configuration") as caught:
        train(blobs, copy, schedule={"batch_size": [4]}, loss={"drift": 0.5}, run={"checkpoint_minutes": 1})
    text = str(caught.value)
    assert "schedule.batch_size: [16, 8] there, [4] here" in text
    assert "loss.drift: 0.001 there, 0.5 here" in text
    assert "checkpoint_minutes" not in text
    assert f"progan train --resume {copy}" in text
    assert (copy / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": {"generator": {"fmap_max": 16}}}, "model.generator.fmap_max: 8 there, 16 here"),
        ({"model": {"discriminator": {"stddev_group": 2}}}, "model.discriminator.stddev_group: 4 there, 2"),
        ({"data": {"mirror": True}}, "data.mirror: False there, True here"),
        ({"run": {"seed": 5}}, "run.seed: 0 there, 5 here"),
    ],
)
def test_resume_refuses_what_is_fixed(copy: Path, changed: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match="cannot go on with these changes") as caught:
        progan.resume(copy, options=changed)
    assert name in str(caught.value)


def test_resume_takes_other_rates_and_a_longer_schedule(copy: Path) -> None:
    changed = {"optimizer": {"g_lr": [0.0001], "d_lr": 0.0002}, "schedule": {"total_kimg": 0.3}}
    progan.resume(copy, options=changed)
    config = RunFolder(copy).config()
    assert (config.optimizer.g_lr, config.optimizer.d_lr) == ((0.0001,), (0.0002,))
    last = read_stats(copy / "stats.jsonl")[-1]
    assert (last["images_seen"], last["g_lr"], last["d_lr"]) == (304, 0.0001, 0.0002)  # whole batches of 8
    assert last_tensors(copy)[0].images_seen == 304


def test_a_longer_total_ends_where_one_long_run_ends(done: Path, blobs: PackedSet, tmp_path: Path) -> None:
    short = train(blobs, tmp_path / "short", schedule={"total_kimg": 0.12})
    record, _ = last_tensors(short)
    assert (record.images_seen, record.level, record.alpha) == (120, 1, 1.0)
    with pytest.raises(ConfigError, match=r"schedule\.total_kimg: 0\.12 there, None here"):
        train(blobs, short)
    progan.resume(short, options={"schedule": {"total_kimg": None}})
    require_equal(last_tensors(short)[1], last_tensors(done)[1])
    longer = Path(shutil.copytree(done, tmp_path / "longer"))
    progan.resume(longer, options={"schedule": {"total_kimg": 0.264}})
    whole = train(blobs, tmp_path / "whole", schedule={"total_kimg": 0.264})
    require_equal(last_tensors(longer)[1], last_tensors(whole)[1])


def test_a_schedule_of_nothing_is_refused(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 images long"):
        train(blobs, tmp_path / "run", schedule={"stabilise_kimg": 0, "fade_kimg": 0})
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_told_and_passed_over(copy: Path, done: Path) -> None:
    newest = checkpoint.paths(copy / "checkpoints")[-1]
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    listener = Listener()
    progan.resume(copy, reporter=listener)
    assert len(listener.said) == 2
    assert str(newest) in listener.said[0]
    assert "damaged" in listener.said[0]
    assert "using the one before" in listener.said[0]
    assert listener.said[1] == "going on from 192 images"
    require_equal(last_tensors(copy)[1], last_tensors(done)[1])
    clocks = [line["images_seen"] for line in read_stats(copy / "stats.jsonl")]
    assert clocks == [line["images_seen"] for line in read_stats(done / "stats.jsonl")]


def test_no_readable_checkpoint_is_an_error(copy: Path) -> None:
    for path in checkpoint.paths(copy / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        progan.resume(copy)


def test_a_generator_that_was_not_written_is_made_up_for(copy: Path, done: Path, blobs: PackedSet) -> None:
    """A kill between the last checkpoint and its generator must not leave the run without one."""
    expected = (done / "generator.safetensors").read_bytes()
    (copy / "generator.safetensors").unlink()
    (copy / ".generator.99999.tmp.safetensors").write_bytes(b"half")
    train(blobs, copy)
    assert (copy / "generator.safetensors").read_bytes() == expected
    assert [path.name for path in copy.glob(".*")] == [".lock"]
    save_weights(progan.Generator(max_level=0, fmap_base=8, fmap_max=4), copy / "generator.safetensors")
    progan.resume(copy)
    assert (copy / "generator.safetensors").read_bytes() == expected


def test_a_run_killed_as_it_began_goes_on(blobs: PackedSet, tmp_path: Path) -> None:
    """Before config.yaml there may be dataset.json and temporary files; other files are somebody's."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "dataset.json").write_text("{}")
    (run / ".config.4711.tmp.yaml").write_text("mod")
    train(blobs, run, schedule={"total_kimg": 0.016})
    assert progan.load(run).level == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"foreign exists and is no run folder; choose another --out"):
        train(blobs, foreign)
    with pytest.raises(ConfigError, match=r"thesis\.tex exists and is no run folder"):
        train(blobs, foreign / "thesis.tex")


def test_a_log_that_was_cut_off_is_mended(copy: Path, done: Path) -> None:
    stats = copy / "stats.jsonl"
    stats.write_text(stats.read_text() + '{"images_seen": 999, "lev')
    checkpoint.paths(copy / "checkpoints")[-1].unlink()
    progan.resume(copy)
    clocks = [line["images_seen"] for line in read_stats(stats)]
    assert clocks == [line["images_seen"] for line in read_stats(done / "stats.jsonl")]
    lines = stats.read_text().splitlines()
    checkpoint.paths(copy / "checkpoints")[-1].unlink()
    stats.write_text("\n".join(["garbage", *lines]) + "\n")
    with pytest.raises(DataError, match="line 1: not a log point"):
        progan.resume(copy)


def pictures(folder: Path, count: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(place / f"{i:03d}.png")
    return folder


def test_a_run_from_a_folder_survives_the_loss_of_its_packed_set(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pictures")
    listener = Listener()
    run = train(
        source, tmp_path / "run", listener, schedule={"total_kimg": 0.064}, data={"labels": "folders"}
    )
    packed = Path(RunFolder(run).dataset().packed)
    assert packed.parent == tmp_path / "pictures.progan"
    shutil.rmtree(packed)
    progan.resume(run, options={"schedule": {"total_kimg": 0.096}})
    packed = Path(RunFolder(run).dataset().packed)
    assert packed.is_dir(), "prepared again"
    assert last_tensors(run)[0].images_seen == 96
    assert progan.load(run).label_names == ("0", "1")
    # Changed pictures are other pictures.
    shutil.rmtree(packed)
    (source / "0" / "000.png").unlink()
    with pytest.raises(CheckpointError, match="was trained on other pictures"):
        progan.resume(run, options={"schedule": {"total_kimg": 0.128}})
    shutil.rmtree(source)
    shutil.rmtree(tmp_path / "pictures.progan")
    with pytest.raises(DataError, match="pictures"):
        progan.resume(run)


def test_a_run_of_a_packed_set_that_is_gone(tmp_path: Path, blobs: PackedSet) -> None:
    moved = shutil.copytree(blobs.path, tmp_path / "moved")
    run = train(Path(moved), tmp_path / "run", schedule={"total_kimg": 0.016})
    shutil.rmtree(moved)
    with pytest.raises(DataError, match="moved"):
        progan.resume(run)


def test_other_pictures_under_the_same_name_are_refused(copy: Path, tmp_path: Path) -> None:
    other = progan.preparation.builtin_sets.synthetic(
        tmp_path / "o", count=48, resolution=16, labelled=True, seed=3
    )
    with pytest.raises(CheckpointError, match="have changed since"):
        train(other, copy)


def test_fewer_pictures_than_a_batch(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="48 pictures to train on are fewer than a batch of 64") as caught:
        train(blobs, tmp_path / "run", schedule={"batch_size": [16, 64]})
    assert "lower --schedule.batch-size" in str(caught.value)
    assert not (tmp_path / "run").exists(), "nothing is begun"


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ({"data": {"channels": 1}}, "data.channels 1 was asked for, but .* with 3"),
        ({"data": {"resolution": "32"}}, "data.resolution 32x32 was asked for, but .* holds 4x4, 8x8, 16x16"),
        ({"schedule": {"start_level": 3}}, "start_level 3 is above the last level, 2"),
        ({"run": {"device": "nonsense"}}, "run.device 'nonsense' cannot be used here"),
        ({"model": {"base_shape": [2, 2]}}, "model.base_shape 2x2 was asked for, but .* with 4x4"),
    ],
)
def test_what_does_not_fit_the_pictures(
    blobs: PackedSet, tmp_path: Path, branches: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(blobs, tmp_path / "run", **branches)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["16", "16x16", "16X16", " 16 "])
def test_a_resolution_may_be_written_in_any_way(blobs: PackedSet, tmp_path: Path, text: str) -> None:
    train(blobs, tmp_path / "run", data={"resolution": text}, schedule={"total_kimg": 0.016})
    assert RunFolder(tmp_path / "run").config().data.resolution == "16x16"


def test_divergence_stops_and_keeps_the_last_checkpoint(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def poisoned(which: step.Step, *rest: Any) -> Any:
        if state["calls"] == 20:  # the eleventh of D
            which._networks[0].get_parameter("dense_bias").data[0] = float("nan")
        state["calls"] += 1
        return update(which, *rest)

    state, update = {"calls": 0}, step.Step.__call__
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(step.Step, "__call__", poisoned)
        with pytest.raises(DivergenceError, match=r"D/fake_score.* became NaN or infinite") as caught:
            train(blobs, run, run={"checkpoint_minutes": 0, "keep_checkpoints": 2})
    assert f"progan train --resume {run}" in str(caught.value)
    assert caught.value.exit_code == 1
    record, tensors = last_tensors(run)
    assert record.images_seen == 4 * 16 + 6 * 8, "10 updates were good"
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    assert bool(torch.isfinite(progan.load(run)(torch.randn(1, 6), torch.eye(4)[:1])).all())
    # From there it goes on as if nothing had been.
    progan.resume(run)
    assert last_tensors(run)[0].images_seen == TOTAL


def test_divergence_by_a_mad_learning_rate(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        train(blobs, tmp_path / "run", optimizer={"g_lr": 1e30, "d_lr": 1e30})
    for path in checkpoint.paths(tmp_path / "run" / "checkpoints"):
        checkpoint.load(path)


class Steps(Reporter):
    """Notes, after each iteration, how many updates each parameter has had since its last reset."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, int, int]] = []
        self.trainer: loop.Trainer | None = None

    def advance(self, point: Point, images_seen: int) -> None:  # noqa: ARG002
        assert self.trainer is not None
        d, g = (adam.tensors() for adam in (self.trainer.state.d_optimizer, self.trainer.state.g_optimizer))
        name = "step.conv.weight"
        self.seen.append((point.level, point.phase.kind, int(d[name]), int(g[name])))


def count_steps(
    source: PackedSet, run: Path, monkeypatch: pytest.MonkeyPatch, **branches: Any
) -> list[tuple[int, str, int, int]]:
    steps = Steps()
    create = loop.Trainer.__init__

    def remember(self: loop.Trainer, *arguments: Any) -> None:
        create(self, *arguments)
        steps.trainer = self

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "__init__", remember)
        train(source, run, steps, **branches)
    return steps.seen


class Signaller(Reporter):
    """Sends a signal to its own process right between the log point and the checkpoint of an iteration."""

    def advance(self, point: Point, images_seen: int) -> None:  # noqa: ARG002
        if images_seen == 80:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_at_the_worst_moment(done: Path, blobs: PackedSet, tmp_path: Path) -> None:
    """It is for the next iteration, whose log point and checkpoint are both written."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="stopped at 88 images, checkpoint written") as caught:
        train(blobs, run, Signaller(), run={"checkpoint_minutes": 99})
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert last_tensors(run)[0].images_seen == read_stats(run / "stats.jsonl")[-1]["images_seen"] == 88
    progan.resume(run)
    require_equal(last_tensors(run)[1], last_tensors(done)[1])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "handlers are put back"


PHASES = [(0, "stabilise"), (1, "fade"), (1, "stabilise"), (2, "fade"), (2, "stabilise")]


@pytest.mark.parametrize(
    ("reset", "first"),
    # How many updates Adam remembers after the first one of each phase, in the order of PHASES. A fade is
    # open at its start, so the phases have 4 (of 16 images), 4, 7, 5 and 6 (of 8) updates.
    [("never", [1, 5, 9, 16, 21]), ("level", [1, 1, 5, 1, 6]), ("phase", [1, 1, 1, 1, 1])],
)
def test_when_adam_forgets(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reset: str, first: list[int]
) -> None:
    seen = count_steps(blobs, tmp_path / "run", monkeypatch, optimizer={"reset": reset})
    assert list(dict.fromkeys((level, kind) for level, kind, _, _ in seen)) == PHASES
    begun = [next(row for row in seen if row[:2] == phase) for phase in PHASES]
    assert [d for _, _, d, _ in begun] == first
    assert all(d == g for _, _, d, g in seen)
    for before, after in pairwise(seen):
        if before[:2] == after[:2]:
            assert after[2] == before[2] + 1


def test_d_steps_count_for_the_clock(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = count_steps(
        blobs, tmp_path / "run", monkeypatch, loss={"d_steps": 3}, schedule={"total_kimg": 0.048}
    )
    assert seen == [(0, "stabilise", 3, 1)]
    assert last_tensors(tmp_path / "run")[0].images_seen == 48


def test_a_level_that_is_entered_without_its_fade_is_new_too(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fades shorter than a batch are stepped over; Adam is reset at the new level all the same."""
    seen = count_steps(
        blobs,
        tmp_path / "run",
        monkeypatch,
        optimizer={"reset": "level"},
        schedule={"fade_kimg": 0.004, "stabilise_kimg": 0.04, "batch_size": 16},
    )
    levels = [level for level, *_ in seen]
    assert {0, 1, 2} == set(levels)
    assert (1, "fade") not in [row[:2] for row in seen]
    for level in (0, 1, 2):
        assert [d for at, _, d, _ in seen if at == level] == list(range(1, levels.count(level) + 1))


def test_a_resumed_run_resets_adam_as_the_undisturbed_one(
    done: Path, blobs: PackedSet, tmp_path: Path
) -> None:
    """Going on from the checkpoint of each phase's end, where the next update resets Adam."""
    expected = last_tensors(done)[1]
    for total in (0.096, 0.192):
        run = train(blobs, tmp_path / f"{total}", schedule={"total_kimg": total})
        progan.resume(run, options={"schedule": {"total_kimg": None}})
        require_equal(last_tensors(run)[1], expected)


def test_without_labels_and_other_losses(tmp_path: Path) -> None:
    plain = progan.preparation.builtin_sets.synthetic(
        tmp_path / "gray", count=16, resolution=(8, 12), channels=1, labelled=False
    )
    run = train(
        plain,
        tmp_path / "run",
        loss={"gp_lambda": 0, "drift": 0},
        model={"discriminator": {"stddev_group": 0, "downscale": "separate"}},
        schedule={"start_level": 1, "total_kimg": 0.04, "batch_size": 5},
        run={"micro_batch": 2},
    )
    last = read_stats(run / "stats.jsonl")[-1]
    assert not {"D/gp", "D/drift", "D/label_real"} & last.keys()
    assert last["D/loss"] == pytest.approx(last["D/adversarial"])
    assert last["resolution"] == "8x12"
    G = progan.load(run)
    assert G(torch.randn(3, 6)).shape == (3, 1, 8, 12)


def test_a_configuration_is_kept_whole(done: Path) -> None:
    config = RunFolder(done).config()
    assert differing_keys(config, Config.model_validate(config.model_dump(mode="json"))) == []
    assert checkpoint.newest(done / "checkpoints")[0] is not None
    record, _ = last_tensors(done)
    assert Config.model_validate(record.config) == config
    assert record.versions == {"progan": progan.__version__, "torch": str(torch.__version__)}


def test_a_schedule_that_would_go_back_is_refused(copy: Path) -> None:
    before = (copy / "config.yaml").read_bytes()
    with pytest.raises(
        ConfigError, match=r"has grown to level 2, but at .* images this schedule is at level 0"
    ):
        progan.resume(copy, options={"schedule": {"stabilise_kimg": [5]}})
    with pytest.raises(ConfigError, match=r"more than the .* of this schedule"):
        progan.resume(copy, options={"schedule": {"total_kimg": 0.1}})
    assert (copy / "config.yaml").read_bytes() == before


def test_two_at_once_are_refused(copy: Path) -> None:
    with RunFolder(copy).lock(print), pytest.raises(ConfigError, match="another process is training"):
        progan.resume(copy)
    assert progan.resume(copy) == copy


def test_what_a_packed_set_does_not_hold_is_refused(blobs: PackedSet, tmp_path: Path) -> None:
    for data in ({"fit": "pad"}, {"limit": 5}, {"split": "0.5,0.5,0"}, {"resolution": "64"}):
        with pytest.raises(ConfigError, match=rf"data\.{next(iter(data))} .* was asked for"):
            train(blobs, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_a_packed_set_may_be_used_in_part(blobs: PackedSet, tmp_path: Path) -> None:
    for number, data in enumerate(({"resolution": "8"}, {"max_resolution": 8}, {"labels": "none"})):
        run = train(blobs, tmp_path / str(number), data=data, schedule={"total_kimg": 0.02})
        G = progan.load(run)
        assert G.max_level == (2 if number == 2 else 1)
        assert G.label_names == (() if number == 2 else blobs.label_names)
        config = RunFolder(run).config().data
        assert config.resolution == ("16x16" if number == 2 else "8x8")
        assert config.labels == ("none" if number == 2 else "folders")
        assert progan.resume(run, options={"schedule": {"total_kimg": 0.04}}) == run


def test_what_is_cheap_is_checked_before_the_pictures(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pictures")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("x")
    for out, error in ((tmp_path / "taken", ConfigError), (source / "0" / "000.png" / "run", StorageError)):
        with pytest.raises(error):
            train(source, out)
    assert not (tmp_path / "pictures.progan").exists()


def test_grids_of_large_pictures_are_small() -> None:
    assert grid_shape(6, 10, (256, 256)) == (6, 10)
    for size in ((512, 512), (1024, 1024), (512, 2048)):
        rows, columns = grid_shape(6, 10, size)
        assert 2e6 < rows * columns * size[0] * size[1] <= 8e6
    assert grid_shape(3, 3, (8192, 8192)) == (1, 1)

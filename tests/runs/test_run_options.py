"""Options of a run, seen in whole runs: what is stateful goes on exactly, and what is asked for happens."""

from __future__ import annotations

import csv
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import progan
from progan.cli.terminal.training import TerminalReporter
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DataError, ProganError
from progan.runs import checkpoint
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder
from progan.training import precision
from tiny import TOTAL, Listener, last_tensors, options, require_equal

AUGMENTED = {
    "policy": ["color", "translation", "cutout"],
    "adaptive": True,
    "probability": 0.4,
    "adapt_kimg": 0.2,
}
STATEFUL: dict[str, dict[str, Any]] = {
    "adaptive, float16, half-life": {
        "augment": AUGMENTED,
        "loss": {"adversarial": "logistic", "penalty_interval": 3, "d_steps": 2},
        "optimizer": {"ema_half_life_kimg": 0.05, "ema_warmup": 0.3, "clip_norm": 2.0, "reset": "never"},
        "run": {"precision": "float16"},
    },
    "relativistic, projection, stages": {
        "model": {"conditioning": "projection"},
        "loss": {"adversarial": "relativistic"},
        "optimizer": {"name": "adamw", "weight_decay": 0.01, "reset": "level"},
        "schedule": {"stage_kimg": 0.096, "fade_fraction": 0.5, "fade_delay": 2, "alpha": "smooth"},
        "run": {"precision": "bfloat16"},
    },
    "noisy least squares, in order": {
        "augment": AUGMENTED,
        "data": {"order": "sequential", "mirror": True, "in_memory": True},
        "loss": {"adversarial": "least_squares", "target_noise_per": "sample", "gp_lambda": 1.0},
        "model": {"generator": {"upscale": "strided"}, "discriminator": {"downscale": "strided"}},
    },
}


def train(source: PackedSet | Path, out: Path, listener: Listener | None = None, **branches: Any) -> Path:
    path = source.path if isinstance(source, PackedSet) else source
    return progan.train(path, out, options=options(**branches), reporter=listener)


@pytest.mark.parametrize("choices", STATEFUL.values(), ids=STATEFUL.keys())
def test_a_run_in_pieces_is_the_whole_run(blobs: PackedSet, tmp_path: Path, choices: dict[str, Any]) -> None:
    """`run.stop_after phase` ends the call five times; every piece goes on from a checkpoint alone."""
    whole = train(blobs, tmp_path / "whole", **choices)
    pieces = {**choices, "run": {**choices.get("run", {}), "stop_after": "phase"}}
    clocks, listener = [], Listener()
    for _ in range(5):
        run = train(blobs, tmp_path / "pieces", listener, **pieces)
        clocks.append(last_tensors(run)[0].images_seen)
    assert clocks == sorted(set(clocks))
    assert sum("(run.stop_after phase); the same command" in line for line in listener.said) == 4
    (one, expected), (other, ours) = last_tensors(whole), last_tensors(run)
    assert one.images_seen == other.images_seen
    require_equal(ours, expected)
    if "augment" in choices:
        probabilities = [line["augment_probability"] for line in read_stats(RunFolder(run).stats_file)]
        assert len(set(probabilities)) > 1, "it adapted"
    if choices.get("run") == {"precision": "float16"}:
        assert "d_optimizer/loss_scale.scale" in ours


def test_each_level_as_a_process_of_its_own(blobs: PackedSet, tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        run = train(blobs, tmp_path / "run", run={"stop_after": "level"})
        record = last_tensors(run)[0]
        seen.append((record.level, record.images_seen))
    assert [level for level, _ in seen] == [0, 1, 2]
    assert seen[-1][1] == TOTAL


def test_a_run_keeps_the_precision_that_auto_meant(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it goes on, on a machine for which it would mean another."""
    meant = {"auto": "bfloat16"}
    monkeypatch.setattr(precision, "choose_precision", lambda asked, _: meant.get(asked, asked))
    auto = {"precision": "auto"}
    run = train(blobs, tmp_path / "run", run={**auto, "stop_after": "phase"})
    assert RunFolder(run).config().run.precision == "bfloat16"
    train(blobs, run, run={**auto, "stop_after": "phase"})
    meant["auto"] = "tf32"
    progan.resume(run)
    assert RunFolder(run).config().run.precision == "bfloat16"
    with pytest.raises(ConfigError, match=r"run\.precision"):
        train(blobs, run, run=auto)


def test_intervals(blobs: PackedSet, tmp_path: Path) -> None:
    intervals = {"log_kimg": 0.016, "snapshot_kimg": 0.048, "checkpoint_kimg": 0.024, "keep_checkpoints": 99}
    folder = RunFolder(train(blobs, tmp_path / "run", run=intervals))
    logged = {int(line["images_seen"]) for line in read_stats(folder.stats_file)}
    drawn = {int(path.name.split("_")[0]) for path in folder.samples.glob("0*.png")}
    saved = {int(path.stem) for path in checkpoint.paths(folder.checkpoints)}
    assert drawn < logged
    assert len(drawn) < len(saved) < len(logged)
    assert max(drawn) == max(logged) == max(saved) == TOTAL


def test_no_growth(blobs: PackedSet, tmp_path: Path) -> None:
    tree = options(schedule={"growth": "none", "total_kimg": 0.032})
    del tree["schedule"]["fade_kimg"]
    run = progan.train(blobs.path, tmp_path / "run", options=tree)
    stats = read_stats(RunFolder(run).stats_file)
    assert {(line["resolution"], line["phase"]) for line in stats} == {("16x16", "stabilise")}


def test_epochs(blobs: PackedSet, tmp_path: Path) -> None:
    run = train(blobs, tmp_path / "run", schedule={"stabilise_epochs": 1, "fade_epochs": [0, 2]})
    assert last_tensors(run)[0].images_seen == 48 * (1 + 2 + 1 + 2 + 1)


def test_memory_check_says_what_it_found(blobs: PackedSet, tmp_path: Path) -> None:
    listener = Listener()
    short = options(schedule={"total_kimg": 0.016})
    progan.train(blobs.path, tmp_path / "run", options=short, reporter=listener, memory_check=True)
    assert listener.said[0] == "memory check: level 0 (4x4) fits", "the largest level that the run reaches"
    longer = {"schedule": {"total_kimg": 0.24}}
    progan.resume(tmp_path / "run", options=longer, reporter=listener, memory_check=True)
    assert "memory check: level 2 (16x16) fits" in listener.said
    plain = train(blobs, tmp_path / "plain")
    require_equal(last_tensors(tmp_path / "run")[1], last_tensors(plain)[1])


@pytest.mark.parametrize("part", ["validation", "all"])
def test_the_part_that_is_trained_on(tmp_path: Path, part: str) -> None:
    source = pictures(tmp_path / "pictures", 40)
    branches: dict[str, Any] = {
        "data": {"split": "0.6,0.4,0", "part": part, "resolution": 8, "cache": str(tmp_path / "cache")},
        "schedule": {"total_kimg": 0.016, "batch_size": 8},
    }
    run = train(source, tmp_path / part, **branches)
    packed = PackedSet.open(RunFolder(run).dataset().packed)
    assert 8 <= len(packed.indices("validation")) < 40
    with pytest.raises(DataError, match="test part of the split"):
        train(source, tmp_path / "other", **{**branches, "data": {**branches["data"], "part": "test"}})


def pictures(folder: Path, count: int) -> Path:
    """Plain pictures whose colour says what their labels are."""
    folder.mkdir()
    for i in range(count):
        color = (255 * (i % 2), 255 * (i // 2 % 2), 40 + 4 * i)
        Image.new("RGB", (16, 16), color).save(folder / f"{i:02}.png")
    return folder


def label_file(path: Path, form: str, count: int) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        if form != "class":
            writer.writerow(["name", "red", "green"])
        for i in range(count):
            red, green = i % 2, i // 2 % 2
            cells: dict[str, list[Any]] = {
                "class": [f"kind{red}"],
                "classes": [red, green],
                "vector": [red - 0.5, 2.0 * green],
            }
            writer.writerow([f"{i:02}.png", *cells[form]])
    return path


@pytest.mark.parametrize("conditioning", ["ac_gan", "projection", "none"])
@pytest.mark.parametrize("form", ["class", "classes", "vector"])
def test_labels_of_each_form(tmp_path: Path, form: str, conditioning: str) -> None:
    source = pictures(tmp_path / "pictures", 32)
    run = train(
        source,
        tmp_path / "run",
        data={"labels": str(label_file(tmp_path / "labels.csv", form, 32)), "label_form": form},
        model={"conditioning": conditioning},
        schedule={"total_kimg": 0.112, "stabilise_kimg": 0.032, "fade_kimg": 0.016},
    )
    G = progan.load(run)
    terms = read_stats(RunFolder(run).stats_file)[-1].keys()
    assert ("D/label_real" in terms) == (conditioning == "ac_gan")
    if conditioning == "none":
        assert G.label_size == 0
        return
    assert G.label_form == form
    assert G.label_names == (("kind0", "kind1") if form == "class" else ("red", "green"))
    label = {"class": "kind1", "classes": "red,green", "vector": "0.5,2"}[form]
    made, drawn = (np.concatenate(list(progan.generate(G, 4, label=each))) for each in (label, None))
    assert made.shape == drawn.shape == (4, 3, 16, 16)
    if form != "class":
        packed = PackedSet.open(RunFolder(run).dataset().packed)
        rows = {tuple(row) for row in packed.label_vectors(np.arange(packed.count))}
        assert {tuple(row) for row in G.label_examples.numpy()} == rows, "64 draws of 4 different rows"
    resumed = progan.resume(run, options={"schedule": {"total_kimg": 0.128}})
    assert progan.load(resumed).label_form == form


def test_labels_are_needed_where_they_are_used(blobs: PackedSet, tmp_path: Path) -> None:
    source = pictures(tmp_path / "pictures", 32)
    with pytest.raises(ConfigError, match=r"model.conditioning projection needs labels: set data.labels"):
        train(source, tmp_path / "run", model={"conditioning": "projection"})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"model.conditioning ac_gan needs labels: set data.labels"):
        train(blobs, tmp_path / "run", model={"conditioning": "ac_gan"}, data={"labels": "none"})
    unlabelled = progan.train(source, tmp_path / "plain", options=options(schedule={"total_kimg": 0.016}))
    packed = RunFolder(unlabelled).dataset().packed
    with pytest.raises(ConfigError, match=r"needs labels, and .* holds none"):
        train(Path(packed), tmp_path / "run", model={"conditioning": "projection"})


def test_a_deterministic_run_leaves_the_process_as_it_was(blobs: PackedSet, tmp_path: Path) -> None:
    train(blobs, tmp_path / "run", run={"deterministic": True}, schedule={"total_kimg": 0.016})
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_what_the_device_cannot_do_is_refused(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.memory_fraction 0\.5"):
        train(blobs, tmp_path / "run", run={"memory_fraction": 0.5})
    assert not (tmp_path / "run").exists()


def test_float16_skips_its_first_updates_and_says_so(blobs: PackedSet, tmp_path: Path) -> None:
    """The loss scale begins too high; a log point without a single update is still one."""
    console = Console(file=StringIO(), width=120)
    tiny = options(run={"precision": "float16", "log_kimg": 0.016}, schedule={"total_kimg": 0.064})
    with TerminalReporter(console) as reporter:
        run = progan.train(blobs.path, tmp_path / "run", options=tiny, reporter=reporter)
    assert "D/loss" not in read_stats(RunFolder(run).stats_file)[0]
    assert isinstance(console.file, StringIO)
    assert "skipped" in console.file.getvalue()


def test_another_loss_brings_its_own_penalties(blobs: PackedSet, tmp_path: Path) -> None:
    """Those of the loss before, filled in or chosen, belong to it."""
    run = train(blobs, tmp_path / "run", loss={"gp_lambda": 5.0}, schedule={"total_kimg": 0.016})
    longer = {"schedule": {"total_kimg": 0.032}, "loss": {"adversarial": "logistic"}}
    loss = RunFolder(progan.resume(run, options=longer)).config().loss
    assert (loss.gp_lambda, loss.drift, loss.r1_gamma) == (0, 0, 10)


def test_what_would_do_nothing_is_refused(blobs: PackedSet, tmp_path: Path) -> None:
    idle: list[tuple[dict[str, Any], str]] = [
        ({"augment": {"probability": 0.5}}, "augment.probability 0.5 does nothing without an augment.policy"),
        ({"augment": {"target": 0.5}}, "augment.target 0.5 does nothing without augment.adaptive"),
        ({"loss": {"adversarial": "logistic", "gp_target": 2.0}}, "loss.gp_target 2.0 .* loss.gp_lambda"),
        (
            {"loss": {"label_weight": 2.0}, "model": {"conditioning": "none"}},
            "loss.label_weight 2.0 .* ac_gan",
        ),
        (
            {"model": {"generator": {"activation": "relu", "leaky_slope": 0.1}}},
            "leaky_slope 0.1 does nothing",
        ),
        ({"model": {"discriminator": {"stddev_group": 0, "stddev_features": 2}}}, "stddev_features 2 does"),
    ]
    for branches, message in idle:
        with pytest.raises(ConfigError, match=message):
            train(blobs, tmp_path / "run", **branches)


def test_metrics_during_training(blobs: PackedSet, tmp_path: Path) -> None:
    """They are in the log where they are due, go on exactly, and change nothing of the training."""
    monitor = {"metrics": ["swd", "ms_ssim"], "interval_kimg": 0.032, "num_images": 16}
    plain = train(blobs, tmp_path / "plain")
    run = train(blobs, tmp_path / "run", monitor=monitor, run={"stop_after": "phase"})
    for _ in range(4):
        run = train(blobs, tmp_path / "run", monitor=monitor, run={"stop_after": "phase"})
    require_equal(last_tensors(run)[1], last_tensors(plain)[1])
    lines = read_stats(RunFolder(run).stats_file)
    measured = [line for line in lines if "swd/mean" in line]
    assert {line["resolution"] for line in measured} == {"16x16"}, "smaller images have no such distance"
    assert len(measured) >= 2
    assert all(float(line["swd/mean"]) > 0 and 0 <= float(line["ms_ssim"]) <= 1 for line in measured)
    other = train(blobs, tmp_path / "other", monitor={**monitor, "num_images": 8})
    assert read_stats(RunFolder(other).stats_file)[-1]["swd/mean"] != lines[-1]["swd/mean"]


def test_a_missing_extractor_is_found_missing_before_training(blobs: PackedSet, tmp_path: Path) -> None:
    monitor = {"metrics": ["fid"], "extractor": str(tmp_path / "none.pt")}
    with pytest.raises(ProganError, match=r"none\.pt"):
        train(blobs, tmp_path / "run", monitor=monitor)
    assert not RunFolder(tmp_path / "run").exists()


class NeedsSize(torch.nn.Module):
    """Features of images of 16x16 and of no others."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.view(images.shape[0], 3, 16, 16).mean(dim=2).flatten(1)


def test_what_cannot_be_measured_does_not_end_the_training(blobs: PackedSet, tmp_path: Path) -> None:
    """A network that takes 16x16 alone fails on the lower levels, unless images are resized for it."""
    network = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what extractors are published in
        torch.jit.save(torch.jit.script(NeedsSize()), str(network))
    plain = {"metrics": ["kid"], "extractor": str(network), "num_images": 16}
    listener = Listener()
    run = train(blobs, tmp_path / "run", listener, monitor=plain)
    assert last_tensors(run)[0].images_seen == TOTAL
    assert any(line.startswith("not measured at") for line in listener.said)
    scaled = {**plain, "resize": "bilinear:16", "normalise": "-1..1"}
    run = train(blobs, tmp_path / "scaled", monitor=scaled)
    names = [{key for key in line if key.startswith("kid")} for line in read_stats(RunFolder(run).stats_file)]
    assert any(names)
    assert all("bilinear16_-1..1" in key for found in names for key in found)

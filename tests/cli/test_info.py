"""What a path is, in words, without reading more of it than that needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from progan.cli.info import describe
from progan.config import make_config
from progan.data.packed import PackedSet
from progan.errors import CheckpointError
from progan.models.generator import Generator
from progan.models.weights import save
from progan.runs import checkpoint
from progan.runs.run_folder import Dataset, RunFolder
from progan.system import tensor_file
from tiny import TOTAL, options


def make_run(path: Path, *clocks: int) -> RunFolder:
    """Write what `info` reads of a run, with checkpoints at some clocks."""
    folder = RunFolder(path)
    config = make_config(options(data={"resolution": "16"}))
    folder.begin(config, Dataset("pictures", "packed", "f"))
    for clock in clocks:
        record = checkpoint.Record(clock, "fade", 1, 0.5, {}, "f", {"progan": "1.0"})
        checkpoint.save(folder.checkpoints, record, {"x": torch.zeros(1)}, keep=9)
        save(Generator(max_level=1, fmap_base=64, fmap_max=8), folder.generator_file)
    return folder


@pytest.mark.parametrize(
    ("clock", "share", "complete"),
    [(0, "0%", False), (TOTAL - 1, "99%", False), (TOTAL, "100%", True), (TOTAL + 6, "100%", True)],
)
def test_progress_ends_at_100(tmp_path: Path, clock: int, share: str, complete: bool) -> None:
    progress = describe(make_run(tmp_path, clock).path)["progress"]
    assert progress.startswith(f"{clock} of {TOTAL} images ({share}), phase ")
    assert progress.endswith("; complete") == complete


def test_no_tensor_of_a_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, 100)
    read = tensor_file.read_tensors

    def watched(path: Path) -> Any:
        assert path == folder.generator_file
        return read(path)

    monkeypatch.setattr(tensor_file, "read_tensors", watched)
    assert describe(tmp_path)["progress"].startswith("100 of 240 images (41%)")


def test_damage_is_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 50, 100)
    newest = checkpoint.paths(folder.checkpoints)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    folder.generator_file.write_bytes(b"")
    facts = describe(tmp_path)
    assert facts["progress"].startswith("50 of 240")
    assert newest.name in facts["damaged"]
    assert "generator.safetensors is not a readable" in facts["generator"]
    for path in checkpoint.paths(folder.checkpoints):
        tensor_file.write(path, "progan-checkpoint-9", {}, {})
    facts = describe(tmp_path)
    assert facts["progress"] == "no checkpoint can be read"
    assert facts["damaged"].count("newer progan (format progan-checkpoint-9") == 2
    tensor_file.write(newest, checkpoint.FORMAT, {"other": 1}, {})
    assert newest.name in describe(tmp_path)["damaged"]
    assert describe(make_run(tmp_path / "new").path)["progress"] == "no checkpoint yet"


@pytest.mark.parametrize(
    ("log", "name", "told"),
    [
        ('{"images_seen": 16}\n', None, None),
        ('{"images_seen": 16, "G/loss": "low", "D/loss": 2}\n', "last losses", "D 2.000"),
        ('{"images_seen": 16, "D/loss": NaN}\n', "last losses", "D nan"),
        (
            '{"images_seen": 16, "D/loss": [1]}\n{}\n',
            "damaged log",
            "line 1: not a log point; delete",
        ),
        ("[16]\n" * 2, "damaged log", "line 1: not a log point"),
        ('{"images_seen": -1}\n\n', "damaged log", "line 1: not a log point"),
        ('{"images_seen": 1, "x": 1' + "0" * 400 + "}\n\n", "damaged log", "line 1: not a log point"),
    ],
)
def test_odd_logs(tmp_path: Path, log: str, name: str | None, told: str | None) -> None:
    folder = make_run(tmp_path, 100)
    folder.stats_file.write_text(log)
    facts = describe(tmp_path)
    assert facts["progress"].startswith("100 of 240")
    assert {key: facts[key] for key in ("last losses", "damaged log") if key in facts} == (
        {} if name is None else {name: facts.get(name, "")}
    )
    assert name is None or str(told) in facts[name]


@pytest.mark.parametrize(
    "change",
    [{"versions": ["torch"]}, {"images_seen": "many"}, {"alpha": float("nan")}, {"level": -1}, {"more": 1}],
)
def test_odd_records(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = make_run(tmp_path, 100)
    path = checkpoint.paths(folder.checkpoints)[0]
    record, tensors = checkpoint.load(path)
    tensor_file.write(path, checkpoint.FORMAT, asdict(record) | change, tensors)
    assert f"another record than a checkpoint's ({next(iter(change))}" in describe(tmp_path)["damaged"]


def test_labels_are_told_with_their_form(tmp_path: Path, blobs: PackedSet) -> None:
    assert describe(blobs.path)["labels"] == "class (4: 1, 2, 3, 4)"
    G = Generator(
        max_level=1,
        fmap_base=64,
        fmap_max=8,
        label_size=2,
        label_form="classes",
        label_names=("smiling", "hat"),
    )
    save(G, tmp_path / "g.safetensors")
    facts = describe(tmp_path / "g.safetensors")
    assert facts["labels"] == "several classes (2: smiling, hat)"
    assert "label_form" not in facts["options"]


def test_epochs_are_those_of_the_packed_set(tmp_path: Path, blobs: PackedSet) -> None:
    folder = RunFolder(tmp_path)
    schedule = {"stabilise_epochs": [1], "fade_epochs": [0.5]}
    config = make_config(options(data={"resolution": "16"}, schedule=schedule))
    folder.begin(config, Dataset("pictures", str(blobs.path), "f"))
    record = checkpoint.Record(48, "fade", 1, 0.5, {}, "f", {"progan": "1.0"})
    checkpoint.save(folder.checkpoints, record, {"x": torch.zeros(1)}, keep=9)
    assert describe(tmp_path)["progress"].startswith("48 of 192 images (25%), phase ")
    folder.dataset_file.write_text('{"source": "pictures", "packed": "gone", "fingerprint": "f"}')
    progress = describe(tmp_path)["progress"]
    assert progress.startswith(
        "48 images, level 1, alpha 0.50; how much there is cannot be told: gone: is no"
    )


def test_a_folder_of_another_kind(tmp_path: Path, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            describe(path)
        text = str(caught.value)
        for word in (str(path), "no run folder", "no packed set", "no weight file"):
            assert word in text
        return text

    empty = tmp_path / "empty"
    empty.mkdir()
    assert message(empty).endswith("model.safetensors)")
    for i in range(7):
        make_run(tmp_path / "runs" / str(i), *[100] * (i == 0))
    assert "; it holds 7 runs (0, 1, 2, 3, 4, ...): give one of them" in message(tmp_path / "runs")
    run = tmp_path / "runs" / "0"
    assert f"; it is the checkpoints folder of the run {run}: give the run" in message(run / "checkpoints")
    monkeypatch.chdir(run / "checkpoints")
    assert f"of the run {run}: give" in message(Path())
    (run / "checkpoints").rename(tmp_path / "moved")
    assert "it holds 1 safetensors file (000000000100.safetensors)" in message(tmp_path / "moved")
    assert f"packed set{'' if len(list(blobs.path.parent.iterdir())) == 1 else 's'} (" in message(
        blobs.path.parent
    )
    picture = tmp_path / "pictures" / "cats" / "1.PNG"
    picture.parent.mkdir(parents=True)
    Image.new("L", (4, 4)).save(picture)
    for folder in (picture.parent, picture.parent.parent):
        assert "it holds pictures: `progan prepare`" in message(folder)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="x: no such file or folder"):
        describe(tmp_path / "x")

"""Files of other versions of progan: newer ones are refused in words, older ones are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from progan.config import Config, make_config
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, DataError, ProganError
from progan.models.generator import Generator
from progan.models.loading import load
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.system import tensor_file
from progan.system.tensor_file import NewerVersionError

RECORD = checkpoint.Record(1000, "fade", 1, 0.5, Config().model_dump(mode="json"), "0f" * 16, {"progan": "0"})


def tiny() -> Generator:
    return Generator(channels=1, base_shape=(1, 1), max_level=0, fmap_base=2, fmap_max=2, latent_size=1)


@pytest.mark.parametrize("version", [2, 9, 123456789])
def test_newer_weights_and_checkpoints_are_refused_in_words(tmp_path: Path, version: int) -> None:
    G = tiny()
    record = {"network": "Generator", "config": G.config() | {"of_later_versions": 1}}
    tensor_file.write(tmp_path / "w", f"progan-weights-{version}", record, G.state_dict())
    with pytest.raises(NewerVersionError, match=f"newer progan .*progan-weights-{version}.*update progan"):
        load(tmp_path / "w")
    path = tmp_path / f"{1000:012d}{checkpoint.SUFFIX}"
    tensor_file.write(path, f"progan-checkpoint-{version}", asdict(RECORD), {"a": torch.zeros(1)})
    with pytest.raises(NewerVersionError, match="update progan"):
        checkpoint.load(path)
    # An older one beside it is not taken instead: that would silently undo work.
    checkpoint.save(tmp_path, checkpoint.Record(**asdict(RECORD) | {"images_seen": 10}), {}, keep=9)
    tensor_file.write(path, f"progan-checkpoint-{version}", asdict(RECORD), {"a": torch.zeros(1)})
    with pytest.raises(NewerVersionError, match="update progan"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    "form", ["progan-weights-0", "progan-weights--2", "progan-weights-x", "weights-9", "", 7]
)
def test_what_is_no_later_version_is_not_called_one(tmp_path: Path, form: str) -> None:
    tensor_file.write(tmp_path / "w", form, {}, {})
    with pytest.raises(CheckpointError, match="has the format") as caught:
        load(tmp_path / "w")
    assert not isinstance(caught.value, NewerVersionError)


def test_a_checkpoint_of_before_there_were_more_options_is_read(tmp_path: Path) -> None:
    # As the first version with checkpoints wrote them: these keys, and a configuration of fewer options.
    record = {
        "images_seen": 1000,
        "phase": "fade to level 1",
        "level": 1,
        "alpha": 0.5,
        "config": {"data": {"resolution": "16"}, "schedule": {"batch_size": [8, 4]}, "run": {"seed": 3}},
        "fingerprint": "0f" * 16,
        "versions": {"progan": "0", "torch": "0"},
    }
    path = tmp_path / "000000001000.safetensors"
    tensor_file.write(path, "progan-checkpoint-1", record, {"G/dense.weight": torch.ones(2)})
    found, tensors = checkpoint.load(path)
    assert (found.images_seen, found.fingerprint) == (1000, "0f" * 16)
    assert torch.equal(tensors["G/dense.weight"], torch.ones(2))
    assert make_config(found.config).schedule.batch_size == (8, 4)


def test_packed_sets_of_other_versions(tmp_path: Path) -> None:
    packed = synthetic(tmp_path / "set", count=3, resolution=8, labelled=True)
    file = packed.path / "manifest.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"version": 3, "levels": []}))
    with pytest.raises(DataError, match=r"newer progan .*version 3.*update progan"):
        PackedSet.open(packed.path)
    needed = {"version", "base_shape", "max_level", "channels", "count", "fingerprint", "label_names"}
    file.write_text(json.dumps({name: value for name, value in whole.items() if name in needed}))
    assert PackedSet.open(packed.path).label_names == packed.label_names
    file.write_text(json.dumps(whole | {"level_file": "../../x", "split_file": "/etc/passwd"}))
    assert PackedSet.open(packed.path).read(0, [0]).shape == (1, packed.channels, 4, 4)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x"])
def test_names_in_files_are_no_paths(tmp_path: Path, name: str) -> None:
    # A packed set's names are shown, and a run's dataset is read; nothing is written where they say.
    packed = synthetic(tmp_path / "set", count=3, resolution=8)
    (packed.path / "names.json").write_text(json.dumps([name] * 3))
    assert PackedSet.open(packed.path).names() == [name] * 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    file = packed.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"source": name, "dtype": name}))
    with pytest.raises(ProganError, match="damaged"):
        PackedSet.open(packed.path)
    assert {p for p in tmp_path.rglob("*") if before.get(p) != p.stat().st_mtime_ns} == {file}

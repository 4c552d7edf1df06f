"""Runs, their pictures and their labels are moved; what a message says to do then is enough to go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan import resume, train
from progan.errors import ConfigError, DataError
from progan.runs.run_folder import RunFolder
from tiny import Listener, options, progan

TREE = options(data={"labels": "labels.csv"}, schedule={"total_kimg": 0.048})


@pytest.fixture(name="project")
def project_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures, labels in a CSV and a run, in which one stands."""
    project = tmp_path / "project"
    (project / "photos").mkdir(parents=True)
    rows = ["file,label"]
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(project / "photos" / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{'ab'[i % 2]}")
    (project / "labels.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(project)
    train("photos", "run", options=TREE, reporter=Listener())
    return project


def longer(kimg: float) -> dict[str, dict[str, float]]:
    return {"schedule": {"total_kimg": kimg}}


def test_the_whole_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    assert RunFolder("run").pictures().is_relative_to(moved)
    resume("run", options=longer(0.096), reporter=Listener())
    assert RunFolder("run").dataset().source == str(moved / "photos")
    heard = Listener()
    train("photos", "run", options=TREE, reporter=heard)  # the command that began it, after a longer resume
    assert heard.said[-1].startswith("run is complete at")
    assert RunFolder("run").config().data.labels == str(moved / "labels.csv")
    renamed = Path("run").rename(tmp_path / "run-2")
    resume(renamed, options=longer(0.12), reporter=Listener())


def test_options_that_were_changed_by_resume(project: Path) -> None:
    """The first command goes on with what was changed; another value is still another configuration."""
    resume(
        "run",
        options={"schedule": {"total_kimg": 0.096}, "optimizer": {"g_lr": [0.002]}},
        reporter=Listener(),
    )
    resume("run", options=longer(0.144), reporter=Listener())
    assert json.loads((project / "run" / "changes.json").read_text()) == {
        "schedule.total_kimg": 0.048,
        "optimizer.g_lr": [0.001],
    }
    heard = Listener()
    train("photos", "run", options=TREE, reporter=heard)
    config = RunFolder("run").config()
    assert (config.schedule.total_kimg, config.optimizer.g_lr) == (0.144, (0.002,))
    with pytest.raises(ConfigError, match=r"schedule.total_kimg: 0.144 there, 0.05 here"):
        train("photos", "run", options=options(data={"labels": "labels.csv"}, **longer(0.05)))


def test_pictures_alone(project: Path) -> None:
    """Their packed set is gone; the message's own command, with the new place, goes on."""
    [packed] = [path for path in project.iterdir() if path.name.startswith("photos.")]
    packed.rename(project / "away")
    (project / "photos").rename(project / "pictures")
    lost = progan("train", "--resume", "run", "--schedule.total-kimg", 0.096, cwd=project)
    assert lost.returncode == 2
    command = re.search(r"progan (train PICTURES --resume \S+)", lost.stderr)
    assert command is not None
    words = command[1].replace("PICTURES", "pictures").split()
    found = progan(*words, "--schedule.total-kimg", 0.096, cwd=project)
    assert found.returncode == 0, found.stderr
    assert RunFolder(project / "run").dataset().source == str(project / "pictures")
    # Labels that do not lie where they did, seen from the pictures, have to be told.
    for path in project.glob("pictures.*"):
        path.rename(project / f"gone-{path.name}")
    (project / "labels.csv").rename(project / "classes.csv")
    with pytest.raises(DataError, match=r"labels.csv, are not there; say where they are with --data.labels"):
        resume("run", options=longer(0.144), reporter=Listener())
    told = {"data": {"labels": "classes.csv"}, **longer(0.144)}
    resume("run", options=told, reporter=Listener())
    assert RunFolder("run").config().data.labels == str(project / "classes.csv")


def test_other_pictures_are_no_moved_ones(project: Path) -> None:
    (project / "others").mkdir()
    for i in range(24):
        Image.new("RGB", (16, 16), (i, i, i)).save(project / "others" / f"{i:02d}.png")
    refused = progan("train", "others", "--resume", "run", cwd=project)
    assert refused.returncode == 2
    assert "was trained on other pictures than" in refused.stderr

"""The log points of a run that was killed or stopped are those of one that was not."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

import progan
from progan.data.packed import PackedSet
from progan.errors import Interrupted
from progan.runs import checkpoint
from progan.runs.logs import Stats, read_stats
from progan.runs.reporter import Reporter
from progan.training.interval import Interval
from progan.training.schedule import Point
from tiny import options

TREE = options(
    schedule={"total_kimg": 0.128},
    loss={"penalty_interval": 2},
    run={"log_kimg": 0.048, "checkpoint_kimg": 0.008, "keep_checkpoints": 99},
)


def log_points(run: Path) -> list[Stats]:
    """Return the log points of a run but for what depends on time."""
    return [
        {k: v for k, v in line.items() if k != "images_per_second"}
        for line in read_stats(run / "stats.jsonl")
    ]


@pytest.fixture(scope="module", name="whole")
def undisturbed(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return progan.train(blobs.path, tmp_path_factory.mktemp("log_points") / "run", options=TREE)


def test_from_any_checkpoint_the_same_log_points_follow(whole: Path, tmp_path: Path) -> None:
    clocks = [int(path.stem) for path in checkpoint.paths(whole / "checkpoints")]
    logged = [int(line["images_seen"]) for line in log_points(whole)]
    amid = [clock for clock in clocks if clock not in logged]
    assert len(amid) >= 3
    for clock in amid:
        run = Path(shutil.copytree(whole, tmp_path / str(clock)))
        for path in checkpoint.paths(run / "checkpoints"):
            if int(path.stem) > clock:
                path.unlink()
        progan.resume(run)
        assert log_points(run) == log_points(whole)


class Stop(Reporter):
    """Asks a run to stop."""

    def advance(self, point: Point, images_seen: int) -> None:  # noqa: ARG002
        if images_seen == 16:
            signal.raise_signal(signal.SIGTERM)


def test_a_stop_adds_a_log_point_and_changes_no_other(whole: Path, blobs: PackedSet, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        progan.train(blobs.path, run, options=TREE, reporter=Stop())
    progan.resume(run)
    ours, expected = log_points(run), log_points(whole)
    assert [line for line in ours if line in expected] == expected
    assert [line["images_seen"] for line in ours if line not in expected] == [32]


def test_a_checkpoint_of_before_there_were_sums_goes_on(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    first, *later = checkpoint.paths(run / "checkpoints")
    for path in later:
        path.unlink()
    record, tensors = checkpoint.load(first)
    assert any(name.startswith("interval/") for name in tensors)
    kept = {name: value for name, value in tensors.items() if not name.startswith("interval/")}
    checkpoint.save(run / "checkpoints", record, kept, keep=9)
    progan.resume(run)
    ours, expected = log_points(run), log_points(whole)
    assert [line["images_seen"] for line in ours] == [line["images_seen"] for line in expected]
    assert ours[1:] == expected[1:]


def test_sums_go_to_a_checkpoint_and_back() -> None:
    whole, cpu = Interval(), torch.device("cpu")
    values = torch.randn(6, generator=torch.manual_seed(0))
    for i, value in enumerate(values):
        whole.add(i, {"D/loss": value, **({"D/gp": value / 3} if i % 2 else {})})
    part = Interval()
    for i, value in enumerate(values):
        kept = part.tensors()
        part = Interval()
        part.load({name: kept[name] for name in kept}, cpu)
        part.add(i, {"D/loss": value, **({"D/gp": value / 3} if i % 2 else {})})
    assert part.means() == whole.means()
    part.load({}, cpu)
    assert part.means() == {}

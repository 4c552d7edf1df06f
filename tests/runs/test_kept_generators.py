"""Any generator of a run can be used: by its file, by images seen, or as the best one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from progan import find_generator, load, train
from progan.errors import CheckpointError, ConfigError
from progan.evaluation.results import FILE, Result, append_result
from progan.models.averaged import PART
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.runs.trained.kept_generators import kept, measured
from tiny import TOTAL, Listener, options, progan


@pytest.fixture(scope="module", name="run")
def run_of_many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which every state is kept."""
    place = tmp_path_factory.mktemp("kept")
    synthetic(place / "set", count=40, resolution=16, labelled=True)
    branches = {"keep_checkpoints": 99, "checkpoint_kimg": [0.048]}
    train(place / "set", place / "run", options=options(run=branches), reporter=Listener())
    return place / "run"


def test_a_checkpoint_is_its_averaged_generator(run: Path) -> None:
    files = checkpoint.paths(run / "checkpoints")
    assert len(files) >= 5
    for file in files:
        record, tensors = checkpoint.load(file)
        G = load(file)
        assert (G.level, G.alpha) == (record.level, record.alpha)
        for name, value in G.state_dict().items():
            assert torch.equal(value, tensors[PART + name]), name
    newest, z = load(run), torch.randn(2, 6)
    labels = torch.eye(newest.label_size)[:2]
    assert torch.equal(load(files[-1])(z, labels), newest(z, labels))


def test_images_seen_choose(run: Path) -> None:
    clocks = [each.images_seen for each in kept(RunFolder(run))]
    assert clocks[-1] == TOTAL
    for clock in clocks:
        found = find_generator(run, clock / 1000)
        assert (found.images_seen, int(found.file.stem)) == (clock, clock)
        assert found.told == f"the generator after {clock:,} images"
    near = find_generator(run, "0.09")  # between those after 48 and 96 images
    assert near.images_seen == 96
    assert near.told == "the generator after 96 images, the nearest that is kept to 90"
    assert find_generator(run, 1e6).images_seen == TOTAL
    assert find_generator(run).images_seen == TOTAL
    assert find_generator(near.file).images_seen == 96
    assert find_generator(near.file).run is not None


def test_the_best_is_what_was_measured_best(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"swd/mean \(run.best\) was measured of none .* --all --metrics swd"
    ):
        find_generator(run, "best")
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    clocks = [each.images_seen for each in kept(folder)]

    def note(clock: int, value: float, *, size: str = "16", n: int = 40) -> None:
        about = {"images": {"images_seen": clock}}
        append_result(
            folder.path / FILE,
            Result("swd", 1, {"swd/mean": value}, {}, n, n, 0, {"resolution": size}, {}, about),
        )

    note(clocks[-1], 50.0)
    note(clocks[-3], 20.0)
    note(clocks[-2], 30.0)
    note(clocks[0], 1.0, size="8")  # smaller images are another matter
    note(clocks[1], 2.0, n=20)  # and so are fewer
    assert measured(folder, "swd/mean") == {clocks[-1]: 50.0, clocks[-3]: 20.0, clocks[-2]: 30.0}
    found = find_generator(folder.path, "best")
    assert found.images_seen == clocks[-3]
    assert found.told == f"the best by swd/mean (20): the generator after {clocks[-3]:,} images"
    # Of recall the largest is best, and the log counts too.
    config = folder.config_file.read_text()
    folder.config_file.write_text(config.replace("best: swd/mean", "best: pr/recall"))
    lines = [json.loads(line) for line in folder.stats_file.read_text().splitlines()]
    for line, value in zip(lines[-2:], (0.75, 0.5), strict=True):
        line["pr/recall"] = value
    folder.stats_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = measured(folder, "pr/recall")
    assert sorted(values.values()) == [0.5, 0.75]
    best = max(
        clock
        for clock in values
        if clock in clocks and values[clock] == max(values[c] for c in values if c in clocks)
    )
    assert find_generator(folder.path, "best").images_seen == best


@pytest.mark.parametrize("kimg", ["fast", "-1", "nan", "1e30"])
def test_what_is_no_number_is_refused(run: Path, kimg: str) -> None:
    with pytest.raises(ConfigError, match=r"expected thousands of images, such as 500, or best"):
        find_generator(run, kimg)


def test_where_there_is_none(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder; only a run has several generators"):
        find_generator(checkpoint.paths(run / "checkpoints")[0], 1)
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.rmtree(tmp_path / "run" / "generators", ignore_errors=True)
    with pytest.raises(CheckpointError, match="has no generator yet"):
        find_generator(tmp_path / "run", 1)


def test_commands_take_them(run: Path, tmp_path: Path) -> None:
    file = checkpoint.paths(run / "checkpoints")[2]
    clock = int(file.stem)
    by_file = progan("generate", file, "--n", 2, "--out", "a.npy", cwd=tmp_path)
    assert by_file.returncode == 0, by_file.stderr
    by_clock = progan("generate", run, "--kimg", clock / 1000, "--n", 2, "--out", "b.npy", cwd=tmp_path)
    assert by_clock.returncode == 0, by_clock.stderr
    assert f"the generator after {clock:,} images\n" in by_clock.stdout
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    every = progan(
        "evaluate", run, "--all", "--num-images", 40, "--metrics", "ms_ssim", "--out", "m.jsonl", cwd=tmp_path
    )
    assert every.returncode == 0, every.stderr
    results = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert "not measured: The fakes are images of 4x4, but MS-SSIM" in every.stdout
    told = [line for line in every.stdout.splitlines() if line.startswith("after ")]
    assert told == [f"after {each.images_seen:,} images:" for each in kept(RunFolder(run))]
    assert results[0]["about"]["images"]["images_seen"] in [each.images_seen for each in kept(RunFolder(run))]

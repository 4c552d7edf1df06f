"""Any generator of a run can be used: by its file, by images seen, or as the best one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from progan import find_generator, load, resume, train
from progan.config import RunOptions
from progan.errors import CheckpointError, ConfigError
from progan.evaluation.results import FILE, Result, append_result
from progan.models.averaged import PART
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.runs.trained.keeping import keeper
from progan.runs.trained.kept_generators import kept, measured, paths
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
    near = find_generator(run, "0.09")
    assert near.images_seen == 88
    assert near.told == "the generator after 88 images, the nearest that is kept to 90"
    assert find_generator(run, 1e6).images_seen == TOTAL
    assert find_generator(run).images_seen == TOTAL
    assert find_generator(near.file).images_seen == 88
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
    told = [line for line in every.stdout.splitlines() if line.startswith("after ")]
    assert [line.split(" images,")[0] for line in told] == [
        f"after {each.images_seen:,}" for each in kept(RunFolder(run))
    ]
    assert told[0].endswith(" 4x4: no ms_ssim of images so small")
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in results[-1]["numbers"].items())
    assert told[-1].endswith(f" 16x16: {numbers}")
    assert results[0]["about"]["images"]["images_seen"] in [each.images_seen for each in kept(RunFolder(run))]


def test_generators_are_kept_small_beside_the_states(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    clocks = [int(path.stem) for path in paths(folder.generators)]
    ends = [48, 96, 144, 192, 240]
    assert set(ends) <= set(clocks)
    states = {int(path.stem): path for path in checkpoint.paths(folder.checkpoints)}
    for path in paths(folder.generators):
        if int(path.stem) in states:
            small, whole = load(path), load(states[int(path.stem)])
            assert small.max_level == whole.level  # levels that are not trained are left out
            assert small.alpha == whole.alpha
            z, labels = torch.randn(8, 6), torch.eye(4).repeat(2, 1)
            off = (small(z, labels) - whole(z, labels)).abs().max() / whole(z, labels).abs().max()
            assert off < 0.01  # 16 bits
            assert path.stat().st_size < states[int(path.stem)].stat().st_size / 8
    # Without states, they are what --kimg chooses among; on going back, what is later is forgotten.
    copied = RunFolder(shutil.copytree(run, tmp_path / "run"))
    for path in checkpoint.paths(copied.checkpoints)[2:]:
        path.unlink()
    assert find_generator(copied.path, 0.192).file == copied.generators / "000000192.safetensors"
    config = copied.config_file.read_text()
    copied.config_file.write_text(config.replace("generator_kimg: null", "generator_kimg: 0.0"))
    newest = int(checkpoint.paths(copied.checkpoints)[-1].stem)
    resume(copied.path, reporter=Listener())
    assert max(int(path.stem) for path in paths(copied.generators)) <= newest


@pytest.mark.parametrize(
    ("rule", "stay"),
    [
        (2, [8, 9]),
        ("all", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("every 4 kimg", [0, 4, 7, 8, 9]),
        ("every 4", [0, 4, 7, 8, 9]),
        (["best", "2"], [2, 3, 7, 8, 9]),
    ],
)
def test_which_checkpoints_are_kept(rule: object, stay: list[int], tmp_path: Path) -> None:
    """They come one after the other, every thousand images; the best are those after 3,000 and 2,000."""
    options = RunOptions(keep_checkpoints=rule)
    folder = RunFolder(tmp_path)
    folder.stats_file.write_text(
        "".join(
            json.dumps({"images_seen": 1000 * i, "resolution": "8x8", "swd/mean": abs(i - 2.6)}) + "\n"
            for i in range(6)
        )
    )
    record = checkpoint.Record(0, "", 0, 1.0, {}, "", {})
    for i in range(10):
        keep = keeper(folder, options.keep_checkpoints, options.best)
        checkpoint.save(folder.checkpoints, replace(record, images_seen=1000 * i), {}, keep)
    assert [int(path.stem) // 1000 for path in checkpoint.paths(folder.checkpoints)] == stay


@pytest.mark.parametrize("rule", ["0", "best", "best 0", "every", "every 0 kimg", "none", "-1", 1.5])
def test_other_rules_are_refused(rule: object) -> None:
    with pytest.raises(ValueError, match=r"expected a number such as 3, all, every 500 kimg, or best 3"):
        RunOptions(keep_checkpoints=rule)

"""Images to be measured are made by two real processes, and give the numbers of one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from measured_commands import done
from ports import free_port
from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks
from progan.distributed.work_sharing import Deal, Part, _exchange, share
from progan.errors import DataError, RankError, ToldElsewhere
from progan.evaluation import image_set
from progan.evaluation.monitor import Monitor
from progan.evaluation.results import FILE, read_results
from progan.generation import sampling
from progan.metrics.registry import ExtractorFile
from progan.models.loading import load
from progan.preparation.builtin_sets import synthetic
from progan.runs.gap_of_run import GapOfRun
from progan.runs.monitors import excused
from rank_measure import PARTS, SCENES, Made
from rank_process import variables
from tiny import options, words

PROGRAM = Path(__file__).parents[1] / "helpers" / "rank_measure.py"
METRICS, COUNT = ["swd", "ms_ssim", "ppl"], 36


@dataclass(frozen=True)
class Both:
    """What two processes leave.

    Attributes:
        folder: What is written.
        run: The run that they trained, in it.
        scenes: What each made in each scene.
        commands: Of each command that was given: exit code and what was made, of each.
        said: What each printed.
    """

    folder: Path
    run: Path
    scenes: list[dict[str, list[int]]]
    commands: list[list[tuple[int, Made]]]
    said: list[str]


@pytest.fixture(scope="module", name="split")
def pictures_in_three_parts(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    folder = tmp_path_factory.mktemp("sets") / "split"
    return synthetic(folder, count=96, resolution=16, labelled=True, split=(0.4, 0.3, 0.3))


@pytest.fixture(scope="module", name="both")
def two_processes(split: PackedSet, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Train, evaluate, compare, and ask for what cannot be made or evaluated."""
    folder = tmp_path_factory.mktemp("both")
    run, like = folder / "run", ["--device", "cpu", "--extractor", pool, "--resize", "bilinear:8"]
    watch = {"metrics": METRICS, "duality_gap": True, "gap_steps": 2, "num_images": COUNT}
    tree = options(
        monitor={**watch, "interval_kimg": [0.064], "extractor": pool, "resize": "bilinear:8"},
        schedule={"stabilise_kimg": [0.016], "fade_kimg": [0.016]},
    )
    metrics = ["--metrics", *METRICS]
    near = ["--neighbours", folder / "two.png"]
    asked = (
        ["train", split.path, "--out", run, *words(tree)],
        ["evaluate", run, *like, *metrics, "duality_gap", "--num-images", COUNT, *near],
        ["compare", run, run, *like, *metrics, "--mirror", "--num-images", COUNT, "--out", folder / "two"],
        ["compare", split.path, split.path, "--num-images", COUNT],
        ["generate", run, "--out", folder / "samples.bmp"],
        ["evaluate", run, "--num-images", 99],
    )
    rest = [str(word) for line in asked for word in (*line, "--")][:-1]
    ports = ",".join(str(free_port()) for _ in asked)
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), ports, *rest],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables(rank, 2, port),
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    scenes, commands = (
        [json.loads((folder / f"{what}-{rank}").read_text()) for rank in range(2)]
        for what in ("scenes", "commands")
    )
    each = [[(code, made) for code, made in pair] for pair in zip(*commands, strict=True)]
    return Both(folder, run, scenes, each, said)


def test_what_may_happen_to_images_made_together(both: Both) -> None:
    """Nobody waits for another in vain, whoever fails or stops asking; each part is made once."""
    first, second = both.scenes
    a, b, c, d, e = (int(part[0]) for part in PARTS)
    assert list(first) == list(second) == list(SCENES)
    assert (first["whole"], second["whole"]) == ([a, c, e], [b, d])
    assert (first["the other cannot"], second["the other cannot"]) == ([a, c, d, e], [b])
    assert (first["nobody can"], second["nobody can"]) == ([a], [b, d, b, d])
    assert (first["other work"], second["other work"]) == ([a, b, c, d, e], [])
    assert (first["left"], second["left"]) == ([a], [b])
    assert (first["stopped"], second["stopped"]) == ([a], [b])
    assert (first["nothing"], second["nothing"]) == ([], [])


@pytest.fixture
def _as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of their sizes; and for metrics one worker."""
    monkeypatch.setattr(sampling, "_BATCH_MOST", 8)
    monkeypatch.setattr(image_set, "BATCH_MOST", 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def test_both_do_their_share(both: Both) -> None:
    """Of images, paths, copies of the networks, and reals that neighbours are looked for in."""
    (trained, code), (other_trained, other_code) = ((made, code) for code, made in both.commands[0])
    assert (code, other_code) == (0, 0)
    copies = {"training copies for the duality gap": [1]}
    first = {"making images": [8, 8, 4], "computing path lengths": [16, 4], **copies}
    second = {"making images": [8, 8], "computing path lengths": [16], **copies}
    # Measured four times; at 4x4 and 8x8 no metric but the path length is defined.
    points = {"making images": 2, "computing path lengths": 4, "training copies for the duality gap": 4}
    assert trained == {name: sizes * points[name] for name, sizes in first.items()}
    assert other_trained == {name: sizes * points[name] for name, sizes in second.items()}
    near, other_near = ({"looking for neighbours": sizes} for sizes in ([16, 8], [16]))
    assert both.commands[1] == [(0, first | near), (0, second | other_near)]
    # B, which is kept; A twice as often, for the floor of the distance; A for the other metric.
    assert both.commands[2] == [
        (0, {"making images": [8, 8, 4, *[8] * 5, 8, 8, 4], "computing path lengths": [16, 4]}),
        (0, {"making images": [8, 8, *[8] * 4, 8, 8], "computing path lengths": [16]}),
    ]
    assert both.commands[3] == [(0, {}), (0, {})], "pictures are the first's"


@pytest.mark.parametrize("error", [RankError("rank 1 was lost"), ToldElsewhere("rank 1 failed", 2)])
def test_work_ends_when_a_process_is_lost(error: Exception) -> None:
    """The one error of a part that is not left to the first process: nobody would tell of it."""

    def lost(_part: Part) -> NDArray[Any]:
        raise error

    with pytest.raises(type(error), match="rank 1"):
        _exchange(ALONE, lost, {"work": "work", "parts": [[0]], "shape": (), "dtype": "float64"})


@pytest.mark.parametrize("error", [DataError("it is gone"), torch.OutOfMemoryError("out of memory")])
def test_the_first_alone_goes_on_without_a_measurement(error: Exception) -> None:
    """Another one that did would leave the first amid its measurement, waiting for help."""

    def fails(*_: object) -> Any:
        raise error

    said: list[str] = []
    excuse = partial(excused, 64, said.append)
    assert share(Ranks(0, 2), fails, list, excuse) is None
    assert said == [f"not measured at 64 images: {error}"]
    with pytest.raises(type(error)):
        share(Ranks(1, 2), lambda _deal: None, fails, excuse)


@pytest.mark.parametrize("error", [RankError("rank 1 was lost"), ToldElsewhere("rank 1 failed", 2)])
def test_no_measurement_is_excused_by_a_process_that_is_lost(error: Exception) -> None:
    def fails(_deal: Deal) -> None:
        raise error

    with pytest.raises(type(error)):
        share(Ranks(0, 2), fails, list, lambda _error: True)


@pytest.mark.usefixtures("_as_there")
def test_a_run_is_measured_as_by_one(both: Both, split: PackedSet, pool: Path) -> None:
    """In training, to the last bit."""
    stats = [json.loads(line) for line in (both.run / "stats.jsonl").read_text().splitlines()]
    extractor = ExtractorFile(pool, "bilinear:8")
    expected = Monitor(split, METRICS, n=COUNT, extractor=extractor).measure(load(both.run))
    expected |= GapOfRun.open(both.run, num_images=COUNT).measure().numbers
    assert {"swd/mean", "ms_ssim", "duality_gap/gap"} <= set(expected)
    assert {name: stats[-1][name] for name in expected} == expected


@pytest.mark.usefixtures("_as_there")
def test_two_processes_measure_what_one_does(both: Both, pool: Path, tmp_path: Path, capsys: Any) -> None:
    """By `evaluate` and `compare`, to the last bit."""
    near, like = tmp_path / "one.png", ["--device", "cpu", "--extractor", pool, "--resize", "bilinear:8"]
    like += ["--num-images", COUNT, "--metrics", *METRICS]
    out, other = tmp_path / "evaluated", tmp_path / "compared"
    done(capsys, "evaluate", both.run, "--out", out, "--neighbours", near, *like, "duality_gap")
    done(capsys, "compare", both.run, both.run, "--out", other, "--mirror", *like)
    alone = [*read_results(out), *read_results(other)]
    together = [*read_results(both.run / FILE), *read_results(both.folder / "two")]
    assert [result.metric for result in together] == [result.metric for result in alone]
    assert [result.numbers for result in together] == [result.numbers for result in alone]
    assert [result.key() for result in together] == [result.key() for result in alone]
    assert near.read_bytes() == (both.folder / "two.png").read_bytes()


def test_the_first_process_alone_tells(both: Both) -> None:
    """Of mistakes, too, with which both end: one that both meet, and one that the first meets alone."""
    assert both.said[1] == ""
    assert both.said[0].count("results: ") == 3
    assert both.said[0].count("not written down") == 1
    assert both.said[0].count("error: ") == 2
    assert "samples are written to a folder, or to a file ending in" in both.said[0]
    assert "but 99 were asked for" in both.said[0]
    assert both.commands[4:] == [[(2, {}), (2, {})]] * 2

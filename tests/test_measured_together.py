"""Images to be measured are made by two real processes, and give the numbers of one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from progan.data.packed import PackedSet
from progan.evaluation import sampling
from progan.evaluation.measure import evaluate
from progan.evaluation.monitor import Monitor
from progan.evaluation.results import FILE, read_results
from progan.models.weights import load
from progan.training.run_folder import RunFolder
from rank_measure import PARTS, SCENES
from rank_process import free_port, variables
from tiny import options, words

PROGRAM = Path(__file__).with_name("rank_measure.py")
METRICS, COUNT = ["swd", "ms_ssim"], 44


@dataclass(frozen=True)
class Both:
    """What two processes leave: the run that they trained, what each made in scenes, commands, and said."""

    run: Path
    scenes: list[dict[str, list[int]]]
    commands: list[list[tuple[int, list[int]]]]
    said: list[str]


@pytest.fixture(scope="module", name="both")
def two_processes(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Train, evaluate, and ask for what cannot be evaluated."""
    folder = tmp_path_factory.mktemp("both")
    run = folder / "run"
    tree = options(
        monitor={"metrics": METRICS, "num_images": COUNT, "interval_kimg": [0.064]},
        schedule={"stabilise_kimg": [0.016], "fade_kimg": [0.016]},
    )
    evaluate = ["evaluate", run, "--device", "cpu", "--metrics", *METRICS, "--num-images"]
    asked = ["train", blobs.path, "--out", run, *words(tree), "--", *evaluate, COUNT, "--", *evaluate, 99]
    ports = ",".join(str(free_port()) for _ in range(3))
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), ports, *map(str, asked)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables(rank, 2, port),
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    scenes, commands = (
        [json.loads((folder / f"{what}-{rank}").read_text()) for rank in range(2)]
        for what in ("scenes", "commands")
    )
    return Both(run, scenes, commands, said)


def test_what_may_happen_to_images_made_together(both: Both) -> None:
    """Nobody waits for another in vain, whoever fails or stops asking; each part is made once."""
    first, second = both.scenes
    a, b, c, d, e = (int(part[0]) for part in PARTS)
    assert list(first) == list(second) == list(SCENES)
    assert (first["whole"], second["whole"]) == ([a, c, e], [b, d])
    assert (first["the other cannot"], second["the other cannot"]) == ([a, c, d, e], [b])
    assert (first["nobody can"], second["nobody can"]) == ([a], [b, d, b, d])
    assert (first["left"], second["left"]) == ([a], [b])
    assert (first["stopped"], second["stopped"]) == ([a], [b])
    assert (first["nothing"], second["nothing"]) == ([], [])


def test_two_processes_measure_what_one_does(
    both: Both, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and by `evaluate`, to the last bit."""
    (first, second), (evaluated_first, evaluated_second), _ = zip(*both.commands, strict=True)
    assert first[0] == second[0] == evaluated_first[0] == evaluated_second[0] == 0
    assert first[1] == [8, 8, 8] * (len(first[1]) // 3)
    assert second[1] == [8, 8, 4] * (len(first[1]) // 3)
    assert (evaluated_first[1], evaluated_second[1]) == ([8, 8, 8], [8, 8, 4])

    monkeypatch.setattr(sampling, "_BATCH_MOST", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # for metrics: one worker, as there
    stats = [json.loads(line) for line in (both.run / "stats.jsonl").read_text().splitlines()]
    mirror = RunFolder(both.run).config().data.mirror
    expected = Monitor(blobs, METRICS, n=COUNT, mirror=mirror).measure(load(both.run))
    assert {"swd/mean", "ms_ssim"} <= set(expected)
    assert {name: stats[-1][name] for name in expected} == expected
    results = read_results(both.run / FILE)
    alone = evaluate(both.run, blobs, METRICS, n=COUNT, mirror=mirror)
    assert [result.numbers for result in results] == [result.numbers for result in alone]
    assert [result.key() for result in results] == [result.key() for result in alone]


def test_the_first_process_alone_tells(both: Both) -> None:
    """Of a mistake, too, with which both end."""
    assert both.said[1] == ""
    assert both.said[0].count("results: ") == 1
    assert both.said[0].count("error: ") == 1
    assert "holds 48 images, but 99 were asked for" in both.said[0]
    assert [(code, made) for _, _, (code, made) in both.commands] == [(2, []), (2, [])]

"""Images to be measured are made by two real processes, and give the numbers of one."""

from __future__ import annotations

import json
import subprocess
import sys
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


def both(folder: Path, *arguments: object) -> list[tuple[int, str]]:
    """Run `rank_measure.py` as two processes; returns code and output of each."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables(rank, 2, port),
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=100)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def made(folder: Path) -> list[list[int]]:
    """Return the sizes of the parts that each process has made, and forget them."""
    notes = [folder / f"rank-{rank}" for rank in range(2)]
    sizes = [[int(line) for line in note.read_text().splitlines()] for note in notes]
    for note in notes:
        note.unlink()
    return sizes


def test_what_may_happen_to_images_made_together(tmp_path: Path) -> None:
    """Nobody waits for another in vain, whoever fails or stops asking; each part is made once."""
    assert both(tmp_path) == [(0, ""), (0, "")]
    first, second = (json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in range(2))
    a, b, c, d, e = (int(part[0]) for part in PARTS)
    assert list(first) == list(second) == list(SCENES)
    assert (first["whole"], second["whole"]) == ([a, c, e], [b, d])
    assert (first["the other cannot"], second["the other cannot"]) == ([a, c, d, e], [b])
    assert (first["nobody can"], second["nobody can"]) == ([a], [b, d, b, d])
    assert (first["left"], second["left"]) == ([a], [b])
    assert (first["nothing"], second["nothing"]) == ([], [])


def test_two_processes_measure_what_one_does(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and by `evaluate`, to the last bit; the first process writes and prints."""
    run = tmp_path / "run"
    tree = options(
        monitor={"metrics": METRICS, "num_images": COUNT, "interval_kimg": [0.064]},
        schedule={"stabilise_kimg": [0.016], "fade_kimg": [0.016]},
    )
    (code, said), other = both(tmp_path, "train", blobs.path, "--out", run, *words(tree))
    assert (code, other) == (0, (0, "")), said
    first, second = made(tmp_path)
    assert len(second) >= 2
    assert set(first + second) == {8, 4}
    assert len(first) == len(second), "6 parts each time"

    monkeypatch.setattr(sampling, "_BATCH_MOST", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    stats = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    mirror = RunFolder(run).config().data.mirror
    expected = Monitor(blobs, METRICS, n=COUNT, mirror=mirror).measure(load(run))
    assert {"swd/mean", "ms_ssim"} <= set(expected)
    assert {name: stats[-1][name] for name in expected} == expected

    asked = ["evaluate", run, "--metrics", *METRICS, "--num-images", COUNT, "--device", "cpu"]
    (code, said), other = both(tmp_path, *asked)
    assert (code, other) == (0, (0, "")), said
    assert made(tmp_path) == [[8, 8, 8], [8, 8, 4]]
    results = read_results(run / FILE)
    alone = evaluate(run, blobs, METRICS, n=COUNT, mirror=mirror)
    assert [result.numbers for result in results] == [result.numbers for result in alone]
    assert [result.key() for result in results] == [result.key() for result in alone]

    asked[asked.index(COUNT)] = 99
    (code, said), other = both(tmp_path, *asked)
    assert (code, other) == (2, (2, "")), said
    assert said.startswith("error: ")
    assert "holds 48 images, but 99 were asked for" in said

"""The readers of what a run writes down, and all readers together."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz.foreign import foreign_readers
from fuzz.foreign_files import import_readers
from fuzz.mutations import mutate_tree
from fuzz.readers import (
    Make,
    Reader,
    as_file,
    described,
    either,
    of_seeds,
    other_readers,
    packed_readers,
    picture_readers,
    text_readers,
    to_json,
    weight_readers,
)
from progan.cli.info import describe
from progan.config import make_config
from progan.errors import DataError
from progan.evaluation.results import Result, read_results
from progan.runs import checkpoint
from progan.runs.divergence import Alarm
from progan.runs.logs import read_stats
from progan.runs.run_folder import Dataset, RunFolder


def run_readers(folder: Path) -> list[Reader]:
    """What a run writes down: its folder, any file of which may be damaged, and results of metrics."""
    run = RunFolder(folder / "whole")
    run.begin(make_config({"data": {"resolution": "16"}}), Dataset("photos", "gone", "0f" * 16))
    record = checkpoint.Record(1234, "fade", 1, 0.5, {}, "0f" * 16, {"progan": "0"})
    file = checkpoint.save(run.checkpoints, record, {"x": torch.zeros(1)}, keep=1)
    point = {
        "images_seen": 16,
        "phase": "fade",
        "alpha": 0.5,
        "D/loss": 1.5,
        "G/loss": -2.0,
        "G/variation": 1,
    }
    run.stats_file.write_bytes(_lines(point)(Random(0)))
    makes: dict[Path, Make] = {
        run.config_file: of_seeds([run.config_file.read_bytes()]),
        run.dataset_file: of_seeds([run.dataset_file.read_bytes()]),
        run.stats_file: _lines(point),
        file: described(checkpoint.FORMAT, asdict(record), {"x": torch.zeros(1)}),
    }
    files = list(makes)
    originals = {path: path.read_bytes() for path in files}
    result = Result("fid", 1, {"fid": 3.5}, {"n": 2}, 2, None, 0, {"kind": "run"}, None)

    def make(rng: Random) -> bytes:
        place = rng.randrange(len(files))
        return bytes([place]) + makes[files[place]](rng)

    def read(data: bytes) -> None:
        path = files[data[0]]
        path.write_bytes(data[1:])
        try:
            damage = {"damaged", "damaged log"} & describe(run.path).keys()
            Alarm(read_stats(run.stats_file) * 5)
        finally:
            path.write_bytes(originals[path])
        if damage:
            raise DataError("told among the facts")

    def read_lines(path: Path) -> None:
        for found in read_results(path):
            found.key()

    return [
        Reader("run folder", make, read),
        Reader("results", _lines(json.loads(result.line())), as_file(folder / "m.jsonl", read_lines)),
    ]


def _lines(tree: dict[str, Any]) -> Make:
    """Return a maker of files of lines of JSON: mutated bytes, or mutated trees and a good one."""
    good = to_json(tree).encode() + b"\n"

    def of_trees(rng: Random) -> bytes:
        return b"".join(to_json(mutate_tree(tree, rng)).encode() + b"\n" for _ in range(2)) + good

    return either(of_seeds([good * 3]), of_trees)


def all_readers(folder: Path) -> dict[str, Reader]:
    """Return every reader by name; their files lie in a folder."""
    (folder / "targa").mkdir()
    groups = (
        weight_readers,
        packed_readers,
        picture_readers,
        text_readers,
        import_readers,
        other_readers,
        run_readers,
        foreign_readers,
    )
    return {reader.name: reader for group in groups for reader in group(folder)}

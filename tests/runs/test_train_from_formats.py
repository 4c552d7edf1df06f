"""Two iterations from pictures in every form, and the same pictures whatever the form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreign_sources import SOURCES
from progan.data.packed import PackedSet
from progan.runs.run import train
from tiny import options

COUNT, SIDE = 16, 16
SHORT = {"total_kimg": 0.016, "batch_size": [8], "stabilise_kimg": [0.016]}
OWN_SIZE = {"cifar": 32}
LOSSY = {"film", "heic", "dng"}
GRAY = {"idx"}


@pytest.mark.parametrize("form", SOURCES)
def test_two_iterations(tmp_path: Path, form: str) -> None:
    make, labels = SOURCES[form]
    pictures = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    source = make(tmp_path / "src", pictures)
    data = {"labels": labels, "resolution": str(OWN_SIZE.get(form, SIDE))}
    run = train(source, tmp_path / "run", options=options(data=data, schedule=SHORT))
    last = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    assert last["images_seen"] == COUNT
    made = PackedSet.open(json.loads((run / "dataset.json").read_text())["packed"])
    assert made.count == COUNT
    assert made.label_size == (0 if labels == "none" else 2)
    stored = made.read(made.max_level, np.arange(COUNT)).transpose(0, 2, 3, 1)
    if form in OWN_SIZE:
        stored = stored[:, ::2, ::2]
    if form not in LOSSY:
        # In what order they come is their form's affair.
        expected = pictures[..., :1] if form in GRAY else pictures
        assert sorted(one.tobytes() for one in stored) == sorted(one.tobytes() for one in expected)

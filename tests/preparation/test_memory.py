"""What a picture takes of memory before and after its pixels are read: names, sizes, the plan."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from progan.config import PictureOptions
from progan.preparation.decoding import Header
from progan.preparation.formats.folder import Folder
from progan.preparation.pack_plan import make_plan
from progan.preparation.pictures import Candidate, Candidates, Listing

COUNT = 10_000
NAME = 18
"""Bytes of a name."""


@pytest.mark.parametrize(("labels", "most"), [("none", 140), ("folders", 300)])
def test_a_picture_takes_about_a_hundred_bytes(labels: str, most: int) -> None:
    header, options = Header(16, 16, True, False, False), PictureOptions(labels=labels)
    tracemalloc.start()
    names = (f"{'ab'[i % 2]}/{i:012d}.png" for i in range(COUNT))
    listing = Listing(Candidates(Candidate(name, 1000, 1) for name in names)).sort()
    plan = make_plan(Folder(Path()), listing, [header] * COUNT, options, None, "key")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.names) == COUNT
    assert all(len(name) == NAME for name in plan.names[:3])
    assert peak / COUNT < most

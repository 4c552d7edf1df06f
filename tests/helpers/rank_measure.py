"""One of several that make images to be measured: `rank_measure.py FOLDER PORT,PORT,... WORDS -- WORDS`.

It goes through what may happen to images that are made together (`SCENES`), then gives progan commands, one
for each port, with parts of 8 samples and 16 reals. What it made each time it leaves in FOLDER. One program
for all, since to start it takes longer than all that it does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from numpy.typing import NDArray

from progan.__main__ import main
from progan.data.pixels import Images
from progan.distributed import work_sharing
from progan.distributed.leaving import leave_others
from progan.distributed.ranks import Ranks, join
from progan.distributed.work_sharing import Deal, Make, Part, Work, follow, in_parts, leading
from progan.errors import DataError
from progan.evaluation import image_set as images
from progan.generation import sampling

SHAPE = (1, 2, 3)
PARTS = in_parts(np.arange(5, 18)[::-1], 3)
"""Five, the last of one image."""


class Maker:
    """Images that show their index; makes none of some parts."""

    def __init__(self, bad: Callable[[Part], bool] = lambda _: False) -> None:
        self.made: list[int] = []
        self._bad = bad

    def __call__(self, part: Part) -> Images:
        if self._bad(part):
            raise RuntimeError("out of memory, for this test")
        self.made.append(int(part[0]))
        return np.broadcast_to(part[:, None, None, None], (len(part), *SHAPE)).astype(np.uint8)


def work(make: Maker) -> Work:
    """Return the making of such images."""
    return Work("images", make, SHAPE, np.uint8)


def whole(deal: Deal, make: Maker) -> None:
    """Take all images."""
    given = list(deal(work(make), PARTS))
    assert [images.shape for images in given] == [(len(part), *SHAPE) for part in PARTS]
    np.testing.assert_array_equal(np.concatenate(given)[:, 0, 1, 2], np.concatenate(PARTS))


def failing(deal: Deal, make: Maker) -> None:
    """Take images until one cannot be made."""
    with pytest.raises(RuntimeError, match="for this test"):
        whole(deal, make)
    whole(deal, Maker())


def left(deal: Deal, make: Maker) -> None:
    """Fail after the first images."""
    next(deal(work(make), PARTS))
    raise DataError("what takes the images failed")


def stopped(deal: Deal, make: Maker) -> None:
    """Take the first images only."""
    next(deal(work(make), PARTS))


def nothing(_deal: Deal, _make: Maker) -> None:
    """Take none."""


SCENES: dict[str, tuple[Callable[[Deal, Maker], None], Callable[[Part, int], bool]]] = {
    "whole": (whole, lambda _part, _rank: False),
    "the other cannot": (whole, lambda part, rank: rank == 1 and part[0] == PARTS[3][0]),
    "nobody can": (failing, lambda part, _rank: bool(part[0] == PARTS[2][0])),
    "other work": (whole, lambda _part, _rank: False),
    "left": (left, lambda _part, _rank: False),
    "stopped": (stopped, lambda _part, _rank: False),
    "nothing": (nothing, lambda _part, _rank: False),
}


def play(ranks: Ranks, name: str) -> list[int]:
    """Go through one scene; returns the first index of each part that was made here."""
    scene, bad = SCENES[name]
    make = Maker(lambda part: bad(part, ranks.rank))
    if not ranks.first:
        follow(ranks, [work(make)] if name != "other work" else [replace(work(make), name="others")])
        return make.made
    try:
        with leading(ranks) as deal:
            scene(deal, make)
    except DataError:
        assert name == "left"
    return make.made


Made = dict[str, list[int]]
"""Sizes of the parts that a process made of each kind of work."""


def command(words: list[str]) -> tuple[int | str | None, Made]:
    """Give a command; returns its exit code, and what this process made of what was shared."""
    made: Made = {}
    exchange = work_sharing._exchange

    def noted(ranks: Ranks, make: Make, wanted: work_sharing._Wanted) -> list[NDArray[Any] | None]:
        def note(part: Part) -> NDArray[Any]:
            result = make(part)
            made.setdefault(wanted["work"].split(":")[0], []).append(len(part))
            return result

        return exchange(ranks, note, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_BATCH_MOST", 8)
        patch.setattr(images, "BATCH_MOST", 16)
        patch.setattr(work_sharing, "_exchange", noted)
        try:
            main(words)
        except SystemExit as done:
            return done.code, made
    return 0, made


def start() -> None:
    """Go through all scenes, then give the commands."""
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    with join() as ranks:
        scenes = {name: play(ranks, name) for name in SCENES}
    (folder / f"scenes-{rank}").write_text(json.dumps(scenes))
    rest, given = sys.argv[3:], []
    for port in sys.argv[2].split(","):
        end = rest.index("--") if "--" in rest else len(rest)
        os.environ["MASTER_PORT"] = port
        if dist.is_initialized():  # the command before has failed
            dist.destroy_process_group()
        given.append(command(rest[:end]))
        rest = rest[end + 1 :]
    (folder / f"commands-{rank}").write_text(json.dumps(given))
    while not all((folder / f"commands-{each}").exists() for each in range(2)):
        time.sleep(0.02)  # the first holds the store, in which the other reads why the last command has ended
    leave_others(0)  # as the command line does; the last command has failed


if __name__ == "__main__":
    start()

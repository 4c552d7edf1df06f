"""The command, with parts of 8 images, as one of several processes: `rank_measure.py FOLDER WORDS`.

Each process notes in FOLDER how many samples it has made to be measured. Without WORDS it goes through what
may happen to images that are made together, and leaves there what it made each time (`SCENES`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from progan.cli import main
from progan.errors import DataError
from progan.evaluation import sampling
from progan.evaluation.dealing import Deal, Part, in_parts
from progan.evaluation.generated import GeneratedImages
from progan.evaluation.images import Images
from progan.training.distributed import Ranks, join
from progan.training.making import follow, leading

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


def whole(deal: Deal, make: Maker) -> None:
    """Take all images."""
    given = list(deal(make, PARTS, SHAPE))
    assert [images.shape for images in given] == [(len(part), *SHAPE) for part in PARTS]
    np.testing.assert_array_equal(np.concatenate(given)[:, 0, 1, 2], np.concatenate(PARTS))


def failing(deal: Deal, make: Maker) -> None:
    """Take images until one cannot be made."""
    with pytest.raises(RuntimeError, match="for this test"):
        whole(deal, make)
    whole(deal, Maker())


def left(deal: Deal, make: Maker) -> None:
    """Fail after the first images."""
    next(deal(make, PARTS, SHAPE))
    raise DataError("what takes the images failed")


def nothing(_deal: Deal, _make: Maker) -> None:
    """Take none."""


SCENES: dict[str, tuple[Callable[[Deal, Maker], None], Callable[[Part, int], bool]]] = {
    "whole": (whole, lambda _part, _rank: False),
    "the other cannot": (whole, lambda part, rank: rank == 1 and part[0] == PARTS[3][0]),
    "nobody can": (failing, lambda part, _rank: bool(part[0] == PARTS[2][0])),
    "left": (left, lambda _part, _rank: False),
    "nothing": (nothing, lambda _part, _rank: False),
}


def play(ranks: Ranks, name: str) -> list[int]:
    """Go through one scene; returns the first index of each part that was made here."""
    scene, bad = SCENES[name]
    make = Maker(lambda part: bad(part, ranks.rank))
    if not ranks.first:
        follow(ranks, make, SHAPE)
        return make.made
    try:
        with leading(ranks) as deal:
            scene(deal, make)
    except DataError:
        assert name == "left"
    return make.made


def start() -> None:
    """Run the command, or all scenes one after the other."""
    note, rank = Path(sys.argv[1]) / f"rank-{os.environ['RANK']}", int(os.environ["RANK"])
    if len(sys.argv) == 2:
        with join() as ranks:
            assert ranks.rank == rank
            note.write_text(json.dumps({name: play(ranks, name) for name in SCENES}))
        return
    sampling._BATCH_MOST = 8
    read = GeneratedImages.read

    def noted(self: GeneratedImages, indices: Part) -> Images:
        with note.open("a") as stream:
            stream.write(f"{len(indices)}\n")
        return read(self, indices)

    GeneratedImages.read = noted  # type: ignore[method-assign]
    main(sys.argv[2:])


if __name__ == "__main__":
    start()

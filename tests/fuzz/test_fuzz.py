"""The short form of the fuzzing: some hundred inputs for each reader. The long form is `make fuzz`."""

from __future__ import annotations

from random import Random

import pytest

from fuzz.campaign import input_of, run
from fuzz.readers import Reader
from fuzz.runs import all_readers
from progan.errors import DataError

INPUTS = 150
NAMES = (
    "weights", "hub folder", "checkpoint", "packed manifest", "packed arrays", "picture", "targa picture",
    "zip", "label file", "document .yaml", "document .json", "document .toml", "original pickle",
    "torch file", "old torch file", "crafted weights", "flax file", "array", "run dataset",
    "run folder", "results", "source .npy", "source .npz", "source .parquet", "tfrecords",
    "tar", "idx", "cifar", "databases", "labels in json", "list of paths", "heic picture", "raw picture",
    "film", "lists of celeba-hq", "keras file", "folder of arrays",
)  # fmt: skip
SLOW = {"databases": 4, "heic picture": 4, "raw picture": 4, "film": 15, "keras file": 15}
"""Of readers that work in a process of their own for each input, so many times fewer."""


@pytest.fixture(scope="module", name="readers")
def every_reader(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return all_readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_errors_in_words(readers: dict[str, Reader], name: str) -> None:
    assert set(readers) == set(NAMES)
    inputs = INPUTS // SLOW.get(name, 1)
    result = run(readers[name], range(inputs))
    assert not result.findings, "\n".join(what for _, what in result.findings.values())
    assert result.inputs == inputs
    assert result.refused > inputs / 10
    assert len({input_of(readers[name], number) for number in range(20)}) > 10


def test_findings_are_found() -> None:
    def read(data: bytes) -> None:
        if data[0] % 3 == 0:
            raise DataError("in words")
        if data[0] % 3 == 1:
            raise ZeroDivisionError

    reader = Reader("bad", lambda rng: bytes([rng.randrange(9)]), read)
    result = run(reader, range(100))
    assert 0 < result.refused < 100
    ((where, (number, _)),) = result.findings.items()
    assert where.startswith("ZeroDivisionError in read")
    assert Random(f"bad {number}").randrange(9) % 3 == 1

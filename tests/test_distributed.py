"""Several processes make the updates of one: every loss and penalty, through a growth, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from progan.data.batches import deal, micro_batches
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.training.distributed import ALONE, VARIABLES, _verdict, alone
from progan.training.launching import to_launch
from progan.training.objective import TERM_NAMES
from progan.training.saving import digest
from rank_process import CASES, run_all, train
from tiny import require_equal


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int]:
    """Sizes of a batch and of a stddev group that divides it, or holds all of it, or is none."""
    group, columns = draw(st.integers(0, 6)), draw(st.integers(1, 40))
    larger = draw(st.integers(0, 3)) if columns == 1 else 0
    return max(group, 1) * columns, group + (larger if group else 0)


@given(batches(), st.integers(1, 9))
def test_whole_groups_are_dealt(sizes: tuple[int, int], ranks: int) -> None:
    n, group = sizes
    shares = [deal(n, group, rank, ranks) for rank in range(ranks)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    g = min(group, n) or 1
    assert max(map(len, shares)) - min(map(len, shares)) in (0, g)
    assert len(shares[0]) == max(map(len, shares)), "the first has some"
    whole = {frozenset(column) for column in np.arange(n).reshape(g, -1).T.tolist()}
    for share in shares:
        for part in micro_batches(len(share), group, None):
            columns = share[part].reshape(g, -1).T.tolist()
            assert {frozenset(column) for column in columns} <= whole


@given(batches())
def test_one_process_has_all_in_order(sizes: tuple[int, int]) -> None:
    assert deal(*sizes, 0, 1).tolist() == list(range(sizes[0]))


@pytest.fixture(scope="module", name="alone")
def one_process(blobs: PackedSet) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    return {f"{case}|{k}": v for case, choices in CASES.items() for k, v in train(blobs, choices).items()}


@pytest.mark.parametrize("size", [2, 4])
def test_processes_give_the_same_update(
    alone: dict[str, torch.Tensor], blobs: PackedSet, tmp_path: Path, size: int
) -> None:
    """With a group of the whole batch, all but the first have no samples."""
    assert {name.split()[-1] for name in alone if "|D " in name or "|G " in name} == set(TERM_NAMES)
    ends = run_all(blobs, tmp_path, size)
    for end in ends:
        require_equal(end, ends[0])
    assert ends[0].keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(ends[0][name], value, rtol=0, atol=1e-10, msg=name)


def outcome(error: str = "", code: int = 0, **facts: str) -> dict[str, object]:
    return {"error": error, "code": code, "facts": {"torch": "2.13", "pictures": "a", **facts}}


def test_what_processes_must_agree_about() -> None:
    assert _verdict([outcome(), outcome()])["error"] == ""
    verdict = _verdict([outcome(), outcome(), outcome(torch="2.9", pictures="b")])
    assert verdict["code"] == 2
    assert (
        "  torch: 2.13 on rank 0, 2.9 on rank 2\n  pictures: a on rank 0, b on rank 2\n" in verdict["error"]
    )


def test_errors_of_the_check_are_told_once_each() -> None:
    verdict = _verdict([outcome(), outcome("no set", 2), outcome("no room", 1), outcome("no set", 2)])
    assert (verdict["error"], verdict["code"]) == ("rank 1: no set\nrank 2: no room", 2)


def test_an_environment_that_is_incomplete_is_refused() -> None:
    assert alone({})
    assert alone({"RANK": "0", "WORLD_SIZE": "1"})
    assert not alone(dict.fromkeys(VARIABLES, "2"))
    with pytest.raises(ConfigError, match="LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not"):
        alone({"RANK": "0", "WORLD_SIZE": "2"})


def test_when_processes_are_to_be_started() -> None:
    assert to_launch(2, {})
    assert not to_launch(None, {})
    assert not to_launch(1, {})
    assert not to_launch(2, {"LOCAL_WORLD_SIZE": "2"}), "it is one of them"
    for devices, environment, message in (
        (0, {}, "at least 1"),
        (2, {"LOCAL_WORLD_SIZE": "4"}, "has started 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            to_launch(devices, environment)


def test_one_process_waits_for_nobody() -> None:
    means, gradients = {"loss": torch.tensor(2.0)}, [torch.ones(3)]
    assert ALONE.reduce(gradients, means, TERM_NAMES) == means
    assert ALONE.vote(15, 0) == [15, 0], "at once"
    assert ALONE.from_first({"a": [1]}) == {"a": [1]}
    assert ALONE.tensors_from_first(means) is means
    ALONE.meet("the end")
    ALONE.compare("the weights", 7)


@given(st.integers(0, 2**31 - 1), st.integers(0, 63))
def test_the_digest_of_a_state_sees_every_bit(seed: int, bit: int) -> None:
    """Also two changes that cancel in a sum."""
    drawn = np.random.default_rng(seed)
    tensors = {"a": torch.from_numpy(drawn.standard_normal((5, 3))), "b": torch.tensor(3)}
    whole = digest(tensors)
    assert 0 <= whole < 2**63
    words = tensors["a"].view(torch.int64)
    words[1, 1] ^= 1 << bit if bit < 63 else -(2**63)
    assert digest(tensors) != whole
    words[1, 1] ^= 1 << bit if bit < 63 else -(2**63)
    assert digest(tensors) == whole
    words[0, 0] += 1
    words[4, 2] -= 1
    assert digest(tensors) != whole

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
from progan.training.objective import TERM_NAMES
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

"""Images that wait for others: each comes once, in order, whole groups only, whatever the batches were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from progan.metrics.image_checks import WaitingImages

VALUES = 4
"""Of an image."""


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@given(st.lists(st.integers(0, 9), max_size=9), st.integers(0, 12), st.integers(1, 3))
def test_every_image_comes_once(sizes: list[int], enough: int, group: int) -> None:
    waiting, came = WaitingImages(torch.device("cpu"), enough * VALUES, group), []
    room = np.empty((9, 1, 2, 2), np.uint8)
    for first, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        batch = room[:size]
        batch[:] = np.arange(first, first + size, dtype=np.uint8)[:, None, None, None]
        for some in waiting.add(batch):
            assert len(some) >= enough - group + 1
            came.append(some)
        assert len(waiting) < max(enough, group)
        room[:] = 255  # the caller's own, to be filled again
    if len(waiting) >= group:
        came.append(waiting.take())
    assert len(waiting) == sum(sizes) % group
    assert all(len(some) and len(some) % group == 0 for some in came)
    numbers = [int(number) for some in came for number in some[:, 0, 0, 0]]
    assert numbers == list(range(sum(sizes) // group * group))


def test_no_more_of_a_large_batch_is_copied_than_is_enough() -> None:
    waiting = WaitingImages(torch.device("cpu"), 5 * VALUES)
    assert [len(some) for some in waiting.add(np.zeros((23, 1, 2, 2), np.uint8))] == [5, 5, 5, 5]
    assert len(waiting) == 3

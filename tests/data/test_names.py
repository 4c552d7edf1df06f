"""Names and numbers of many pictures behave as lists and dicts of them, in a fraction of the memory."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from progan.data.names import MOST, Names, Table

TEXT = st.text(st.characters(codec=None), max_size=90)
"""Any text, with lone surrogates, as names of files that are not valid Unicode are read."""


@given(st.lists(TEXT, max_size=12))
def test_names_are_a_sequence_of_texts(texts: list[str]) -> None:
    names = Names(texts)
    assert names == texts
    assert [names[i] for i in range(-len(texts), len(texts))] == texts * 2
    assert names[1:5] == texts[1:5]
    assert pickle.loads(pickle.dumps(names)) == texts
    assert names.take(np.arange(len(texts))[::2]) == texts[::2]


@given(st.lists(TEXT, max_size=12))
def test_their_order_is_that_of_texts(texts: list[str]) -> None:
    names = Names(texts)
    order = names.order()
    assert (order is None) == (texts == sorted(texts))
    found = names if order is None else names.take(order)
    assert found == sorted(texts)
    for text in texts:
        place = found.find(text)
        assert place is not None
        assert found[place] == text
    assert found.find("x" * 91) is None


class Pair(NamedTuple):
    one: int
    two: int


@given(st.lists(st.tuples(TEXT, st.integers(-(2**63), 2**70)), max_size=12))
def test_a_table_is_a_sorted_dict(entries: list[tuple[str, int]]) -> None:
    table = Table[Pair](Pair)
    for name, value in entries:
        table.append(name, Pair(value, 1))
    table.sort()
    expected = {name: Pair(min(value, MOST), 1) for name, value in entries}
    assert dict(table.items()) == expected
    assert len(table) == len(expected)
    assert table.names == sorted(expected)
    assert all(table.get(name) == row for name, row in expected.items())
    assert table.get("x" * 91) is None


def test_a_name_takes_little_more_than_its_bytes() -> None:
    count, length = 50_000, 20
    tracemalloc.start()
    table = Table[Pair](Pair)
    for i in range(count):
        table.append(f"{count - i:0{length}d}", Pair(i, i))
    table.sort()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 8 bytes for each number and for the end of the name; and what growing arrays hold ready.
    assert kept / count < 1.3 * (length + 3 * 8)

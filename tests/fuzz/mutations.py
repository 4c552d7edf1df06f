"""Mutations of valid inputs: as bytes, and as trees of JSON. All choices are drawn from a given generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
WIDE_NUMBERS = (*NUMBERS, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (
    b"0",
    b"-1",
    b"1",
    b"99999999",
    b"4294967296",
    b"1e999",
    b"nan",
    b"9" * 400,
    b"0.5",
    b"\xff\xfe",
    b"",
)
MAX_BYTES = 2**16
"""Inputs do not grow beyond this, so that each takes little time."""

Mutation = Callable[[bytearray, Random, Sequence[bytes]], None]


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Return the data after one to a few mutations.

    Args:
        data: A valid input.
        rng: What all choices are drawn from.
        others: Inputs that parts are taken from.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(MUTATIONS)(changed, rng, others)
    return bytes(changed[:MAX_BYTES])


def _place(data: bytearray, rng: Random) -> int:
    """Choose a place; half of the time near the beginning, where headers are, or the end."""
    size = len(data)
    near = min(64, size)
    return rng.choice(
        (rng.randint(0, size), rng.randint(0, size), rng.randint(0, near), size - rng.randint(0, near))
    )


def _part(data: bytearray | bytes, rng: Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 256)))


def _flip(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    if data:
        data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    if data:
        data[min(_place(data, rng), len(data) - 1)] = rng.choice((0, 1, 9, 10, 32, 34, 44, 127, 128, 255))


def _write_number(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    place, width = _place(data, rng), rng.choice((2, 4, 4, 8))
    value = rng.choice(WIDE_NUMBERS) % 256**width
    data[place : place + width] = value.to_bytes(width, rng.choice(("little", "big")))


def _cut(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    start, end = _part(data, rng)
    del data[start:end]


def _repeat(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    start, end = _part(data, rng)
    place = rng.choice((start, _place(data, rng)))
    data[place:place] = data[start:end] * rng.choice((1, 1, 2, 10, 100))


def _insert(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _splice(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    start, end = _part(other, rng)
    place = _place(data, rng)
    data[place : place + rng.choice((0, end - start))] = other[start:end]


def _write_word(data: bytearray, rng: Random, _: Sequence[bytes]) -> None:
    """Replace a number that is written in digits."""
    found = list(re.finditer(rb"-?[0-9.]+", data))
    if found:
        place = rng.choice(found)
        data[place.start() : place.end()] = rng.choice(WORDS)


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _set,
    _write_number,
    _write_number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _splice,
    _write_word,
)

LEAVES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 2.5, 1e308, -0.0, float("inf"), float("nan"), 2**31, 2**63, 10**30,
    10**400, "", "x", "../../x", "/etc/passwd", "\x00", "\ud800", "é" * 99, "Generator", "uint16", [], {},
    [None], [1, 2], [4, 4], [0, 0], [-1, 4], [2**40, 4], {"a": 1}, ["a", "b"], [float("nan")] * 3,
)  # fmt: skip


def mutate_tree(tree: Any, rng: Random) -> Any:
    """Return plain data after one or two mutations; what is given stays as it is."""
    for _ in range(rng.choice((1, 1, 2))):
        tree = _mutate_once(tree, rng)
    return tree


def _mutate_once(tree: Any, rng: Random) -> Any:
    items: list[tuple[Any, Any]] = (
        list(tree.items())
        if isinstance(tree, dict)
        else list(enumerate(tree))
        if isinstance(tree, list)
        else []
    )
    if not items or rng.random() < 0.1:
        return _deep(rng) if rng.random() < 0.02 else rng.choice(LEAVES)
    key, value = rng.choice(items)
    choice = rng.random()
    if choice < 0.1:
        items.remove((key, value))
    elif choice < 0.2:
        items.append((rng.choice(("x", "", "version", str(key))), rng.choice((value, *LEAVES))))
    else:
        items[items.index((key, value))] = (key, _mutate_once(value, rng))
    return dict(items) if isinstance(tree, dict) else [item for _, item in items]


def _deep(rng: Random) -> Any:
    """Return a tree nearly as deep as JSON can be read, or written."""
    tree: Any = []
    for _ in range(rng.choice((100, 900, 990))):
        tree = [tree] if rng.random() < 0.5 else {"a": tree}
    return tree

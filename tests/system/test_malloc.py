"""What the command line asks of glibc, and when it asks nothing."""

from __future__ import annotations

import ctypes
import os
import sys
from types import SimpleNamespace

import pytest

from progan.system.malloc import KEPT, LARGEST_KEPT, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *values: calls.append(values))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    return calls


def test_freed_memory_is_kept(asked: list[tuple[int, int]]) -> None:
    keep_freed_memory()
    assert asked == [(M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, LARGEST_KEPT)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.trim_threshold=131072"),
    ],
)
def test_whoever_has_chosen_decides(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    keep_freed_memory()
    assert asked == []


def test_other_choices_are_no_hindrance(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters often limit the number of arenas."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    keep_freed_memory()
    assert len(asked) == 2


def test_a_library_without_it_is_left_alone(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())  # as musl's
    keep_freed_memory()
    assert asked == []


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_glibc_takes_the_values() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        pytest.skip("no glibc")
    assert mallopt(M_TRIM_THRESHOLD, KEPT) == mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) == 1

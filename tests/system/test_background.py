"""Reading ahead, and pictures on the device, give the batches that plain reading gives."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from packed_files import widen
from progan.config import make_config
from progan.data import device_cache
from progan.data.batches import Batches
from progan.data.device_cache import ResidentLevel, resident_level
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.builtin_sets import synthetic
from progan.system.background import Ahead

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.data())
def test_ahead_gives_what_the_function_gives(keys: list[tuple[int, int]], data: st.DataObject) -> None:
    ahead: Ahead[int, int] = Ahead(lambda key: key**2)
    for key, following in keys:
        assert ahead.get(key, following) == key**2
        if data.draw(st.booleans()):
            ahead.forget()


def test_the_next_is_made_before_it_is_asked_for() -> None:
    made, asked = threading.Event(), list[int]()

    def function(key: int) -> int:
        asked.append(key)
        if key == 2:
            made.set()
        return key

    ahead: Ahead[int, int] = Ahead(function)
    ahead.get(1, 2)
    assert made.wait(60)
    assert ahead.get(2, 3) == 2
    ahead.forget()
    assert asked[:2] == [1, 2]
    assert asked.count(2) == 1


def test_failures_come_when_they_are_asked_for() -> None:
    def function(key: int) -> int:
        if key < 0:
            raise DataError("gone")
        return key

    ahead: Ahead[int, int] = Ahead(function)
    assert ahead.get(1, -1) == 1
    assert ahead.get(2, -1) == 2, "nobody asked for it"
    with pytest.raises(DataError, match="gone"):
        ahead.get(-1, 3)
    assert ahead.get(3, 4) == 3


def make(packed: PackedSet, **branches: Any) -> Batches:
    return Batches(packed, make_config(branches), latent_size=4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
def test_pictures_on_the_device_make_the_same_batches(tmp_path: Path, wide: bool, mirror: bool) -> None:
    packed = synthetic(tmp_path / "set", count=24, resolution=16)
    if wide:
        widen(packed)
        packed = PackedSet.open(packed.path)
    never, always = (make(packed, data={"on_device": when, "mirror": mirror}) for when in ("never", "always"))
    for level in (2, 0):
        for batches in (never, always):
            batches.enter(level)
        for clock in (0, 4, 8):
            one, other = (batches.discriminator(clock, 4, level, None) for batches in (never, always))
            assert torch.equal(one.reals, other.reals)


def test_reading_ahead_does_not_change_batches(blobs: PackedSet) -> None:
    """Whatever came before: in order, out of order, at other sizes and levels."""
    through = make(blobs, data={"mirror": True})
    for clock, n, level in [(0, 8, 2), (8, 8, 2), (16, 4, 2), (20, 4, 1), (0, 8, 2), (24, 4, 1)]:
        through.enter(level)
        alone = make(blobs, data={"mirror": True})
        for batches in (through, alone):
            batches.attempt = clock % 3
        assert torch.equal(
            through.discriminator(clock, n, level, None).reals,
            alone.discriminator(clock, n, level, None).reals,
        )


def test_auto_keeps_pictures_where_training_leaves_room(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = blobs.count * blobs.manifest.picture_bytes(1)
    assert resident_level(blobs, 1, CPU, "auto") is None, "on a CPU nothing is gained"
    monkeypatch.setattr(device_cache, "ResidentLevel", lambda *arguments: arguments)
    cuda = torch.device("cuda")
    for free, total, fits in [
        (10 * size, 10 * size, True),
        (size, 10 * size, False),
        (size * 4, size * 4, False),
    ]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, answer=(free, total): answer)
        assert (resident_level(blobs, 1, cuda, "auto") is not None) == fits


def test_no_room_on_the_device(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_cache, "ResidentLevel", full)
    monkeypatch.setattr(device_cache, "_fits", lambda *_: True)
    assert resident_level(blobs, 1, CPU, "auto") is None
    with pytest.raises(DataError, match=r"level 1 needs .* on cpu.* leave data\.on_device out"):
        resident_level(blobs, 1, CPU, "always")


def test_a_level_is_sent_in_pieces(blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_cache, "CHUNK", 5 * blobs.manifest.picture_bytes(1))
    rows = torch.arange(blobs.count)
    taken = ResidentLevel(blobs, 1, CPU).take(rows, rows % 2 == 1)
    plain = blobs.read(1, np.arange(blobs.count))
    plain[1::2] = plain[1::2, ..., ::-1]
    assert np.array_equal(taken.numpy(), plain)


@needs_cuda
def test_batches_on_cuda_are_those_of_the_cpu(blobs: PackedSet) -> None:
    plain = make(blobs, data={"mirror": True}).discriminator(8, 8, 1, None)
    for when in ("never", "always"):
        config = make_config({"data": {"mirror": True, "on_device": when}})
        batches = Batches(blobs, config, latent_size=4, device=torch.device("cuda"))
        batches.enter(1)
        other = batches.discriminator(8, 8, 1, None)
        torch.testing.assert_close(other.reals.cpu(), plain.reals)
        assert torch.equal(other.latents.cpu(), plain.latents)

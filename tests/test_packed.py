"""The packed set on disk: what is read back, and what is refused."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from progan.data.builtin import synthetic
from progan.data.fitting import pyramid
from progan.data.packed import PackedSet, partial_path
from progan.errors import DataError


@pytest.fixture
def packed(tmp_path: Path) -> PackedSet:
    return synthetic(
        tmp_path / "set", count=40, resolution=(16, 24), labelled=True, split=(0.5, 0.25, 0.25), seed=3
    )


def edit_manifest(path: Path, **values: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_shape_and_labels(packed: PackedSet) -> None:
    assert (packed.base_shape, packed.max_level, packed.channels, packed.count) == ((4, 6), 2, 3, 40)
    assert packed.resolution(1) == (8, 12)
    assert (packed.label_names, packed.label_size) == (("1", "2", "3", "4"), 4)
    assert packed.one_hot([0, 1, 4]).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert packed.one_hot([]).shape == (0, 4)
    assert packed.names()[5] == "2/000005"
    assert len(packed) == 40


def test_read_copies_the_pictures_asked_for(packed: PackedSet) -> None:
    top = packed.read(2, [3, 0, 3])
    assert top.shape == (3, 3, 16, 24)
    assert top.dtype == np.uint8
    assert (top[0] == top[2]).all()
    assert not (top[0] == top[1]).all()
    for level in range(3):
        assert (packed.read(level, [3])[0] == pyramid(top[0], 2)[level]).all()
    top[:] = 0
    assert packed.read(2, [3]).any()
    assert packed.read(0, np.array([], dtype=np.int64)).shape == (0, 3, 4, 6)


def test_splits_are_disjoint_and_complete(packed: PackedSet) -> None:
    parts = [packed.indices(split) for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert all(len(part) for part in parts)
    assert parts[0].dtype == np.int64
    with pytest.raises(DataError, match="splits are train, validation, test"):
        packed.indices("dev")


@pytest.mark.parametrize(("level", "index"), [(3, 0), (-1, 0), (0, 40), (0, -1)])
def test_out_of_range_is_an_index_error(packed: PackedSet, level: int, index: int) -> None:
    with pytest.raises(IndexError, match="out of range"):
        packed.read(level, [index])


def test_unlabelled_set_has_empty_labels(tmp_path: Path) -> None:
    packed = synthetic(tmp_path / "set", count=4, resolution=8)
    assert packed.one_hot([0, 3]).shape == (2, 0)
    assert packed.labels([0, 3]).tolist() == [0, 0]
    assert (packed.label_size, packed.label_names) == (0, ())


def test_one_hot_of_many_classes_is_small(packed: PackedSet) -> None:
    edit_manifest(packed.path, label_names=[str(i) for i in range(20_000)])
    many = PackedSet.open(packed.path)
    tracemalloc.start()
    assert many.one_hot([3, 0]).argmax(axis=1).tolist() == [3, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2 * 20_000 * 4


def test_manifest_tells_the_choices(packed: PackedSet) -> None:
    manifest = packed.manifest
    assert (manifest.limit, manifest.split) == (40, (0.5, 0.25, 0.25))
    assert (manifest.label_kind, manifest.fit) == ("folders", "crop")


def test_sets_without_a_record_of_the_choices_are_read(packed: PackedSet) -> None:
    file = packed.path / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps({key: tree[key] for key in tree if key not in {"limit", "split"}}))
    assert PackedSet.open(packed.path).manifest.limit is None


def test_sixteen_bit_sets_are_read(packed: PackedSet) -> None:
    expected = packed.read(1, [7]).astype(np.uint16) * 257
    for level in range(3):
        old = packed.path / packed.manifest.level_file(level)
        wide = np.fromfile(old, dtype=np.uint8).astype("<u2") * 257
        wide.astype("<u2").tofile(old.with_suffix(".u16"))
        old.unlink()
    edit_manifest(packed.path, dtype="uint16")
    got = PackedSet.open(packed.path).read(1, [7])
    assert got.dtype == np.uint16
    assert (got == expected).all()


def test_pickling_takes_no_pixels_along(packed: PackedSet) -> None:
    before = packed.read(2, [1])
    data = pickle.dumps(packed)
    assert len(data) < 4000
    assert (pickle.loads(data).read(2, [1]) == before).all()


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def make(name: str, **changes: object) -> str:
        arguments: dict[str, object] = {"count": 6, "resolution": 8, **changes}
        return synthetic(tmp_path / name, **arguments).fingerprint  # type: ignore[arg-type]

    first = make("a")
    assert make("b") == first
    others = [make("c", seed=1), make("d", count=7), make("e", labelled=True), make("f", channels=1)]
    assert len({first, *others}) == 5


def test_missing_and_unfinished_sets_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no packed set"):
        PackedSet.open(tmp_path / "nothing")
    partial_path(tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="was not finished; run the same"):
        PackedSet.open(tmp_path / "set")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 99}, "newer progan"),
        ({"count": 41}, "has 11520 bytes instead of|bytes instead of"),
        ({"count": 0}, "damaged"),
        ({"channels": "red"}, "damaged"),
        ({"max_level": 3}, "level_3_32x48.u8: is missing"),
        ({"label_names": ["1", "2"]}, "labels that the manifest does not name"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(
    packed: PackedSet, values: dict[str, object], message: str
) -> None:
    edit_manifest(packed.path, **values)
    with pytest.raises(DataError, match=message):
        PackedSet.open(packed.path)


def test_damaged_files_are_refused(packed: PackedSet) -> None:
    level = packed.path / "level_2_16x24.u8"
    whole = level.read_bytes()
    level.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="bytes instead of"):
        PackedSet.open(packed.path)
    level.write_bytes(whole)
    np.save(packed.path / "split.npy", np.zeros(3, dtype=np.uint8))
    with pytest.raises(DataError, match="does not belong"):
        PackedSet.open(packed.path)
    np.save(packed.path / "split.npy", np.full(40, 3, dtype=np.uint8))
    with pytest.raises(DataError, match="other values than"):
        PackedSet.open(packed.path)
    (packed.path / "split.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        PackedSet.open(packed.path)
    (packed.path / "names.json").write_text("[]")
    with pytest.raises(DataError, match="does not hold 40 names"):
        packed.names()
    (packed.path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        PackedSet.open(packed.path)

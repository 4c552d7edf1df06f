"""The packed set on disk: what is read back, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from packed_files import edit_manifest, widen
from progan.data.packed import Labels, PackedSet, partial_path
from progan.errors import DataError
from progan.preparation.builtin_sets import synthetic
from progan.preparation.fitting import pyramid
from progan.preparation.packed_writer import Layout, Writer, clear_partial, partial_folder

FINGERPRINT = "a99612858d8a368d1857d17c8f6ec06c"
"""Of the set of `pack` with the classes 0 and 1, computed before there were other forms of labels."""


@pytest.fixture
def packed(tmp_path: Path) -> PackedSet:
    return synthetic(
        tmp_path / "set", count=40, resolution=(16, 24), labelled=True, split=(0.5, 0.25, 0.25), seed=3
    )


def pack(path: Path, labels: Labels | list[int], **manifest: Any) -> PackedSet:
    """Write two gray pictures of 4x4, with labels."""
    layout = Layout(base_shape=(4, 4), max_level=0, channels=1)
    with partial_folder(path) as folder:
        clear_partial(folder)
        writer = Writer(path, layout)
        writer.append([np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)], [b"a" * 16, b"b" * 16])
        return writer.finish(["a", "b"], labels, (1, 0, 0), [], **manifest)


def test_shape_and_labels(packed: PackedSet) -> None:
    assert (packed.base_shape, packed.max_level, packed.channels, packed.count) == ((4, 6), 2, 3, 40)
    assert packed.resolution(1) == (8, 12)
    assert (packed.label_names, packed.label_size) == (("1", "2", "3", "4"), 4)
    assert packed.label_vectors([0, 1, 4]).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert packed.label_vectors([]).shape == (0, 4)
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
    assert packed.indices("all").tolist() == list(range(40))
    assert packed.indices("all").dtype == np.int64
    with pytest.raises(DataError, match="splits are train, validation, test, or all"):
        packed.indices("dev")


@pytest.mark.parametrize(("level", "index"), [(3, 0), (-1, 0), (0, 40), (0, -1)])
def test_out_of_range_is_an_index_error(packed: PackedSet, level: int, index: int) -> None:
    with pytest.raises(IndexError, match="out of range"):
        packed.read(level, [index])


def test_unlabelled_set_has_empty_labels(tmp_path: Path) -> None:
    packed = synthetic(tmp_path / "set", count=4, resolution=8)
    assert packed.label_vectors([0, 3]).shape == (2, 0)
    assert packed.labels([0, 3]).tolist() == [0, 0]
    assert (packed.label_size, packed.label_names) == (0, ())


def test_label_vectors_of_many_classes_is_small(packed: PackedSet) -> None:
    edit_manifest(packed.path, label_names=[str(i) for i in range(20_000)])
    many = PackedSet.open(packed.path)
    tracemalloc.start()
    assert many.label_vectors([3, 0]).argmax(axis=1).tolist() == [3, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2 * 20_000 * 4


ROWS = np.array([[0.5, -2, 1e-30], [0, 3e38, -0.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("form", "rows"), [("vector", ROWS), ("classes", np.array([[0, 1, 1], [0, 0, 0]], dtype=np.float32))]
)
def test_labels_of_other_forms_are_stored_as_they_are(
    tmp_path: Path, form: str, rows: NDArray[np.float32]
) -> None:
    packed = pack(tmp_path / "set", rows, label_form=form, label_names=("x", "y", "z"), label_kind="file")
    assert (packed.label_form, packed.label_size, packed.label_names) == (form, 3, ("x", "y", "z"))
    assert packed.manifest.version == 2
    stored = np.load(tmp_path / "set" / "labels.npy")
    assert (stored.dtype, stored.tobytes()) == (np.float32, rows.tobytes())
    np.testing.assert_array_equal(packed.label_vectors([1, 0, 1]), rows[[1, 0, 1]])
    assert packed.label_vectors([]).shape == (0, 3)
    assert packed.label_vectors([0]).dtype == np.float32
    packed.label_vectors([0])[:] = 9
    np.testing.assert_array_equal(packed.label_vectors([0]), rows[:1])
    with pytest.raises(ValueError, match="use label_vectors"):
        packed.labels([0])
    unlabelled = PackedSet(packed.path, packed.manifest.model_copy(update={"label_names": ()}))
    assert (unlabelled.label_form, unlabelled.label_size) == ("class", 0)
    assert unlabelled.label_vectors([0, 1]).shape == (2, 0)


@pytest.mark.parametrize(
    ("form", "rows", "message"),
    [
        ("vector", [[np.nan, 1], [1, 1]], "other values than finite numbers"),
        ("vector", [[np.inf, 1], [1, 1]], "other values than finite numbers"),
        ("classes", [[0, 0.5], [1, 1]], "other values than 0 and 1"),
        ("vector", [[1], [1]], "does not belong"),
        ("classes", [[1, 0, 0], [1, 0, 0]], "does not belong"),
    ],
)
def test_damaged_labels_of_other_forms_are_refused(
    tmp_path: Path, form: str, rows: list[list[float]], message: str
) -> None:
    packed = pack(tmp_path / "set", np.zeros((2, 2), np.float32), label_form=form, label_names=("x", "y"))
    np.save(packed.path / "labels.npy", np.array(rows, dtype=np.float32))
    with pytest.raises(DataError, match=message):
        PackedSet.open(packed.path)


def test_the_form_of_a_manifest_must_fit_the_labels(packed: PackedSet) -> None:
    edit_manifest(packed.path, label_form="vector")
    with pytest.raises(DataError, match=r"labels\.npy: does not belong"):
        PackedSet.open(packed.path)
    edit_manifest(packed.path, label_form="words")
    with pytest.raises(DataError, match="damaged"):
        PackedSet.open(packed.path)


def test_fingerprint_follows_labels_and_their_form(tmp_path: Path) -> None:
    def make(name: str, rows: list[list[float]], form: str = "classes", second: str = "y") -> str:
        table = np.array(rows, dtype=np.float32)
        return pack(tmp_path / name, table, label_form=form, label_names=("x", second)).fingerprint

    first = make("a", [[0, 1], [1, 1]])
    assert make("b", [[0, 1], [1, 1]]) == first
    others = [
        make("c", [[0, 1], [1, 0]]),
        make("d", [[0, 1], [1, 1]], second="z"),
        make("e", [[0, 1], [1, 1]], "vector"),
        pack(tmp_path / "f", [0, 1], label_names=("x", "y")).fingerprint,
    ]
    assert len({first, *others}) == 5


def test_sets_with_classes_stay_as_every_version_reads_them(packed: PackedSet) -> None:
    assert packed.manifest.version == 1
    assert np.load(packed.path / "labels.npy").dtype == np.int64
    file = packed.path / "manifest.json"
    tree = json.loads(file.read_text())
    del tree["label_form"]
    file.write_text(json.dumps(tree))
    old = PackedSet.open(packed.path)
    assert (old.label_form, old.label_size, old.fingerprint) == ("class", 4, packed.fingerprint)
    # As it was before there were other forms.
    assert pack(packed.path.with_name("two"), [0, 1], label_names=("x", "y")).fingerprint == FINGERPRINT


@pytest.mark.parametrize("wide", [False, True])
def test_a_level_held_in_memory_is_the_same(packed: PackedSet, wide: bool) -> None:
    if wide:
        widen(packed)
        packed = PackedSet.open(packed.path)
    mapped = PackedSet.open(packed.path)
    indices = [7, 0, 39, 7]
    for level in (2, 0, 0, 1):
        packed.hold(level)
        for each in range(3):
            ours, expected = packed.read(each, indices), mapped.read(each, indices)
            assert (ours.dtype, ours.shape, ours.tobytes()) == (
                expected.dtype,
                expected.shape,
                expected.tobytes(),
            )
    packed.read(1, [3])[:] = 0
    assert packed.read(1, [3]).any()
    assert packed.read(1, []).shape == (0, 3, 8, 12)
    with pytest.raises(IndexError, match="out of range"):
        packed.read(1, [40])
    with pytest.raises(IndexError, match="out of range"):
        packed.hold(3)


def test_one_level_at_most_is_held(packed: PackedSet) -> None:
    """What is held is read no more from the disk, and is not taken along."""
    packed.hold(2)
    packed.hold(1)
    before, top = packed.read(1, [5]), packed.read(2, [5])
    for level in (1, 2):
        file = packed.path / packed.manifest.level_file(level)
        with file.open("r+b") as stream:
            stream.write(bytes(file.stat().st_size))
    assert (packed.read(1, [5]) == before).all()
    assert top.any()
    assert not packed.read(2, [5]).any()
    data = pickle.dumps(packed)
    assert len(data) < 4000
    assert not pickle.loads(data).read(1, [5]).any()


def test_too_little_memory_is_told(packed: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(DataError, match=r"level 1 needs 0\.00 GiB of memory.* leave data\.in_memory out"):
        packed.hold(1)
    monkeypatch.undo()
    assert packed.read(1, [0]).any()


def test_a_disk_that_fails_is_told(packed: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is mapped would end the process instead."""

    def fails(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = packed.read(1, [3, 0, 1, 2])
    monkeypatch.setattr(os, "preadv", fails)
    with pytest.raises(DataError, match=r"level_1_.*: cannot be read \(the disk does not read"):
        packed.read(1, [0])
    with pytest.raises(DataError, match="cannot be read"):
        packed.hold(1)
    monkeypatch.undo()
    assert (packed.read(1, np.arange(4))[[3, 0, 1, 2]] == before).all()


def test_a_read_that_comes_in_pieces(packed: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, read = packed.read(1, np.arange(packed.count)), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, offset: read(fd, [into[0][:100]], offset))
    assert (packed.read(1, np.arange(packed.count)) == whole).all()
    monkeypatch.setattr(os, "preadv", lambda *_arguments: 0)
    with pytest.raises(DataError, match="it is shorter than it was"):
        packed.read(1, [0])


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
    widen(packed)
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


@pytest.mark.parametrize("name", ["manifest.json", "names.json"])
def test_json_nested_nearly_without_end_is_refused(packed: PackedSet, name: str) -> None:
    (packed.path / name).write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        PackedSet.open(packed.path).names()


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"'|u1'", b"'|u1&"), (b"(40,)", b"(4**9"), (b"(40,)", b"(99,)"), (b"\x93NUMPY", b"\x93NUMPX")],
)
def test_headers_of_arrays_are_not_trusted(packed: PackedSet, old: bytes, new: bytes) -> None:
    file = packed.path / "split.npy"
    whole = file.read_bytes()
    assert whole.count(old) == 1
    file.write_bytes(whole.replace(old, new))
    with pytest.raises(DataError, match=r"split\.npy: cannot be read"):
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

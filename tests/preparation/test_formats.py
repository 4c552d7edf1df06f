"""Pictures in every form in which people of the field keep them, made by the libraries of those forms."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import datasets
import fsspec
import h5py
import huggingface_hub
import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import webdataset
from PIL import Image

from foreign_sources import example, hugging_face_set, idx, png, tar, write_film, write_records
from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError, DependencyError, StorageError
from progan.preparation.formats import hugging_face
from progan.preparation.formats.registry import open_pictures
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare
from python2_pickles import python2_pickle

N = 6


def pixels(shape: tuple[int, ...] = (N, 16, 16, 3), seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def packed(
    source: Path | str, out: Path, labels: str = "none", **options: Any
) -> tuple[PackedSet, PrepareReport]:
    report = prepare(source, out, PictureOptions(resolution="16", labels=labels, **options), workers=1)
    return PackedSet.open(out), report


def check(made: PackedSet, expected: Any) -> None:
    """Compare the pictures of a set with [N, 16, 16, C] or [N, 16, 16], to the bit."""
    expected = expected[..., None] if expected.ndim == 3 else expected
    np.testing.assert_array_equal(
        made.read(made.max_level, np.arange(made.count)), expected.transpose(0, 3, 1, 2)
    )


def classes(made: PackedSet) -> list[str]:
    return [made.label_names[i] for i in made.labels(np.arange(made.count))]


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_npy_in_every_layout(tmp_path: Path, channels: int | None, order: str) -> None:
    values = pixels((N, 16, 16) if channels is None else (N, 16, 16, channels))
    if channels == 4:
        values[..., 3] = np.maximum(values[..., 3], 1)  # colours of what is invisible are not kept
    turned = values.transpose(0, 3, 1, 2) if order == "NCHW" and channels else values
    np.save(tmp_path / "a.npy", turned)
    made, report = packed(tmp_path / "a.npy", tmp_path / "set")
    check(made, values)
    assert (report.used, report.found, report.notes) == (N, N, ())


def test_npy_with_labels_beside_it(tmp_path: Path) -> None:
    values = pixels()
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "y.npy", np.array([3, 1, 3, 1, 7, -1]))
    made, report = packed(tmp_path / "a.npy", tmp_path / "set", str(tmp_path / "y.npy"))
    check(made, values[:5])
    assert (classes(made), report.skipped) == (["3", "1", "3", "1", "7"], 1)
    np.save(tmp_path / "y.npy", np.arange(5))
    with pytest.raises(DataError, match="holds 5 labels for 6 pictures"):
        packed(tmp_path / "a.npy", tmp_path / "other", str(tmp_path / "y.npy"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_labels_inside(tmp_path: Path, save: Any) -> None:
    train, test = pixels(), pixels((2, 16, 16, 3), 1)
    save(
        tmp_path / "a.npz", x_train=train, y_train=[[2], [0], [2], [0], [1], [1]], x_test=test, y_test=[0, 1]
    )
    made, report = packed(tmp_path / "a.npz", tmp_path / "set", "inside")
    check(made, train)
    assert classes(made) == ["2", "0", "2", "0", "1", "1"]
    assert "left out: x_test (2)" in report.notes[0]
    other, _ = packed(f"{tmp_path / 'a.npz'}:x_test", tmp_path / "other", "inside")
    check(other, test)
    assert any(
        "brings labels (3 classes), which are not used" in one
        for one in packed(tmp_path / "a.npz", tmp_path / "no")[1].notes
    )


def test_mat_of_svhn(tmp_path: Path) -> None:
    values = pixels()
    scipy.io.savemat(
        tmp_path / "train_32x32.mat",
        {"X": values.transpose(1, 2, 3, 0), "y": np.array([[1], [10], [2], [1], [2], [10]])},
    )
    made, _ = packed(tmp_path / "train_32x32.mat", tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["1", "10", "2", "1", "2", "10"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["a", "b"]), "not numbers|none of pictures"),
        (np.zeros((3, 16, 16), dtype=complex), "holds complex128, not numbers"),
        (np.zeros((0, 16, 16, 3), dtype=np.uint8), "empty array"),
        (np.zeros((5,), dtype=np.uint8), "an array of 5 is none of pictures"),
        (np.zeros((2, 2, 2, 2, 2), dtype=np.uint8), "none of pictures"),
        (np.zeros((4, 100, 100, 100), dtype=np.uint8), "none of pictures"),
        (np.full((3, 16, 16), None, dtype=object), "Object arrays|Python objects|cannot be read"),
    ],
)
def test_arrays_that_are_no_pictures_are_explained(tmp_path: Path, values: Any, message: str) -> None:
    for name in ("a.npy", "a.npz"):
        (np.save if name.endswith("y") else np.savez)(tmp_path / name, values)
        with pytest.raises(DataError, match=f"{message}|no array of pictures"):
            packed(tmp_path / name, tmp_path / "set")


def test_arrays_that_are_cut_off_are_explained(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels())
    np.savez(tmp_path / "a.npz", pixels())
    scipy.io.savemat(tmp_path / "a.mat", {"X": pixels()})
    for name in ("a.npy", "a.npz", "a.mat"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError):
            packed(tmp_path / name, tmp_path / "set")


def pngs(count: int = N) -> tuple[Any, list[bytes]]:
    """Return pictures, and them as PNG files."""
    values = pixels((count, 16, 16, 3))
    return values, [png(one) for one in values]


def write_tar(path: Path, entries: dict[str, bytes]) -> Path:
    how: Any = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
    path.write_bytes(how(tar(entries)))
    return path


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_tar_with_folders(tmp_path: Path, ending: str) -> None:
    values, files = pngs()
    entries = {f"set/{'ab'[i % 2]}/{i}.png": data for i, data in enumerate(files)} | {"set/readme.txt": b"x"}
    path = write_tar(tmp_path / f"p.{ending}", entries)
    made, report = packed(path, tmp_path / "set", "folders")
    order = [0, 2, 4, 1, 3, 5]
    check(made, values[order])
    assert (classes(made), report.ignored) == (["a"] * 3 + ["b"] * 3, 1)


def test_shards_of_webdataset(tmp_path: Path) -> None:
    values, _ = pngs()
    path = tmp_path / "shard-000.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i, one in enumerate(values):
            writer.write({"__key__": f"{i:04d}", "png": one, "cls": i % 3, "json": {"label": 9, "text": "x"}})
    made, report = packed(path, tmp_path / "set", "inside")
    check(made, values)
    assert (classes(made), report.ignored) == (["0", "1", "2"] * 2, 2 * N)


def test_tar_that_is_damaged(tmp_path: Path) -> None:
    _, files = pngs()
    whole = write_tar(tmp_path / "a.tar", {f"{i}.png": data for i, data in enumerate(files)}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: 512 * 2 + len(files[0]) + 700])
    _, report = packed(tmp_path / "a.tar", tmp_path / "set")
    assert (report.used, report.skipped) == (1, 2)
    reasons = (tmp_path / "set" / "skipped.csv").read_text()
    assert "the archive is cut off within it" in reasons
    assert "damaged after its first pictures" in reasons
    with gzip.open(tmp_path / "b.tar.gz", "wb") as stream:
        stream.write(whole)
    data = (tmp_path / "b.tar.gz").read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"b\.tar\.gz: is cut off or damaged"):
        packed(tmp_path / "b.tar.gz", tmp_path / "other")
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../up.png"))
    skipped = dict(open_pictures(tmp_path / "c.tar").listing().skipped)
    assert "a link" in skipped["link.png"]
    assert "unsafe path" in skipped["../up.png"]


@pytest.mark.parametrize(
    ("keep", "more", "said"),
    [
        (2, b"", "a.tar has no end, so it may be cut off: what is read of it ends with 1.png"),
        (2, b"\0" * 200, "a.tar has no end, so it may be cut off: what is read of it ends with 1.png"),
        (3, tar({"x.png": b"1"}), "a.tar goes on after its end, as if another archive was appended: what is"),
        (3, b"\0" * 9000, ""),
    ],
)
def test_the_end_of_a_tar_file_is_looked_at(tmp_path: Path, keep: int, more: bytes, said: str) -> None:
    _, files = pngs()
    whole = tar({f"{i}.png": data for i, data in enumerate(files[:3])})
    blocks = sum(512 + -(-len(data) // 512) * 512 for data in files[:keep])
    (tmp_path / "a.tar").write_bytes((whole if keep == 3 else whole[:blocks]) + more)
    _, report = packed(tmp_path / "a.tar", tmp_path / "set")
    assert report.used == keep
    assert any(said in note for note in report.notes) if said else not report.notes


def test_cut_off_files_are_told_as_such(tmp_path: Path) -> None:
    values, _ = pngs()
    np.savez(tmp_path / "a.npz", values)
    np.save(tmp_path / "a.npy", values)
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.repeat(values, 20, 0).transpose(1, 2, 3, 0)})
    write_film(tmp_path / "a.mp4", np.repeat(np.repeat(values, 4, 1), 4, 2))
    expected = {
        "npz": "is a cut off or damaged .zip file",
        "npy": "it is cut off: shorter than its header says",
        "mat": "is cut off or damaged",
        "mp4": r"cannot be read as a film \(moov atom not found\)",
    }
    for ending, said in expected.items():
        file = tmp_path / f"a.{ending}"
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
        with pytest.raises(DataError, match=f"a.{ending}: .*{said}" if ending == "npy" else said):
            packed(file, tmp_path / "set")


@pytest.mark.parametrize("named", ["folder", "file"])
def test_lmdb_of_lsun(tmp_path: Path, named: str) -> None:
    values, files = pngs()
    with (
        lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as database,
        database.begin(write=True) as transaction,
    ):
        for i, data in enumerate(files):
            transaction.put(f"{i:02d}key".encode(), data)
        transaction.put(b"length", b"6")
    source = tmp_path / "db" if named == "folder" else tmp_path / "db" / "data.mdb"
    made, report = packed(source, tmp_path / "set")
    check(made, values)
    assert (report.used, report.ignored) == (N, 1)


def test_lmdb_with_sizes_and_keys_of_bytes(tmp_path: Path) -> None:
    values, files = pngs(2)
    with (
        lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as database,
        database.begin(write=True) as transaction,
    ):
        transaction.put(b"\xff\x00", files[0])
        transaction.put(b"\xff\x01", files[1])
    check(packed(tmp_path / "db", tmp_path / "set")[0], values)
    with (
        lmdb.open(str(tmp_path / "sizes"), map_size=1 << 24) as database,
        database.begin(write=True) as transaction,
    ):
        for side in (8, 16):
            for i, data in enumerate(files):
                transaction.put(f"{side}-{i:05d}".encode(), data)
    made, report = packed(tmp_path / "sizes", tmp_path / "other")
    assert made.count == 2
    assert "several sizes; 16 is read, and 8 left out" in report.notes[0]


def test_lmdb_that_is_cut_off_or_held(tmp_path: Path) -> None:
    _, files = pngs()
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as database:
        with database.begin(write=True) as transaction:
            transaction.put(b"1", files[0])
        held = open_pictures(tmp_path / "db").listing()  # while it is open for writing
        assert [item.name for item in held.candidates] == ["1"]
    data = (tmp_path / "db" / "data.mdb").read_bytes()
    (tmp_path / "db" / "data.mdb").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"is cut off|cannot be read as a LMDB"):
        packed(tmp_path / "db", tmp_path / "set")


def cifar_batch(values: Any, labels: dict[str, list[int]]) -> bytes:
    """Return a batch as Python 2 wrote those of CIFAR."""
    rows = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
    return python2_pickle({"batch_label": "a batch", "data": rows, **labels})


def test_cifar_of_python(tmp_path: Path) -> None:
    values = pixels((N, 32, 32, 3))
    names = [f"name{i}" for i in range(10)]
    (tmp_path / "c").mkdir()
    for i in (1, 2):
        part = slice(3 * i - 3, 3 * i)
        (tmp_path / "c" / f"data_batch_{i}").write_bytes(cifar_batch(values[part], {"labels": [i, 9, 0]}))
    (tmp_path / "c" / "test_batch").write_bytes(cifar_batch(values[:1], {"labels": [5]}))
    (tmp_path / "c" / "batches.meta").write_bytes(python2_pickle({"label_names": names}))
    made, report = packed(tmp_path / "c", tmp_path / "set", "inside", channels=3)
    assert classes(made) == ["name1", "name9", "name0", "name2", "name9", "name0"]
    small = values.astype(np.float32).reshape(N, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(made.read(made.max_level, range(N)).transpose(0, 2, 3, 1) - small).max() < 90
    assert "test_batch was left out" in report.notes[0]
    assert packed(tmp_path / "c" / "test_batch", tmp_path / "test", "inside")[1].used == 1


def test_cifar_100_and_its_two_kinds_of_labels(tmp_path: Path) -> None:
    values = pixels((N, 32, 32, 3))
    (tmp_path / "c").mkdir()
    labels = {"fine_labels": list(range(N)), "coarse_labels": [0, 1] * 3}
    (tmp_path / "c" / "train").write_bytes(cifar_batch(values, labels))
    meta = {"fine_label_names": list("abcdef"), "coarse_label_names": ["x", "y"]}
    (tmp_path / "c" / "meta").write_bytes(python2_pickle(meta))
    assert classes(packed(tmp_path / "c", tmp_path / "fine", "inside")[0]) == list("abcdef")
    assert classes(packed(f"{tmp_path}/c:coarse", tmp_path / "coarse", "inside")[0]) == ["x", "y"] * 3
    (tmp_path / "c" / "train").write_bytes(cifar_batch(values, {"fine_labels": [1]}))
    with pytest.raises(DataError, match="holds 1 labels for 6 pictures"):
        packed(tmp_path / "c", tmp_path / "wrong")


def test_a_batch_that_would_run_something_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "batches.meta").touch()
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps({"data": Path("x").write_bytes}, 2))
    with pytest.raises(DataError, match="nothing of it was run"):
        packed(tmp_path / "c", tmp_path / "set")


def test_cifar_binary(tmp_path: Path) -> None:
    values = pixels((N, 32, 32, 3))
    rows = values.transpose(0, 3, 1, 2).reshape(N, -1)
    (tmp_path / "c").mkdir()
    ten = np.concatenate([np.array([[1], [0], [1], [0], [1], [0]], np.uint8), rows], 1)
    ten.tofile(tmp_path / "c" / "data_batch_1.bin")
    (tmp_path / "c" / "batches.meta.txt").write_text("plane\ncar\n\n")
    assert classes(packed(tmp_path / "c", tmp_path / "set", "inside")[0]) == ["car", "plane"] * 3
    (tmp_path / "c" / "data_batch_1.bin").write_bytes(ten.tobytes()[:-7])
    with pytest.raises(DataError, match="no whole number of records of 3073"):
        packed(tmp_path / "c", tmp_path / "other")


@pytest.mark.parametrize("packer", [lambda data: data, gzip.compress])
def test_idx_of_mnist(tmp_path: Path, packer: Any) -> None:
    values, end = pixels((N, 16, 16)), "" if packer(b"x") == b"x" else ".gz"
    for part, count in (("train", N), ("t10k", 2)):
        (tmp_path / f"{part}-images-idx3-ubyte{end}").write_bytes(packer(idx(values[:count])))
        labels = np.arange(count, dtype=np.uint8) % 3
        (tmp_path / f"{part}-labels-idx1-ubyte{end}").write_bytes(packer(idx(labels)))
    (tmp_path / "out").mkdir()
    for source in (tmp_path, tmp_path / f"train-images-idx3-ubyte{end}"):
        made, _ = packed(source, tmp_path / "out" / source.name, "inside")
        check(made, values)
        assert classes(made) == ["0", "1", "2"] * 2
    assert packed(f"{tmp_path}:t10k", tmp_path / "out" / "t")[1].used == 2
    (tmp_path / f"train-labels-idx1-ubyte{end}").write_bytes(packer(idx(np.zeros(5, np.uint8))))
    with pytest.raises(DataError, match="holds 5 labels for 6 pictures"):
        packed(tmp_path, tmp_path / "out" / "wrong")
    (tmp_path / f"train-images-idx3-ubyte{end}").write_bytes(packer(idx(values))[:-5])
    with pytest.raises(DataError, match=r"instead of|is cut off"):
        packed(tmp_path, tmp_path / "out" / "short")


def test_idx_of_emnist_stands_upright(tmp_path: Path) -> None:
    values = pixels((N, 16, 16))
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").write_bytes(idx(values.transpose(0, 2, 1).copy()))
    labels = np.array([1, 2, 3, 1, 2, 3], np.uint8)
    (tmp_path / "emnist-letters-train-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    (tmp_path / "out").mkdir()
    made, report = packed(tmp_path, tmp_path / "out" / "set", "inside")
    check(made, values)
    assert classes(made) == ["A", "B", "C"] * 2
    assert "EMNIST" in report.notes[0]


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("group/pictures", "group/labels")])
def test_hdf5_with_pictures_and_labels(tmp_path: Path, names: tuple[str, str]) -> None:
    values = pixels()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(names[0], data=values, chunks=(2, 16, 16, 3), compression="gzip")
        file.create_dataset(names[1], data=np.array([4, 5, 4, 5, 4, 5]))
    made, _ = packed(tmp_path / "a.h5", tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["4", "5"] * 3
    assert packed(f"{tmp_path}/a.h5:{names[0]}", tmp_path / "named")[1].used == N


def test_hdf5_with_a_set_for_each_size(tmp_path: Path) -> None:
    values = pixels((N, 3, 16, 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for level in range(1, 5):
            file.create_dataset(f"data{2**level}x{2**level}", data=values[:, :, : 2**level, : 2**level])
    check(packed(tmp_path / "a.h5", tmp_path / "set")[0], values.transpose(0, 2, 3, 1))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["data4x4"]
        file.create_dataset("data4x4", data=values[:2, :, :4, :4])
    with pytest.raises(DataError, match="different numbers of pictures"):
        packed(tmp_path / "a.h5", tmp_path / "other")


def test_hdf5_that_cannot_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(N * 16 * 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (N, 16, 16), np.uint8, external=[(str(tmp_path / "secret"), 0, N * 256)])
    with pytest.raises(DataError, match="refers to other files"):
        packed(tmp_path / "a.h5", tmp_path / "set")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (10**7, 16, 16), np.uint8)
    with pytest.raises(DataError, match="suspicious"):
        packed(tmp_path / "b.h5", tmp_path / "set")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", data=pixels())
    (tmp_path / "c.h5").write_bytes((tmp_path / "c.h5").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"c\.h5"):
        packed(tmp_path / "c.h5", tmp_path / "set")


def test_what_reads_a_format_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DependencyError, match=r'needs the package h5py: pip install "progan\[hdf5\]"'):
        packed(tmp_path / "a.h5", tmp_path / "set")


def test_tfrecords_of_the_original_tool(tmp_path: Path) -> None:
    values = pixels((N, 3, 16, 16))
    folder = tmp_path / "set"
    folder.mkdir()
    for level in (2, 3, 4):
        parts = values[:, :, : 2**level, : 2**level]
        records = [example(shape=one.shape, data=one.tobytes()) for one in parts]
        write_records(folder / f"set-r{level:02d}.tfrecords", records)
    with (folder / "set-rxx.labels").open("wb") as stream:
        np.save(stream, np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]])
    made, report = packed(folder, tmp_path / "out", "inside")
    check(made, values.transpose(0, 2, 3, 1))
    assert (classes(made), "set-r04.tfrecords" in report.notes[0]) == (["0", "1", "2"] * 2, True)
    write_records(folder / "set-r03.tfrecords", [example(shape=[1], data=b"x")])
    with pytest.raises(DataError, match=r"different numbers of pictures .*set-r03\.tfrecords 1"):
        packed(folder, tmp_path / "other")


def test_tfrecords_of_encoded_pictures(tmp_path: Path) -> None:
    values, files = pngs()
    records = [example(image__encoded=data, image__class__label=[i % 2]) for i, data in enumerate(files)]
    path = write_records(tmp_path / "train-00000", records)
    made, _ = packed(path, tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["0", "1"] * 3


def test_tfrecords_that_are_damaged(tmp_path: Path) -> None:
    values, files = pngs()
    whole = write_records(tmp_path / "a.tfrecords", [example(image=data) for data in files]).read_bytes()
    spoilt = bytearray(whole)
    spoilt[200] ^= 1
    (tmp_path / "a.tfrecords").write_bytes(spoilt[:-50])
    made, report = packed(tmp_path / "a.tfrecords", tmp_path / "set")
    check(made, values[1 : N - 1])
    assert (report.found, report.skipped) == (N, 2)
    reasons = (tmp_path / "set" / "skipped.csv").read_text()
    assert "its checksum is wrong" in reasons
    assert "cut off within it" in reasons
    (tmp_path / "b.tfrecords").write_bytes(b"\1" * 100)
    with pytest.raises(DataError, match=r"in no form that is read|no file of TFRecords"):
        packed(tmp_path / "b.tfrecords", tmp_path / "other")


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    values, files = pngs()
    (tmp_path / "repo" / "data").mkdir(parents=True)
    whole = hugging_face_set(files, ["cat", "dog"])
    for i in (0, 1):
        part = whole.select(range(3 * i, 3 * i + 3))
        part.to_parquet(tmp_path / "repo" / "data" / f"train-{i:05d}-of-00002.parquet", batch_size=2)
    whole.select([0]).to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    made, report = packed(tmp_path / "repo", tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["cat", "dog"] * 3
    assert "left out: the splits test" in report.notes[0]
    assert packed(f"{tmp_path}/repo:test", tmp_path / "test", "inside")[1].used == 1


def test_parquet_of_bytes(tmp_path: Path) -> None:
    values, files = pngs()
    table = pyarrow.table(
        {"jpg": [*files[:5], None], "other": files, "species": ["a", "b", "a", None, "b", "a"]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    made, report = packed(tmp_path / "a.parquet", tmp_path / "set", "inside")
    check(made, values[[0, 1, 2, 4]])
    assert (classes(made), report.skipped) == (["a", "b", "a", "b"], 2)
    assert packed(f"{tmp_path}/a.parquet:other", tmp_path / "other")[1].used == N
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-40])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        packed(tmp_path / "a.parquet", tmp_path / "cut")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "b": [2]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"has no column of pictures\. It has a \(int64\), b \(int64\)"):
        packed(tmp_path / "b.parquet", tmp_path / "none")


def test_data_set_saved_on_disk(tmp_path: Path) -> None:
    values, files = pngs()
    whole = hugging_face_set(files, ["cat", "dog"])
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(tmp_path / "two")
    for name in ("one", "two"):
        made, _ = packed(tmp_path / name, tmp_path / f"{name}-set", "inside")
        check(made, values)
        assert classes(made) == ["cat", "dog"] * 3
    assert packed(f"{tmp_path}/two:test", tmp_path / "test")[1].used == 1
    with pytest.raises(DataError, match="has the splits train, test"):
        packed(f"{tmp_path}/two:valid", tmp_path / "none")


def test_data_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, files = pngs()
    for i, data in enumerate(files):
        (tmp_path / "local" / "train" / "ab"[i // 3]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / "train" / "ab"[i // 3] / f"{i}.png").write_bytes(data)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    made, _ = packed(f"hf:{tmp_path}/local", tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["a"] * 3 + ["b"] * 3
    with pytest.raises(DataError, match="nobody/nothing: cannot be loaded"):
        packed("hf:nobody/nothing", tmp_path / "none")


class Addressed:
    """What `datasets` tells of a data set on the hub, whose files are in memory here."""

    def __init__(self, files: dict[str, list[str]]) -> None:
        self.config = types.SimpleNamespace(data_files=files)


@pytest.fixture
def hub_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """A data set of the hub: the values of its pictures, and the names of what is opened of it."""
    values, files = pngs()
    hugging_face_set(files, ["cat", "dog"]).to_parquet(tmp_path / "x.parquet")
    memory = fsspec.filesystem("memory")
    for name in ("train", "test"):
        memory.pipe_file(f"/{name}.parquet", (tmp_path / "x.parquet").read_bytes())
    addresses = {name: [f"memory://{name}.parquet"] for name in ("train", "test")}
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda _name: Addressed(addresses))
    monkeypatch.setattr(hugging_face, "PAUSES", (0.0, 0.0))
    opened: list[str] = []
    whole = type(memory).open

    def counted(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return whole(self, path, *arguments, **options)

    monkeypatch.setattr(type(memory), "open", counted)
    return values, opened


def test_data_set_of_the_hub_is_read_where_it_is(tmp_path: Path, hub_set: tuple[Any, list[str]]) -> None:
    values, opened = hub_set
    made, report = packed("hf:user/name", tmp_path / "set", "inside")
    check(made, values)
    assert classes(made) == ["cat", "dog"] * 3
    assert set(opened) == {"/train.parquet"}
    said = "\n".join(report.lines())
    assert "hf:user/name: read from where it is, without a copy of it on this disk" in said
    assert "left out: the splits test; hf:user/name:SPLIT takes one" in said
    assert packed("hf:user/name:test", tmp_path / "test")[1].used == 6
    with pytest.raises(DataError, match="has the splits train, test"):
        packed("hf:user/name:valid", tmp_path / "none")


@pytest.mark.parametrize("failures", [2, 99])
def test_a_network_that_fails_leaves_no_picture_out(
    tmp_path: Path, hub_set: tuple[Any, list[str]], monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    values, _ = hub_set
    left = [failures]
    whole = hugging_face.ParquetFiles._read_group

    def read(self: Any, file: Any, group: int, column: str) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("the connection was closed")
        return whole(self, file, group, column)

    monkeypatch.setattr(hugging_face.ParquetFiles, "_read_group", read)
    if failures > 10:
        with pytest.raises(StorageError, match=r"cannot be fetched \(the connection was closed\); the same"):
            packed("hf:user/name", tmp_path / "set")
        left[0] = 0
    check(packed("hf:user/name", tmp_path / "set")[0], values)


def write_files(folder: Path, files: list[bytes], names: str = "{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(files):
        (folder / names.format(i)).parent.mkdir(parents=True, exist_ok=True)
        (folder / names.format(i)).write_bytes(data)
    return folder


def test_several_sources_are_one(tmp_path: Path) -> None:
    values, files = pngs()
    write_files(tmp_path / "a", files[:2])
    write_tar(tmp_path / "b.tar", {f"{i}.png": data for i, data in enumerate(files[2:4])})
    np.save(tmp_path / "c.npy", values[4:])
    places = [str(tmp_path / name) for name in ("a", "b.tar", "c.npy")]
    report = prepare(places, tmp_path / "set", PictureOptions(resolution="16"), workers=1)
    made = PackedSet.open(tmp_path / "set")
    check(made, values)
    assert made.names() == [
        "a/0.png",
        "a/1.png",
        "b.tar/0.png",
        "b.tar/1.png",
        "c.npy/000000",
        "c.npy/000001",
    ]
    assert "b.tar: 2 pictures" in report.notes
    prepare(places[:2], tmp_path / "classes", PictureOptions(resolution="16", labels="folders"), workers=1)
    assert classes(PackedSet.open(tmp_path / "classes")) == ["a", "a", "b.tar", "b.tar"]


def test_sources_with_classes_in_folders_and_inside(tmp_path: Path) -> None:
    _, files = pngs()
    for name in ("a", "b"):
        write_files(tmp_path / name, files, f"{{}}/{name}.png")
        np.savez(tmp_path / f"{name}.npz", x=pixels(), y=[0, 1, 2, 0, 1, ord(name) - 94])
    sources = [tmp_path / "a", tmp_path / "b"]
    prepare(sources, tmp_path / "set", PictureOptions(resolution="16", labels="folders"), workers=1)
    assert set(classes(PackedSet.open(tmp_path / "set"))) == set("012345")
    report = prepare(
        [tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "a"],
        tmp_path / "other",
        PictureOptions(resolution="16", labels="inside"),
        workers=1,
    )
    made = PackedSet.open(tmp_path / "other")
    assert classes(made) == [*"012013", *"012014"]
    assert report.skipped == N
    assert "no labels are in a" in report.notes


def test_patterns(tmp_path: Path) -> None:
    values, files = pngs()
    write_files(tmp_path / "p", [*files, b"x"], "{}.png")
    (tmp_path / "p" / "6.png").rename(tmp_path / "p" / "6.txt")
    check(packed(f"{tmp_path}/p/*.png", tmp_path / "set")[0], values)
    assert packed(f"{tmp_path}/p/[0-2].png", tmp_path / "few")[1].used == 3
    for i in range(3):
        write_tar(tmp_path / f"s-{i:03d}.tar", {f"{i}.png": files[i]})
    made, _ = packed(f"{tmp_path}/s-{{000..002}}.tar", tmp_path / "shards")
    check(made, values[:3])
    with pytest.raises(DataError, match="nothing is called so"):
        packed(f"{tmp_path}/none/*.png", tmp_path / "none")
    with pytest.raises(DataError, match="no such file"):
        packed(f"{tmp_path}/s-{{000..003}}.tar", tmp_path / "missing")
    with pytest.raises(DataError, match="no range of numbers that rise"):
        packed(f"{tmp_path}/s-{{9..003}}.tar", tmp_path / "wrong")


def test_a_text_file_that_lists_pictures(tmp_path: Path) -> None:
    values, files = pngs()
    write_files(tmp_path / "p", files)
    lines = [
        "# mine",
        *(f"p/{i}.png {'cat' if i % 2 else 'dog'}" for i in range(4)),
        f"{tmp_path}/p/4.png\tdog",
        "p/9.png cat",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    made, report = packed(tmp_path / "list.txt", tmp_path / "set", "inside")
    check(made, values[:5])
    assert (classes(made), report.skipped) == (["dog", "cat", "dog", "cat", "dog"], 1)
    (tmp_path / "notes.txt").write_text("this is no list")
    with pytest.raises(DataError, match="in no form that is read"):
        packed(tmp_path / "notes.txt", tmp_path / "other")


def frames_of(count: int) -> Any:
    """Return frames that differ: a bright square on its way."""
    values = np.full((count, 32, 48, 3), 40, np.uint8)
    for i, one in enumerate(values):
        one[8:24, 2 * i : 2 * i + 12] = (250, 60, 20)
    return values


@pytest.mark.parametrize("ending", ["mp4", "webm", "mov", "gif"])
def test_film(tmp_path: Path, ending: str) -> None:
    values = np.repeat(frames_of(10), 2, 0)  # each frame twice
    path = tmp_path / f"a.{ending}"
    if ending == "gif":
        Image.fromarray(values[0]).save(
            path, save_all=True, append_images=[Image.fromarray(v) for v in values[2::2]], duration=200
        )
    else:
        write_film(path, values)
    report = prepare(path, tmp_path / "set", PictureOptions(resolution="32", fit="stretch"), workers=1)
    made = PackedSet.open(tmp_path / "set")
    assert made.count == 10
    stored = made.read(made.max_level, np.arange(10)).astype(int)
    squares = [np.flatnonzero(one[0, 16] > 150).mean() for one in stored]
    assert squares == sorted(squares)
    if ending != "gif":
        assert any("20 frames were read, 10 of them left out" in note for note in report.notes)
        few = prepare(path, tmp_path / "few", PictureOptions(resolution="32", fps=2.5), workers=1)
        assert 4 <= few.used <= 6


@pytest.mark.parametrize(("fps", "expected"), [(25.0, 50), (20.0, 40), (7.0, 14), (30.0, 60), (90.0, 60)])
def test_so_many_frames_a_second_are_taken(tmp_path: Path, fps: float, expected: int) -> None:
    film = write_film(tmp_path / "x.mp4", pixels((60, 32, 32, 3)), fps=30)
    report = packed(film, tmp_path / "set", fps=fps)[1]
    assert report.used == expected
    assert not any("cut off" in text for text in report.lines())


def test_film_that_is_cut_off(tmp_path: Path) -> None:
    write_film(tmp_path / "a.webm", pixels((30, 32, 48, 3)))
    data = (tmp_path / "a.webm").read_bytes()
    (tmp_path / "a.webm").write_bytes(data[: len(data) // 2])
    report = prepare(tmp_path / "a.webm", tmp_path / "set", PictureOptions(resolution="32"), workers=1)
    assert 5 < report.used < 25
    assert any("the film is cut off" in note for note in report.notes)
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    with pytest.raises(DataError, match=r"b\.mp4: cannot be read as a film"):
        prepare(tmp_path / "b.mp4", tmp_path / "none")

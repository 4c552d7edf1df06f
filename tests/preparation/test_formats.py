"""Pictures in every form in which people of the field keep them, made by the libraries of those forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare

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

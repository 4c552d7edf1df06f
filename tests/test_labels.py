"""Classes, limit and split follow from names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progan.data.labels import (
    apply_limit,
    class_order,
    labels_from_file,
    labels_from_folders,
    read_label_file,
    split_of,
)
from progan.errors import DataError

NAMES = st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=40)


@given(NAMES, NAMES)
def test_split_is_a_function_of_name_and_shares(names: list[str], others: list[str]) -> None:
    shares = (0.6, 0.3, 0.1)
    before = {name: split_of(name, shares) for name in names}
    for name in others:
        split_of(name, shares)
    assert {name: split_of(name, shares) for name in names} == before
    assert set(before.values()) <= {0, 1, 2}


@given(st.text(), st.floats(0, 1))
def test_a_larger_train_share_only_adds_to_it(name: str, share: float) -> None:
    small = split_of(name, (share / 2, 1 - share / 2, 0.0))
    large = split_of(name, (share, 1 - share, 0.0))
    assert large <= small


@given(st.text())
def test_shares_of_zero_stay_empty(name: str) -> None:
    assert split_of(name, (1.0, 0.0, 0.0)) == 0
    assert split_of(name, (0.0, 1.0, 0.0)) == 1
    assert split_of(name, (0.0, 0.0, 1.0)) == 2
    assert split_of(name, (0.5, 0.5, 0.0)) < 2
    assert split_of(name, (0.5, 0.0, 0.5)) != 1


def test_limit_is_even_and_independent_of_the_split() -> None:
    names = [f"{label}/{i:04d}.png" for label in "ab" for i in range(1000)]
    kept = apply_limit(names, 400)
    assert len(kept) == 400
    assert kept == sorted(kept)
    assert 150 < sum(name.startswith("a") for name in kept) < 250
    parts = [split_of(name, (0.5, 0.25, 0.25)) for name in kept]
    assert [round(parts.count(part) / 400, 1) for part in range(3)] == pytest.approx(
        [0.5, 0.25, 0.25], abs=0.1
    )


@given(NAMES, st.integers(1, 50))
def test_a_larger_limit_keeps_what_a_smaller_kept(names: list[str], limit: int) -> None:
    small, large = apply_limit(names, limit), apply_limit(names, limit + 5)
    assert set(small) <= set(large)
    assert len(small) == min(limit, len(names))
    assert apply_limit(names, None) == names


def test_folders_are_classes() -> None:
    assert labels_from_folders(["cat/1.png", "dog/x/2.png"]) == {"cat/1.png": "cat", "dog/x/2.png": "dog"}


def test_archives_may_have_a_folder_around_everything() -> None:
    names = ["set/v1/cat/1.png", "set/v1/dog/2.png"]
    assert set(labels_from_folders(names, in_archive=True).values()) == {"cat", "dog"}
    with pytest.raises(DataError, match="only 'set'"):
        labels_from_folders(names)


def test_pictures_outside_class_folders_are_an_error() -> None:
    with pytest.raises(DataError, match=r"1 pictures are in no class folder \(loose\.png\)"):
        labels_from_folders(["cat/1.png", "loose.png", "dog/2.png"])
    with pytest.raises(DataError, match=r"2 pictures are in no class"):
        labels_from_folders(["1.png", "2.png"], in_archive=True)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("head", ["", "name,label\n", "\ufeffName,Label\r\n"])
def test_label_files_with_and_without_header(tmp_path: Path, head: str) -> None:
    file = write(tmp_path / "l.csv", head + 'a.png,x\n"b,1.png", y \n\nc.png,\n')
    assert read_label_file(file) == {"a.png": "x", "b,1.png": "y"}


def test_label_file_finds_names_in_other_spellings(tmp_path: Path) -> None:
    file = write(tmp_path / "l.csv", "./caf\u00e9.png,1\nsub\\b.png,2\n")
    found = labels_from_file(file, ["cafe\u0301.png", "sub/b.png", "c.png"])
    assert found == {"cafe\u0301.png": "1", "sub/b.png": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1,2\n", r"line 1: expected `name,label`"),
        ("a.png\n", r"line 1: expected"),
        ("a.png,1\na.png,2\n", r"line 2: 'a.png' is labelled '2', but '1'"),
        ("a.png,1\n" + "".join(f"{i}.png,2\n" for i in range(5)), r"5 of the pictures .*0.png.* and 2 more"),
        ("a.png,1\n", "only '1'"),
        ("", "classes found: none"),
    ],
)
def test_wrong_label_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels_from_file(write(tmp_path / "l.csv", text), ["a.png", "b.png"])


def test_label_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_label_file(tmp_path / "nothing.csv")
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_label_file(tmp_path / "l.csv")


def test_numbered_classes_are_in_order_of_value() -> None:
    assert class_order(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert class_order(["b", "10", "a"]) == ("10", "a", "b")

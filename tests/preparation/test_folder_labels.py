"""Classes, limit and split follow from names alone."""

from __future__ import annotations

import csv
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progan.config import LabelForm, PictureOptions
from progan.errors import DataError
from progan.preparation.formats.folder import Folder
from progan.preparation.labels import label_tables
from progan.preparation.labels.class_lists import read_class_list
from progan.preparation.labels.folder_labels import apply_limit, class_order, labels_from_folders, split_of
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.labels.label_tables import LabelTable, TableForm
from progan.preparation.labels.labelling import find_labels
from progan.preparation.pictures import Candidate, Candidates, Labelling, Listing


def read_label_file(path: Path) -> dict[str, str]:
    return read_class_list(LabelFile.read(path))


def read_label_table(path: Path, form: TableForm) -> LabelTable:
    return label_tables.read_label_table(LabelFile.read(path), form)


def labels_of(path: Path, names: list[str], form: LabelForm | None = None) -> Labelling:
    """Return the labels that a file beside a source of such names gives."""
    pictures = Folder(path.parent)
    listing = Listing(Candidates(Candidate(name, 1, 1) for name in names))
    given = {} if form is None else {"label_form": form}
    options = PictureOptions.model_validate({"labels": str(path), **given})
    found = find_labels(pictures, listing, names, options)
    assert found is not None
    return found


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
    found = labels_of(file, ["cafe\u0301.png", "sub/b.png", "c.png"])
    assert {name: found.names[found.values[row]] for name, row in found.rows.items()} == {
        "cafe\u0301.png": "1",
        "sub/b.png": "2",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1,2\n", r"line 1: expected `name,label`.*data.label_form classes or vector"),
        ("./a.png,1\na.png,2\n", r"line 2: 'a.png' is labelled '2', but '1'"),
        ("a.png\n", r"line 1: expected"),
        ("a.png,1\na.png,2\n", r"line 2: 'a.png' is labelled '2', but '1'"),
        ("a.png,1\n" + "".join(f"{i}.png,2\n" for i in range(5)), r"5 of the pictures .*0.png.* and 2 more"),
        ("a.png,1\n", "only '1'"),
        ("", "classes found: none"),
    ],
)
def test_wrong_label_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels_of(write(tmp_path / "l.csv", text), ["a.png", "b.png"])


def test_label_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_label_file(tmp_path / "nothing.csv")
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_label_file(tmp_path / "l.csv")


def test_numbered_classes_are_in_order_of_value() -> None:
    assert class_order(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert class_order(["9" * 5000, "10", "010", "0"]) == ("0", "010", "10", "9" * 5000)
    assert class_order(["b", "10", "a"]) == ("10", "a", "b")


WORDS = st.text(min_size=1, max_size=8).map(lambda text: unicodedata.normalize("NFC", text))
NAMED = WORDS.filter(
    lambda text: text == text.strip() and not text.startswith("./") and not {"\\", "\0"} & set(text)
).filter(lambda text: text.isprintable() or not any("\ud800" <= sign <= "\udfff" for sign in text))
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy[float]) -> tuple[list[str], dict[str, list[float]]]:
    columns = draw(st.lists(NAMED, min_size=1, max_size=5, unique=True))
    row = st.lists(values, min_size=len(columns), max_size=len(columns))
    return columns, draw(st.dictionaries(NAMED, row, min_size=1, max_size=6))


def write_table(path: Path, columns: list[str], rows: dict[str, list[float]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("name", *columns), *((name, *row) for name, row in rows.items())])
    return path


@given(tables(NUMBERS))
def test_a_written_table_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[list[str], dict[str, list[float]]]
) -> None:
    columns, rows = table
    read = read_label_table(write_table(tmp_path_factory.getbasetemp() / "t.csv", columns, rows), "vector")
    assert (read.columns, read.names) == (tuple(columns), tuple(rows))
    np.testing.assert_array_equal(read.values, np.array(list(rows.values()), dtype=np.float32))


@given(st.data(), st.sampled_from([0, -1]))
def test_classes_may_be_absent_in_two_ways(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, absent: int
) -> None:
    columns, rows = data.draw(tables(st.sampled_from([absent, 1])))
    read = read_label_table(write_table(tmp_path_factory.getbasetemp() / "t.csv", columns, rows), "classes")
    np.testing.assert_array_equal(read.values, np.array(list(rows.values())) == 1)


CSV_TEXT = st.text(st.sampled_from('ab01-.,"\n\r\te _\ufeff\0'), max_size=40)


@given(st.one_of(st.binary(max_size=40), CSV_TEXT.map(str.encode)), st.booleans())
def test_malformed_files_raise_data_errors_only(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, headed: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "l.csv"
    file.write_bytes(b"name,a,b\n" * headed + content)
    for form in get_args(TableForm):
        with suppress(DataError):
            table = read_label_table(file, form)
            assert table.values.shape == (len(table.names), len(table.columns))
            assert np.isfinite(table.values).all()
            assert form == "vector" or set(table.values.flat) <= {0, 1}
    with suppress(DataError):
        assert all(read_label_file(file).values())


def test_attribute_lists_of_celeba_are_read(tmp_path: Path) -> None:
    text = "2\nBald  Eyeglasses Hat\n000001.jpg -1  1 -1\n000002.jpg  1 -1  1 \n"
    for end in ("\n", "\r\n"):
        table = read_label_table(write(tmp_path / "list_attr_celeba.txt", text.replace("\n", end)), "classes")
        assert table.columns == ("Bald", "Eyeglasses", "Hat")
        assert table.names == ("000001.jpg", "000002.jpg")
        assert table.values.tolist() == [[0, 1, 0], [1, 0, 1]]
    poses = read_label_table(write(tmp_path / "pose.txt", "1\nYaw Raw\n0.jpg -1.5 1e1\n"), "vector")
    assert poses.values.tolist() == [[-1.5, 10]]
    comma = read_label_table(write(tmp_path / "l.csv", "image_id,Bald,Hat\n000001.jpg,-1,1\n"), "classes")
    assert (comma.columns, comma.values.tolist()) == (("Bald", "Hat"), [[0, 1]])
    with pytest.raises(DataError, match="announces 3 rows, but 2 follow"):
        read_label_table(write(tmp_path / "l.txt", "3" + text[1:]), "classes")


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("vector", "", "is empty; it needs a header"),
        ("vector", "name,x\n", "a header and no rows"),
        ("vector", "7\n", "nothing but the number 7"),
        (
            "vector",
            "a.png,0.5,1\n",
            r"line 1: expected a header `name,COLUMN,...`.*found \['a.png', '0.5', '1'\]",
        ),
        ("vector", "name\na.png\n", r"line 1: expected a header"),
        ("vector", "name,x,\na.png,1,2\n", "line 1, column 3: has no name"),
        ("vector", "name,x,x\na.png,1,2\n", "line 1, column 3: 'x' names another column"),
        ("vector", "name,x,y\na.png,1\n", "line 2, column 'y': expected a finite number, found nothing"),
        ("vector", "name,x,y\na.png,,1\n", "line 2, column 'x': expected a finite number, found nothing"),
        ("vector", "name,x\na.png,1,2\n", "line 2: has 2 values, but the header names 1 columns"),
        ("vector", "name,x\n,1\n", "line 2: has no name"),
        ("vector", "name,x\n\na.png,one\n", "line 3, column 'x': expected a finite number, found 'one'"),
        ("vector", "name,x\na.png,nan\n", "found 'nan'"),
        ("vector", "name,x\na.png,-inf\n", "found '-inf'"),
        ("vector", "name,x\na.png,1e39\n", "found '1e39'"),
        ("vector", "name,x\na.png,1_0\n", "found '1_0'"),
        ("vector", "name,x\na.png,1\nb.png,1\n./a.png,1\n", "line 4: 'a.png' has a row already, in line 2"),
        ("vector", "name,x\nz.png,1\n", r"1 of the pictures .* not in the source \(z.png\)"),
        (
            "classes",
            "name,hat\na.png,2\n",
            r"line 2, column 'hat': expected 1 \(has .*'2'; .*label_form vector",
        ),
        ("classes", "name,hat\na.png,yes\n", "or 0 or -1 .*, found 'yes'$"),
        ("classes", "name,hat,c\na.png,0,1\nb.png,1,-1\n", "line 3, column 'c': -1, but 0 further up"),
        ("classes", "name,hat\na.png,-1\nb.png,0\n", "line 3, column 'hat': 0, but -1 further up"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, form: TableForm, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels_of(write(tmp_path / "l.csv", text), ["a.png", "b.png"], form)


def test_tables_find_names_in_other_spellings(tmp_path: Path) -> None:
    file = write(tmp_path / "l.csv", "name,0,1\n./caf\u00e9.png,1,0\nsub\\b.png,0,1\n")
    table = labels_of(file, ["cafe\u0301.png", "sub/b.png", "c.png"], "classes")
    assert (table.names, tuple(table.rows)) == (("0", "1"), ("cafe\u0301.png", "sub/b.png"))

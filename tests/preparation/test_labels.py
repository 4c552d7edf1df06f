"""Labels as the field's tools write them, and what is said of labels that are not used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare


def fill(folder: Path, names: list[str]) -> Path:
    random = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
    return folder


def numbered(count: int, folder: str = "00000") -> list[str]:
    return [f"{folder}/img{i:08d}.png" for i in range(count)]


def packed(source: Path, labels: str, **options: Any) -> tuple[PrepareReport, dict[str, Any]]:
    """Return the report, and the label of each picture: a name of a class, or a list of numbers."""
    target = source.with_name(f"set{len(list(source.parent.iterdir()))}")
    report = prepare(source, target, PictureOptions(resolution="8", labels=labels, **options), workers=1)
    made = PackedSet.open(target)
    if made.label_form == "class" and made.label_size:
        values: list[Any] = [made.label_names[i] for i in made.labels(np.arange(made.count))]
    else:
        values = made.label_vectors(np.arange(made.count)).tolist()
    return report, dict(zip(made.names(), values, strict=True))


def both(folder: Path, tmp_path: Path) -> list[Path]:
    """Return a folder and the archive of it."""
    return [folder, Path(shutil.make_archive(str(tmp_path / "archive"), "zip", folder))]


def test_dataset_json_of_stylegan_in_folder_and_archive(tmp_path: Path) -> None:
    names = numbered(6)
    folder = fill(tmp_path / "sg", names)
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [[name, i % 3] for i, name in enumerate(names)]})
    )
    for source in both(folder, tmp_path):
        for labels in ("dataset.json", "inside"):
            report, found = packed(source, labels)
            assert found == {name: str(i % 3) for i, name in enumerate(names)}
            assert any("6 labels were read from" in note for note in report.notes)


@pytest.mark.parametrize(
    ("labels", "form", "expected"),
    [
        ([[0, 1], [1, 0], [0, 1]], None, ["1", "0", "1"]),
        ([[0, 1], [1, 0], [0, 1]], "vector", [[0, 1], [1, 0], [0, 1]]),
        ([[0.5, 1], [1, -2], [0, 1]], None, [[0.5, 1], [1, -2], [0, 1]]),
        ([[1, 1], [1, 0], [0, 0]], "classes", [[1, 1], [1, 0], [0, 0]]),
        (["cat", "dog", "cat"], None, ["cat", "dog", "cat"]),
        ([["a", "b"], ["b"], ["a"]], None, [[1, 1], [0, 1], [1, 0]]),
        ([7, 10, 9.0], None, ["7", "10", "9"]),
    ],
)
def test_labels_in_json_are_what_they_are(
    tmp_path: Path, labels: list[Any], form: str | None, expected: list[Any]
) -> None:
    names = numbered(3)
    folder = fill(tmp_path / "sg", names)
    given = {} if form is None else {"label_form": form}
    for tree in ({"labels": list(zip(names, labels, strict=True))}, dict(zip(names, labels, strict=True))):
        (folder / "labels.json").write_text(json.dumps(tree))
        _, found = packed(folder, "labels.json", **given)
        assert list(found.values()) == expected


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"labels": None}, "no labels"),
        ({"labels": [["1.png", 0, 1]]}, r"entry 1: expected \[name, label\]"),
        ({"labels": [["1.png", 0], ["2.png", [0, 1]]]}, "some labels are lists and some are none"),
        ({"labels": [["1.png", [0, 1]], ["2.png", [0, 1, 2]]]}, "lists of 2, 3 numbers"),
        ({"labels": [["1.png", {"a": 1}], ["2.png", 1]]}, "expected a class"),
        ({"labels": [["1.png", 1e999], ["2.png", 1]]}, "expected a class"),
        ({"labels": [[5, 1], ["2.png", 1]]}, "expected the name of a picture, found 5"),
        ({"labels": [["1.png", 1], ["1.png", 2]]}, "has another label further up"),
        ({"labels": [["1.png", 1], ["x.png", 2]]}, r"1 of the pictures .*x\.png"),
        ({"labels": [["1.png", 1], ["2.png", 1]]}, "only '1'"),
        ({"images": [], "annotations": []}, "expected"),
        ([{"file_name": "1.png", "a": 1, "b": 2}], "which field is the label. It has a, b"),
        ([{"a": 1}], "no field with the name of the picture"),
        ([["1.png", 1]], "expected an object with a file_name"),
        (7, "nothing but the number 7"),
    ],
)
def test_json_that_holds_no_labels_is_explained(tmp_path: Path, tree: object, message: str) -> None:
    folder = fill(tmp_path / "p", ["1.png", "2.png"])
    (folder / "labels.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=message):
        packed(folder, "labels.json")


def test_metadata_of_hugging_face(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", ["a/1.png", "a/2.png", "b/1.png"])
    lines = [
        '{"file_name": "1.png", "label": 3, "text": "x"}',
        '{"file_name": "2.png", "label": 5, "text": "y"}',
    ]
    (folder / "a" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "b" / "metadata.jsonl").write_text(
        '{"label": 3, "file_name": "1.png"}\n{"file_name": "1.png", "label": 3}'
    )
    expected = {"a/1.png": "3", "a/2.png": "5", "b/1.png": "3"}
    assert packed(folder, "inside")[1] == expected
    (folder / "metadata.csv").write_text("file_name,text,kind\na/1.png,x y,k\na/2.png,z,l\nb/1.png,w,k\n")
    assert packed(folder, "metadata.csv:kind")[1] == {"a/1.png": "k", "a/2.png": "l", "b/1.png": "k"}
    with pytest.raises(DataError, match=r"expected `name,label`.*--labels FILE:COLUMN"):
        packed(folder, "metadata.csv")
    with pytest.raises(DataError, match="has no column 'sort'"):
        packed(folder, "metadata.csv:sort")


@pytest.mark.parametrize(
    "text",
    [
        "filename,class\n1.png,x\n2.png,y\n",
        "image;label\n1.png;x\n2.png;y\n",
        "Image_ID\tBreed\n1.png\tx\n2.png\ty\n",
        "label,file\nx,1.png\ny,2.png\n",
        "bild,klasse\n1.png,x\n2.png,y\n",
        "id,label\n1,x\n2,y\n",
        "path,width,label\npictures/1.png,8,x\npictures/2.png,8,y\n",
        "1.png x\n2.png y\n",
        "1.png;x\n2.png;y\n",
    ],
)
def test_lists_of_classes_as_people_write_them(tmp_path: Path, text: str) -> None:
    folder = fill(tmp_path / "p", ["1.png", "2.png"])
    (folder / "list.csv").write_text(text)
    for source in both(folder, tmp_path):
        assert packed(source, "list.csv")[1] == {"1.png": "x", "2.png": "y"}


def test_names_that_are_found_in_another_way_are_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", ["img/000001.png", "img/000002.png"])
    (tmp_path / "identity.txt").write_text("000001.jpg 2880\n000002.jpg 17\n")
    report, found = packed(folder, str(tmp_path / "identity.txt"))
    assert found == {"img/000001.png": "2880", "img/000002.png": "17"}
    assert any("without their folders and endings" in note for note in report.notes)
    attributes = "2\nBald Hat\n000001.jpg -1  1\n000002.jpg  1 -1\n"
    (tmp_path / "list_attr_celeba.txt").write_text(attributes)
    assert packed(folder, str(tmp_path / "list_attr_celeba.txt"), label_form="classes")[1] == {
        "img/000001.png": [0, 1],
        "img/000002.png": [1, 0],
    }
    assert list(packed(folder, f"{tmp_path}/list_attr_celeba.txt:Hat")[1].values()) == ["1", "-1"]
    fill(folder, ["other/000001.png"])
    with pytest.raises(DataError, match="2 of the pictures it names are not in the source"):
        packed(folder, str(tmp_path / "identity.txt"))


def test_captions_are_no_classes(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(30)]
    folder = fill(tmp_path / "p", names)
    (folder / "c.csv").write_text("file,caption\n" + "".join(f"{name},a cat\n" for name in names))
    with pytest.raises(DataError, match="'caption' is no class but a text for each picture"):
        packed(folder, "c.csv")
    (folder / "c.csv").write_text("".join(f"{name},picture {name}\n" for name in names))
    with pytest.raises(DataError, match="each of its 30 pictures has a label of its own"):
        packed(folder, "c.csv")


def test_labels_that_are_not_used_are_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", ["a/1.png", "b/2.png", "c/3.png"])
    for source in both(folder, tmp_path):
        report, found = packed(source, "none")
        assert set(map(tuple, found.values())) == {()}
        assert report.notes == (
            "the pictures lie in 3 sub-folders (a, b, c), which are not used as classes: "
            "--labels folders uses them",
        )
    (folder / "dataset.json").write_text("{}")
    assert any("dataset.json may hold labels" in note for note in packed(folder, "none")[0].notes)
    fill(folder, ["4.png"])
    (folder / "dataset.json").unlink()
    assert packed(folder, "none")[0].notes == ()
    with pytest.raises(DataError, match="brings no labels of its own"):
        packed(folder, "inside")


def test_classes_that_a_limit_empties_are_left_out_and_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", [f"c{i}/{j}.png" for i in range(9) for j in range(2)])
    report, found = packed(folder, "folders", limit=5)
    assert len(found) == 5
    assert all(name.startswith(label + "/") for name, label in found.items())
    assert set(report.label_names) == set(found.values())
    gone = 9 - len(report.label_names)
    assert gone > 0
    assert report.notes[0].startswith(f"{gone} of 9 classes have no picture here and were left out (c")


def test_classes_that_a_part_of_the_split_lacks_are_named(tmp_path: Path) -> None:
    # 60 cats are in every part; the one dog is in one, which its name decides.
    for name in [*(f"cat/{i}.png" for i in range(60)), "dog/0.png"]:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name) * 9, 0, 0)).save(tmp_path / "p" / name)
    options = PictureOptions.model_validate({"labels": "folders", "split": "0.6,0.2,0.2"})
    warnings = prepare(tmp_path / "p", tmp_path / "set", options).warnings
    lacking = [text for text in warnings if "1 of 2 classes have no picture in the" in text]
    assert len(lacking) == 2
    assert all("(dog)" in text for text in lacking)
    assert not any("has no pictures" in text for text in warnings)


def test_a_part_of_the_split_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "p" / "a.png")
    warnings = prepare(tmp_path / "p", tmp_path / "set", PictureOptions(split="0.6,0.2,0.2")).warnings
    assert sum("part of the split has no pictures" in text for text in warnings) == 2

"""Samples are functions of seed and index; what is written is whole, complete and not mixed."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from progan.__main__ import main
from progan.config import LabelForm
from progan.data.pixels import to_uint8
from progan.errors import ConfigError, StorageError
from progan.generation.image_files import PLAIN, save_folder, save_npy, save_zip
from progan.generation.label_arguments import (
    Label,
    class_index,
    describe_labels,
    label_vector,
    taken_as_names,
)
from progan.generation.sampling import batch_size_for, generate, label_vectors, latents, level_of
from progan.generation.save_samples import MANIFEST, Layout, save_samples
from progan.models import weights
from progan.models.generator import Generator


def make(
    channels: int = 3,
    labels: int = 0,
    names: tuple[str, ...] = (),
    level: int = 2,
    form: LabelForm = "class",
) -> Generator:
    """Return a generator; of forms other than 'class', row i of its examples is i, i + 1, ... (mod 2)."""
    torch.manual_seed(0)
    G = Generator(
        channels=channels,
        base_shape=(4, 6),
        max_level=2,
        label_size=labels,
        label_form=form,
        label_names=names,
        fmap_base=64,
        fmap_max=8,
        level=level,
    ).eval()
    if form != "class":
        rows = torch.arange(64.0)[:, None] + torch.arange(labels)
        G.label_examples.copy_(rows % 2 if form == "classes" else rows)
    return G


def count_whole(folder: Path) -> int:
    return PLAIN.count_whole(folder, 10**6)


def stack(batches: Iterator[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate(list(batches))


@given(
    seed=st.integers(0, 2**63 - 1), start=st.integers(0, 10**6), cut=st.integers(0, 5), size=st.integers(1, 9)
)
@settings(max_examples=40, deadline=None)
def test_latents_depend_on_seed_and_index_alone(seed: int, start: int, cut: int, size: int) -> None:
    whole = latents(seed, start, 5, size)
    parts = torch.cat([latents(seed, start, cut, size), latents(seed, start + cut, 5 - cut, size)])
    assert torch.equal(whole, parts)


def test_latents_are_standard_normal_and_independent() -> None:
    z = latents(0, 0, 4000, 64).double()
    assert z.mean().abs() < 0.01
    assert (z.var() - 1).abs() < 0.01
    assert (z.pow(4).mean() - 3).abs() < 0.1
    assert ((z[:-1] * z[1:]).mean()).abs() < 0.01
    assert ((z * latents(1, 0, 4000, 64)).mean()).abs() < 0.01


def test_latents_stay_the_same_from_version_to_version() -> None:
    expected = [-1.13836, -2.16758, 0.57754]
    np.testing.assert_allclose(latents(7, 3, 1, 3)[0].numpy(), expected, atol=1e-4)


def test_random_labels_are_uniform_and_reproducible() -> None:
    G = make(labels=3)
    labels = label_vectors(G, None, 5, 0, 3000)
    assert labels is not None
    assert labels.sum(dim=1).eq(1).all()
    assert (labels.mean(dim=0) - 1 / 3).abs().max() < 0.04
    later = label_vectors(G, None, 5, 1000, 7)
    assert later is not None
    assert torch.equal(labels[1000:1007], later)


def test_labels_by_name_and_number() -> None:
    G = make(labels=3, names=("cat", "dog", "0"))
    assert [class_index(G, label) for label in ("cat", "dog", 1, "1", "0", 0)] == [0, 1, 1, 1, 2, 0]
    with pytest.raises(ConfigError, match=r"did you mean 'dog'\?.*cat, dog, 0"):
        class_index(G, "dogs")
    for wrong in (3, -1, "3", "²"):
        with pytest.raises(ConfigError, match="number from 0 to 2"):
            class_index(G, wrong)
    with pytest.raises(ConfigError, match="has no labels"):
        label_vectors(make(), "cat", 0, 0, 1)
    assert label_vectors(make(), None, 0, 0, 1) is None


NAMES = ("smiling", "hat", "a,b")


@pytest.mark.parametrize(
    ("form", "label", "expected"),
    [
        ("class", "hat", [0, 1, 0]),
        ("class", "a,b", [0, 0, 1]),
        ("class", 0, [1, 0, 0]),
        ("class", ["hat"], [0, 1, 0]),
        ("class", np.int64(1), [0, 1, 0]),
        ("classes", "smiling,hat", [1, 1, 0]),
        ("classes", " hat , 0 ", [1, 1, 0]),
        ("classes", "a,b", [0, 0, 1]),
        ("classes", ["a,b", 1], [0, 1, 1]),
        ("classes", "2,2", [0, 0, 1]),
        ("classes", 2, [0, 0, 1]),
        ("classes", np.array([1, 2]), [0, 1, 1]),
        ("classes", "", [0, 0, 0]),
        ("classes", [], [0, 0, 0]),
        ("vector", "0.1, -2,1e3", [0.1, -2, 1000]),
        ("vector", (0.5, 1, "2"), [0.5, 1, 2]),
        ("vector", np.array([0.5, 1, 2]), [0.5, 1, 2]),
    ],
)
def test_label_vectors_of_each_form(form: LabelForm, label: Label, expected: list[float]) -> None:
    G = make(labels=3, names=NAMES, form=form)
    vector = torch.tensor(expected, dtype=torch.float32)
    assert torch.equal(label_vector(G, label), vector)
    rows = label_vectors(G, label, 0, 5, 4)
    assert rows is not None
    assert torch.equal(rows, vector.repeat(4, 1))


@given(st.sets(st.integers(0, 5)), st.booleans())
def test_several_classes_are_a_set(chosen: set[int], by_name: bool) -> None:
    names = ("a", "b", "c", "d", "e", "f")
    G = make(labels=6, names=names, form="classes")
    text = ",".join(names[i] if by_name else str(i) for i in chosen)
    assert set(label_vector(G, text).nonzero().flatten().tolist()) == chosen


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_a_vector_is_its_numbers(numbers: list[float]) -> None:
    with torch.device("meta"):
        G = Generator(max_level=0, label_size=len(numbers), label_form="vector", fmap_base=8)
    expected = torch.tensor(numbers, dtype=torch.float32)
    assert torch.equal(label_vector(G, ",".join(map(repr, numbers))), expected)
    assert torch.equal(label_vector(G, numbers), expected)


@pytest.mark.parametrize(
    ("form", "label", "message"),
    [
        (
            "class",
            "smiling,hat",
            r"no label 'smiling,hat'.* Labels: smiling, hat, a,b; or a number from 0 to 2",
        ),
        ("class", ["smiling", "hat"], "takes one class, not 2"),
        ("class", [], "takes one class, not 0"),
        ("class", "9" * 5000, "number from 0 to 2"),
        ("classes", "smiling,hats", r"no label 'hats'; did you mean 'hat'\? Labels: smiling, hat, a,b"),
        ("classes", "smiling,", "no label ''"),
        ("classes", "3", "number from 0 to 2"),
        ("classes", "0.5", "no label '0.5'"),
        ("vector", "1,2", r"takes 3 finite numbers \(smiling, hat, a,b\), not 2"),
        ("vector", "", "not 0"),
        ("vector", 1, "not 1"),
        ("vector", "1,2,x", "'x' is none"),
        ("vector", "1,2,nan", "'nan' is none"),
        ("vector", [1, 2, float("inf")], "inf is none"),
        ("vector", [1, 2, None], "None is none"),
        ("vector", "1,2,1e39", "'1e39' is none"),
    ],
)
def test_labels_that_are_none_are_told(form: LabelForm, label: Label, message: str) -> None:
    G = make(labels=3, names=NAMES, form=form)
    for ask in (lambda: label_vector(G, label), lambda: generate(G, 1, label=label)):
        with pytest.raises(ConfigError, match=message):
            ask()


@pytest.mark.parametrize("form", ["classes", "vector"])
def test_random_labels_of_other_forms_are_examples(form: LabelForm) -> None:
    G = make(labels=3, form=form)
    G.label_examples.copy_(torch.arange(192.0).view(64, 3))
    labels = label_vectors(G, None, 5, 0, 6400)
    assert labels is not None
    assert set(map(tuple, labels.tolist())) == set(map(tuple, G.label_examples.tolist()))
    counts = torch.bincount((labels[:, 0] / 3).long(), minlength=64)
    assert 50 < counts.min() < counts.max() < 150
    later = label_vectors(G, None, 5, 1000, 7)
    assert later is not None
    assert torch.equal(labels[1000:1007], later)
    other = label_vectors(G, None, 6, 0, 6400)
    assert not torch.equal(labels, other)  # type: ignore[arg-type]
    later[:] = 0
    assert G.label_examples[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["class", "classes", "vector"])
def test_pictures_follow_their_labels(form: LabelForm) -> None:
    G = make(labels=2, form=form)
    given = {"class": ("0", "1"), "classes": ("0", "0,1"), "vector": ("0.5,-2", "3,1")}[form]
    first, second = (stack(generate(G, 3, label=label)) for label in given)
    assert not np.array_equal(first, second)
    z = latents(0, 0, 3, G.latent_size)
    assert np.array_equal(first, to_uint8(G(z, label_vector(G, given[0]).repeat(3, 1))))
    drawn = label_vectors(G, None, 0, 0, 3)
    assert np.array_equal(stack(generate(G, 3)), to_uint8(G(z, drawn)))


@pytest.mark.parametrize("form", ["classes", "vector"])
def test_samples_of_other_forms_are_written(tmp_path: Path, form: LabelForm) -> None:
    G = make(labels=2, names=("smiling", "hat"), form=form)
    label, same, other = ("hat", [1], "smiling,hat") if form == "classes" else ("0,1", [0, 1.0], "0,2")
    folder = save_samples(G, tmp_path / "x", 2, label=label)
    assert json.loads((folder / MANIFEST).read_text())["label"] == [0, 1]
    save_samples(G, folder, 3, label=same)
    assert count_whole(folder) == 3
    for wrong in (other, None):
        with pytest.raises(ConfigError, match="another label;"):
            save_samples(G, folder, 4, label=wrong)


def test_labels_in_words() -> None:
    assert describe_labels("class", ("a", "b"), 2) == "class (2: a, b)"
    assert describe_labels("classes", ("a", "b"), 2) == "several classes (2: a, b)"
    assert describe_labels("vector", (), 7) == "vector (7)"


def test_classes_that_are_called_by_numbers() -> None:
    """A name is a name; a number in text that is none is refused, as nobody knows which class is meant."""
    G = make(labels=3)
    G.label_names = ("1", "10", "2")
    assert [int(label_vector(G, label).argmax()) for label in ("1", "10", "2", 0, 1, 2)] == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ConfigError, match=r"label '0': no class is called so.*class number 0 is called '1'"):
        label_vector(G, "0")
    said = "label 1 is the class that is called so, number 0; class number 1 is called 10"
    assert taken_as_names(G, ["1", "2", "10", 1]) == [said]
    several = make(labels=3, names=("1", "10", "2"), form="classes")
    assert taken_as_names(several, ["2,1", ""]) == [said]
    assert taken_as_names(make(labels=3, names=("1", "10", "2"), form="vector"), ["0,1,0"]) == []


def test_each_command_says_which_class_a_number_is_taken_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    G, file, picture = make(labels=3), tmp_path / "G.safetensors", tmp_path / "x.png"
    G.label_names = ("1", "10", "2")
    weights.save(G, file)
    save_samples(G, tmp_path / "samples", 16)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(picture)
    said = "label 1 is the class that is called so, number 0; class number 1 is called 10"
    out = ["--out", str(tmp_path / "out")]
    for words in (
        ["generate", file, "--n", "1", *out],
        ["evaluate", file, "--data", tmp_path / "samples", "--metrics", "swd", "--json"],
        ["project", file, "--target", picture, "--num-steps", "1", "--outdir", tmp_path / "found"],
    ):
        with pytest.raises(SystemExit):
            main([*map(str, words), "--label", "1"])
        shown = capsys.readouterr()
        assert said in shown.out + shown.err, words
        assert "--json" not in words or said not in shown.out


def test_level_of() -> None:
    G = make(level=1)
    assert level_of(G) == 1
    assert level_of(G, 0) == level_of(G, None, "4x6") == 0
    assert level_of(G, 1, "8x12") == 1
    with pytest.raises(ConfigError, match=r"not been trained yet.*4x6 \(level 0\), 8x12 \(level 1\)$"):
        level_of(G, None, "16x24")
    for level, resolution in ((3, None), (-1, None), (None, 8), (0, "8x12"), (None, "big")):
        with pytest.raises(ConfigError):
            level_of(G, level, resolution)


def test_pictures_do_not_depend_on_batch_size_or_start() -> None:
    G = make(labels=2)
    whole = stack(generate(G, 11, seed=3))
    assert whole.shape == (11, 3, 16, 24)
    for size in (1, 4):
        # Rounding may differ with the batch size, and move a value that is halfway between two.
        other = stack(generate(G, 11, seed=3, batch_size=size)).astype(int)
        assert np.abs(other - whole).max() <= 1
    part = stack(generate(G, 4, seed=3, start=7)).astype(int)
    assert np.abs(part - whole[7:]).max() <= 1
    assert not np.array_equal(whole, stack(generate(G, 11, seed=4)))


def test_pictures_are_those_of_a_plain_call() -> None:
    G = make()
    G.set_growth(2, 0.25)
    z = latents(0, 0, 3, G.latent_size)
    expected = {None: G(z), 2: G(z), 1: G(z, level=1)}
    for level, images in expected.items():
        assert np.array_equal(stack(generate(G, 3, level=level)), to_uint8(images))


def test_inference_mode_does_not_leak() -> None:
    for _ in generate(make(), 3, batch_size=1):
        assert not torch.is_inference_mode_enabled()


def test_wrong_arguments_are_told_before_the_first_batch() -> None:
    G = make(level=1)
    for options in ({"level": 2}, {"label": "cat"}, {"seed": -1}, {"start": -1}, {"batch_size": 0}):
        with pytest.raises(ConfigError):
            generate(G, 1, **options)
    with pytest.raises(ConfigError, match=r"^seed -1: expected at least 0$"):
        generate(G, 1, seed=-1)
    with pytest.raises(ConfigError, match=r"^batch_size 0: expected at least 1$"):
        generate(G, 1, batch_size=0)
    with pytest.raises(ConfigError, match=r"^seed -1: expected"):
        latents(-1, 0, 1, 1)
    assert list(generate(G, 0)) == []


def test_numbers_must_be_whole(tmp_path: Path) -> None:
    G = make()
    for wrong in (2.5, 2.0, "2", None):
        with pytest.raises(ConfigError, match=r"n .*: expected a whole number"):
            generate(G, wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"n .*: expected a whole number"):
            save_samples(G, tmp_path / "x.npy", wrong)  # type: ignore[arg-type]
    for options in ({"seed": 1.5}, {"start": "0"}, {"batch_size": 2.0}):
        with pytest.raises(ConfigError, match="expected a whole number"):
            generate(G, 1, **options)
    assert list(tmp_path.iterdir()) == []
    for name in ("x.npy", "x"):
        save_samples(G, tmp_path / name, np.int64(2), seed=np.int64(3))  # type: ignore[arg-type]
    assert np.load(tmp_path / "x.npy").shape == (2, 3, 16, 24)


def test_very_many_labels_take_little_memory() -> None:
    with torch.device("meta"):
        G = make(labels=10**6)
    labels = label_vectors(G, 999_999, 0, 0, 1)
    assert labels is not None
    assert labels.shape == (1, 10**6)
    assert labels.argmax() == 999_999
    none = label_vectors(G, None, 0, 0, 0)
    assert none is not None
    assert none.shape == (0, 10**6)


def test_batches_shrink_as_pictures_grow() -> None:
    with torch.device("meta"):
        G = Generator(max_level=8)
    sizes = [batch_size_for(G, level) for level in range(9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 256
    assert 1 <= sizes[8] <= 2
    assert batch_size_for(make(), 2) == 256
    assert batch_size_for(Generator(max_level=3, fmap_base=512, fmap_max=64), 3) == 32  # on the CPU: 4 MB


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_form_holds_the_same_pictures(tmp_path: Path, channels: int) -> None:
    G = make(channels)
    expected = stack(generate(G, 7, seed=1, batch_size=3))
    for name in ("s.npy", "s.zip", "s"):
        out = save_samples(G, tmp_path / "new" / name, 7, seed=1, batch_size=3)
        assert out == tmp_path / "new" / name
    array = np.load(tmp_path / "new" / "s.npy", mmap_mode="r")
    assert array.dtype == np.uint8
    assert np.array_equal(array, expected)
    names = [f"{i:06d}.png" for i in range(7)]
    folder = tmp_path / "new" / "s"
    assert sorted(path.name for path in folder.iterdir()) == [*names, MANIFEST]
    with zipfile.ZipFile(tmp_path / "new" / "s.zip") as archive:
        assert archive.namelist() == names
        assert archive.testzip() is None
        for name, image in zip(names, expected, strict=True):
            assert archive.read(name) == (folder / name).read_bytes()
            with Image.open(folder / name) as picture:
                read = np.asarray(picture).reshape(16, 24, channels)
            assert np.array_equal(read.transpose(2, 0, 1), image)


def test_the_same_samples_make_the_same_zip(tmp_path: Path) -> None:
    first, second = (save_samples(make(), tmp_path / f"{i}.zip", 3).read_bytes() for i in range(2))
    assert first == second


def test_more_channels_than_pictures_have(tmp_path: Path) -> None:
    G = make(5)
    assert np.load(save_samples(G, tmp_path / "x.npy", 2)).shape == (2, 5, 16, 24)
    for name in ("x.zip", "x"):
        with pytest.raises(ConfigError, match="5 channels cannot be written as png; write tiff"):
            save_samples(G, tmp_path / name, 2, layout=Layout("png"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    with zipfile.ZipFile(save_samples(G, tmp_path / "x.zip", 2)) as archive:
        assert archive.namelist() == ["000000.tiff", "000001.tiff"]
    with Image.open(save_samples(G, tmp_path / "x.png", 2)) as grid:
        assert grid.mode == "RGB"


def test_a_grid_is_one_enlarged_picture(tmp_path: Path) -> None:
    with Image.open(save_samples(make(), tmp_path / "x.png", 5)) as picture:
        assert picture.size == (3 * 96 + 2 * 2, 2 * 64 + 2)
    with pytest.raises(ConfigError, match="million pixels"):
        save_samples(make(), tmp_path / "y.png", 50_000)


def test_an_interrupted_folder_is_completed(tmp_path: Path) -> None:
    G, folder = make(), tmp_path / "x"
    calls: list[tuple[int, int]] = []

    def stop(_what: str, done: int, total: int) -> None:
        calls.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_samples(G, folder, 10, batch_size=2, progress=stop)
    assert calls == [(0, 10), (2, 10), (4, 10)]
    kept = count_whole(folder)
    assert 2 <= kept <= 4
    before = (folder / "000000.png").stat().st_mtime_ns
    (folder / "000001.png").write_bytes((folder / "000001.png").read_bytes()[:-20])

    calls.clear()
    save_samples(G, folder, 10, batch_size=2, progress=lambda _, *state: calls.append(state))
    assert calls[0] == (1, 10)
    assert calls[-1] == (10, 10)
    assert count_whole(folder) == len(list(folder.glob("*.png"))) == 10
    assert (folder / "000000.png").stat().st_mtime_ns == before
    save_samples(G, tmp_path / "whole", 10, batch_size=2)
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (folder / path.name).read_bytes()

    save_samples(G, folder, 12)
    assert count_whole(folder) == 12
    with pytest.raises(ConfigError, match="more than 5"):
        save_samples(G, folder, 5)


def test_samples_of_different_origin_are_not_mixed(tmp_path: Path) -> None:
    G, folder = make(labels=2), tmp_path / "x"
    save_samples(G, folder, 2, label=1)
    assert json.loads((folder / MANIFEST).read_text())["label"] == 1
    save_samples(G, folder, 2, label="1")
    for options, what in (
        ({"label": 1, "seed": 1}, "seed"),
        ({}, "label"),
        ({"label": 1, "level": 1}, "resolution"),
    ):
        with pytest.raises(ConfigError, match=f"another {what};"):
            save_samples(G, folder, 4, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        next(G.parameters()).add_(1)
    with pytest.raises(ConfigError, match="another generator;"):
        save_samples(G, folder, 4, label=1)
    for text in (None, "[]", "{"):
        (folder / MANIFEST).unlink(missing_ok=True)
        if text is not None:
            (folder / MANIFEST).write_text(text)
        with pytest.raises(ConfigError, match="another"):
            save_samples(G, folder, 4, label=1)
    assert count_whole(folder) == 2


def test_names_that_mean_no_form(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.npy").mkdir()
    for name in ("x.gif", "x.mp4", "file", "folder.npy"):
        with pytest.raises(ConfigError, match=name):
            save_samples(make(), tmp_path / name, 1)
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(ConfigError, match="at least 1"):
        save_samples(make(), tmp_path / "x", 0)
    assert save_samples(make(), tmp_path / "run-v0.5", 1).is_dir()


@pytest.mark.parametrize("name", ["x.npy", "x.zip", "x.png", "x"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / name / MANIFEST if name == "x" else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.stem}.{dead.pid}.tmp{path.suffix}").write_text("part")
    save_samples(make(), tmp_path / name, 1)
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("name", ["x.npy", "x.zip"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = save_samples(make(), tmp_path / name, 2)
    old = path.read_bytes()

    def failing() -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((1, 3, 16, 24), np.uint8)
        raise OSError(28, "No space left on device")

    write = functools.partial(save_npy, shape=(2, 3, 16, 24)) if name == "x.npy" else save_zip
    with pytest.raises(StorageError, match="no space left"):
        write(failing(), path)
    assert path.read_bytes() == old
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_told_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"0000\d\d\.png: no space left"):
        save_folder([np.zeros((3, 1, 4, 4), np.uint8)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_npy_refuses_what_is_not_of_its_shape(tmp_path: Path) -> None:
    batch = np.zeros((2, 1, 4, 4), np.uint8)
    for shape in ((3, 1, 4, 4), (2, 1, 4, 5)):
        with pytest.raises(ValueError, match=r"batch has|pictures were"):
            save_npy([batch], tmp_path / "x.npy", shape)
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_a_few_batches_are_held(tmp_path: Path) -> None:
    """The writer asks for a batch only when at most one other is not yet written."""
    made: list[int] = []

    def batches() -> Iterator[NDArray[np.uint8]]:
        for i in range(6):
            assert count_whole(tmp_path) >= len(made) * 4 - 8
            made.append(i)
            yield np.zeros((4, 1, 4, 4), np.uint8)

    save_folder(batches(), tmp_path)
    assert count_whole(tmp_path) == 24


def test_pictures_are_made_in_float32_whatever_pytorch_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its convolutions compute in TF32 on CUDA by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[bool] = []
    G = make()
    G.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    batches = generate(G, 4, batch_size=2)
    for _ in batches:
        seen.append(torch.backends.cudnn.allow_tf32)
    assert seen == [False, True, False, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_pictures_of_the_cpu() -> None:
    """It makes the next batch while the last is taken; what is taken does not change by that."""
    expected = stack(generate(make(), 11, batch_size=3))
    batches = list(generate(make().to("cuda"), 11, batch_size=3))
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert np.abs(stack(iter(batches)).astype(int) - expected).max() <= 1

"""From folders and archives to packed sets: decisions, bad input, interruption, cache."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from found_sets import find_or_prepare
from pngs import write_bomb
from progan.config import DataOptions, LabelForm
from progan.data.packed import PackedSet, partial_path
from progan.errors import ConfigError, DataError, StorageError
from progan.preparation import packed_writer
from progan.preparation.decisions import choose_channels
from progan.preparation.decoding import Header, look_at
from progan.preparation.pack import CRASHED
from progan.preparation.pack_plan import choose_resolution
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare
from progan.system.worker_pool import run_chunks

SMALL = DataOptions(resolution="16")


def save(
    path: Path, size: tuple[int, int] = (24, 24), colour: object = (200, 30, 60), mode: str = "RGB"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]


def fill(folder: Path, count: int) -> Path:
    """Make `count` different small pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        pixels = random.integers(0, 256, (20, 26, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    return folder


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def skipped(path: Path) -> dict[str, str]:
    with (path / "skipped.csv").open(newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee", "camera", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg", quality=95)
    return folder


def test_photographs_become_a_packed_set(photos: Path, tmp_path: Path) -> None:
    report = prepare(photos, tmp_path / "set")
    packed = PackedSet.open(tmp_path / "set")
    assert (report.found, report.used, report.skipped, report.upscaled) == (4, 4, 0, 0)
    assert report.resolution == packed.resolution(packed.max_level) == (256, 256)
    assert (packed.base_shape, packed.max_level, packed.channels) == ((4, 4), 6, 3)
    assert packed.names() == ["astronaut.jpg", "camera.jpg", "coffee.jpg", "rocket.jpg"]
    astronaut = data.astronaut()  # type: ignore[no-untyped-call]
    means = packed.read(0, [0])[0].mean(axis=(1, 2))
    np.testing.assert_allclose(means, astronaut.mean(axis=(0, 1)), atol=2)
    assert not partial_path(tmp_path / "set").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set"]
    assert "4 of 4 pictures, 256x256, RGB" in report.lines()[0]
    assert prepare(photos, tmp_path / "set") == report


def test_folder_and_archive_and_any_workers_give_the_same_set(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 150)
    (folder / "0003.png").write_bytes(b"broken")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    prepare(folder, tmp_path / "one", SMALL, workers=1)
    prepare(folder, tmp_path / "two", SMALL, workers=2)
    prepare(tmp_path / "p.zip", tmp_path / "zip", SMALL)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    one, archived = PackedSet.open(tmp_path / "one"), PackedSet.open(tmp_path / "zip")
    assert one.count == 149
    assert one.fingerprint == archived.fingerprint
    assert skipped(tmp_path / "zip") == {"0003.png": "not a picture in a known format"}


def test_bad_files_are_skipped_with_reasons_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    save(folder / "good.png")
    save(folder / "small.png", (8, 30))
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("text")
    (folder / "notes.txt").write_text("text")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) - 30])
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    report = prepare(folder, tmp_path / "set", SMALL)
    assert (report.found, report.used, report.skipped) == (6, 3, 3)
    assert (report.upscaled, report.animated, report.ignored) == (1, 1, 1)
    reasons = skipped(tmp_path / "set")
    assert set(reasons) == {"empty.jpg", "text.png", "cut.png"}
    assert all(reasons.values())
    assert len(report.lines()) == 6


def test_decompression_bombs_are_skipped_with_their_reason(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 3)
    write_bomb(folder / "bomb.png", 10_000)
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        archive.writestr("zeros.png", bytes(3 << 20))
    prepare(folder, tmp_path / "set", SMALL)
    assert skipped(tmp_path / "set") == {
        "bomb.png": "10000x10000: more than 89 million pixels; --max-pixels 100M takes it"
    }
    report = prepare(tmp_path / "p.zip", tmp_path / "zip", SMALL)
    assert (report.used, report.skipped) == (3, 2)
    reasons = skipped(tmp_path / "zip")
    assert "million pixels" in reasons["bomb.png"]
    assert "suspicious compression" in reasons["zeros.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have Unicode file names only")
def test_names_that_are_not_unicode_are_prepared_and_continued(tmp_path: Path) -> None:
    folder = fill(tmp_path / os.fsdecode(b"\xfd"), 100)
    prefix = os.fsencode(folder) + b"/"
    (folder / "0000.png").rename(os.fsdecode(prefix + b"\xff.png"))
    (folder / "0001.png").rename(os.fsdecode(prefix + b"\xfe.psd"))
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        prepare(
            folder,
            tmp_path / "set",
            SMALL,
            progress=lambda _what, done, _total: seen.append(done),
            stop=lambda: max(seen) > 0,
        )
    seen.clear()
    prepare(folder, tmp_path / "set", SMALL, progress=lambda _what, done, _total: seen.append(done))
    assert seen[0] == 64
    assert PackedSet.open(tmp_path / "set").names()[-1] == "\udcff.png"
    assert set(skipped(tmp_path / "set")) == {r"\udcfe.psd"}


def header(width: int, height: int, *, colour: bool = True, alpha: bool = False) -> Header:
    return Header(width, height, colour, alpha, False)


@pytest.mark.parametrize(
    ("sizes", "options", "base_shape", "expected"),
    [
        ([(100, 100)] * 9 + [(10, 10)], DataOptions(), None, ((4, 4), 4)),
        ([(100, 100)] * 8 + [(10, 10)] * 2, DataOptions(), None, ((4, 4), 1)),
        ([(3, 3)], DataOptions(), None, ((4, 4), 1)),
        ([(5000, 5000)], DataOptions(), None, ((4, 4), 8)),
        ([(5000, 5000)], DataOptions(max_resolution=100), None, ((4, 4), 4)),
        ([(200, 100)], DataOptions(), None, ((4, 4), 4)),
        ([(200, 100)], DataOptions(fit="pad"), None, ((4, 4), 5)),
        ([(200, 140)], DataOptions(), (4, 6), ((4, 6), 5)),
        ([(200, 140)], DataOptions(resolution="96x144"), None, ((6, 9), 4)),
        ([(200, 140)], DataOptions(resolution="64"), (8, 8), ((8, 8), 3)),
    ],
)
def test_resolution_is_what_nine_tenths_have(
    sizes: list[tuple[int, int]],
    options: DataOptions,
    base_shape: tuple[int, int] | None,
    expected: tuple[tuple[int, int], int],
) -> None:
    assert choose_resolution([header(*size) for size in sizes], options, base_shape) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_channels_follow_the_pictures(kinds: list[tuple[bool, bool]]) -> None:
    channels = choose_channels([header(9, 9, colour=colour, alpha=alpha) for colour, alpha in kinds])
    assert (channels >= 3) == any(colour for colour, _ in kinds)
    assert (channels in {2, 4}) == all(alpha for _, alpha in kinds)


@pytest.mark.parametrize(
    ("modes", "given", "expected"),
    [
        (["L", "1"], None, 1),
        (["LA", "LA"], None, 2),
        (["L", "P"], None, 3),
        (["RGBA", "LA"], None, 4),
        (["RGBA", "RGB"], None, 3),
        (["RGB"], 1, 1),
        (["L"], 4, 4),
    ],
)
def test_mixed_modes_are_brought_to_one(
    tmp_path: Path, modes: list[str], given: int | None, expected: int
) -> None:
    for i, mode in enumerate(modes):
        save(tmp_path / "p" / f"{i}.png", colour=0, mode=mode)
    report = prepare(tmp_path / "p", tmp_path / "set", DataOptions(channels=given))
    assert (report.used, report.channels) == (len(modes), expected)


def test_folder_labels_limit_and_split(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        fill(tmp_path / "p" / label, 40)
    options = DataOptions(resolution="8", labels="folders", limit=50, split=(0.5, 0.25, 0.25))
    report = prepare(tmp_path / "p", tmp_path / "set", options)
    packed = PackedSet.open(tmp_path / "set")
    assert (report.found, report.used, report.left_out) == (80, 50, 30)
    assert packed.label_names == ("cat", "dog")
    for name, row in zip(packed.names(), packed.label_vectors(np.arange(50)), strict=True):
        assert packed.label_names[int(row.argmax())] == name.split("/")[0]
    assert min(packed.label_vectors(np.arange(50)).sum(axis=0)) > 15
    part = {packed.names()[i]: s for s in ("train", "validation", "test") for i in packed.indices(s)}
    prepare(tmp_path / "p", tmp_path / "all", options.model_copy(update={"limit": None}))
    every = PackedSet.open(tmp_path / "all")
    everywhere = {every.names()[i]: s for s in ("train", "validation", "test") for i in every.indices(s)}
    assert part.items() <= everywhere.items()


def test_manifest_tells_the_choices(tmp_path: Path) -> None:
    fill(tmp_path / "p", 6)
    prepare(tmp_path / "p", tmp_path / "plain", SMALL)
    plain = PackedSet.open(tmp_path / "plain").manifest
    assert (plain.limit, plain.split, plain.label_kind, plain.fit) == (None, (1, 0, 0), "none", "crop")
    options = DataOptions.model_validate({"resolution": "16", "limit": 5, "split": "0.5,0.5,0", "fit": "pad"})
    prepare(tmp_path / "p", tmp_path / "set", options)
    manifest = PackedSet.open(tmp_path / "set").manifest
    assert (manifest.limit, manifest.split, manifest.fit) == (5, (0.5, 0.5, 0), "pad")


def test_leftovers_of_a_killed_writer_do_not_get_into_the_set(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 3)
    partial_path(tmp_path / "set").mkdir()
    (partial_path(tmp_path / "set") / ".progress.123.tmp.json").touch()
    prepare(folder, tmp_path / "set", SMALL)
    assert not list((tmp_path / "set").glob(".*"))


def test_label_file_beside_the_pictures(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 4)
    (folder / "labels.csv").write_text("name,label\n0000.png,b\n0002.png,a\n")
    report = prepare(folder, tmp_path / "set", DataOptions(resolution="8", labels="labels.csv"))
    assert (report.used, report.label_names) == (2, ("a", "b"))
    assert skipped(tmp_path / "set") == {"0001.png": "no label", "0003.png": "no label"}
    assert PackedSet.open(tmp_path / "set").labels([0, 1]).tolist() == [1, 0]
    (folder / "labels.csv").write_text("name,label\n0000.png,b\n0002.png,c\n")
    with pytest.raises(DataError, match="other pictures or other options"):
        prepare(folder, tmp_path / "set", DataOptions(resolution="8", labels="labels.csv"))
    with pytest.raises(DataError, match="no such file"):
        prepare(folder, tmp_path / "other", DataOptions(labels="wrong.csv"))


def table_of(folder: Path, file: str, values: list[list[float]]) -> dict[str, list[float]]:
    """Write rows of `x` and `y,z` for the first pictures of a folder, in the reverse of their order."""
    rows = {f"{i:04d}.png": row for i, row in enumerate(values)}
    with (folder / file).open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("name", "x", "y,z"), *((name, *rows[name]) for name in reversed(rows))]
        )
    return rows


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("classes", [[0, 1], [1, 1], [0, 0], [1, 0]]),
        ("vector", [[0.1, -7.25], [1e-30, 3e30], [0, 0], [2, 1]]),
    ],
)
def test_label_table_beside_the_pictures(tmp_path: Path, form: LabelForm, values: list[list[float]]) -> None:
    folder = fill(tmp_path / "p", 6)
    rows = table_of(folder, "table.csv", values)
    (folder / "0001.png").write_bytes((folder / "0001.png").read_bytes()[:200])
    (folder / "0002.png").write_text("no picture")
    options = DataOptions(resolution="8", labels="table.csv", label_form=form)
    report = prepare(folder, tmp_path / "set", options)
    packed = PackedSet.open(tmp_path / "set")
    assert packed.names() == ["0000.png", "0003.png"]
    assert set(skipped(tmp_path / "set")) == {"0001.png", "0002.png", "0004.png", "0005.png"}
    assert skipped(tmp_path / "set")["0004.png"] == "no label"
    assert (packed.label_form, packed.label_names, packed.manifest.label_kind) == (form, ("x", "y,z"), "file")
    expected = np.array([rows[name] for name in packed.names()], dtype=np.float32)
    np.testing.assert_array_equal(packed.label_vectors([0, 1]), expected)
    assert not list((tmp_path / "set").glob("plan*"))
    what = {"classes": "2 classes, several a picture: x, y,z", "vector": "2 numbers a picture: x, y,z"}
    assert what[form] in report.lines()
    assert prepare(folder, tmp_path / "set", options) == report


def test_class_labels_are_read_back(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 4)
    (folder / "labels.csv").write_text("0000.png,b\n0001.png,a\n0003.png,c\n")
    (folder / "0003.png").write_text("no picture")
    report = prepare(folder, tmp_path / "set", DataOptions(resolution="8", labels="labels.csv"))
    packed = PackedSet.open(tmp_path / "set")
    assert (packed.label_form, packed.label_names) == ("class", ("a", "b"))
    assert packed.label_vectors([0, 1]).tolist() == [[0, 1], [1, 0]]
    assert "2 classes: a, b" in report.lines()


def stop_after_a_chunk(folder: Path, destination: Path, options: DataOptions) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        prepare(
            folder, destination, options, workers=1,
            progress=lambda _what, done, _total: seen.append(done), stop=lambda: max(seen) > 0,
        )  # fmt: skip


def test_a_stopped_set_keeps_its_table(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 150)
    random = np.random.default_rng(1).standard_normal((150, 2)).astype(np.float32)
    table_of(folder, "table.csv", random.tolist())
    (folder / "0003.png").write_bytes((folder / "0003.png").read_bytes()[:200])
    options = DataOptions(resolution="8", labels="table.csv", label_form="vector")
    prepare(folder, tmp_path / "whole", options, workers=1)
    stop_after_a_chunk(folder, tmp_path / "set", options)
    seen: list[int] = []
    prepare(folder, tmp_path / "set", options, progress=lambda _what, done, _total: seen.append(done))
    assert seen[0] == 64
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    np.testing.assert_array_equal(
        PackedSet.open(tmp_path / "set").label_vectors(range(149)), np.delete(random, 3, axis=0)
    )


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_plan_whose_labels_are_lost_is_made_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder = fill(tmp_path / "p", 100)
    table_of(folder, "table.csv", [[i, -i] for i in range(100)])
    options = DataOptions(resolution="8", labels="table.csv", label_form="vector")
    stop_after_a_chunk(folder, tmp_path / "set", options)
    spoil(partial_path(tmp_path / "set") / packed_writer.PLANNED_LABELS)
    prepare(folder, tmp_path / "set", options)
    assert PackedSet.open(tmp_path / "set").label_vectors([42]).tolist() == [[42, -42]]


def test_sets_with_other_labels_are_not_taken(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 4)
    table_of(folder, "table.csv", [[0, 1], [1, 0], [1, 1], [0, 0]])

    def find(**options: object) -> Path:
        return find_or_prepare(folder, DataOptions.model_validate({"resolution": "8", **options}))[0].path

    plain = find()
    assert find(part="all", order="sequential", in_memory=True, mirror=True) == plain
    classes = find(labels="table.csv", label_form="classes")
    vector = find(labels="table.csv", label_form="vector")
    assert len({plain, classes, vector}) == 3
    assert find(labels="table.csv", label_form="classes") == classes
    table_of(folder, "table.csv", [[0, 1], [1, 0], [1, 1], [1, 0]])
    changed = find(labels="table.csv", label_form="classes")
    assert changed not in {plain, classes, vector}
    assert PackedSet.open(changed).label_vectors([3]).tolist() == [[1, 0]]


def test_label_forms_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 2)
    (folder / "labels.csv").write_text("name,label\n0000.png,cat\n0001.png,dog\n")
    for form, message in (
        ("classes", "line 2, column 'label': expected 1 .*'cat'"),
        ("vector", "a finite num"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(folder, tmp_path / "set", DataOptions(labels="labels.csv", label_form=form))
    table_of(folder, "table.csv", [[0, 1], [1, 0]])
    with pytest.raises(DataError, match=r"expected `name,label`.* needs data\.label_form classes or vector"):
        prepare(folder, tmp_path / "set", DataOptions(labels="table.csv"))
    with pytest.raises(DataError, match=r"no such file.* CSV file of name,COLUMN"):
        prepare(folder, tmp_path / "set", DataOptions(labels="wrong.csv", label_form="vector"))
    with pytest.raises(
        ConfigError, match=r"data\.label_form vector: .*builtin:synthetic have one class each"
    ):
        find_or_prepare("builtin:synthetic", DataOptions(labels="x.csv", label_form="vector"))
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_sources_without_usable_pictures_are_explained(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    with pytest.raises(DataError, match="is empty"):
        prepare(folder, tmp_path / "set")
    (folder / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"no pictures, only other files \(1 \.txt\)"):
        find_or_prepare(folder)
    (folder / "a.png").write_text("x")
    with pytest.raises(DataError, match=r"none of its 1 pictures .*a\.png: not a picture"):
        prepare(folder, tmp_path / "set")
    save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"none of its 1 pictures can be used \(a\.png: "):
        prepare(folder, tmp_path / "set", SMALL)
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "missing", tmp_path / "set")
    with pytest.raises(ConfigError, match="nearest"):
        prepare(fill(folder, 2), tmp_path / "set", DataOptions(resolution="100"), base_shape=(4, 4))


def test_a_destination_with_other_things_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "p", 2)
    (tmp_path / "mine").mkdir()
    prepare(tmp_path / "p", tmp_path / "mine", SMALL)
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="nothing was changed"):
        prepare(tmp_path / "p", tmp_path / "yours", SMALL)
    with pytest.raises(DataError, match="nothing was changed"):
        prepare(tmp_path / "p", tmp_path / "yours" / "thesis.txt", SMALL)
    assert content(tmp_path / "yours") == {"thesis.txt": b"x"}


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping_and_going_on_ends_in_the_same_bytes(tmp_path: Path, workers: int) -> None:
    folder = fill(tmp_path / "p", 300)
    (folder / "0010.png").write_bytes((folder / "0010.png").read_bytes()[:200])
    prepare(folder, tmp_path / "whole", SMALL, workers=1)
    seen: list[tuple[int, int]] = []
    rounds = 0
    while not (tmp_path / "set").exists():
        rounds += 1
        try:
            prepare(
                folder,
                tmp_path / "set",
                SMALL,
                workers=workers,
                progress=lambda _what, done, total: seen.append((done, total)),
                stop=lambda: seen[-1][0] > 0 and len(seen) % 3 == 0,
            )
        except KeyboardInterrupt:
            assert partial_path(tmp_path / "set").is_dir()
    assert rounds > 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (300, 300)
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def test_a_killed_process_loses_little(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 300)
    prepare(folder, tmp_path / "whole", SMALL, workers=1)
    script = (
        "import sys; from pathlib import Path; from progan.config import DataOptions\n"
        "from progan.preparation import packed_writer; from progan.preparation.source import prepare\n"
        "packed_writer.SYNC_SECONDS = 0\n"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), DataOptions(resolution='16'), workers=2,\n"
        "        progress=lambda _, done, _n: (print(done, flush=True), done < 128 or sys.stdin.read()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "set")],
        stdin=subprocess.PIPE,  # after 128 pictures it waits for what does not come
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert child.stdout is not None
    with child:
        while child.stdout.readline().strip() not in {"128", ""}:
            pass
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="not finished"):
        PackedSet.open(tmp_path / "set")
    seen: list[int] = []
    prepare(folder, tmp_path / "set", SMALL, progress=lambda _what, done, _total: seen.append(done))
    assert seen[0] >= 128
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def test_changed_options_start_afresh(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 200)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "set", DataOptions(resolution="32"), stop=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "set", DataOptions(resolution="32"), workers=1, stop=lambda: True)
    report = prepare(folder, tmp_path / "set", SMALL)
    assert (report.resolution, report.used) == ((16, 16), 200)
    assert not list((tmp_path / "set").glob("level_3*"))


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "p", 200)
    prepare(folder, tmp_path / "whole", SMALL)
    write_all, calls = packed_writer._write_all, 0

    def fill_up(stream: object, block: memoryview) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            write_all(stream, block[:100])  # type: ignore[arg-type]
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(stream, block)  # type: ignore[arg-type]

    monkeypatch.setattr(packed_writer, "_write_all", fill_up)
    said = r"64 of 200 pictures are done; the same command continues.*no space left on the device"
    with pytest.raises(StorageError, match=said):
        prepare(folder, tmp_path / "set", SMALL)
    monkeypatch.undo()
    seen: list[int] = []
    prepare(folder, tmp_path / "set", SMALL, progress=lambda _what, done, _total: seen.append(done))
    assert seen[0] == 64
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def test_too_little_space_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "p", 5)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"5 pictures need .* free some space"):
        prepare(tmp_path / "p", tmp_path / "set", SMALL)


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    fill(tmp_path / "p", 2)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"no packed set can be kept in .*a file is where a folder"):
        prepare(tmp_path / "p", tmp_path / "file" / "set", SMALL)


def test_who_comes_while_another_prepares_waits_and_finds_its_set(tmp_path: Path) -> None:
    folder, said = fill(tmp_path / "p", 2), list[str]()
    options = SMALL.model_copy(update={"cache": tmp_path / "cache"})

    def notice(text: str) -> None:
        said.append(text)
        waiting.set()

    def wait() -> tuple[PackedSet, PrepareReport | None]:
        return find_or_prepare(folder, options, say=notice)

    def make(_what: str, done: int, _total: int) -> None:
        if done == 2:  # the other one comes in the middle of the work
            others.append(pool.submit(wait))
            assert waiting.wait(60)

    waiting, others = threading.Event(), list[Future[tuple[PackedSet, PrepareReport | None]]]()
    with ThreadPoolExecutor() as pool:
        packed, report = find_or_prepare(folder, options, workers=1, progress=make)
        assert report is not None
        found, nothing = others[0].result(60)
    assert (found.path, nothing) == (packed.path, None)
    assert said == [f"another process is preparing {packed.path}: waiting for it"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [packed.path.name]


def test_who_waits_for_another_can_be_stopped(tmp_path: Path) -> None:
    fill(tmp_path / "p", 2)
    with packed_writer.partial_folder(tmp_path / "set"), pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "p", tmp_path / "set", SMALL, stop=lambda: True)
    assert prepare(tmp_path / "p", tmp_path / "set", SMALL).used == 2


def test_cache_beside_the_source_is_found_again(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", 5)
    packed, report = find_or_prepare(folder, SMALL)
    assert report is not None
    assert packed.path.parent == tmp_path / "p.progan"
    again, nothing = find_or_prepare(str(folder), SMALL.model_copy(update={"mirror": True}))
    assert nothing is None
    assert again.path == packed.path
    assert find_or_prepare(packed.path)[0].fingerprint == packed.fingerprint
    assert find_or_prepare(folder, DataOptions(resolution="8"))[0].path != packed.path
    os.utime(folder / "0000.png", (0, 0))
    touched, report = find_or_prepare(folder, SMALL)
    assert report is not None
    assert touched.path != packed.path
    assert touched.fingerprint == packed.fingerprint


def test_cache_goes_where_it_is_told_or_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "p", 5)
    packed, _ = find_or_prepare(folder, SMALL.model_copy(update={"cache": tmp_path / "cache"}))
    assert packed.path.parent == tmp_path / "cache"
    assert packed.path.name.startswith("p-")
    # A file in the way stands for a folder that cannot be written, also for root.
    (tmp_path / "p.progan").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    packed, report = find_or_prepare(folder, SMALL)
    assert report is not None
    assert packed.path.parent == tmp_path / "home" / "progan"
    assert find_or_prepare(folder, SMALL)[1] is None


def test_a_picture_that_kills_the_decoder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "p", 3)
    results = [[CRASHED, header(20, 20), header(20, 20)]]
    monkeypatch.setattr(
        "progan.preparation.pack.run_chunks",
        lambda function, *rest: (
            (one for one in results) if function is look_at else run_chunks(function, *rest)
        ),
    )
    report = prepare(folder, tmp_path / "set", SMALL)
    assert report.used == 2
    assert "damaged" in skipped(tmp_path / "set")["0000.png"]


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
def test_sets_whose_transparency_an_earlier_version_packed_are_made_anew(tmp_path: Path, mode: str) -> None:
    (tmp_path / "p").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, len(mode)), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "p" / f"{i}.png")
    first, _ = find_or_prepare(tmp_path / "p", SMALL)
    prepare(tmp_path / "p", tmp_path / "set", SMALL)
    for path in (first.path, tmp_path / "set"):
        manifest = (path / "manifest.json").read_text()
        (path / "manifest.json").write_text(
            manifest.replace('"colours_beneath": true', '"colours_beneath": false')
        )
    again, report = find_or_prepare(tmp_path / "p", SMALL)
    assert (again.path == first.path) == (mode == "RGB")
    assert (report is None) == (mode == "RGB")
    assert find_or_prepare(tmp_path / "p", SMALL)[0].path == again.path
    assert PackedSet.open(first.path).count == 3
    if mode == "RGB":
        prepare(tmp_path / "p", tmp_path / "set", SMALL)
        return
    with pytest.raises(DataError, match="set: was packed by an earlier version, which left"):
        prepare(tmp_path / "p", tmp_path / "set", SMALL)

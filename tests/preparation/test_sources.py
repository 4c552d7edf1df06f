"""Folders and archives: what is listed, what is refused, and how."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.errors import DataError
from progan.preparation.decoding import scan
from progan.preparation.formats.registry import open_pictures
from progan.preparation.pictures import describe_ignored


def save(path: Path, side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), 90, dtype=np.uint8)).save(path)
    return path


def names(path: Path) -> list[str]:
    return [item.name for item in open_pictures(path).listing().candidates]


def reasons(path: Path) -> dict[str, str]:
    return dict(open_pictures(path).listing().skipped)


def make_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_folder_is_listed_sorted_and_nested(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/z/1.JPG", "a.png", "b/10.png"):
        save(tmp_path / name)
    assert names(tmp_path) == ["a.png", "a/z/1.JPG", "b/10.png", "b/2.png"]


def test_hidden_and_other_files_are_no_pictures(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".thumbnails" / "1.png")
    for name in ("notes.txt", "labels.csv", "meta.json", "README", "more.txt"):
        (tmp_path / name).write_text("text")
    listing = open_pictures(tmp_path).listing()
    assert [item.name for item in listing.candidates] == ["1.png"]
    assert listing.skipped == []
    assert describe_ignored(listing.ignored).startswith("2 .txt, ")
    assert listing.ignored.total() == 5


def test_known_but_unsupported_and_empty_pictures_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "drawing.PSD").write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    assert "convert" in reasons(tmp_path)["drawing.PSD"]
    assert "empty" in reasons(tmp_path)["empty.png"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    root = tmp_path / "root"
    save(root / "sub" / "2.png")
    (root / "sub" / "up").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "broken.png").symlink_to(tmp_path / "nothing")
    assert names(root) == ["linked/1.png", "sub/2.png"]
    assert "leads back" in reasons(root)["sub/up/"]
    assert "no such file" in reasons(root)["broken.png"]


def test_links_do_not_lead_out_and_back_in(tmp_path: Path) -> None:
    root = tmp_path / "home" / "p"
    save(tmp_path / "home" / "private.png")
    save(root / "1.png")
    (root / "up").symlink_to("..")
    (root / "top").symlink_to("/")
    save(tmp_path / "album" / "tree" / "2.png")
    save(tmp_path / "album" / "3.png")
    (tmp_path / "album" / "tree" / "up").symlink_to("..")
    (root / "tree").symlink_to(tmp_path / "album" / "tree")
    (tmp_path / "entrance").symlink_to(root)
    for path in (root, tmp_path / "entrance"):
        assert names(path) == ["1.png", "tree/2.png"]
        assert set(reasons(path)) == {"up/", "top/", "tree/up/"}
        assert all("leads back" in reason for reason in reasons(path).values())


def test_a_folder_that_is_reached_twice_counts_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "real" / "1.png")
    save(tmp_path / "other" / "deep" / "2.png")
    (root / "a").symlink_to(root / "real")
    (root / "b").symlink_to(tmp_path / "other")
    (root / "c").symlink_to(tmp_path / "other")
    (root / "d").symlink_to(tmp_path / "other" / "deep")
    assert names(root) == ["b/deep/2.png", "real/1.png"]
    assert set(reasons(root)) == {"a/", "c/", "d/"}
    assert all("listed already" in reason for reason in reasons(root).values())


def test_pictures_are_told_by_their_contents(tmp_path: Path) -> None:
    for name, kind in (("1", "PNG"), ("2.dat", "JPEG"), ("3.blob", "WEBP"), ("4.x", "BMP"), ("5.y", "GIF")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    Image.new("RGB", (8, 8)).save(tmp_path / "6", "TIFF")
    Image.new("RGB", (8, 8)).save(tmp_path / "7", "PPM")
    Image.new("RGB", (8, 8)).save(tmp_path / "8", "JPEG2000")
    Image.new("RGB", (16, 16)).save(tmp_path / "9", "AVIF")
    for name, data in (("a.txt", b"P4 is a text"), ("b", b"BM is one, too"), ("c", b""), ("d.npy", b"RIFF")):
        (tmp_path / name).write_bytes(data)
    expected = ["1", "2.dat", "3.blob", "4.x", "5.y", "6", "7", "8", "9"]
    assert names(tmp_path) == expected
    archive = shutil.make_archive(str(tmp_path.parent / "all"), "zip", tmp_path)
    assert names(Path(archive)) == expected
    assert not [name for name in expected if isinstance(scan(open_pictures(tmp_path), name), str)]


def test_what_the_program_wrote_is_left_out_and_told(tmp_path: Path) -> None:
    save(tmp_path / "p" / "1.png")
    save(tmp_path / "p" / "recipes" / "2.png")
    (tmp_path / "p" / "recipes" / "config.yaml").touch()  # alone it is anybody's
    for folder, marks in (
        ("runs/one", ("config.yaml", "stats.jsonl")),
        ("packed", ("manifest.json", "level_0_4x4.u8")),
        ("packed.partial", ("plan.json", "level_0_4x4.u8")),
        ("hub", ("model.safetensors", "config.json")),
    ):
        save(tmp_path / "p" / folder / "samples" / "grid.png")
        for mark in marks:
            (tmp_path / "p" / folder / mark).touch()
    archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "p"))
    for source in (tmp_path / "p", archive):
        assert names(source) == ["1.png", "recipes/2.png"]
        assert sorted(open_pictures(source).listing().notes) == [
            "hub/ is an exported generator and was left out",
            "packed.partial/ is an unfinished packed set and was left out",
            "packed/ is a packed set and was left out",
            "runs/one/ is a run and was left out",
        ]


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons(tmp_path) == {"pipe.png": "not a regular file"}


def test_names_that_are_not_unicode_work(tmp_path: Path) -> None:
    save(tmp_path / "1.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    source = open_pictures(tmp_path)
    listing = source.listing()
    assert not isinstance(scan(source, listing.candidates[0].name), str)
    assert listing.digest()


def test_unreadable_folder_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "1.png")
    save(tmp_path / "closed" / "2.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["1.png"]
    assert reasons(tmp_path) == {"closed/": "the folder cannot be read: permission denied"}


def test_archive_is_listed_like_the_folder_it_was_made_of(tmp_path: Path) -> None:
    data = save(tmp_path / "1.png").read_bytes()
    path = make_zip(
        tmp_path / "set.zip",
        {"b/1.png": data, "a\\2.png": data, "x.txt": b"x", "__MACOSX/b/._1.png": b"x", "b/.h.png": data},
    )
    source = open_pictures(path)
    assert names(path) == ["a/2.png", "b/1.png"]
    assert reasons(path) == {}
    copied = pickle.loads(pickle.dumps(source))
    with copied.open("a/2.png") as stream:
        assert stream.read() == data


@pytest.mark.parametrize("name", ["/abs.png", "../up.png", "a/../../up.png", "C:\\x.png", "..\\up.png"])
def test_unsafe_paths_in_archives_are_refused(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "set.zip", {name: b"x"})
    assert list(reasons(path).values()) == ["unsafe path in the archive (absolute, or with '..')"]


def test_encrypted_entries_are_skipped(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", {"1.png": b"secret"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in reasons(path)["1.png"]


def test_zip_bombs_are_skipped(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", {"1.png": bytes(3 << 20)}, zipfile.ZIP_DEFLATED)
    assert "suspicious compression" in reasons(path)["1.png"]


def test_archives_that_are_bombs_as_a_whole_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {f"{i}.png": bytes(1 << 20) for i in range(9)}
    path = make_zip(tmp_path / "set.zip", entries, zipfile.ZIP_DEFLATED)
    assert len(names(path)) == 9
    monkeypatch.setattr("progan.preparation.formats.zip_archive.SMALL_TOTAL_BYTES", 8 << 20)
    with pytest.raises(DataError, match=r"suspicious compression: \d+ bytes would become 9437184"):
        names(path)
    # What is stored as it is, is none.
    assert len(names(make_zip(tmp_path / "set.zip", entries))) == 9


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in (("link.png", 0o120777), ("pipe.png", 0o010644), ("file.png", 0o100644)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"/etc/passwd")
    assert names(path) == ["file.png"]
    assert set(reasons(path)) == {"link.png", "pipe.png"}
    assert "a link" in reasons(path)["link.png"]


def test_damaged_directories_of_archives_are_errors_in_words(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", {"ä.png": b"x", "2.png": b"x"})
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02")
    empty = bytearray(whole)
    empty[start + 28 : start + 30] = (
        b"\0\0"  # the length of the first name; what follows is out of place then
    )
    for data in (bytes(empty), whole[:start] + whole[start:].replace("ä".encode(), b"\xff\xff")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot be read as a \.zip file"):
            names(path)


def test_damaged_entry_is_a_reason(tmp_path: Path) -> None:
    data = save(tmp_path / "1.png").read_bytes()
    path = make_zip(tmp_path / "set.zip", {"1.png": data})
    path.write_bytes(path.read_bytes().replace(data[20:40], bytes(20), 1))
    assert "damaged in the archive" in str(scan(open_pictures(path), "1.png"))


def test_what_is_no_source_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file.*give a folder"):
        open_pictures(tmp_path / "nothing")
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="in no form that is read; give a folder"):
        open_pictures(tmp_path / "a.tar")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"damaged \.zip"):
        open_pictures(tmp_path / "a.zip")


def test_digest_tells_changed_files(tmp_path: Path) -> None:
    file = save(tmp_path / "1.png")
    first = open_pictures(tmp_path).listing().digest()
    assert open_pictures(tmp_path).listing().digest() == first
    os.utime(file, ns=(1, 1))
    second = open_pictures(tmp_path).listing().digest()
    save(tmp_path / "2.png")
    assert len({first, second, open_pictures(tmp_path).listing().digest()}) == 3

"""A user without a home or an entry, and folders that nobody may write: it works, or a message says how."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from measured_commands import done, mistake
from progan.errors import StorageError
from progan.system.files import cache_folder
from tiny import options, words

TREE = options(schedule={"stabilise_kimg": [0.016], "fade_kimg": [0.016]}, run={"grid": [1, 2]})


def draw(folder: Path) -> Path:
    """Fill a folder with 16 pictures of noise."""
    folder.mkdir(exist_ok=True)
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user id that no list has, as in a container, without HOME."""

    def unknown(*_arguments: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder that cannot be written (not even by root), which is also the home."""
    folder, make = tmp_path / "closed", Path.mkdir
    folder.mkdir()

    def closed(self: Path, *arguments: object, **how: object) -> None:
        if self.is_relative_to(folder) and not self.exists():
            raise PermissionError(13, "Permission denied", str(self))
        make(self, *arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", closed)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CACHE_HOME")
    return folder


@pytest.mark.usefixtures("nobody")
def test_who_has_no_home_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "pictures")
    run = tmp_path / "run"
    done(capsys, "train", tmp_path / "pictures", *words(TREE), "--out", run)
    assert (tmp_path / "pictures.progan").is_dir()
    done(capsys, "generate", run, "--n", 2, "--out", tmp_path / "a.png")


@pytest.mark.usefixtures("nobody")
def test_who_has_no_home_is_told_where_to_keep_a_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("train", "builtin:synthetic", *words(TREE), "--data.resolution", 16, "--data.limit", 16)
    said = mistake(capsys, *arguments, "--out", tmp_path / "run")
    assert f"no entry for user id {os.getuid()}" in said
    assert "--data.cache" in said
    done(capsys, *arguments, "--out", tmp_path / "run", "--data.cache", tmp_path / "cache")
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME to a folder"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "progan"


def test_neither_source_nor_home_can_be_written(
    tmp_path: Path, unwritable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = unwritable / "pictures"
    os.mkdir(source)  # noqa: PTH102 - as `Path` must not
    draw(source)
    arguments = ("train", source, *words(TREE), "--out", tmp_path / "run")
    said = mistake(capsys, *arguments)
    for place in (unwritable / "pictures.progan", unwritable / ".cache" / "progan"):
        assert f"in {place} (no permission to write there)" in said
    assert "give a folder with --data.cache" in said
    said = mistake(capsys, "train", "builtin:synthetic", *words(TREE), "--out", tmp_path / "run")
    assert "give a folder with --data.cache" in said
    done(capsys, *arguments, "--data.cache", tmp_path / "cache")

"""The wheel and the source archive, used as somebody does who has nothing else of this project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from documented import ROOT
from said_commands import app

pytestmark = pytest.mark.slow


def run(*words: object, cwd: Path, **more: str) -> str:
    """Run a command that finds no checkout by itself; returns what it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | more,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module", name="built")
def wheel_and_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both, made from what is in version control."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("the source archive has no version control to be built from")
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta as b; b.build_wheel({out!r}); b.build_sdist({out!r})"
    run(sys.executable, "-c", build.format(out=str(out)), cwd=copy)
    return out


@pytest.fixture(scope="module", name="bin")
def fresh_environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment with the wheel, beside the packages that are here."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(place, with_pip=True)
    wheel = next(built.glob("*.whl"))
    run(place / "bin/python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=built)
    packages = next(place.glob("lib/python*/site-packages"))
    here = [path for path in sys.path if path.endswith("site-packages")]
    # After its own, so that the wheel is what is found; a checkout that is installed here is left out.
    (packages / "here.pth").write_text("\n".join(f"import sys; sys.path.append({path!r})" for path in here))
    return place / "bin"


def test_the_wheel_has_what_is_needed(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for wanted in (
        "progan/py.typed",
        "progan/config/recipes/quickstart.yaml",
        "progan/explore/page/index.html",
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_every_command_from_another_folder(bin: Path, tmp_path: Path) -> None:
    told = run(bin / "python", "-c", "import progan; print(progan.__file__)", cwd=tmp_path)
    assert str(bin.parent) in told
    for name in app:
        if not name.startswith("-"):
            assert f"progan {name}" in run(bin / "progan", name, "--help", cwd=tmp_path)
    out = tmp_path / "run"
    run(
        bin / "progan", "train", "builtin:glyphs", "--recipe", "quickstart", "--kimg", 0.032, "--out", out,
        "--resolution", 16, "--data.limit", 64, "--device", "cpu", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path),
    )  # fmt: skip
    run(bin / "progan", "generate", out, "--n", 4, "--out", "four.png", cwd=tmp_path)
    assert (tmp_path / "four.png").is_file()
    assert "Generator" in run(bin / "progan", "info", out, cwd=tmp_path)


def test_tests_of_the_source_archive(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(tmp_path.iterdir())
    for name in ("constraints.txt", "Makefile", "docs/options.md", "tests/golden", "CHANGELOG.md"):
        assert (folder / name).exists(), name
    chosen = ("tests/config/test_schema.py", "tests/test_rooms.py", "tests/cli/test_documented_commands.py")
    told = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen, cwd=folder,
               PYTHONPATH=str(folder / "src"))  # fmt: skip
    assert re.search(r"\d+ passed", told)

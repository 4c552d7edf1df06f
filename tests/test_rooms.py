"""The rooms of the package and of its tests: small, mirrored, and with names that are found."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "src" / "progan", ROOT / "tests"
LARGEST = 14
"""Modules in a folder that can be overlooked."""
OWN = {"helpers", "fuzz", "golden"}
"""Folders of the tests that stand for no room."""


def folders(of: Path) -> list[Path]:
    return [
        path for path in of.iterdir() if path.is_dir() and path.name.isidentifier() and path.name[0] != "_"
    ]


def modules(of: Path) -> list[Path]:
    return [path for path in of.glob("*.py") if path.name != "__init__.py"]


def test_no_folder_has_too_many_modules() -> None:
    counts = {path.parent: len(modules(path.parent)) for path in PACKAGE.rglob("__init__.py")}
    assert len(counts) > 10
    assert {folder.name: count for folder, count in counts.items() if count > LARGEST} == {}


def test_tests_have_the_folders_of_the_package() -> None:
    rooms = {path.name for path in folders(PACKAGE) if modules(path)}
    mirrored = {path.name for path in folders(TESTS) if any(path.rglob("test_*.py"))} - OWN
    assert mirrored <= rooms, "a folder of tests that stands for no room"
    assert rooms <= mirrored, "a room without tests"


def test_a_test_is_found_by_its_name() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_tests_share_is_a_helper() -> None:
    """No test imports another one."""
    names = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {part for name in found for part in name.split(".")} & names, path

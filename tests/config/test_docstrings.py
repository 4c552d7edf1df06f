"""Docstrings and comments of the package say what is meant instead of sending the reader somewhere else."""

from __future__ import annotations

import re
from pathlib import Path

import progan

REFERENCE = re.compile(r"\b(?:As in|See) [`\"(A-Za-z]|\bas in `[\w.]+`")


def test_docstrings_and_comments_stand_alone() -> None:
    package = Path(progan.__file__).parent
    found = [
        f"{file.relative_to(package)}:{number}: {line.strip()}"
        for file in sorted(package.rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if REFERENCE.search(line)
    ]
    assert not found, "\n".join(found)

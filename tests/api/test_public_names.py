"""Every public name is there, is typed and explained, and is in the reference."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import progan

REFERENCE = Path(__file__).parents[2] / "docs" / "api.md"
NAMES = [name for name in progan.__all__ if not name.startswith("__")]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_explained(name: str) -> None:
    found = getattr(progan, name)
    assert (inspect.getdoc(found) or "").strip()
    assert re.search(rf"^::: progan\.\S+\.{name}$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_list_is_whole() -> None:
    assert set(dir(progan)) == set(progan.__all__)
    assert sorted(progan.__all__) == progan.__all__

"""Packed sets of sources, made if they are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from progan.config import DataOptions
from progan.data.packed import PackedSet
from progan.preparation.pack import Request
from progan.preparation.report import PrepareReport
from progan.preparation.source import open_source


def find_or_prepare(
    source: str | Path, options: DataOptions | None = None, **asked: Any
) -> tuple[PackedSet, PrepareReport | None]:
    """Return the packed set of a source, and the report if this call made it."""
    return open_source(source).find(Request(options or DataOptions(), **asked))

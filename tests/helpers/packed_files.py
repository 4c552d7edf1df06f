"""Packed sets, edited on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from progan.data.packed import PackedSet


def edit_manifest(path: Path, **values: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def widen(packed: PackedSet) -> None:
    """Turn a set into one of 16 bits."""
    for level in range(3):
        old = packed.path / packed.manifest.level_file(level)
        wide = np.fromfile(old, dtype=np.uint8).astype("<u2") * 257
        wide.astype("<u2").tofile(old.with_suffix(".u16"))
        old.unlink()
    edit_manifest(packed.path, dtype="uint16")

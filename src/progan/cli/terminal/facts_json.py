"""What `progan info` knows, for other programs: its sentences, and the numbers in them as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from progan.data.packed import PackedSet, is_packed
from progan.models.hub import locate
from progan.models.loading import load_network
from progan.models.weights import Own
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.system.tensor_file import read_header


def facts_json(path: str | Path, facts: dict[str, str], own: Own = ()) -> str:
    """Return facts as JSON, with the numbers under `numbers`.

    Args:
        path: What they are of: run folder, weight file, checkpoint or packed set.
        facts: What `progan info` prints, by name.
        own: Networks of one's own, one of which it may be.
    """
    named = {name.replace(" ", "_"): value for name, value in facts.items()}
    return json.dumps({**named, "numbers": _numbers(Path(path), own)}, indent=2)


def _numbers(path: Path, own: Own) -> dict[str, Any]:
    if path.is_dir() and RunFolder(path).exists():
        record, _ = checkpoint.newest_record(RunFolder(path).checkpoints)
        return {} if record is None else _clock(record)
    if path.is_dir() and is_packed(path):
        packed = PackedSet.open(path)
        parts = {part: len(packed.indices(part)) for part in ("train", "validation", "test")}
        sizes = [list(packed.resolution(level)) for level in range(packed.max_level + 1)]
        return {"pictures": packed.count, **parts, "channels": packed.channels, "resolutions": sizes}
    file = locate(path)
    if read_header(file).get("format") == checkpoint.FORMAT:
        return _clock(checkpoint.load(file)[0])
    network = load_network(file, own=own)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "resolution": list(network.resolution()),
        "channels": network.channels,
        "level": network.config()["level"],
        "alpha": network.config()["alpha"],
        "max_level": network.max_level,
        "labels": network.label_size,
    }


def _clock(record: checkpoint.Record) -> dict[str, Any]:
    """Return how far a run got."""
    return {
        "images_seen": record.images_seen,
        "phase": record.phase,
        "level": record.level,
        "alpha": record.alpha,
    }

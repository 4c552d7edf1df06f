"""Any number of samples to disk; the ending of the name chooses the form."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.config import format_resolution
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import ConfigError
from progan.generation.grids import check_grid, check_picture_channels, save_grid
from progan.generation.image_files import (
    count_whole,
    picture_name,
    remove_leftovers_of,
    save_folder,
    save_npy,
    save_zip,
)
from progan.generation.label_arguments import Label, written_label
from progan.generation.sampling import digest, level_of, whole
from progan.generation.together import generate_together
from progan.models.generator import Generator
from progan.system.files import parse_json, write_text
from progan.system.progress import Progress, reported, unheard

MANIFEST = "samples.json"
_FILES = (".npy", ".zip", ".png")
_OTHER_FILES = (".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".npz", ".tar", ".gz", ".mp4")


def save_samples(
    G: Generator,
    out: str | Path,
    n: int,
    *,
    seed: int = 0,
    label: Label | None = None,
    level: int | None = None,
    batch_size: int | None = None,
    progress: Progress = unheard,
    ranks: Ranks = ALONE,
) -> Path:
    """Make `n` samples and write them, never holding more than a few batches (but for a `.png` grid).

    Args:
        G: The generator, on the device that is to make them.
        out: `x.png`: all samples in one grid. `x.npy`: one uint8 array [n, C, H, W]. `x.zip`: numbered
            PNGs. Anything else: a flat folder of PNGs, which holds nothing else that is a picture, for tools
            that compute FID from it. An interrupted folder is completed by the same call; a larger `n`
            extends it. Its `samples.json` says what it holds, so that no other samples are mixed in.
        n: Number of samples, at least 1.
        seed, label, level, batch_size: The arguments of `generate`.
        progress: Told how many are made.
        ranks: The processes that make them together, each with its own G; the first writes.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if an argument cannot be used or the folder holds something else.
        StorageError: if it cannot be written.
    """
    out, n, seed = Path(out), whole("n", n, least=1), whole("seed", seed)
    level = level_of(G, level)
    form = _form(out)
    if form == ".png":
        check_grid(n, G.channels, G.resolution(level))
    elif form != ".npy":
        check_picture_channels(G.channels)

    done = 0
    if form == "folder":
        manifest = _manifest(G, seed, label, level)
        done = ranks.broadcast(_resume(out, n, manifest) if ranks.first else 0)
    batches: Iterator[NDArray[np.uint8]] = generate_together(
        ranks, G, n - done, seed=seed, start=done, label=label, level=level, batch_size=batch_size
    )
    if not ranks.first:
        deque(batches, maxlen=0)
        return out
    batches = reported(batches, progress, "generating", n, done=done)
    remove_leftovers_of(out / MANIFEST if form == "folder" else out)
    if form == ".npy":
        save_npy(batches, out, (n, G.channels, *G.resolution(level)))
    elif form == ".zip":
        save_zip(batches, out)
    elif form == ".png":
        save_grid(np.concatenate(list(batches)), out)
    else:
        write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        save_folder(batches, out, done)
    return out


def _form(out: Path) -> str:
    """Return the ending of a file that can be written, or 'folder'."""
    ending = out.suffix.lower()
    if ending in _FILES:
        if out.is_dir():
            raise ConfigError(
                f"{out} is a folder; give a file name, or a folder that does not end in {ending}"
            )
        return ending
    if ending in _OTHER_FILES or out.is_file():
        raise ConfigError(
            f"{out}: samples are written to a folder, or to a file ending in {', '.join(_FILES)}"
        )
    return "folder"


def _manifest(G: Generator, seed: int, label: Label | None, level: int) -> dict[str, Any]:
    """Return what decides every picture of a folder but their number."""
    return {
        "generator": digest(G),
        "resolution": format_resolution(G.resolution(level)),
        "label": None if label is None else written_label(G, label),
        "seed": seed,
    }


def _resume(folder: Path, n: int, manifest: dict[str, Any]) -> int:
    """Return how many of the samples are in the folder already.

    A ConfigError tells of pictures that are not those of `manifest`, or of more than `n`.
    """
    if not folder.is_dir() or not any(folder.glob("*.png")):
        return 0
    try:
        found = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"{folder} holds pictures of another origin; give a new or an empty folder"
        ) from None
    if found != manifest:
        differences = [
            key for key in manifest if not isinstance(found, dict) or found.get(key) != manifest[key]
        ]
        raise ConfigError(
            f"{folder} holds samples of another {', '.join(differences)}; give a new or an empty folder"
        )
    if (folder / picture_name(n)).exists():
        raise ConfigError(
            f"{folder} holds more than {n} of these samples already; give a new or an empty folder"
        )
    return min(count_whole(folder), n)

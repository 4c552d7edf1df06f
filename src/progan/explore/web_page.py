"""The page on which a visitor's own browser runs a generator: static files, written once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from progan.config import format_resolution
from progan.data.pixels import to_image
from progan.errors import ConfigError
from progan.explore.directions import Direction
from progan.explore.runtime import PUBLIC, RUNTIMES, copy_runtime
from progan.generation.samples import of_seeds
from progan.generation.sampling import render
from progan.interop.export import export
from progan.models.generator import Generator
from progan.models.weights import fingerprint
from progan.system.files import atomic_path, write_text
from progan.system.progress import Progress, unheard
from progan.version import __version__

SEEDS = 256
"""Samples whose latents go into the page, so that its seeds are those of `progan generate --seeds`."""

STATIC = ("index.html", "page.css", "page.js", "engine.js", "latents.js", "worker.js")

PREVIEWS = 24
"""Pictures that a page shows before the runtime is there: those of its first seeds."""

_PREVIEW_SIDE, _EXACT_SIDE = 128, 64
"""Pixels of the larger side of such a picture at most, and up to which it is kept without loss."""


@dataclass(frozen=True)
class About:
    """What a page says of its generator.

    Attributes:
        title: Its head.
        facts: Pairs of a word and a text.
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)


def write_page(
    G: Generator,
    folder: str | Path,
    about: About | str = "A generator",
    *,
    directions: Sequence[Direction] = (),
    offline: bool = False,
    progress: Progress = unheard,
) -> Path:
    """Write a page, which needs no server of its own: any host of files serves it.

    Args:
        G: The generator.
        folder: Gets `index.html` and what it needs, among it an ONNX file for each level, and a `README.md`
            by which a Hugging Face Space knows that it is static.
        about: What the page says, or its head alone.
        directions: Its sliders.
        offline: Put the runtime's files into the folder, in place of their public address.
        progress: Told of what is written.

    Returns:
        `index.html`.

    Raises:
        ConfigError: if images of so many channels cannot be shown.
        DependencyError: if a package of the extra `onnx` is missing, or the runtime cannot be had.
        CheckpointError: if ONNX Runtime makes other images than PyTorch.
        StorageError: if something cannot be written.
    """
    folder, about = Path(folder), About(about) if isinstance(about, str) else about
    if not 1 <= G.channels <= 4:
        raise ConfigError(f"images of {G.channels} channels cannot be shown on a page (1 to 4 can)")
    levels = []
    for level in range(G.level + 1):
        progress("exporting levels", level, G.level + 1)
        name = f"level-{level}.onnx"
        export(G, folder / name, "onnx", level=level, folded=True)
        levels.append({"file": name, "size": list(G.resolution(level))})
    z, labels = of_seeds(G, range(SEEDS)).rows(0, SEEDS)
    with atomic_path(folder / "latents.bin") as temporary:
        temporary.write_bytes(z.numpy().astype("<f4").tobytes())
    preview = _write_preview(G, folder / "preview.webp", z[:PREVIEWS], labels)
    if offline:
        copy_runtime(folder, progress)
    model = {
        "latent": G.latent_size,
        "seeds": SEEDS,
        "levels": levels,
        "preview": {"count": PREVIEWS, "size": preview},
        "directions": [_slider(way) for way in directions],
        "weights": fingerprint(G.trimmed()),  # by which `progan push` knows whose page it is
        "runtime": _runtime("" if offline else PUBLIC),
        **_labels(G, labels),
    }
    words = {"title": about.title, "subtitle": _subtitle(G), "facts": [list(pair) for pair in about.facts]}
    write_text(
        folder / "model.js",
        f"export const model = {json.dumps(model)};\nexport const about = {json.dumps(words)};\n",
    )
    for name in STATIC:
        write_text(folder / name, (files("progan.explore") / "page" / name).read_text(encoding="utf-8"))
    write_text(folder / "README.md", _readme(about))
    return folder / "index.html"


def _slider(way: Direction) -> dict[str, Any]:
    return {"name": way.name, "vector": [round(number, 6) for number in way.vector.tolist()]}


def _write_preview(G: Generator, path: Path, z: torch.Tensor, labels: torch.Tensor | None) -> list[int]:
    """Write pictures of latents with the first label side by side, and return height and width of each."""
    marks = None if labels is None else labels[:1].expand(len(z), -1)
    pictures = [to_image(image) for image in render(G, z, marks)]
    side = max(pictures[0].size)
    factor = min(1.0, _PREVIEW_SIDE / side)
    width, height = (max(1, round(n * factor)) for n in pictures[0].size)
    mode = "RGBA" if G.channels in (2, 4) else "RGB"
    sheet = Image.new(mode, (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        shown = picture.convert(mode)
        sheet.paste(
            shown if factor == 1 else shown.resize((width, height), Image.Resampling.LANCZOS), (i * width, 0)
        )
    with atomic_path(path) as temporary:
        sheet.save(temporary, "WEBP", lossless=side <= _EXACT_SIDE, exact=True, quality=90)
    return [height, width]


def _runtime(place: str) -> dict[str, dict[str, str]]:
    return {
        name: {
            "script": f"{place}{script.name}",
            "script_integrity": script.integrity,
            "wasm": f"{place}{wasm.name}",
            "wasm_integrity": wasm.integrity,
        }
        for name, (script, wasm) in RUNTIMES.items()
    }


def _labels(G: Generator, drawn: torch.Tensor | None) -> dict[str, Any]:
    """Return what the page is to know of labels; it begins with that of seed 0."""
    if drawn is None:
        return {"labels": 0, "form": "class", "label_names": [], "label": []}
    names = list(G.label_names) or [str(i) for i in range(G.label_size)]
    return {
        "labels": G.label_size,
        "form": G.label_form,
        "label_names": names,
        "label": drawn[0].tolist(),
    }


def _subtitle(G: Generator) -> str:
    millions = sum(weight.numel() for weight in G.parameters()) / 1e6
    return (
        f"A progressively grown GAN that makes pictures of {format_resolution(G.resolution())} from "
        f"{G.latent_size} numbers, with {millions:,.1f} million weights, in your browser"
    )


def _readme(about: About) -> str:
    title = json.dumps(about.title)
    facts = "\n".join(f"- {name}: {text}" for name, text in about.facts)
    return (
        f"---\ntitle: {title}\nsdk: static\napp_file: index.html\n"
        # Only a page that is shut off from others may use threads.
        "custom_headers:\n  cross-origin-embedder-policy: require-corp\n"
        "  cross-origin-opener-policy: same-origin\n---\n\n"
        "A page on which the visitor's browser runs a generator; any host of static files serves it.\n"
        f"Made by progan {__version__}.\n\n{facts}\n"
    )

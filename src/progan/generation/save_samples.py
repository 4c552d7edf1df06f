"""Any number of samples to disk; the ending of the name chooses the form."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from progan.config import format_resolution
from progan.data.showing import Sight
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import ConfigError
from progan.generation.grids import check_grid, grid_factor, save_grid
from progan.generation.image_files import (
    Written,
    remove_leftovers_of,
    save_folder,
    save_npy,
    save_npz,
    save_zip,
)
from progan.generation.label_arguments import Label
from progan.generation.picture_form import Format, PictureForm, Resample
from progan.generation.samples import Samples, of_seed
from progan.generation.sampling import digest, level_of, whole
from progan.generation.together import generate_together
from progan.generation.truncation import Truncation
from progan.models.generator import Generator
from progan.system.files import parse_json, write_text
from progan.system.progress import Progress, reported, unheard

MANIFEST = "samples.json"
GRIDS = (".png", ".jpg", ".jpeg", ".webp")
_FILES = (".npy", ".npz", ".zip", *GRIDS)
_OTHER_FILES = (".gif", ".tif", ".tiff", ".bmp", ".tar", ".gz", ".mp4", ".webm")


@dataclass(frozen=True)
class Layout:
    """How samples are laid out and written.

    Attributes:
        format: Of the pictures in a folder or zip: png, jpg, webp or tiff; None: png, with more than 4
            channels tiff. A grid's file name says its own.
        scale: The whole factor that each picture is enlarged by; None: 1, and in a grid what makes it 64
            pixels at least.
        resample: nearest or lanczos.
        columns: Pictures in a row of a grid; None for about as many as there are rows.
        captions: What stands beside the pictures of a grid: names of classes, seeds, or nothing.
        depth: Bits of a value; None: those of the pictures that the generator was trained on. A grid has 8.
        sight: Which channels a grid shows, and on what ground.
    """

    format: Format | None = None
    scale: int | None = None
    resample: Resample = "nearest"
    columns: int | None = None
    captions: Literal["labels", "seeds", "none"] = "labels"
    depth: Literal[8, 16] | None = None
    sight: Sight = field(default_factory=Sight)

    def bits(self, G: Generator, form: str) -> int:
        """Return the bits of a value of the pictures of a generator, written in a form."""
        return 8 if form in GRIDS else (self.depth or G.depth)


def save_samples(
    G: Generator,
    out: str | Path,
    n: int | Samples,
    *,
    seed: int = 0,
    label: Label | None = None,
    level: int | None = None,
    batch_size: int | None = None,
    trunc: float = 1.0,
    layout: Layout | None = None,
    progress: Progress = unheard,
    ranks: Ranks = ALONE,
) -> Path:
    """Make samples and write them, never holding more than a few batches (but for a grid and an `.npz`).

    Args:
        G: The generator, on the device that is to make them.
        out: `x.png`, `x.jpg`, `x.webp`: all samples in one grid. `x.npy`: one uint8 array [n, C, H, W].
            `x.npz`: the same as `images`, with the latents `z` and `labels` that they were made of. `x.zip`:
            numbered pictures. Anything else: a flat folder of pictures, which holds nothing else that is a
            picture, for tools that compute FID from it. An interrupted folder is completed by the same call;
            a larger `n` extends it. Its `samples.json` says what it holds, so that no other samples are mixed
            in. Each picture's metadata says what makes it again.
        n: Number of samples, at least 1, or which.
        seed, label: As `generate` takes them; of no meaning if `n` says which.
        level, batch_size: As `generate` takes them.
        trunc: psi of `Truncation`; 1 leaves pictures as they are.
        layout: Format, scale and columns.
        progress: Told how many are made.
        ranks: The processes that make them together, each with its own G; the first writes.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if an argument cannot be used or the folder holds something else.
        StorageError: if it cannot be written.
    """
    samples = n if isinstance(n, Samples) else of_seed(G, n, seed, () if label is None else (label,))
    out, n, layout, level = (
        Path(out),
        whole("n", samples.count, least=1),
        layout or Layout(),
        level_of(G, level),
    )
    form = _form(out)
    picture_form = _check_form(G, form, n, G.resolution(level), layout)
    made_by, bits = digest(G), layout.bits(G, form)
    make = Truncation(G, trunc)
    common = {"resolution": format_resolution(G.resolution(level)), "generator": made_by[:16]}
    if trunc != 1:
        common["trunc"] = f"{trunc:g}"
    written = Written(picture_form, samples.stem, lambda i: samples.facts(i) | common)
    done = 0
    if form == "folder":
        manifest = _manifest(samples, made_by, G.resolution(level), picture_form, trunc, bits)
        done = ranks.of_first(lambda: _resume(out, samples, manifest, written))

    def take(made: Iterable[NDArray[Any]]) -> None:
        batches = reported(made, progress, "generating", n, done=done)
        remove_leftovers_of(out / MANIFEST if form == "folder" else out)
        if form == "folder":
            write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
            save_folder(batches, out, done, written)
        else:
            _save_file(G, out, batches, samples, layout, written, common)

    batches = generate_together(
        ranks, G, samples, start=done, level=level, batch_size=batch_size, make=make, depth=bits
    )
    ranks.first_takes(batches, take)
    return out


def _save_file(
    G: Generator,
    out: Path,
    batches: Iterator[NDArray[Any]],
    samples: Samples,
    layout: Layout,
    written: Written,
    common: dict[str, str],
) -> None:
    """Write samples to one file, in the form that its ending names."""
    ending = out.suffix.lower()
    if ending == ".npy":
        first = next(batches)
        shape = (samples.count, *first.shape[1:])
        save_npy(itertools.chain([first], batches), out, shape, layout.bits(G, ending))
    elif ending == ".npz":
        z, labels = samples.rows(0, samples.count)
        arrays = {"images": np.concatenate(list(batches)), "z": z.numpy()}
        save_npz(out, arrays if labels is None else arrays | {"labels": labels.numpy()})
    elif ending == ".zip":
        save_zip(batches, out, written)
    else:
        facts = {"grid of": samples.count, **samples.origin, **common}
        save_grid(
            np.concatenate(list(batches)), out, layout.columns, form=written.form,
            captions=captions_of(G, samples, layout.captions), facts=facts, sight=layout.sight,
        )  # fmt: skip


def captions_of(G: Generator, samples: Samples, what: str) -> list[str]:
    """Return a name for each sample: of its class or classes, its seed, or none."""
    if what == "seeds":
        return [_origin(samples.facts(i)) for i in range(samples.count)]
    if what != "labels" or not G.label_names or G.label_form == "vector":
        return []
    labels = samples.rows(0, samples.count)[1]
    if labels is None:
        return []
    return [", ".join(G.label_names[i] for i in row.nonzero().flatten().tolist()) for row in labels]


def _origin(facts: dict[str, Any]) -> str:
    """Say in a word or two which sample this is."""
    if "seed" not in facts:
        return str(facts.get("latents", ""))[:8]
    return f"{facts['seed']}" if facts.get("sample", 0) == 0 else f"{facts['seed']}:{facts['sample']}"


def _check_form(G: Generator, form: str, n: int, size: tuple[int, int], layout: Layout) -> PictureForm:
    """Return how each picture is written.

    Raises:
        ConfigError: if that is not possible, or an option does not fit the form.
    """
    scale = layout.scale or (grid_factor(size) if form in GRIDS else 1)
    usual: Format = "png" if G.channels <= 4 else "tiff"
    picture_form = PictureForm(layout.format or usual, scale, layout.resample)
    if form in GRIDS:
        layout.sight.check(G.channels)
        check_grid(n, size, scale)
        return picture_form
    if layout.columns is not None:
        raise ConfigError(f"a grid is one picture: write to a file ending in {', '.join(GRIDS)}")
    if form in (".npy", ".npz"):
        if layout.scale not in (None, 1):
            raise ConfigError(f"arrays hold pictures as they are made; leave --scale {layout.scale} out")
        return picture_form
    picture_form.check_pixels(G.channels, layout.bits(G, form))
    picture_form.check_size(size)
    return picture_form


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


def _manifest(
    samples: Samples, made_by: str, size: tuple[int, int], form: PictureForm, trunc: float, bits: int
) -> dict[str, Any]:
    """Return what decides every picture of a folder but their number."""
    manifest = {"generator": made_by, "resolution": format_resolution(size), **samples.origin}
    if form != PictureForm():
        manifest["form"] = asdict(form)
    if trunc != 1:
        manifest["trunc"] = trunc
    if bits != 8:
        manifest["depth"] = bits
    return manifest


def _resume(folder: Path, samples: Samples, manifest: dict[str, Any], written: Written) -> int:
    """Return how many of the samples are in the folder already.

    Raises:
        ConfigError: if it holds pictures that are not those of `manifest`, or more of them.
    """
    n = samples.count
    pictures = (path for path in folder.glob("*") if path.suffix in (".png", ".jpg", ".webp", ".tiff"))
    if not folder.is_dir() or not any(pictures):
        return 0
    try:
        found = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"{folder} holds pictures of another origin; give a new or an empty folder"
        ) from None
    if found != manifest:
        differences = [
            key
            for key in {**manifest, **(found if isinstance(found, dict) else {})}
            if not isinstance(found, dict) or found.get(key) != manifest.get(key)
        ]
        raise ConfigError(
            f"{folder} holds samples of another {', '.join(differences)}; give a new or an empty folder"
        )
    if not samples.named and len(list(folder.glob(f"*.{written.form.format}"))) > n:
        raise ConfigError(
            f"{folder} holds more than {n} of these samples already; give a new or an empty folder"
        )
    return written.count_whole(folder, n)

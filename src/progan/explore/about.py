"""What a page says of its generator, and the sliders that it has."""

from __future__ import annotations

from pathlib import Path

from progan.config import format_resolution
from progan.data.packed import read_manifest
from progan.errors import DataError, ProganError
from progan.explore.directions import FILE, Direction, find_directions, folder_of, read
from progan.explore.web_page import About
from progan.generation.label_arguments import describe_labels
from progan.models.generator import Generator
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.system.progress import Progress, unheard
from progan.version import __version__

_SLIDERS = 4
"""By each method, where no directions were found before."""


def about_of(path: Path, G: Generator, title: str | None = None, images_seen: int | None = None) -> About:
    """Return what is known of a generator: of its run, where it is of one, and of its network.

    Args:
        path: Its run folder, or what else it was loaded from.
        G: The generator.
        title: How it is to be called; None: as its run or file.
        images_seen: Of a run: which of its generators it is; None for the newest.
    """
    facts = [("Pictures", f"{format_resolution(G.resolution())}, {G.channels} channels")]
    if G.label_size:
        facts.append(("Labels", describe_labels(G.label_form, G.label_names[:20], G.label_size)))
    name, run = path.stem, RunFolder(path)
    if run.exists():
        name = path.resolve().name
        record, _ = checkpoint.newest_record(run.checkpoints)
        newest = None if record is None else record.images_seen
        facts += _facts_of_run(run, newest if images_seen is None else images_seen)
    facts.append(("Made by", f"progan {__version__}"))
    return About(title or name, facts)


def _facts_of_run(run: RunFolder, images_seen: int | None) -> list[tuple[str, str]]:
    """Return what a run says of itself; nothing of where its files are on this machine."""
    facts = []
    try:
        config, dataset = run.config(), run.dataset()
    except ProganError:  # a page of what there is
        return []
    source = dataset.source if dataset.source.startswith("builtin:") else Path(dataset.source).name
    try:
        count = f"{read_manifest(Path(dataset.packed)).count:,} pictures, "
    except DataError:
        count = ""
    facts.append(("Trained on", f"{count}{source}"))
    if images_seen is not None:
        facts.append(("Training", f"{images_seen:,} images shown, {config.schedule.growth} growth"))
    facts.append(("Loss", str(config.loss.adversarial)))
    return facts


def directions_of(
    path: Path, G: Generator, progress: Progress = unheard, images_seen: int | None = None
) -> list[Direction]:
    """Return the directions that were found for a generator; where none were, those that are found quickly.

    Args:
        path, G, images_seen: As `about_of` takes them.
        progress: Told of the search.

    Raises:
        DataError: if there are some that cannot be read, or are for other latents.
    """
    file = folder_of(path, images_seen) / FILE
    if file.is_file():
        return read(file, G.latent_size)
    return find_directions(G, min(_SLIDERS, G.latent_size), progress=progress)

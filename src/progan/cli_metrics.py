"""The commands that measure: a generator against pictures, and one set of images against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from progan.cli_config import say
from progan.cli_progress import interruptible
from progan.cli_results import print_results
from progan.config import parse_resolution
from progan.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from progan.evaluation.choice import ExtractorFile, Extractors
    from progan.evaluation.generated import GeneratedImages
    from progan.evaluation.images import ImageSet
    from progan.metrics.extractor_files import Inception
    from progan.metrics.extractors import Extractor
    from progan.training.distributed import Ranks
    from progan.training.run_folder import RunFolder

GAP = "duality_gap"
"""The metric that is of a run's two networks, and not of a set of images."""
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What both commands are told about how to measure; the words beside each option are its help."""

    metrics: Annotated[
        tuple[str, ...],
        Parameter(
            help="Any of swd, ms_ssim, fid, kid, is, pr, of generators ppl, and of runs duality_gap.",
            show_default=" ".join,
        ),
    ] = ("swd", "ms_ssim")
    num_images: Annotated[
        int | None,
        Parameter(help="Images to measure; default: 16,384, or fewer if a set has fewer."),
    ] = None
    num_reals: Annotated[int | None, Parameter(help="Images to compare with; default: as many.")] = None
    seed: Annotated[
        int | None,
        Parameter(
            help="Of samples, the choice of images, and the metrics; default: 0, for duality_gap the run's."
        ),
    ] = None
    resolution: Annotated[
        str | None,
        Parameter(
            help="Size to measure at, 64 or 64x96; default: the highest of generators and packed sets."
        ),
    ] = None
    extractor: Annotated[
        Path | None,
        Parameter(
            help="Network for all but swd and ms_ssim, TorchScript or torch.export; default: Inception, in "
            "the cache."
        ),
    ] = None
    resize: Annotated[
        str,
        Parameter(help="How images are resized for the extractor: none, or such as bilinear-antialias:224."),
    ] = "none"
    normalise: Annotated[
        str, Parameter(help="How pixels are scaled for it: 0..255, 0..1, -1..1 or imagenet.")
    ] = "0..255"
    download: Annotated[Flag, Parameter(help="Fetch the Inception network if it is not in the cache.")] = (
        False
    )
    device: Annotated[str, Parameter(help="auto, cpu, cuda, mps, ...")] = "auto"
    force: Annotated[Flag, Parameter(help="Compute again what is known.")] = False

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) to measure at, or None."""
        return None if self.resolution is None else parse_resolution(self.resolution)

    @property
    def seed_of_images(self) -> int:
        """Seed of everything but the duality gap."""
        return 0 if self.seed is None else self.seed

    def place(self, own: int = 0) -> torch.device:
        """Return the device to compute on; `own` as for `choose_device`."""
        from progan.training.checks import choose_device

        return choose_device(self.device, own)

    def network(self) -> ExtractorFile:
        """Return the extractor, not loaded yet."""
        from progan.evaluation.choice import ExtractorFile

        return ExtractorFile(self.extractor, self.resize, self.normalise, self.download)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GapTraining:
    """How the copies of the duality gap are trained, where that differs from the run's configuration."""

    gap_steps: Annotated[
        int | None,
        Parameter(help="Of duality_gap: updates of each copy; default: monitor.gap_steps of the run."),
    ] = None
    gap_lr: Annotated[
        float | None,
        Parameter(help="Of duality_gap: learning rate of the copies; default: monitor.gap_lr of the run."),
    ] = None


AS_USUAL, GAP_AS_USUAL = Measuring(), GapTraining()


def evaluate(
    path: Path,
    *,
    data: Path | None = None,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    part: str | None = None,
    mirror: Annotated[bool | None, Parameter(negative="--no-mirror")] = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    neighbours: Path | None = None,
    copies: GapTraining = GAP_AS_USUAL,
    measuring: Measuring = AS_USUAL,
) -> None:
    """Measure a generator against real pictures; a number that is known already is not computed again.

    Under torchrun, all processes make the samples.

    Parameters
    ----------
    path
        Run folder or weight file.
    data
        Real pictures: folder, .zip, packed set or .npy file; default: those that the run was trained on.
    label
        Label of the samples, as in `progan generate`; default: any.
    part
        Of a packed set: train, validation, test or all; default: what the run was trained on.
    mirror
        Flip half of the reals; default: as the run was trained.
    out
        File of results; default: metrics.jsonl in the run folder, and none for a weight file.
    neighbours
        Also write a picture (.png): samples, each with the reals that are nearest to it in the extractor's
        features.
    """
    from progan.training.distributed import join

    others: dict[str, object] = {
        "label": label,
        "part": part,
        "mirror": mirror,
        "resolution": measuring.resolution,
    }
    with join() as ranks:
        others |= {"num-reals": measuring.num_reals}
        gap = _gap_of(ranks, path, data, out, measuring, copies, others)
        measuring = replace(measuring, metrics=tuple(name for name in measuring.metrics if name != GAP))
        if gap is not None and not measuring.metrics and neighbours is None:
            if ranks.first:
                gap()
            return
        with _samples(ranks, path, measuring, label) as images:
            if images is not None:
                _evaluate(ranks, images, path, data, part, mirror, out, neighbours, measuring, gap)


def _evaluate(
    ranks: Ranks,
    images: ImageSet,
    path: Path,
    data: Path | None,
    part: str | None,
    mirror: bool | None,
    out: Path | None,
    neighbours: Path | None,
    measuring: Measuring,
    gap: Callable[[], None] | None,
) -> None:
    """Measure the samples of the generator at `path`, and print; `evaluate` explains the rest."""
    from progan.evaluation.places import open_images
    from progan.evaluation.results import FILE
    from progan.training.run_folder import RunFolder

    run, place, seed = RunFolder(path), measuring.place(), measuring.seed_of_images
    if run.exists():
        images.about["images_seen"] = _images_seen(run)
        out = out or run.path / FILE
        data, part, mirror = _as_trained(run, data, part, mirror)
    size = (images.shape[1], images.shape[2])
    reals = None
    if data is not None:
        part = part or "train"
        reals = open_images(data, size=size, part=part, mirror=bool(mirror), seed=seed + 1, device=place)
    if neighbours is None:
        _measure(ranks, images, reals, measuring, out, _network(ranks, measuring, gap), gap)
        return
    if data is None or neighbours.suffix.lower() != ".png":
        raise ConfigError(f"--neighbours {neighbours}: give reals to look at (--data), and a name with .png")
    # Not mirrored: a copy of a picture would not be found near its mirror image.
    plain = open_images(data, size=size, part=part or "train", seed=seed + 1, device=place)
    _with_neighbours(ranks, images, reals, measuring, out, (plain, neighbours), gap)


def compare(
    a: Path,
    b: Path,
    *,
    part: str = "train",
    mirror: Flag = False,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    measuring: Measuring = AS_USUAL,
) -> None:
    """Measure one set of images against another. Each is a folder, .zip, packed set, .npy file or generator.

    Parameters
    ----------
    a
        The set that takes the part of the reals.
    b
        The set that is measured against it.
    part
        Of packed sets: train, validation, test or all.
    mirror
        Flip half of A.
    out
        File of results; default: none is written.
    """
    from progan.evaluation.places import open_images
    from progan.training.distributed import ALONE

    if GAP in measuring.metrics:
        raise ConfigError(
            f"{GAP} is of the two networks of a run, not of two sets: progan evaluate RUN --metrics {GAP}"
        )
    place, size, seed = measuring.place(), measuring.size, measuring.seed_of_images
    images = open_images(b, size=size, part=part, seed=seed, device=place)
    # Another seed, so that two generators share no latents.
    reals = open_images(a, size=size, part=part, mirror=mirror, seed=seed + 1, device=place)
    _measure(ALONE, images, reals, measuring, out, measuring.network())


@contextmanager
def _samples(
    ranks: Ranks, path: Path, options: Measuring, label: str | None
) -> Iterator[GeneratedImages | None]:
    """Give the first process the samples of a generator, which all of them make.

    The others make what it asks for until its block has ended; then they get None.
    """
    from progan.training.making import follow, leading

    # Each process loads the weights, which a training may replace meanwhile.
    images = ranks.in_turn(
        lambda: _open_generator(path, options, label, ranks.device(options.place(ranks.local_rank))),
        lambda images: {"the generator and its samples": images.fingerprint},
    )
    if ranks.first:
        with leading(ranks) as images.deal:
            yield images
    else:
        follow(ranks, images.read, images.shape)
        yield None


def _open_generator(
    path: Path, options: Measuring, label: str | None, device: torch.device
) -> GeneratedImages:
    """Return the samples of what must be a generator."""
    from progan.evaluation.generated import GeneratedImages
    from progan.evaluation.places import open_images

    images = open_images(path, size=options.size, seed=options.seed_of_images, label=label, device=device)
    if not isinstance(images, GeneratedImages):
        raise ConfigError(
            f"{path} is no generator; `progan compare` measures one set of images against another"
        )
    return images


def _as_trained(
    run: RunFolder, data: Path | None, part: str | None, mirror: bool | None
) -> tuple[Path, str, bool]:
    """Return the pictures, their part and whether to flip them as the run was trained, unless told else."""
    trained = run.config().data
    return data or run.pictures(), part or trained.part, trained.mirror if mirror is None else mirror


def _gap_of(
    ranks: Ranks,
    run: Path,
    data: Path | None,
    out: Path | None,
    options: Measuring,
    copies: GapTraining,
    others: Mapping[str, object],
) -> Callable[[], None] | None:
    """Return what measures the duality gap of a run and prints it, or None if that was not asked for.

    Raises:
        ConfigError: if another metric has no such name, or an option does not belong to what is measured.
    """
    from progan.evaluation.choice import check_names

    if GAP not in options.metrics:
        if copies != GAP_AS_USUAL:
            raise ConfigError(
                f"--gap-steps and --gap-lr are of {GAP}: add it to --metrics, or leave them out"
            )
        return None
    check_names([name for name in options.metrics if name != GAP])
    if given := [f"--{name}" for name, value in others.items() if value is not None]:
        raise ConfigError(
            f"{GAP} is of G and D as they were trained, on the validation and the test part: leave out "
            f"{', '.join(given)}, or measure it by itself"
        )
    return partial(_evaluate_gap, ranks, run, data, out, options, copies)


def _evaluate_gap(
    ranks: Ranks, run: Path, data: Path | None, out: Path | None, options: Measuring, copies: GapTraining
) -> None:
    """Measure the duality gap of a run, and print it."""
    from progan.evaluation.results import FILE
    from progan.training.gap_of_run import duality_gap

    out = out or run / FILE
    with interruptible(ranks, out) as progress:
        result = duality_gap(
            run, data, num_images=options.num_images, seed=options.seed, steps=copies.gap_steps,
            lr=copies.gap_lr, device=options.place(), out=out, force=options.force,
            progress=lambda done, total: progress(GAP, done, total),
        )  # fmt: skip
    console = Console()
    print_results(console, [result])
    state, how, adam = result.images, result.definition, result.definition["optimizer"]
    say(
        console,
        f"{GAP}: of G and D at {state['resolution']}, alpha {state['alpha']:g}, after "
        f"{result.about['images']['images_seen']:,} images; copies trained for {how['steps']} updates at "
        f"{adam['lr']:g}; seed {result.seed}",
    )
    say(console, f"results: {out}")


def _network(ranks: Ranks, options: Measuring, gap: Callable[[], None] | None) -> Extractors:
    """Return the extractor, loaded if it will be used after the gap: what is missing is found before that."""
    from progan.evaluation.choice import needs_extractor

    early = gap is not None and needs_extractor(options.metrics)
    return _load(ranks, options) if early else options.network()


def _load(ranks: Ranks, options: Measuring) -> Inception:
    """Load the extractor."""
    with interruptible(ranks, None) as progress:
        return options.network().load(
            options.place(), lambda done, total: progress("downloading the extractor", done, total)
        )


def _measure(
    ranks: Ranks,
    images: ImageSet,
    reals: ImageSet | None,
    options: Measuring,
    out: Path | None,
    network: Extractors,
    gap: Callable[[], None] | None = None,
) -> None:
    """Measure, the duality gap first, and print a table."""
    from progan.evaluation import measure

    if gap is not None:
        gap()
    with interruptible(ranks, out) as progress:
        results = measure.evaluate(
            images, reals, options.metrics, n=options.num_images, num_reals=options.num_reals,
            seed=options.seed_of_images, device=options.place(), extractor=network, out=out,
            force=options.force, progress=progress,
        )  # fmt: skip
    console = Console()
    print_results(console, results)
    say(console, f"results: {out}" if out is not None else "not written down; --out FILE would")


def _images_seen(run: RunFolder) -> int | None:
    """Return how far a run has got, or None if no checkpoint can be read."""
    from progan.training.checkpoint import newest_record

    record, _ = newest_record(run.checkpoints)
    return None if record is None else record.images_seen


def _with_neighbours(
    ranks: Ranks,
    images: ImageSet,
    reals: ImageSet | None,
    options: Measuring,
    out: Path | None,
    neighbours: tuple[ImageSet, Path],
    gap: Callable[[], None] | None,
) -> None:
    """Measure, then write a picture of the samples and their nearest among other reals to a file."""
    from progan.evaluation.neighbours import require_enough

    # What would hinder the picture is to be known before anything is measured.
    require_enough(images, neighbours[0])
    network = _load(ranks, options)
    if options.metrics:
        _measure(ranks, images, reals, options, out, network, gap)
    elif gap is not None:
        gap()
    _write_neighbours(ranks, images, neighbours[0], network.features, neighbours[1])


def _write_neighbours(
    ranks: Ranks, images: ImageSet, reals: ImageSet, features: Extractor, path: Path
) -> None:
    """Write a picture of samples and their nearest reals."""
    from progan.evaluation.neighbours import neighbour_rows
    from progan.viewers.grids import save_grid

    with interruptible(ranks, None) as progress:
        together, found = neighbour_rows(
            images, reals, features, progress=lambda done, total: progress("neighbours", done, total)
        )
    save_grid(together, path, columns=1 + found.indices.shape[1])
    say(Console(), f"samples (first column) and their nearest reals: {path}")

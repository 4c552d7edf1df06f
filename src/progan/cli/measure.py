"""The commands that measure: a generator against pictures, and one set of images against another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from progan.cli.measure_options import GAP, Flag, GapTraining, Measuring
from progan.cli.terminal.chosen import Kimg, choose, choose_all
from progan.cli.terminal.console import interruptible, say
from progan.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    from progan.distributed.ranks import Ranks
    from progan.distributed.work_sharing import Deal, Work
    from progan.evaluation.generated_images import GeneratedImages
    from progan.evaluation.image_set import ImageSet
    from progan.evaluation.results import Result
    from progan.metrics.extractor_files import Inception
    from progan.metrics.registry import Asked, Own
    from progan.runs.gap_of_run import GapOfRun
    from progan.runs.run_folder import RunFolder
    from progan.runs.trained.kept_generators import Found

AS_USUAL, GAP_AS_USUAL = Measuring(), GapTraining()


def evaluate(
    path: Path,
    *,
    kimg: Kimg = None,
    every: Annotated[bool, Parameter(name="--all", negative=(), show_default=False)] = False,
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

    Under torchrun, all processes share the work.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    every
        Measure every generator of the run that is kept.
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
    from progan.distributed.ranks import join

    chosen = choose_all(path) if every else [choose(path, kimg)]
    if every and (kimg is not None or neighbours is not None or GAP in measuring.metrics):
        raise ConfigError(f"--all measures each generator: leave out --kimg, --neighbours and {GAP}")
    with join() as ranks:
        for found in chosen:
            asked = _Asked(found, data, label, part, mirror, out, neighbours)
            _measure_together(ranks, partial(_open_generator, ranks, asked, measuring, copies), among=every)


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

    Under torchrun, all processes make the samples of generators; pictures are read by the first.

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
    from progan.distributed.ranks import join

    with join() as ranks:
        _measure_together(ranks, lambda: _open_both(ranks, a, b, part, mirror, out, measuring))


@dataclass(frozen=True)
class _Asked:
    """What `evaluate` is told of a generator and its reals; it explains them."""

    found: Found
    data: Path | None
    label: str | None
    part: str | None
    mirror: bool | None
    out: Path | None
    neighbours: Path | None

    def as_trained(self, run: RunFolder) -> _Asked:
        """Return it with the pictures, their part and whether to flip them of a run, unless told else."""
        from progan.evaluation.results import FILE

        trained = run.config().data
        return replace(
            self,
            data=self.data or run.pictures(),
            part=self.part or trained.part,
            mirror=trained.mirror if self.mirror is None else self.mirror,
            out=self.out or run.path / FILE,
        )


@dataclass(frozen=True)
class _Opened:
    """What is measured; on other processes than the first, what they can help with.

    `generators` are those of `images` and `reals` that make their images; `near` is reals to look for
    neighbours in, and the picture of them; `extractor` is there if all can help, or it is known to be needed.
    """

    options: Measuring
    out: Path | None
    device: torch.device
    images: ImageSet | None = None
    reals: ImageSet | None = None
    generators: tuple[GeneratedImages, ...] = ()
    near: tuple[ImageSet, Path] | None = None
    extractor: Inception | None = None
    gap: GapOfRun | None = None
    own: Own = field(default_factory=dict)

    @property
    def chosen(self) -> list[Asked]:
        """The metrics: by name, and classes of one's own with their options."""
        return [self.own.get(name, name) for name in self.options.metrics]

    def facts(self) -> dict[str, str]:
        """Return what all processes must agree about, by name."""
        facts = {f"generator and samples {i}": G.fingerprint for i, G in enumerate(self.generators)}
        if self.near is not None:
            facts["reals for neighbours"] = self.near[0].fingerprint
        if self.gap is not None:
            facts[GAP] = sha256(self.gap.wanted.key().encode()).hexdigest()
        return facts

    def works(self, ranks: Ranks) -> list[Work]:
        """Return what another process can do for the first; what takes long shows that it moves."""
        from progan.evaluation.generated_images import GeneratedImages
        from progan.evaluation.measure import path_work
        from progan.evaluation.nearest_reals import neighbour_work
        from progan.metrics.path_length import PathLength

        works = [G.work for G in self.generators]
        if self.extractor is not None and isinstance(self.images, GeneratedImages):
            metric = PathLength(self.extractor.features, seed=self.options.seed_of_images)
            works.append(path_work(metric, self.images))
            if self.near is not None:
                works.append(neighbour_work(self.images, self.near[0], self.extractor.features))
        if self.gap is not None:
            works.append(self.gap.work(ranks.progress))
        return works


def _measure_together(ranks: Ranks, opened: Callable[[], _Opened], *, among: bool = False) -> None:
    """Measure and print on the first process, while the others help it.

    Args:
        ranks: The processes.
        opened: Opens what is measured, on each of them.
        among: It is one of many: it gets a line, and where it cannot be measured, that is no error.
    """
    from progan.distributed.work_sharing import share

    # Each process reads the weights, which a training may replace meanwhile.
    found = ranks.in_turn(opened, _Opened.facts)

    def lead(deal: Deal) -> None:
        for G in found.generators:
            G.deal = deal
        if found.gap is not None:
            _measure_gap(ranks, found.gap, found.out, found.options, deal)
        if found.options.metrics or (found.gap is None and found.near is None):
            (_measure_in_a_line if among else _measure)(ranks, found)
        if found.near is not None:
            _write_neighbours(ranks, found, deal)

    share(ranks, lead, lambda: found.works(ranks))


def _open_generator(ranks: Ranks, asked: _Asked, options: Measuring, copies: GapTraining) -> _Opened:
    """Open what `evaluate` measures."""
    from progan.config import format_resolution
    from progan.evaluation.generated_images import GeneratedImages
    from progan.evaluation.halved_images import HalvedImages
    from progan.evaluation.open_images import open_images
    from progan.evaluation.results import FILE
    from progan.generation.label_arguments import taken_as_names

    device, seed = ranks.device(options.device), options.seed_of_images
    gap = _open_gap(asked, options, copies, device)
    options = replace(options, metrics=tuple(name for name in options.metrics if name != GAP))
    if gap is not None and not options.metrics and asked.neighbours is None:
        return _Opened(options, asked.out or asked.found.file / FILE, device, gap=gap)
    run = asked.found.run
    ground = options.ground() if run is None else options.ground(run.config().data.background)
    images = open_images(
        asked.found.file, size=options.size, seed=seed, label=asked.label, device=device, background=ground,
        own=options.plugin,
    )  # fmt: skip
    if not isinstance(images, GeneratedImages):
        raise ConfigError(
            f"{asked.found.file} is no generator; `progan compare` measures one set of images against another"
        )
    for line in [] if asked.label is None else taken_as_names(images.G, [asked.label]):
        ranks.first_only(partial(say, options.console(), line))
    if asked.found.run is not None:
        images.about["images_seen"] = asked.found.images_seen
        asked = asked.as_trained(asked.found.run)
    size, part, reals = (images.shape[1], images.shape[2]), asked.part or "train", None
    if asked.data is not None:
        reals = ranks.first_only(
            partial(
                open_images, asked.data, size=size, part=part, mirror=bool(asked.mirror), seed=seed + 1,
                device=device, background=ground, halve=True,
            )
        )  # fmt: skip
        if isinstance(reals, HalvedImages):
            told = f"{format_resolution(size)} by the means of their pixels, as training shows them"
            ranks.first_only(
                partial(say, options.console(), f"{reals.name}: pictures are measured at {told}")
            )
    near = _open_near(asked, images, part, seed + 1, device, ground)
    own = options.own_metrics(run)
    extractor = _extractor(ranks, options, device, own, all_need_it=near is not None)
    return _Opened(options, asked.out, device, images, reals, (images,), near, extractor, gap, own)


def _open_both(
    ranks: Ranks, a: Path, b: Path, part: str, mirror: bool, out: Path | None, options: Measuring
) -> _Opened:
    """Open what `compare` measures; generators on all processes, pictures, which one reads, on the first."""
    from progan.evaluation.generated_images import GeneratedImages
    from progan.evaluation.open_images import is_generator, open_images

    if GAP in options.metrics:
        raise ConfigError(
            f"{GAP} is of the two networks of a run, not of two sets: progan evaluate RUN --metrics {GAP}"
        )
    device, seed = ranks.device(options.device), options.seed_of_images

    def opened(place: Path, seed: int) -> ImageSet | None:
        open_it = partial(
            open_images, place, size=options.size, part=part, seed=seed, device=device,
            background=options.ground(), own=options.plugin,
        )  # fmt: skip
        return open_it() if is_generator(place) else ranks.first_only(open_it)

    images, reals = opened(b, seed), opened(a, seed + 1)  # other seeds, so that they share no latents
    generators = tuple(each for each in (images, reals) if isinstance(each, GeneratedImages))
    if reals is not None and mirror:
        reals = open_images(reals, mirror=True, seed=seed + 1)
    own = options.own_metrics()
    extractor = _extractor(ranks, options, device, own)
    return _Opened(options, out, device, images, reals, generators, extractor=extractor, own=own)


def _open_near(
    asked: _Asked,
    images: ImageSet,
    part: str,
    seed: int,
    device: torch.device,
    ground: tuple[int, int, int],
) -> tuple[ImageSet, Path] | None:
    """Open the reals that neighbours are looked for in, if that is asked for."""
    from progan.evaluation.nearest_reals import require_enough
    from progan.evaluation.open_images import open_images

    if asked.neighbours is None:
        return None
    if asked.data is None or asked.neighbours.suffix.lower() != ".png":
        raise ConfigError(
            f"--neighbours {asked.neighbours}: give reals to look at (--data), and a name with .png"
        )
    # Not mirrored: a copy of a picture would not be found near its mirror image.
    size = (images.shape[1], images.shape[2])
    near = open_images(
        asked.data, size=size, part=part, seed=seed, device=device, halve=True, background=ground
    )
    # What would hinder the picture is to be known before anything is measured.
    require_enough(images, near)
    return near, asked.neighbours


def _open_gap(
    asked: _Asked, options: Measuring, copies: GapTraining, device: torch.device
) -> GapOfRun | None:
    """Open the duality gap of a run, if that is asked for.

    A ConfigError tells of another metric that has no such name, or of an option that does not belong here.
    """
    from progan.config import read_plugins
    from progan.metrics.metric import Metric
    from progan.metrics.registry import check_names
    from progan.runs.gap_of_run import GapOfRun

    parts = read_plugins(options.plugin)
    check_names([name for name in options.metrics if name != GAP], parts.of(Metric.chosen_by))
    if GAP not in options.metrics:
        if copies != GAP_AS_USUAL:
            raise ConfigError(
                f"--gap-steps and --gap-lr are of {GAP}: add it to --metrics, or leave them out"
            )
        return None
    others = {
        "label": asked.label,
        "part": asked.part,
        "mirror": asked.mirror,
        "resolution": options.resolution,
        "num-reals": options.num_reals,
    }
    if given := [f"--{name}" for name, value in others.items() if value is not None]:
        raise ConfigError(
            f"{GAP} is of G and D as they were trained, on the validation and the test part: leave out "
            f"{', '.join(given)}, or measure it by itself"
        )
    return GapOfRun.open(
        asked.found.file, asked.data, num_images=options.num_images, seed=options.seed,
        steps=copies.gap_steps, lr=copies.gap_lr, device=device, parts=parts,
    )  # fmt: skip


def _extractor(
    ranks: Ranks,
    options: Measuring,
    device: torch.device,
    own: Own,
    *,
    all_need_it: bool = False,
) -> Inception | None:
    """Load the extractor where it will be used: a missing one is found before anything is measured."""
    from progan.metrics.registry import check_names, needs_extractor

    check_names(options.metrics, own)
    here = ranks.first_only(lambda: needs_extractor(options.metrics, own)) or "ppl" in options.metrics
    return options.load(ranks, device) if here or all_need_it else None


def _measure_gap(ranks: Ranks, gap: GapOfRun, out: Path | None, options: Measuring, deal: Deal) -> None:
    """Measure the duality gap of a run, and print it."""
    with interruptible(ranks, out) as progress:
        result = gap.measure(out=out, force=options.force, progress=progress, deal=deal)
    console = options.console()
    options.show([result])
    state, how, adam = result.images, result.definition, result.definition["optimizer"]
    say(
        console,
        f"{GAP}: of G and D at {state['resolution']}, alpha {state['alpha']:g}, after "
        f"{result.about['images']['images_seen']:,} images; copies trained for {how['steps']} updates at "
        f"{adam['lr']:g}; seed {result.seed}",
    )
    say(console, f"results: {out}")


def _measure(ranks: Ranks, found: _Opened) -> None:
    """Measure, and print a table."""
    found.options.show(_results(ranks, found))
    written = f"results: {found.out}" if found.out is not None else "not written down; --out FILE would"
    say(found.options.console(), written)


def _measure_in_a_line(ranks: Ranks, found: _Opened) -> None:
    """Measure one of many generators, and print a line, or those of JSON."""
    from progan.config import format_resolution

    assert found.images is not None
    options = found.options
    try:
        results = _results(ranks, found)
        numbers = [each for result in results for each in result.numbers.items()]
        told = ", ".join(f"{name} {value:.4f}" for name, value in numbers)
        if options.as_json:
            options.show(results)
    except DataError:  # small images, for which a metric is not defined
        told = f"no {' and no '.join(options.metrics)} of images so small"
    size = format_resolution((found.images.shape[1], found.images.shape[2]))
    say(options.console(), f"after {found.images.about['images_seen']:,} images, {size}: {told}")


def _results(ranks: Ranks, found: _Opened) -> list[Result]:
    """Measure, and write the results down."""
    from progan.evaluation import measure

    assert found.images is not None
    options, out = found.options, found.out
    with interruptible(ranks, out) as progress:
        return measure.evaluate(
            found.images, found.reals, found.chosen, n=options.num_images, num_reals=options.num_reals,
            seed=options.seed_of_images, device=found.device, extractor=found.extractor, out=out,
            force=options.force, progress=progress,
        )  # fmt: skip


def _write_neighbours(ranks: Ranks, found: _Opened, deal: Deal) -> None:
    """Write a picture of samples and their nearest reals."""
    from progan.evaluation.nearest_reals import neighbour_rows
    from progan.generation.grids import save_grid

    assert found.images is not None
    assert found.near is not None
    assert found.extractor is not None
    reals, path = found.near
    with interruptible(ranks, None) as progress:
        together, nearest = neighbour_rows(
            found.images, reals, found.extractor.features, deal=deal,
            progress=progress,
        )  # fmt: skip
    save_grid(together, path, columns=1 + nearest.indices.shape[1])
    say(found.options.console(), f"samples (first column) and their nearest reals: {path}")

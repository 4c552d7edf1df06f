"""Sets of images and metrics in, results out: each computed once, written down, and found again."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from progan.data.showing import WHITE, Colour
from progan.distributed.work_sharing import Work
from progan.errors import ConfigError, DataError
from progan.evaluation.generated_images import GeneratedImages
from progan.evaluation.image_set import ImageSet, choose, require_equal_shapes
from progan.evaluation.open_images import Place, open_images
from progan.evaluation.results import Result, append_result, find_result, require_appendable, software
from progan.generation.label_arguments import Label
from progan.generation.sampling import label_vectors, whole
from progan.metrics.exact_compute import exact_float32
from progan.metrics.fid_kid_is import FeatureMetric
from progan.metrics.metric import Measurement, Metric
from progan.metrics.path_length import Labels, PathLength, Render
from progan.metrics.registry import DEFAULT, Asked, Extractors, make_metrics
from progan.metrics.swd.distance import SlicedWassersteinMetric
from progan.models.weights import Own
from progan.system.progress import Progress, reported, unheard

USUAL = 16_384
"""Images that are measured unless told otherwise (section 5 of the paper), if there are as many."""

Chosen = Sequence[Asked]
"""Metrics, their classes, or their short names."""


class MeasureOptions(TypedDict, total=False):
    """The options of `evaluate`."""

    n: int | None
    num_reals: int | None
    seed: int
    label: Label | None
    size: tuple[int, int] | None
    part: str
    mirror: bool
    device: torch.device | None
    extractor: Extractors | None
    background: Colour
    out: Path | None
    force: bool
    progress: Progress
    own: Own


def evaluate(
    generator: Place,
    reals: Place | None = None,
    metrics: Chosen = DEFAULT,
    *,
    n: int | None = None,
    num_reals: int | None = None,
    seed: int = 0,
    label: Label | None = None,
    size: tuple[int, int] | None = None,
    part: str = "train",
    mirror: bool = False,
    device: torch.device | None = None,
    extractor: Extractors | None = None,
    background: Colour = WHITE,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = unheard,
    own: Own = (),
) -> list[Result]:
    """Measure a generator against real images.

    Args:
        generator: A `Generator`, run folder or weight file; or any other set of images (`open_images`).
        reals: Any set, of a packed one the level that fits. None: for metrics that need no reals.
        metrics: Short names (`METRICS`), metrics, or their classes; what one was fed with before is
            forgotten.
        n: Images to measure; None: 16,384, or fewer if a set has fewer.
        num_reals: Reals to compare with; None: n. Sliced Wasserstein takes n, or 2n for its floor if that is
            said, or if the set has them and n is at most 8,192.
        seed: Of samples, flips, the choice of images, and what metrics draw.
        label: Of the samples; None draws one for each.
        size: (height, width) to measure at; None: what the generator makes.
        part: Of a packed set.
        mirror: Flip half of the reals, as training did.
        device: Where to compute; None: the CPU (and a `Generator` where it is).
        extractor: Of metrics on features.
        background: What images with transparency are laid on; the definitions of the results name it.
        out: File of results: what is in it is not computed again, what is computed is appended at once.
        force: Compute and append again what is in the file.
        progress: Told what is being done and how far it is, at the beginning and after each batch.
        own: Networks of your own, one of which a generator may be: classes, or Python files that define them.

    Returns:
        A result for each metric, in order. Of a metric that is not defined for these sets it has no numbers,
        but a note that says why; if none is defined, that is an error.

    Raises:
        ProganError: of the kind that fits; before anything long where possible.
    """
    seed = whole("seed", seed)
    most = USUAL if n is None else whole("n", n, least=1)
    images = open_images(
        generator, size=size, part=part, seed=seed, label=label, device=device, most=most,
        background=background, own=own,
    )  # fmt: skip
    most = max(most, USUAL) if num_reals is None else whole("num_reals", num_reals, least=1)
    # Another seed, so that two generators, or a generator and itself, share no latents.
    opened = None if reals is None else open_images(
        reals, size=images.shape[1:], part=part, mirror=mirror, seed=seed + 1, device=device, most=most,
        background=background, own=own,
    )  # fmt: skip
    n, num_reals = _counts(images, opened, n, num_reals)
    chosen = make_metrics(metrics, seed=seed, device=device, extractor=extractor, n=n, progress=progress)
    return measure(
        images, opened, chosen, n=n, num_reals=num_reals, seed=seed, out=out, force=force, progress=progress
    )


def compare(a: Place, b: Place, metrics: Chosen = DEFAULT, **options: Unpack[MeasureOptions]) -> list[Result]:
    """Measure the set b against the set a, which stands for the reals; options are those of `evaluate`."""
    return evaluate(b, a, metrics, **options)


def measure(
    images: ImageSet,
    reals: ImageSet | None,
    metrics: Sequence[Measurement],
    *,
    n: int,
    num_reals: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    progress: Progress = unheard,
) -> list[Result]:
    """Measure an open set of images; `evaluate` explains the arguments."""
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"metrics {', '.join(names) or '(none)'}: name at least one, and each once")
    wanted = [_Pending.of(metric, images, reals, n, num_reals, seed) for metric in metrics]
    results = {each.metric.name: None if force else find_result(out, each.blank) for each in wanted}
    missing = [each for each in wanted if results[each.metric.name] is None]
    refused = _refused(missing, images, reals)
    if refused and len(refused) == len(wanted):
        raise next(iter(refused.values()))
    for each in wanted:
        if each.metric.name in refused:
            note = f"{each.metric.name} is not measured: {refused[each.metric.name]}"
            results[each.metric.name] = replace(each.blank, notes=(note,))
    missing = [each for each in missing if each.metric.name not in refused]
    if missing and out is not None:
        require_appendable(out)
    with contextlib.ExitStack() as stack:
        stored = images
        if isinstance(images, GeneratedImages) and any(isinstance(each.metric, Metric) for each in missing):
            stored = stack.enter_context(images.kept(n, None if out is None else out.parent, progress))
        for group in _groups(missing):
            for each, result in zip(group, _measured(group, images, stored, reals, progress), strict=True):
                each.forget()  # gigabytes, which are for the next
                if out is not None:
                    append_result(out, result)
                results[result.metric] = result
    return [result for result in results.values() if result is not None]


def _refused(missing: Sequence[_Pending], images: ImageSet, reals: ImageSet | None) -> dict[str, DataError]:
    """Return why some of the metrics are not defined for these sets, by name; the others can be measured."""
    refused = {}
    for each in missing:
        each.forget()
        try:
            each.check(images, reals)
        except DataError as error:
            refused[each.metric.name] = error
    return refused


@dataclass(frozen=True)
class _Pending:
    """A metric, and the result that it is to have, still without numbers."""

    metric: Measurement
    blank: Result

    @classmethod
    def of(
        cls,
        metric: Measurement,
        images: ImageSet,
        reals: ImageSet | None,
        n: int,
        num_reals: int | None,
        seed: int,
    ) -> _Pending:
        if isinstance(metric, PathLength):
            reals, n = None, metric.samples
        count = None if reals is None else count_reals(metric, reals, n, num_reals)
        blank = Result(
            metric=metric.name,
            version=metric.version,
            numbers={},
            definition=metric.definition() | _ground(images, reals),
            num_images=n,
            num_reals=count,
            seed=seed,
            images=images.identity,
            reals=None if reals is None else reals.identity,
            about={"images": images.about, "reals": None if reals is None else reals.about},
            software=software(),
        )
        return cls(metric, blank)

    def forget(self) -> None:
        """Empty the metric of all images."""
        if isinstance(self.metric, Metric):
            self.metric.forget_reals()
            self.metric.forget_fakes()

    def check(self, images: ImageSet, reals: ImageSet | None) -> None:
        """Raise an error in words if the metric cannot be measured, before it takes long to find out."""
        metric, blank = self.metric, self.blank
        if not isinstance(metric, Metric):
            if not isinstance(images, GeneratedImages):
                raise ConfigError(f"{metric.name} follows the latents of a generator; {images.name} is none")
            return
        if metric.needs_reals and reals is None:
            raise ConfigError(f"{metric.name} compares with reals: give a set of them (--data)")
        if reals is not None:
            require_equal_shapes(images, reals)
            if reals.count is not None and (blank.num_reals or 0) > reals.count:
                raise DataError(
                    f"{metric.name} needs {blank.num_reals:,} reals, and {reals.name} has {reals.count:,}: "
                    f"give more of them, or lower --num-images"
                )
        if min(blank.num_images, blank.num_reals or blank.num_images) < metric.minimum:
            raise DataError(
                f"{metric.name} needs at least {metric.minimum:,} images of each set, not "
                f"{blank.num_images:,}"
                + (f" and {blank.num_reals:,} reals" if blank.num_reals is not None else "")
            )
        metric.add_fakes(np.zeros((2, *images.shape), np.uint8))  # it says what it thinks of the shape
        metric.forget_fakes()


def _measured(
    group: Sequence[_Pending],
    images: ImageSet,
    stored: ImageSet,
    reals: ImageSet | None,
    progress: Progress,
) -> Iterator[Result]:
    """Measure metrics that are fed together, and yield their results."""
    start = time.monotonic()
    first, metric = group[0].blank, group[0].metric
    if isinstance(metric, PathLength):
        assert isinstance(images, GeneratedImages)
        numbers = measure_path(metric, images, progress)
        yield replace(first, numbers=numbers, seconds=time.monotonic() - start)
        return
    metrics = [each.metric for each in group if isinstance(each.metric, Metric)]
    what = ", ".join(metric.name for metric in metrics)
    if reals is not None and first.num_reals:
        takers = [metric.add_reals for metric in metrics]
        feed(reals, first.num_reals, first.seed, takers, progress, f"{what}: reals")
    takers = [metric.add_fakes for metric in metrics]
    feed(stored, first.num_images, first.seed, takers, progress, f"{what}: images")
    fed = time.monotonic() - start
    for each, metric in zip(group, metrics, strict=True):
        start = time.monotonic()
        numbers, notes = compute(metric)
        yield replace(each.blank, numbers=numbers, notes=notes, seconds=fed + time.monotonic() - start)


def feed(
    images: ImageSet,
    n: int,
    seed: int,
    takers: Sequence[Callable[[np.ndarray], None]],
    progress: Progress,
    what: str,
) -> None:
    """Give n images of a set, as `choose` orders them, to each of several functions, a batch at a time."""
    for batch in reported(images.batches(choose(images, n, seed)), progress, what, n):
        for take in takers:
            take(batch)


def compute(metric: Metric) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the numbers of a metric, and what it warned of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        numbers = metric.compute()
    notes = dict.fromkeys(str(each.message) for each in heard)
    return numbers, tuple(note for note in notes if note.startswith(metric.name))


def measure_path(metric: PathLength, images: GeneratedImages, progress: Progress) -> dict[str, float]:
    """Return the path length of a generator, at the level and with the labels of a set of its samples."""
    name = _name_of_path(metric, images)
    return metric.measure(
        *_path_of(images),
        progress=progress,
        deal=lambda speeds, batches: images.deal(Work(name, speeds), batches),
    )


def path_work(metric: PathLength, images: GeneratedImages) -> Work:
    """Return the computing of speeds on paths, as `measure_path` deals it."""
    return Work(_name_of_path(metric, images), metric.speeds(*_path_of(images)))


def _name_of_path(metric: PathLength, images: GeneratedImages) -> str:
    """Return what decides the speeds of single paths, as the name of the work."""
    means = [metric.extractor.definition(), metric.crop, metric.seed, images.identity]
    return f"computing path lengths: {json.dumps(means, sort_keys=True)}"


def _path_of(images: GeneratedImages) -> tuple[Render, int, Labels]:
    """Return what makes the images of paths, the length of its latents, and the paths' labels."""
    G = images.G
    weight = next(G.parameters())

    def render(z: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        marks = None if labels is None else labels.to(weight)
        # The steps are so small that TF32 would measure its own rounding.
        with exact_float32(weight.device):
            made: torch.Tensor = G(
                z.to(weight), marks, level=None if images.level == G.level else images.level
            )
        return made if images.ground is None else _laid(made, images.ground)

    def labels(start: int, count: int) -> torch.Tensor | None:
        return label_vectors(G, images.label, images.seed, start, count)

    return render, G.latent_size, labels


def _laid(made: torch.Tensor, ground: Colour) -> torch.Tensor:
    """Lay images [N, 2 or 4, H, W] in about [-1, 1] on a ground by their alpha, and leave others alone."""
    if made.shape[1] not in (2, 4):
        return made
    alpha = ((made[:, -1:] + 1) / 2).clamp(0, 1)
    below = made.new_tensor(ground).view(1, 3, 1, 1) / 127.5 - 1
    below = below[:, :1] if made.shape[1] == 2 and len(set(ground)) == 1 else below
    return made[:, :-1] * alpha + below * (1 - alpha)


def _ground(images: ImageSet, reals: ImageSet | None) -> dict[str, Any]:
    """Return what images with transparency were laid on, for the definition of a result."""
    grounds = [each.identity.get("background") for each in (images, reals) if each is not None]
    return next(({"background": ground} for ground in grounds if ground), {})


def _groups(wanted: Sequence[_Pending]) -> list[list[_Pending]]:
    """Put together what is fed together: metrics on one extractor, which remembers a batch's features."""
    groups: dict[int, list[_Pending]] = {}
    for each in wanted:
        shared = each.metric.extractor if isinstance(each.metric, FeatureMetric) else each.metric
        groups.setdefault(id(shared), []).append(each)
    return list(groups.values())


def count_reals(metric: Measurement, reals: ImageSet, n: int, num_reals: int | None = None) -> int:
    """Return how many reals a metric is fed with; see `evaluate`."""
    if not isinstance(metric, SlicedWassersteinMetric):
        return num_reals or n
    # Not beyond what the usual number of images takes, as all patches are kept in memory.
    usual = 2 * n <= USUAL and (reals.count is None or reals.count >= 2 * n)
    return 2 * n if num_reals == 2 * n or (num_reals in (None, n) and usual) else n


def _counts(
    images: ImageSet, reals: ImageSet | None, n: int | None, num_reals: int | None
) -> tuple[int, int | None]:
    """Return how many images and reals are measured; a DataError if a set has fewer than were asked for."""
    sets = [images] if reals is None else [images, reals]
    if n is None:
        n = min([USUAL, *(each.count for each in sets if each.count is not None)])
    needs = [(images, n)] if reals is None else [(images, n), (reals, num_reals or n)]
    for each, need in needs:
        if each.count is not None and each.count < need:
            raise DataError(
                f"{each.name}: holds {each.count:,} images, but {need:,} were asked for; ask for fewer"
            )
    return n, num_reals

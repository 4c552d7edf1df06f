"""Metrics of a generator while it is trained, with the statistics of the reals kept from time to time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from progan.data.packed import PackedSet
from progan.data.showing import WHITE, Colour
from progan.distributed.work_sharing import Deal, alone
from progan.errors import DataError
from progan.evaluation.generated_images import GeneratedImages
from progan.evaluation.image_set import ImageSet, MirroredImages, PackedImages
from progan.evaluation.measure import compute, count_reals, feed, measure_path
from progan.metrics.fid_kid_is import FeatureMetric
from progan.metrics.metric import Measurement, Metric
from progan.metrics.path_length import PathLength
from progan.metrics.registry import (
    NONE,
    ExtractorFile,
    Extractors,
    Own,
    check_names,
    make_metrics,
    needs_extractor,
)
from progan.models.generator import Generator
from progan.system.progress import Progress


class Monitor:
    """Measures a generator against the pictures it is trained on, at whatever level it is.

    The same latents are used each time. The reals of a level are read once, when it is first measured, and
    kept in the form that each metric keeps them in, until another level is measured. The numbers are those
    that `evaluate` gives for the same generator, pictures, count and seed.

    Args:
        packed: The pictures.
        names: Short names of metrics (`METRICS`).
        n: Images of each set; fewer if the set has fewer.
        part: Part of the pictures.
        mirror: Flip half of the reals, as training does.
        seed: Of samples, flips, the choice of images, and what metrics draw.
        device: Where metrics are computed; None for the CPU.
        background: What pictures with transparency are laid on.
        extractor: Of metrics on features; a file is loaded at once, and so is found missing before training.
        own: Metrics of one's own, by name.
        sizes: Heights and widths that a run comes to, smallest first; none for those of the pictures.

    Raises:
        ConfigError: if a name is unknown or given twice.
        CheckpointError, DependencyError: if what a metric needs is missing.
        DataError: if there are too few images.
    """

    def __init__(
        self,
        packed: PackedSet,
        names: Sequence[str],
        *,
        n: int = 2048,
        part: str = "train",
        mirror: bool = False,
        seed: int = 0,
        device: torch.device | None = None,
        extractor: Extractors | None = None,
        background: Colour = WHITE,
        own: Own = NONE,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        check_names(names, own)
        self._own = own
        self._packed, self._names = packed, tuple(names)
        self._part, self._mirror, self._seed = part, mirror, seed
        self._device = device or torch.device("cpu")
        if needs_extractor(names, own):
            source = extractor or ExtractorFile()
            extractor = source.load(self._device) if isinstance(source, ExtractorFile) else source
        self._extractor = extractor
        self.n = min(n, len(packed.indices(part)))
        self._level: int | None = None
        self._metrics: list[Measurement] = []
        self._background = background
        self.left_out, self.begins = self._what_is_undefined(sizes)
        for metric in self._made():
            if isinstance(metric, Metric) and self.n < metric.minimum:
                raise DataError(
                    f"{metric.name} needs at least {metric.minimum:,} images, not {self.n:,} of "
                    f"{packed.path}: give more pictures, raise --monitor.num-images if that is lower, or "
                    f"choose other metrics with --monitor.metrics"
                )

    def measure(
        self, G: Generator, stop: Callable[[], bool] = lambda: False, deal: Deal = alone
    ) -> dict[str, float]:
        """Return the numbers of a generator, by name; the networks' random state is not touched.

        Metrics that are not defined for images of the generator's level (the sliced Wasserstein distance and
        MS-SSIM for sides below 16) are left out.

        Args:
            G: The generator, at the level and alpha that it is to be measured at.
            stop: Asked after each batch of images whether to give up; then there are no numbers.
            deal: Who makes the images; the numbers do not depend on it.

        Raises:
            DataError: if it makes values that are not finite, or the sets cannot be compared.
        """

        def progress(_what: str, _done: int, _total: int) -> None:
            if stop():
                raise _GivenUp

        try:
            return self._measure(monitored(G, self._seed, deal, self._background), progress)
        except _GivenUp:
            return {}

    def _measure(self, images: GeneratedImages, progress: Progress) -> dict[str, float]:
        """Measure; `progress` may end it."""
        if self._level != images.level:
            self._enter(images.G, progress)
        fed = [metric for metric in self._metrics if isinstance(metric, Metric)]
        numbers: dict[str, float] = {}
        try:
            if fed:
                feed(images, self.n, self._seed, [metric.add_fakes for metric in fed], progress, "images")
            for metric in self._metrics:
                if isinstance(metric, PathLength):
                    numbers |= measure_path(metric, images, progress)
                elif isinstance(metric, Metric):
                    numbers |= compute(metric)[0]
        finally:
            for metric in fed:
                metric.forget_fakes()
        return numbers

    def _enter(self, G: Generator, progress: Progress) -> None:
        """Make metrics for the level of a generator and feed them with its reals."""
        self._level = None  # if it is given up, none is ready
        reals: ImageSet = PackedImages(self._packed, part=self._part, size=G.resolution())
        if self._mirror:
            reals = MirroredImages(reals, self._seed + 1)
        reals = reals.on(self._background)
        self._metrics = [m for m in self._made() if _refusal(m, reals.shape) is None]
        for metric in self._metrics:
            if isinstance(metric, Metric):
                n = count_reals(metric, reals, self.n)
                feed(reals, n, self._seed, [metric.add_reals], progress, "reals")
        self._level = G.level

    def _what_is_undefined(
        self, sizes: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
        """Return why metrics are not defined for the pictures at any size, and where others begin to be.

        A DataError tells that none is, not even at the pictures' own size, which a short run never comes to.
        """
        channels, height, width = PackedImages(self._packed, part=self._part).on(self._background).shape
        left_out, begins, made = {}, {}, self._made()
        whole = channels, height, width
        shapes = [(channels, *size) for size in sizes] or [whole]
        for metric in made:
            # Those on features take images of any size; what their network thinks of them takes long to ask.
            if isinstance(metric, FeatureMetric):
                continue
            refusals = [_refusal(metric, shape) for shape in shapes]
            first = next((i for i, refusal in enumerate(refusals) if refusal is None), None)
            if first is None:
                left_out[metric.name] = str(refusals[-1]).rstrip(".")
            elif first > 0:
                begins[metric.name] = (shapes[first][1], shapes[first][2])
        if left_out and len(left_out) == len(made) and all(_refusal(metric, whole) for metric in made):
            raise DataError(
                f"no metric of monitor.metrics can be measured: {'; '.join(left_out.values())}; choose "
                f"others with --monitor.metrics (all but swd and ms_ssim take images of any size)"
            )
        return left_out, begins

    def _made(self) -> list[Measurement]:
        return make_metrics(
            self._names,
            seed=self._seed,
            device=self._device,
            extractor=self._extractor,
            n=self.n,
            own=self._own,
        )


def monitored(G: Generator, seed: int, deal: Deal = alone, background: Colour = WHITE) -> GeneratedImages:
    """Return the images that a `Monitor` measures.

    Args:
        G: The generator, at the level and alpha that it is to be measured at.
        seed: Of the monitor.
        deal: Who makes them.
        background: What they are laid on if they have transparency.
    """
    return GeneratedImages(G, seed=seed, weights="in training", deal=deal, ground=background)


class _GivenUp(Exception):  # noqa: N818 - it never leaves this module
    """Ends a measurement at its next batch."""


def _refusal(metric: Measurement, shape: tuple[int, ...]) -> str | None:
    """Return why a metric is not defined for images of a shape; None if it is."""
    if not isinstance(metric, Metric):
        return None
    try:
        metric.add_fakes(np.zeros((2, *shape), np.uint8))
    except DataError as error:
        return f"{metric.name}: {error}"
    finally:
        metric.forget_fakes()
    return None

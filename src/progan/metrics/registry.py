"""From the short names that users give to metrics, and from files to the extractors some of them need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from progan.config import Branch, MonitorOptions, Parts, at_hand, options_of
from progan.errors import ConfigError, suggest
from progan.metrics.extractor import Extractor
from progan.metrics.extractor_files import INCEPTION, Inception, extractor_from_file, file_sha256, inception
from progan.metrics.fid_kid_is import FrechetDistance, InceptionScore, KernelDistance
from progan.metrics.metric import Measurement, MetricTools
from progan.metrics.ms_ssim import MsSsim
from progan.metrics.path_length import PathLength
from progan.metrics.precision_recall import PrecisionRecall
from progan.metrics.swd.distance import SlicedWassersteinMetric
from progan.system.progress import Progress, unheard

SHIPPED: tuple[type[Measurement], ...] = (
    SlicedWassersteinMetric,
    MsSsim,
    FrechetDistance,
    KernelDistance,
    InceptionScore,
    PrecisionRecall,
    PathLength,
)
METRICS = {part.name: part for part in SHIPPED}
"""The metrics that ship, by the short names that users give."""


class MetricPart(NamedTuple):
    """A metric of one's own that a configuration may choose, and its options there."""

    part: type[Measurement]
    options: Branch


Own = Mapping[str, MetricPart]
"""Metrics of one's own, by name."""
NONE: Own = {}
Asked = str | Measurement | type[Measurement] | MetricPart
"""A metric, or what makes one: its short name, or its class."""

DEFAULT = ("swd", "ms_ssim")
"""The metrics of the paper that need no extractor."""


@dataclass(frozen=True)
class ExtractorFile:
    """Which network makes the features.

    Attributes:
        path: A TorchScript or `torch.export` file, or the Inception network; None for that one in the cache.
        resize, normalisation: Rules of `Extractor`; the Inception network has its own.
        download: Fetch the Inception network if it is not in the cache.
    """

    path: Path | None = None
    resize: str = "none"
    normalisation: str = "0..255"
    download: bool = False

    def load(self, device: torch.device, progress: Progress = unheard) -> Inception:
        """Load it; of other networks than Inception the one output is used for everything.

        Raises:
            CheckpointError: if the file is missing, damaged or no network.
            ConfigError: if the rules cannot be used.
        """
        path = self.path
        # It is told by its name or, under another one, by its checksum.
        inceptions = path is None or path.is_dir() or path.name == INCEPTION.name
        if path is None or inceptions or (path.is_file() and file_sha256(path) == INCEPTION.sha256):
            if (self.resize, self.normalisation) != ("none", "0..255"):
                raise ConfigError(
                    "the Inception network resizes and normalises images itself; leave both rules out, or "
                    "give another extractor"
                )
            return inception(path, download=self.download, device=device, progress=progress)
        extractor = extractor_from_file(
            path, resize=self.resize, normalisation=self.normalisation, device=device
        )
        return Inception(extractor, extractor)


Extractors = ExtractorFile | Extractor | Inception
"""Where features come from: a file, a network that is ready, or the Inception network with both outputs."""


def own_metrics(parts: Parts, monitor: MonitorOptions) -> Own:
    """Return the metrics of one's own that a configuration knows, with the options that they have there.

    Raises:
        ConfigError: if the definition of one is not at hand.
    """
    found = {name: at_hand(part, Measurement) for name, part in parts.of(Measurement.chosen_by).items()}  # type: ignore[type-abstract]
    return {name: MetricPart(part, options_of(part, monitor)) for name, part in found.items()}


def make_metrics(
    asked: Sequence[Asked],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    extractor: Extractors | None = None,
    n: int = 50_000,
    progress: Progress = unheard,
    own: Own = NONE,
) -> list[Measurement]:
    """Make metrics; all of them share one extractor, which is loaded only if one of them needs it.

    Args:
        asked: Short names, each once; or classes, or metrics that are made already.
        seed: Of everything that a metric draws.
        device: Where to compute; None for the CPU.
        extractor: For metrics on features; None: the Inception network in the cache.
        n: Paths of the path length.
        progress: Told how far a download is.
        own: Metrics of one's own, by name.

    Raises:
        ConfigError: if a name is unknown or given twice.
        CheckpointError, DependencyError: if what a metric needs is missing.
    """
    check_names([each for each in asked if isinstance(each, str)], own)
    device = device or torch.device("cpu")

    @cache
    def network() -> Inception:
        source = extractor or ExtractorFile()
        if isinstance(source, Extractor):
            source = Inception(source, source)
        return source.load(device, progress) if isinstance(source, ExtractorFile) else source

    tools = MetricTools(seed, device, n, network)
    return [_made(each, tools, own) for each in asked]


def _made(asked: Asked, tools: MetricTools, own: Own) -> Measurement:
    """Return a metric that is ready to be fed."""
    if isinstance(asked, Measurement):
        return asked
    if isinstance(asked, str):
        asked = own[asked] if asked in own else METRICS[asked]
    part, options = asked if isinstance(asked, MetricPart) else (asked, asked.Options())
    return part.make(options, tools)


def check_names(names: Sequence[str], own: Collection[str] = NONE) -> None:
    """Raise a ConfigError unless these are metrics that ship or are one's own, each once."""
    for name in names:
        if name not in METRICS and name not in own:
            known = [*METRICS, *own]
            hint = suggest(name.lower(), known)
            raise ConfigError(
                f"there is no metric {name!r}{hint} Metrics: {', '.join(known)}, and those that --plugin "
                f"FILE defines"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"metrics {', '.join(names)}: name each once")


def needs_extractor(names: Sequence[str], own: Own = NONE) -> bool:
    """Tell whether one of these metrics is measured on features."""
    return any((own[name].part if name in own else METRICS[name]).needs_network for name in names)

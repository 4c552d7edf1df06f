"""From the short names that users give to metrics, and from files to the extractors some of them need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from progan.errors import ConfigError, suggest
from progan.metrics.extractor import Extractor
from progan.metrics.extractor_files import INCEPTION, Inception, extractor_from_file, file_sha256, inception
from progan.metrics.fid_kid_is import FrechetDistance, InceptionScore, KernelDistance
from progan.metrics.metric import Metric
from progan.metrics.ms_ssim import MsSsim
from progan.metrics.path_length import PathLength
from progan.metrics.precision_recall import PrecisionRecall
from progan.metrics.swd.distance import SlicedWassersteinMetric
from progan.system.progress import Progress, unheard

METRICS = {
    "swd": "sliced Wasserstein distance",
    "ms_ssim": "multi-scale structural similarity",
    "fid": "Fréchet inception distance",
    "kid": "kernel inception distance",
    "is": "Inception score",
    "pr": "improved precision and recall",
    "ppl": "perceptual path length",
}
"""What each short name stands for."""

Own = Mapping[str, Callable[[], Metric]]
"""What makes metrics of one's own, by name."""
NONE: Own = {}

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


def make_metrics(
    names: Sequence[str],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    extractor: Extractors | None = None,
    n: int = 50_000,
    progress: Progress = unheard,
    own: Own = NONE,
) -> list[Metric | PathLength]:
    """Make metrics by name; all of them share one extractor, which is loaded only if one of them needs it.

    Args:
        names: Of `METRICS`, each once.
        seed: Of everything that a metric draws.
        device: Where to compute; None for the CPU.
        extractor: For all but swd and ms_ssim; None: the Inception network in the cache.
        n: Paths of the path length.
        progress: Told how far a download is.
        own: What makes metrics of one's own, by name.

    Raises:
        ConfigError: if a name is unknown or given twice.
        CheckpointError, DependencyError: if what a metric needs is missing.
    """
    check_names(names, own)
    device = device or torch.device("cpu")
    loaded: list[Inception] = []

    def features() -> Inception:
        if not loaded:
            source = extractor or ExtractorFile()
            if isinstance(source, Extractor):
                source = Inception(source, source)
            loaded.append(source.load(device, progress) if isinstance(source, ExtractorFile) else source)
        return loaded[0]

    return [own[name]() if name in own else _make(name, seed, device, features, n) for name in names]


def check_names(names: Sequence[str], own: Collection[str] = NONE) -> None:
    """Raise a ConfigError unless these are metrics of `METRICS` or of one's own, each once."""
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


def needs_extractor(names: Sequence[str]) -> bool:
    """Tell whether one of these metrics is measured on features."""
    return not set(names) <= set(DEFAULT)


def _make(
    name: str, seed: int, device: torch.device, features: Callable[[], Inception], n: int
) -> Metric | PathLength:
    match name:
        case "swd":
            return SlicedWassersteinMetric(seed=seed, device=device)
        case "ms_ssim":
            return MsSsim(device=device)
        case "fid":
            return FrechetDistance(features().features)
        case "kid":
            return KernelDistance(features().features, seed=seed)
        case "is":
            return InceptionScore(features().probabilities, seed=seed)
        case "pr":
            return PrecisionRecall(features().features)
        case _:
            return PathLength(features().features, samples=n, seed=seed)

"""Metrics on an extractor's features: FID, KID and the Inception score; torchmetrics computes the numbers.

With the Inception network of 2015 (`extractor_files.inception`) they compare with published numbers of the
same count of images; with another extractor only among themselves, and their names say so.
"""

from __future__ import annotations

import importlib
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from progan.config import Branch
from progan.errors import ConfigError, DataError, DependencyError
from progan.metrics.extractor import Extractor
from progan.metrics.image_checks import require_at_least
from progan.metrics.metric import CheckedMetric, Images, MetricTools


class FeatureMetric(CheckedMetric):
    """What metrics on features share: checked images in, features on.

    The metric is called as its prefix and its extractor.
    """

    needs_network: ClassVar[bool] = True

    def __init__(self, prefix: str, extractor: Extractor) -> None:
        self.name = f"{prefix}_{extractor.name}"
        super().__init__(self.name)
        self.extractor = extractor

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        return self.extractor.definition()

    def _take(self, images: Images, name: str) -> None:
        if len(images):
            self._take_features(self.extractor(images), name)

    def _check_counts(self, **counts: int) -> None:
        """Raise a DataError if a set has fewer images than the definition needs."""
        for name, count in counts.items():
            if count < self.minimum:
                raise DataError(f"{self.name} needs at least {self.minimum} {name}, but there are {count}.")

    @abstractmethod
    def _take_features(self, features: Tensor, name: str) -> None:
        """Take in features [n, d], n at least 1, of the set `name`; they must not be written to."""


class KeptFeaturesMetric(FeatureMetric):
    """A metric that keeps all features, in the pieces that they came in: 8 KiB an image with Inception."""

    def __init__(self, prefix: str, extractor: Extractor) -> None:
        super().__init__(prefix, extractor)
        self._kept: dict[str, list[Tensor]] = {"reals": [], "fakes": []}

    def _take_features(self, features: Tensor, name: str) -> None:
        self._kept[name].append(features)

    def _forget(self, name: str) -> None:
        self._kept[name] = []

    def _counts(self) -> dict[str, int]:
        """Return how many images of each set were taken in."""
        return {name: sum(map(len, parts)) for name, parts in self._kept.items()}

    def _all(self, name: str) -> Tensor:
        """Return the features of a set in one tensor [N, d]."""
        self._kept[name] = [torch.cat(self._kept[name])]
        return self._kept[name][0]


class FrechetDistance(FeatureMetric):
    """FID (Heusel et al., 2017): the Fréchet distance of Gaussians fitted to the features of both sets.

    |m_r - m_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)), covariances with n - 1, in float64. Only sums are
    kept. It is biased: it falls as images are added, so only numbers of the same counts compare. Unless a set
    has more images than features (2,048), its covariance is singular and the bias large: a warning says so,
    but published numbers on small sets are computed in this way, so it is not refused.

    Numbers: `fid_EXTRACTOR`. A DependencyError tells that torchmetrics is not installed.
    """

    name = "fid"
    version = 1
    minimum = 2

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, of the features of the network."""
        return cls(tools.network().features)

    def __init__(self, extractor: Extractor) -> None:
        super().__init__("fid", extractor)
        self._class = _torchmetrics("fid", "FrechetInceptionDistance")
        self._metric: Any = None  # made when the number of features is known
        self._counts = {"reals": 0, "fakes": 0}

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of too few images."""
        self._check_counts(**self._counts)
        features = len(self._metric.real_features_sum)
        for name, count in self._counts.items():
            if count <= features:
                warnings.warn(
                    f"{self.name} is measured on {count} {name}, but has {features} features: with no more "
                    f"images than features it is far too large. Compare it only with numbers of as many "
                    f"images, or look at KID, which has no bias.",
                    stacklevel=2,
                )
        return {self.name: float(self._metric.compute())}

    def _take_features(self, features: Tensor, name: str) -> None:
        if self._metric is None:
            self._metric = self._class(feature=_Given(features.shape[1]))
        self._metric.update(features.double(), real=name == "reals")
        self._counts[name] += len(features)

    def _forget(self, name: str) -> None:
        self._counts[name] = 0
        for state in ("sum", "cov_sum", "num_samples") if self._metric is not None else ():
            getattr(self._metric, f"{name[:-1]}_features_{state}").zero_()  # the class has no way to drop one


class KernelDistance(KeptFeaturesMetric):
    """KID (Bińkowski et al., 2018): the squared maximum mean discrepancy of the features.

    With the kernel (xy / d + 1)^3, without bias, as the mean over random subsets of both sets, in float64. A
    subset has `subset_size` images, or all of the smaller set if it has fewer, as in StyleGAN2-ADA. All
    features are kept in memory.

    Numbers: `kid_EXTRACTOR`, and `.._std`, the standard deviation over the subsets. Other than the usual
    subsets are in the name: `kid10x500_EXTRACTOR`.

    Args:
        extractor: Makes the features.
        subsets: How many.
        subset_size: Most images of each set in a subset, at least 2.
        seed: Of the subsets, at least 0.

    Raises:
        DependencyError: if torchmetrics is not installed.
        ConfigError: if an option is out of range.
    """

    name = "kid"
    version = 1
    minimum = 2

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, of the features of the network, with the published subsets."""
        return cls(tools.network().features, seed=tools.seed)

    def __init__(
        self, extractor: Extractor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
    ) -> None:
        require_at_least("KID", subsets=(subsets, 1), subset_size=(subset_size, 2), seed=(seed, 0))
        usual = (subsets, subset_size) == (100, 1000)
        super().__init__("kid" if usual else f"kid{subsets}x{subset_size}", extractor)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed
        self._class = _torchmetrics("kid", "KernelInceptionDistance")

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        own = {"subsets": self.subsets, "subset_size": self.subset_size, "seed": self.seed}
        return {**super().definition(), **own}

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of too few images."""
        self._check_counts(**self._counts())
        reals, fakes = self._all("reals"), self._all("fakes")
        size = min(self.subset_size, len(reals), len(fakes))
        device = self.extractor.device
        # Only with float64 is the difference of large sums exact enough.
        place = torch.device("cpu") if device.type == "mps" else device
        rng = np.random.Generator(np.random.Philox(self.seed))
        found = []
        with _quiet_torchmetrics():
            metric = self._class(feature=nn.Identity(), subsets=1, subset_size=size).to(place)
            for _ in range(self.subsets):
                for features, real in ((reals, True), (fakes, False)):
                    chosen = torch.from_numpy(rng.choice(len(features), size, replace=False))
                    metric.update(features[chosen].to(place).double(), real=real)
                found.append(float(metric.compute()[0]))
                metric.reset()
        return {self.name: float(np.mean(found)), f"{self.name}_std": float(np.std(found))}


class InceptionScore(KeptFeaturesMetric):
    """The Inception score (Salimans et al., 2016): exp of the mean divergence of p(y|x) from p(y).

    High if the classes of single fakes are certain and all classes are frequent. The mean over `splits`
    random parts of the set, and their standard deviation (the population's, as published). It needs no
    reals; if some are added, theirs is measured beside it.

    Numbers: `is_EXTRACTOR`, `.._std`, and both with `_reals` before `_std` if there are reals. Other than the
    usual splits are in the name: `is5_EXTRACTOR`.

    Args:
        extractor: Makes probabilities of classes [n, classes], such as `Inception.probabilities`.
        splits: How many, at least 2. The images needed are its square, so that splits are of about one size.
        seed: Of the splits, at least 0.

    Raises:
        DependencyError: if torchmetrics is not installed.
        ConfigError: if an option is out of range.
    """

    name = "is"
    version = 1
    needs_reals: ClassVar[bool] = False

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, of the probabilities of the network, with the published splits."""
        return cls(tools.network().probabilities, seed=tools.seed)

    def __init__(self, extractor: Extractor, *, splits: int = 10, seed: int = 0) -> None:
        require_at_least("the Inception score", splits=(splits, 2), seed=(seed, 0))
        super().__init__("is" if splits == 10 else f"is{splits}", extractor)
        self.splits, self.seed = splits, seed
        self.minimum = splits**2
        self._class = _torchmetrics("inception", "InceptionScore")

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        return {**super().definition(), "splits": self.splits, "seed": self.seed}

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of too few images."""
        counts = self._counts()
        self._check_counts(**{name: n for name, n in counts.items() if n or name == "fakes"})
        numbers = self._score(self._all("fakes"), self.name)
        if counts["reals"]:
            numbers |= self._score(self._all("reals"), f"{self.name}_reals")
        return numbers

    def _score(self, probabilities: Tensor, name: str) -> dict[str, float]:
        with _quiet_torchmetrics():
            torch.default_generator.manual_seed(self.seed)  # the splits are drawn from it
            metric = self._class(feature=nn.Identity(), splits=self.splits)
            # It wants logits; logarithms of probabilities are some. Those of 0 would be infinite.
            metric.update(probabilities.double().clamp(min=torch.finfo(torch.float64).tiny).log())
            mean, deviation = metric.compute()
        # torchmetrics divides by splits - 1.
        return {name: float(mean), f"{name}_std": float(deviation) * math.sqrt(1 - 1 / self.splits)}

    def _take_features(self, features: Tensor, name: str) -> None:
        sums = features.sum(1)
        if features.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            raise ConfigError(
                f"{self.name} needs probabilities of classes, at least 0 and with the sum 1, but the "
                f"extractor {self.extractor.name} made other numbers; put a softmax behind it"
            )
        super()._take_features(features, name)


class _Given(nn.Module):
    """The extractor that torchmetrics is given: features come in, and go out as they are."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features


def _torchmetrics(module: str, name: str) -> Any:
    """Return a class of `torchmetrics.image`, which is part of the extra `metrics`."""
    try:
        return getattr(importlib.import_module(f"torchmetrics.image.{module}"), name)
    except ImportError:
        raise DependencyError(
            f'{name} is computed by torchmetrics, which is not installed: pip install "progan[metrics]"'
        ) from None


@contextmanager
def _quiet_torchmetrics() -> Iterator[None]:
    """Leave PyTorch's random numbers as they were, and hear no warnings of the memory that features take."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield

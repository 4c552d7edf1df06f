"""Improved precision and recall (Kynkäänniemi et al., 2019): quality and variety as two numbers."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from progan.config import Branch
from progan.metrics.extractor import Extractor
from progan.metrics.fid_kid_is import KeptFeaturesMetric
from progan.metrics.image_checks import require_at_least
from progan.metrics.metric import MetricTools
from progan.metrics.neighbours import share_inside, squared_radii


class PrecisionRecall(KeptFeaturesMetric):
    """How many fakes look like reals (precision), and how many reals could be fakes (recall).

    A set covers a ball around each of its features, as large as the distance to the k-th nearest other one.
    Precision is the share of fakes that the reals cover, recall that of reals which the fakes cover. Both
    depend on the counts, so only numbers of as many images compare (the paper has 50,000 of each). All
    features are kept in memory; distances are computed in blocks, in float64. The paper's numbers are on
    VGG-16 features.

    Numbers: `pr_EXTRACTOR_precision` and `pr_EXTRACTOR_recall`; with another k than 3, `pr5_EXTRACTOR_...`.

    Args:
        extractor: Makes the features.
        k: Which neighbour bounds a ball, at least 1. More than k images of each set are needed.

    Raises:
        ConfigError: if k is less than 1.
    """

    version = 1

    name = "pr"

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - it has none
        """Return it, of the features of the network, with the published k."""
        return cls(tools.network().features)

    def __init__(self, extractor: Extractor, *, k: int = 3) -> None:
        require_at_least("precision and recall", k=(k, 1))
        super().__init__("pr" if k == 3 else f"pr{k}", extractor)
        self.k = k
        self.minimum = k + 1
        self._real_radii: Tensor | None = None  # found again only after reals were added

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""
        return {**super().definition(), "k": self.k}

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError tells of too few images."""
        self._check_counts(**self._counts())
        reals, fakes = self._all("reals"), self._all("fakes")
        device = self.extractor.device
        if self._real_radii is None:
            self._real_radii = squared_radii(reals, self.k, device)
        return {
            f"{self.name}_precision": share_inside(fakes, reals, self._real_radii, device),
            f"{self.name}_recall": share_inside(reals, fakes, squared_radii(fakes, self.k, device), device),
        }

    def _take_features(self, features: Tensor, name: str) -> None:
        super()._take_features(features, name)
        if name == "reals":
            self._real_radii = None

    def _forget(self, name: str) -> None:
        super()._forget(name)
        if name == "reals":
            self._real_radii = None

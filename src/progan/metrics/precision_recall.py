"""Improved precision and recall (Kynkäänniemi et al., 2019): quality and variety as two numbers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from progan.errors import ConfigError
from progan.metrics.extractor import Extractor
from progan.metrics.fid_kid_is import FeatureMetric, KeptFeatures
from progan.metrics.neighbours import share_inside, squared_radii


class PrecisionRecall(FeatureMetric):
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

    def __init__(self, extractor: Extractor, *, k: int = 3) -> None:
        if k < 1:
            raise ConfigError(f"k of precision and recall must be at least 1, not {k}")
        super().__init__("pr" if k == 3 else f"pr{k}", extractor)
        self.k = k
        self.minimum = k + 1
        self._kept = {"reals": KeptFeatures(), "fakes": KeptFeatures()}
        self._real_radii: Tensor | None = None  # found again only after reals were added

    def definition(self) -> dict[str, Any]:
        """See `Metric`."""
        return {**super().definition(), "k": self.k}

    def compute(self) -> dict[str, float]:
        """See `Metric`."""
        self._check_counts(**{name: len(kept) for name, kept in self._kept.items()})
        reals, fakes = (self._kept[name].all() for name in ("reals", "fakes"))
        device = self.extractor.device
        if self._real_radii is None:
            self._real_radii = squared_radii(reals, self.k, device)
        return {
            f"{self.name}_precision": share_inside(fakes, reals, self._real_radii, device),
            f"{self.name}_recall": share_inside(reals, fakes, squared_radii(fakes, self.k, device), device),
        }

    def _take(self, features: Tensor, name: str) -> None:
        self._kept[name].add(features)
        if name == "reals":
            self._real_radii = None

    def _forget(self, name: str) -> None:
        self._kept[name] = KeptFeatures()
        if name == "reals":
            self._real_radii = None

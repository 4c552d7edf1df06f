"""Options of what watches a run: metrics, and the duality gap."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from progan.config.fields import Branch, PerLevelRate, Positive

MetricName = Literal["swd", "ms_ssim", "fid", "kid", "is", "pr", "ppl"]


class MonitorOptions(Branch):
    """What watches a run: metrics of the averaged generator, and the duality gap of the pair in training."""

    metrics: tuple[MetricName, ...] = Field(
        (), description="Any of swd, ms_ssim, fid, kid, is, pr and ppl; none: no metric."
    )
    duality_gap: bool = Field(
        False, description="Measure the duality gap: how much G or D could gain alone. Needs a data.split."
    )
    interval_kimg: PerLevelRate = Field(
        (100.0,), description="Interval of the measurements, per level; also at the end of each phase."
    )
    num_images: int = Field(2048, ge=2, description="Images of each set; fewer if the set has fewer.")
    gap_steps: int = Field(
        400,
        ge=1,
        description="Updates of each copy that is trained for the duality gap, during training or by "
        "`progan evaluate`.",
    )
    gap_lr: Positive = Field(0.001, description="Learning rate of the copies.")
    gap_beta1: float = Field(0.5, ge=0, lt=1, description="Adam's decay of the copies' first moment.")
    gap_beta2: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the copies' second moment.")
    extractor: Path | None = Field(
        None,
        description="File of the network whose features metrics compare; default: Inception in the cache.",
    )
    resize: str = Field(
        "none", description="How images are resized for it: none, or such as bilinear-antialias:224."
    )
    normalise: str = Field(
        "0..255", description="How pixels are scaled for it: 0..255, 0..1, -1..1 or imagenet."
    )

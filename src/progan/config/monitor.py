"""Options of what watches a run: metrics, and the duality gap."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from progan.config.fields import Branch, PerLevelRate, Positive, option

MetricName = Literal["swd", "ms_ssim", "fid", "kid", "is", "pr", "ppl"]


Tracker = Literal["tensorboard", "csv", "webhook", "wandb", "mlflow", "trackio"]


class TrackOptions(Branch):
    """What follows a run without changing it; `stats.jsonl` is written in any case."""

    to: tuple[Tracker, ...] = option(
        ("tensorboard",),
        "Any of tensorboard (events in the run folder), csv (stats.csv), webhook, wandb, mlflow and trackio; "
        "none: nothing but stats.jsonl.",
    )
    project: str = option(
        "progan", "Project (MLflow: experiment) that a tracked run belongs to.", min_length=1
    )
    name: str | None = option(None, "What the tracked run is called; default: the name of the run folder.")
    url: str | None = option(None, "Address of the webhook, or of MLflow's server or folder.")


class MonitorOptions(Branch):
    """What watches a run: metrics of the averaged generator, and the duality gap of the pair in training."""

    metrics: tuple[MetricName, ...] = option(
        (), "Any of swd, ms_ssim, fid, kid, is, pr and ppl; none: no metric."
    )
    duality_gap: bool = option(
        False, "Measure the duality gap: how much G or D could gain alone. Needs a data.split."
    )
    interval_kimg: PerLevelRate = option(
        (100.0,), "Interval of the measurements, per level; also at the end of each phase."
    )
    num_images: int = option(2048, "Images of each set; fewer if the set has fewer.", ge=2)
    gap_steps: int = option(
        400,
        "Updates of each copy that is trained for the duality gap, during training or by `progan evaluate`.",
        ge=1,
    )
    gap_lr: Positive = option(0.001, "Learning rate of the copies.")
    gap_beta1: float = option(0.5, "Adam's decay of the copies' first moment.", ge=0, lt=1)
    gap_beta2: float = option(0.99, "Adam's decay of the copies' second moment.", ge=0, lt=1)
    extractor: Path | None = option(
        None, "File of the network whose features metrics compare; default: Inception in the cache."
    )
    resize: str = option("none", "How images are resized for it: none, or such as bilinear-antialias:224.")
    normalise: str = option("0..255", "How pixels are scaled for it: 0..255, 0..1, -1..1 or imagenet.")

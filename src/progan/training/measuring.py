"""What measures a run while it goes on, if that is asked for."""

from __future__ import annotations

import torch

from progan.config import Config
from progan.data.packed import PackedSet
from progan.evaluation.choice import ExtractorFile
from progan.evaluation.monitor import Monitor
from progan.training.duality_gap import DualityGap, GapWatch
from progan.training.reporting import Reporter


def make_gap_watch(
    config: Config, packed: PackedSet, device: torch.device, reporter: Reporter
) -> GapWatch | None:
    """Return what measures the duality gap during a run, or None if that is not asked for."""
    if not config.monitor.duality_gap:
        return None
    return GapWatch(DualityGap(config, packed, device, say=reporter.say))


def make_monitor(config: Config, packed: PackedSet, device: torch.device) -> Monitor | None:
    """Return what measures the generator during a run, or None if no metrics are asked for.

    Raises:
        ProganError: if an extractor is missing, or there are too few pictures.
    """
    options = config.monitor
    if not options.metrics:
        return None
    return Monitor(
        packed,
        options.metrics,
        n=options.num_images,
        part=config.data.part,
        mirror=config.data.mirror,
        seed=config.run.seed,
        device=device,
        extractor=ExtractorFile(options.extractor, options.resize, options.normalise),
    )

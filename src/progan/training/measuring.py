"""What measures a run while it goes on, if that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch

from progan.config import Config
from progan.data.packed import PackedSet
from progan.errors import ProganError, RankError, ToldElsewhere
from progan.evaluation.choice import ExtractorFile
from progan.evaluation.monitor import Monitor, monitored
from progan.models.generator import Generator
from progan.training.distributed import Ranks
from progan.training.duality_gap import DualityGap, GapWatch
from progan.training.logs import Stats
from progan.training.making import follow, leading
from progan.training.reporting import Reporter
from progan.training.step import is_out_of_memory

Measure: TypeAlias = Callable[[Generator, Callable[[], bool]], dict[str, float]]
"""Returns the numbers of a generator by name; asks now and then whether to give up, and then returns none."""


def make_gap_watch(
    config: Config, packed: PackedSet, device: torch.device, reporter: Reporter
) -> GapWatch | None:
    """Return what measures the duality gap during a run, or None if that is not asked for."""
    if not config.monitor.duality_gap:
        return None
    return GapWatch(DualityGap(config, packed, device, say=reporter.say))


def measure_all(
    watches: Sequence[Callable[[], dict[str, float]]], ranks: Ranks, seen: int, say: Callable[[str], None]
) -> Stats:
    """Return metrics and duality gap; if they cannot be had that is said, and ends no training.

    Args:
        watches: What measures.
        ranks: The processes, all of which call this.
        seen: The clock.
        say: Told what could not be measured, and why.

    Raises:
        RankError, ToldElsewhere: if another process is lost or has failed.
    """
    stats: Stats = {}
    for watch in watches:
        ranks.at("a measurement", seen)
        try:
            stats.update(watch())
        except (RankError, ToldElsewhere):
            raise
        except ProganError as error:
            say(f"not measured at {seen:,} images: {error}")
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).split(". ")[0]
            say(f"not measured at {seen:,} images: {reason}")
    return stats


def make_monitor(config: Config, packed: PackedSet, device: torch.device, ranks: Ranks) -> Measure | None:
    """Return what measures the generator during a run, or None if no metrics are asked for.

    All processes call it at the same time: they make the images together, and the first measures them; the
    others have no numbers.

    Raises:
        ProganError: on the first process, if an extractor is missing, or there are too few pictures.
    """
    options = config.monitor
    if not options.metrics:
        return None
    if not ranks.first:
        return partial(_help, ranks, config.run.seed)
    monitor = Monitor(
        packed,
        options.metrics,
        n=options.num_images,
        part=config.data.part,
        mirror=config.data.mirror,
        seed=config.run.seed,
        device=device,
        extractor=ExtractorFile(options.extractor, options.resize, options.normalise),
    )
    return partial(_measure, ranks, monitor)


def _measure(ranks: Ranks, monitor: Monitor, G: Generator, stop: Callable[[], bool]) -> dict[str, float]:
    """Measure on the first process; see `Measure`."""
    with leading(ranks) as deal:
        return monitor.measure(G, stop, deal)


def _help(ranks: Ranks, seed: int, G: Generator, _stop: Callable[[], bool]) -> dict[str, float]:
    """Make what the first process measures, for as long as it does; see `Measure`."""
    images = monitored(G, seed)
    follow(ranks, images.read, images.shape)
    return {}

"""What measures a run while it goes on, if that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import torch

from progan.config import Config
from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks
from progan.distributed.work_sharing import Work, follow, leading
from progan.errors import ProganError, RankError, ToldElsewhere
from progan.evaluation.duality_gap import NAME, DualityGap
from progan.evaluation.measure import path_work
from progan.evaluation.monitor import Monitor, monitored
from progan.metrics.path_length import PathLength
from progan.metrics.registry import ExtractorFile
from progan.models.generator import Generator
from progan.runs.logs import Stats
from progan.runs.reporter import Reporter
from progan.training.state import TrainState
from progan.training.step import is_out_of_memory

Measure: TypeAlias = Callable[[Generator, Callable[[], bool]], dict[str, float]]
"""Returns the numbers of a generator by name; asks now and then whether to give up, and then returns none."""


class GapWatch:
    """Measures the duality gap of a run from time to time, and keeps account of what that costs.

    Args:
        gap: Measures.
        ranks: The processes of the run, which train the copies; the first has the numbers.
    """

    def __init__(self, gap: DualityGap, ranks: Ranks = ALONE) -> None:
        self._gap, self._ranks = gap, ranks
        self._began = time.monotonic()
        self._seconds = 0.0

    def measure(self, state: TrainState, stop: Callable[[], bool]) -> dict[str, float]:
        """Return the numbers for a log point, and `duality_gap/share`; nothing if it was given up.

        The share is that of the time since this process began to train, measurements included, up to now.

        Raises:
            DivergenceError, ConfigError: as `DualityGap.measure`.
            RankError, ToldElsewhere: if another process is lost or has failed.
        """

        def progress(_done: int, _total: int) -> None:
            self._ranks.at("an update for the duality gap", state.images_seen)

        if not self._ranks.first:
            follow(self._ranks, [self._gap.work(state, stop, progress)])
            return {}
        start = time.monotonic()
        try:
            with leading(self._ranks) as deal:
                found = self._gap.measure(state, stop, progress, deal)
        finally:
            self._seconds += time.monotonic() - start
        return {} if found is None else {**found.numbers(), f"{NAME}/share": round(self._share(), 4)}

    def summary(self) -> str:
        """Say what the measurements have cost."""
        return (
            f"the duality gap took {100 * self._share():.0f} % of the time ({self._seconds:,.0f} s); "
            f"monitor.interval_kimg and monitor.gap_steps decide how much"
        )

    def _share(self) -> float:
        return self._seconds / max(time.monotonic() - self._began, 1e-9)


def make_gap_watch(
    config: Config, packed: PackedSet, device: torch.device, ranks: Ranks, reporter: Reporter
) -> GapWatch | None:
    """Return what measures the duality gap during a run, or None if that is not asked for."""
    if not config.monitor.duality_gap:
        return None
    return GapWatch(DualityGap(config, packed, device, say=reporter.say), ranks)


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
        ProganError, RuntimeError: on another process than the first, if it cannot help.
    """
    stats: Stats = {}
    for watch in watches:
        ranks.at("a measurement", seen)
        try:
            stats.update(watch())
        except (RankError, ToldElsewhere):
            raise
        except (ProganError, RuntimeError) as error:
            no_memory = isinstance(error, RuntimeError) and is_out_of_memory(error)
            # The first alone goes on without: it would wait for the help of others in vain if they did.
            if not ranks.first or not (no_memory or isinstance(error, ProganError)):
                raise
            say(f"not measured at {seen:,} images: {str(error).split('. ')[0] if no_memory else error}")
    return stats


def make_monitor(config: Config, packed: PackedSet, device: torch.device, ranks: Ranks) -> Measure | None:
    """Return what measures the generator during a run, or None if no metrics are asked for.

    All processes call it at the same time: they make the images and paths together, and the first measures
    them; the others have no numbers.

    Raises:
        ProganError: on the first process, if an extractor is missing, or there are too few pictures.
    """
    options = config.monitor
    if not options.metrics:
        return None
    extractor = ExtractorFile(options.extractor, options.resize, options.normalise)
    if not ranks.first:
        return partial(_help, ranks, _Helper(options.metrics, config.run.seed, device, extractor))
    monitor = Monitor(
        packed,
        options.metrics,
        n=options.num_images,
        part=config.data.part,
        mirror=config.data.mirror,
        seed=config.run.seed,
        device=device,
        extractor=extractor,
    )
    return partial(_measure, ranks, monitor)


def _measure(ranks: Ranks, monitor: Monitor, G: Generator, stop: Callable[[], bool]) -> dict[str, float]:
    """Measure on the first process; see `Measure`."""
    with leading(ranks) as deal:
        return monitor.measure(G, stop, deal)


def _help(ranks: Ranks, helper: _Helper, G: Generator, _stop: Callable[[], bool]) -> dict[str, float]:
    """Do what the first process measures with, for as long as it does; see `Measure`."""
    follow(ranks, helper.works(G))
    return {}


class _Helper:
    """What another process than the first can do for its monitor; the arguments are the monitor's."""

    def __init__(
        self, metrics: Sequence[str], seed: int, device: torch.device, extractor: ExtractorFile
    ) -> None:
        self._seed = seed
        self._path: PathLength | None = None
        if "ppl" in metrics:
            with suppress(ProganError):  # where it is missing, the first does all of the paths
                self._path = PathLength(extractor.load(device).features, seed=seed)

    def works(self, G: Generator) -> list[Work]:
        """Return what can be done with a generator."""
        images = monitored(G, self._seed)
        return [images.work, *([] if self._path is None else [path_work(self._path, images)])]

"""What measures a run while it goes on, if that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial

from progan.config import format_resolution, parse_colour
from progan.distributed.ranks import Ranks
from progan.distributed.work_sharing import Deal, Work, share
from progan.errors import ProganError, memory_reason
from progan.evaluation.duality_gap import NAME, DualityGap
from progan.evaluation.measure import path_work
from progan.evaluation.monitor import Monitor, monitored
from progan.metrics.path_length import PathLength
from progan.metrics.registry import ExtractorFile, own_metrics
from progan.runs.checks import Prepared
from progan.runs.logs import Stats
from progan.training.state import TrainState
from progan.training.step import is_out_of_memory

Stop = Callable[[], bool]
"""Asked now and then whether to give up a measurement; then there are no numbers."""


class Monitors:
    """Measures a run at some of its log points: its processes do so together, and the first has the numbers.

    Raises:
        ProganError: on the first process, if an extractor is missing, or there are too few pictures.
    """

    def __init__(self, run: Prepared) -> None:
        self._ranks, self._say = run.ranks, run.reporter.say
        config = run.spec.config
        self._metrics = MetricsWatch(run) if config.monitor.metrics else None
        self._gap: GapWatch | None = None
        if config.monitor.duality_gap:
            self._gap = GapWatch(DualityGap(config, run.packed, run.device, say=self._say), self._ranks)

    def __bool__(self) -> bool:
        return self._metrics is not None or self._gap is not None

    def measure(self, state: TrainState, stop: Stop) -> Stats:
        """Return metrics and duality gap; if they cannot be had that is said, and ends no training.

        Args:
            state: What is trained.
            stop: Asked now and then whether to give up.

        Raises:
            RankError, ToldElsewhere: if another process is lost or has failed.
            ProganError, RuntimeError: on another process than the first, if it cannot help.
        """
        stats: Stats = {}
        for watch in (self._metrics, self._gap):
            if watch is None:
                continue
            self._ranks.at("a measurement", state.images_seen)
            lead, works = partial(watch.lead, state, stop), partial(watch.works, state, stop)
            excuse = partial(excused, state.images_seen, self._say)
            stats.update(share(self._ranks, lead, works, excuse) or {})
        return stats

    def tell_costs(self) -> None:
        """Say what the duality gap has cost, if it was measured."""
        if self._gap is not None:
            self._say(self._gap.summary())


def excused(seen: int, say: Callable[[str], None], error: Exception) -> bool:
    """Say why there is no measurement at a clock, and return True, if training can go on without it."""
    no_memory = isinstance(error, RuntimeError) and is_out_of_memory(error)
    if not no_memory and not isinstance(error, ProganError):
        return False
    say(f"not measured at {seen:,} images: {memory_reason(error) if no_memory else error}")
    return True


class GapWatch:
    """Measures the duality gap of a run, whose processes train the copies, and counts what that costs."""

    def __init__(self, gap: DualityGap, ranks: Ranks) -> None:
        self._gap, self._ranks = gap, ranks
        self._began = time.monotonic()
        self._seconds = 0.0

    def lead(self, state: TrainState, stop: Stop, deal: Deal) -> dict[str, float]:
        """Return the numbers for a log point, and `duality_gap/share`; nothing if it was given up.

        The share is that of the time since this process began to train, measurements included, up to now.

        Raises:
            DivergenceError: if copies run away.
            ConfigError: if memory does not hold them.
        """
        start = time.monotonic()
        try:
            found = self._gap.measure(state, stop, partial(self._move, state), deal)
        finally:
            self._seconds += time.monotonic() - start
        return {} if found is None else {**found.numbers(), f"{NAME}/share": round(self._share(), 4)}

    def works(self, state: TrainState, stop: Stop) -> list[Work]:
        """Return what another process than the first can do: train copies."""
        return [self._gap.work(state, stop, partial(self._move, state))]

    def summary(self) -> str:
        """Say what the measurements have cost."""
        return (
            f"the duality gap took {100 * self._share():.0f} % of the time ({self._seconds:,.0f} s); "
            f"monitor.interval_kimg and monitor.gap_steps decide how much"
        )

    def _move(self, state: TrainState, *_how_far: object) -> None:
        self._ranks.at("an update for the duality gap", state.images_seen)

    def _share(self) -> float:
        return self._seconds / max(time.monotonic() - self._began, 1e-9)


class MetricsWatch:
    """Measures the averaged generator of a run: all processes make images, and the first measures them.

    What of the metrics it cannot measure it says when it is made.

    Raises:
        ProganError: on the first process, as `Monitor` does.
    """

    def __init__(self, run: Prepared) -> None:
        config, options = run.spec.config, run.spec.config.monitor
        self._config, self._device = config, run.device
        self._extractor = ExtractorFile(options.extractor, options.resize, options.normalise)

        self._background = parse_colour(config.data.background)
        levels = sorted({phase.level for phase in run.spec.schedule.phases})

        def make() -> Monitor:
            return Monitor(
                run.packed,
                options.metrics,
                n=options.num_images,
                part=config.data.part,
                mirror=config.data.mirror,
                seed=config.run.seed,
                device=run.device,
                extractor=self._extractor,
                background=self._background,
                own=own_metrics(config.parts, config.monitor),
                sizes=[run.spec.image.resolution(level) for level in levels],
            )

        self._monitor = run.ranks.first_only(make)
        for line in [] if self._monitor is None else _what_is_left_out(self._monitor):
            run.reporter.say(line)

    def lead(self, state: TrainState, stop: Stop, deal: Deal) -> dict[str, float]:
        """Return the numbers by name; none if it was given up."""
        assert self._monitor is not None
        return self._monitor.measure(state.G_ema, stop, deal)

    def works(self, state: TrainState, _stop: Stop) -> list[Work]:
        """Return what another process than the first can do: make images and follow paths."""
        images = monitored(state.G_ema, self._config.run.seed, background=self._background)
        return [images.work, *([] if self._path is None else [path_work(self._path, images)])]

    @cached_property
    def _path(self) -> PathLength | None:
        """What computes path lengths; where it is missing, the first does all of the paths."""
        if "ppl" in self._config.monitor.metrics:
            with suppress(ProganError):
                return PathLength(self._extractor.load(self._device).features, seed=self._config.run.seed)
        return None


def _what_is_left_out(monitor: Monitor) -> list[str]:
    """Say which metrics are not measured, or not from the beginning."""
    never = [
        f"not measured, as it is not defined for any size of this run: {reason} (--monitor.metrics chooses "
        f"others)"
        for reason in monitor.left_out.values()
    ]
    later = {
        size: " and ".join(name for name, begin in monitor.begins.items() if begin == size)
        for size in monitor.begins.values()
    }
    return never + [
        f"{names}: measured from {format_resolution(size)} on, not defined for smaller images"
        for size, names in later.items()
    ]

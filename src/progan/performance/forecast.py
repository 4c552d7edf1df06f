"""How long a run takes on this machine: some iterations measured, others counted; kept right meanwhile."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace

import torch

from progan.data.packed import PackedSet
from progan.errors import ProganError
from progan.performance.iteration_cost import Ceiling, Costs
from progan.performance.peak_rates import describe, seconds
from progan.performance.projection import PhaseKind, PhaseTime, Projection, kind_of, nearest, project
from progan.system.files import cache_folder, parse_json, write_text
from progan.training.iteration import Iteration
from progan.training.precision import settings
from progan.training.spec import Spec

BUDGET = 2.0
"""Seconds that measuring takes, about: levels whose iterations are expected to take longer are counted."""

USUAL_MACHINE = Ceiling(operations=1e11, bandwidth=2.5e10)
"""Of which only the ratio matters, 4 operations a byte as of a CPU core: it says how levels compare."""

TIMES = 3
"""Iterations of each kind of phase, of which the first warms up and the fastest of the others counts."""

WINDOW = 60.0
"""Seconds of the past that the remaining time is judged by, at least."""


def expect(spec: Spec, packed: PackedSet, device: torch.device, budget: float = BUDGET) -> Projection:
    """Work out how long a schedule takes, from iterations of its first levels that are made and forgotten.

    What was measured on this machine is remembered in the user's cache and not measured again.

    Args:
        spec: The run; its precision settled.
        packed: Its pictures.
        device: Where it computes.
        budget: Seconds to spend, about.

    Returns:
        The projection; nothing of it is measured if not even the first level could be tried.
    """
    phases, floors = spec.schedule.phases, relative_costs(spec)
    measured: dict[PhaseKind, float] = {}
    with suppress(ProganError):  # what hinders an iteration is told by the run, in its own words
        measured = measure(spec, packed, device, floors, budget)
    return project(phases, measured, floors) or _counted(spec, floors)


def count(spec: Spec) -> Projection:
    """Return how the phases of a schedule compare, unmeasured: only ratios of its seconds count."""
    return _counted(spec, relative_costs(spec))


def _counted(spec: Spec, floors: dict[PhaseKind, float]) -> Projection:
    phases = spec.schedule.phases
    return Projection(tuple(PhaseTime(p, (p.end - p.start) * floors[kind_of(p)], False) for p in phases))


def relative_costs(spec: Spec) -> dict[PhaseKind, float]:
    """Return how the kinds of phases of a schedule compare: seconds an image of a usual machine at its best.

    A fade is counted as the level that it brings in, which differs by a few per cent.
    """
    costs = Costs(spec.config, spec.image)
    levels = {level: costs.iteration(level, fading=False) for level, _ in map(kind_of, spec.schedule.phases)}
    seconds_an_image = {
        level: (each.work.operations / USUAL_MACHINE.operations + each.work.bytes / USUAL_MACHINE.bandwidth)
        / each.images
        for level, each in levels.items()
    }
    return {kind: seconds_an_image[kind[0]] for kind in map(kind_of, spec.schedule.phases)}


def measure(
    spec: Spec,
    packed: PackedSet,
    device: torch.device,
    floors: dict[PhaseKind, float],
    budget: float = BUDGET,
) -> dict[PhaseKind, float]:
    """Measure the seconds an image of a schedule's kinds of phases, from the lowest, within the budget.

    Nothing is compiled for it. Those of an earlier call with the same networks on the same machine are taken
    from the cache.

    Args:
        spec: The run.
        packed: Its pictures.
        device: Where to compute.
        floors: How the kinds compare, to expect what the next one takes.
        budget: Seconds to spend, about.

    Raises:
        ProganError: if an iteration cannot be made.
    """
    with settings(spec.config.run, device):
        key, known = _key(spec, device), _remembered()
        measured = {(level, fading): time for level, fading, time in known.get(key, ())}
        kinds = dict.fromkeys(kind_of(phase) for phase in spec.schedule.phases)
        missing = [kind for kind in kinds if kind not in measured]
        if new := _measure(missing, measured, spec, packed, device, floors, budget):
            measured |= new
            known[key] = [(*kind, time) for kind, time in measured.items()]
            with suppress(ProganError):  # a cache that cannot be written is measured again
                write_text(cache_folder() / CACHE, json.dumps(dict(list(known.items())[-KEPT:])))
    return {kind: measured[kind] for kind in kinds if kind in measured}


CACHE = "iterations.json"
KEPT = 200
"""Measurements of so many configurations are remembered."""


def _measure(
    kinds: Iterable[PhaseKind],
    known: dict[PhaseKind, float],
    spec: Spec,
    packed: PackedSet,
    device: torch.device,
    floors: dict[PhaseKind, float],
    budget: float,
) -> dict[PhaseKind, float]:
    """Time iterations of kinds of phases until the next would exceed the budget; always the first."""
    end, iteration, measured = time.monotonic() + budget, None, dict[PhaseKind, float]()
    run = spec.config.run.model_copy(update={"compile": "never"})
    own = replace(spec, config=spec.config.model_copy(update={"run": run}))
    for kind in kinds:
        phase = next(phase for phase in spec.schedule.phases if kind_of(phase) == kind)
        point = spec.schedule.at(spec.schedule.entry(phase))
        images = point.batch_size * spec.config.loss.d_steps
        have = {done: time for done, time in (known | measured).items() if done in floors}
        if have:
            like = nearest(kind, have)
            if time.monotonic() + TIMES * images * have[like] * floors[kind] / floors[like] > end:
                break
        if iteration is None:
            iteration = Iteration(own, packed, device, lambda _: None)
        times = []
        for count in range(TIMES):
            iteration.state.images_seen = spec.schedule.entry(phase)
            times.append(seconds(lambda: iteration(point), device))  # noqa: B023 - called at once
            if count and time.monotonic() > end:
                break
        measured[kind] = min(times[1:]) / images
    if iteration is not None:
        iteration.batches.rest()
        del iteration
        gc.collect()  # recorded updates and their networks hold each other
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return measured


def _key(spec: Spec, device: torch.device) -> str:
    """Name what decides how long an iteration takes here: machine, networks, batches, precision."""
    tree = spec.config.model_dump(mode="json")
    run = {name: tree["run"][name] for name in ("precision", "micro_batch", "cuda_graphs", "deterministic")}
    schedule = {name: tree["schedule"][name] for name in ("batch_size", "growth")}
    branches = [tree[branch] for branch in ("model", "loss", "augment")]
    decides = [describe(device), asdict(spec.image), run, schedule, *branches]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _remembered() -> dict[str, list[tuple[int, bool, float]]]:
    """Return what the cache holds; nothing if it cannot be read."""
    try:
        held = parse_json((cache_folder() / CACHE).read_text(encoding="utf-8"))
        return {
            str(key): [(int(level), bool(fading), float(time)) for level, fading, time in kinds]
            for key, kinds in held.items()
        }
    except (ProganError, OSError, ValueError, TypeError, AttributeError):
        return {}


class Forecast:
    """When a run ends: what was expected, corrected by how long the last minute took.

    Levels differ in cost by orders of magnitude, so the remaining time follows the expected time of what is
    left.

    Args:
        expected: How long the schedule takes.
        images_seen: The clock now.
        now: Tells the time in seconds.
    """

    def __init__(
        self, expected: Projection, images_seen: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected, self._now = expected, now
        self._known = expected.measured_share > 0
        self._points = deque([(now(), images_seen)])

    def add(self, images_seen: int) -> None:
        """Take note of the clock; call it after each iteration."""
        now = self._now()
        if images_seen <= self._points[-1][1]:  # the run has gone back
            self._points.clear()
        elif len(self._points) > 1 and now - self._points[-2][0] < WINDOW / 60:
            self._points.pop()
        self._points.append((now, images_seen))
        while len(self._points) > 2 and now - self._points[1][0] >= WINDOW:
            self._points.popleft()

    def rate(self) -> float | None:
        """Return images a second; that expected if none was seen yet, None if not known."""
        slower = self._slower()
        seconds = self._expected.seconds_an_image(self._points[-1][1])
        return None if slower is None or not seconds else 1 / (seconds * slower)

    def left(self) -> float | None:
        """Return the seconds that are left; None if they are not known yet."""
        slower = self._slower()
        return None if slower is None else slower * self._expected.left(self._points[-1][1])

    def _slower(self) -> float | None:
        """Return how many times as long as expected the last minute took; None if not known yet."""
        (begun, first), (now, last) = self._points[0], self._points[-1]
        expected = self._expected.left(first) - self._expected.left(last)
        if expected > 0 and now > begun:
            return (now - begun) / expected
        return 1.0 if self._known else None

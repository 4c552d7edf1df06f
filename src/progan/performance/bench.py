"""How fast iterations are, level by level and variant by variant, beside what they must cost at least."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from progan.config import Config, format_resolution, make_config, merge, parse_resolution, split_resolution
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.performance.compiled_cost import CompiledCosts
from progan.performance.estimate import WORKSPACE
from progan.performance.interleaved import Runner, Timed, take_turns
from progan.performance.iteration_cost import Ceiling, Costs, IterationCost
from progan.performance.op_counter import OpCounts
from progan.performance.peak_rates import Rates, describe, measure_copy, measure_products
from progan.performance.projection import PhaseKind, Projection, kind_of, project
from progan.performance.variants import choose_variants
from progan.preparation.builtin_sets import synthetic
from progan.system.device import choose_device
from progan.system.progress import Progress, unheard
from progan.training.precision import SMALL_TYPES, settings, settle
from progan.training.schedule import Phase, Schedule
from progan.training.spec import ImageSpec, make_spec
from progan.training.state import require_growable

SET_BYTES = 2**26
"""Of the pictures' largest size the synthetic set holds as much, but 16 to 1024 pictures."""

PICTURES = 30_000
"""Pictures of a schedule whose phases are counted in epochs, unless data.limit says: those of CelebA-HQ."""

LABELS = ("1", "2", "3", "4")
"""Of the synthetic set, for configurations with labels."""

NO_LABELS_OF_FILES = {"data": {"labels": "folders", "label_form": "class"}}
"""Labels of a file are replaced by those of the synthetic set."""


@dataclass(frozen=True)
class Measurement:
    """One variant at one level, in a phase of a kind: what an iteration asks for, and what was measured.

    `floor` is the seconds that an iteration takes at least, `timed` None if it was only counted;
    `largest_part` is how many images of a batch a given memory holds at once, if one was given, and
    `compiled` what a compiled iteration asks for, if the compiler was asked.
    """

    variant: str
    phase: Phase
    cost: IterationCost
    floor: float
    timed: Timed | None = None
    largest_part: int | None = None
    compiled: OpCounts | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds of an iteration, if that was measured."""
        return None if self.timed is None else self.timed.seconds


@dataclass(frozen=True)
class Report:
    """Everything that was counted and measured, by variant or in the order in which it was made.

    A ceiling is what is taken for the machine's best, and `rates` what it was measured to do: empty if its
    best was given. `machine` has names and versions: empty if nothing was measured. Of the whole schedule,
    projections (of those that were measured) and `floors` say how long it takes, and at least, in seconds;
    `eager` and `compiled`, by the model of `Ceiling.one_by_one`, where nothing was measured; and `operations`
    how many there are.
    """

    config: Config
    image: ImageSpec
    ceilings: Mapping[str, Ceiling]
    machine: Mapping[str, Any]
    rates: Mapping[str, Rates]
    measurements: Sequence[Measurement]
    projections: Mapping[str, Projection]
    floors: Mapping[str, float]
    operations: float
    eager: float | None = None
    compiled: float | None = None


def shapes(config: Config) -> ImageSpec:
    """Return the shapes that a configuration asks for: RGB of the largest size, if it says nothing.

    Raises:
        ConfigError: if the resolution is no base shape times a power of two.
    """
    size = parse_resolution(config.data.resolution or config.data.max_resolution)
    base_shape, max_level = split_resolution(size, config.model.base_shape)
    labels = () if "none" in (config.data.labels, config.model.conditioning) else LABELS
    return ImageSpec(config.data.channels or 3, base_shape, max_level, labels)


def choose_phases(schedule: Schedule, levels: Sequence[int] | None) -> list[Phase]:
    """Return one phase of each kind of the levels asked for (None for all), in the schedule's order.

    Raises:
        ConfigError: if the schedule has no such level.
    """
    there = sorted({phase.level for phase in schedule.phases})
    for level in levels or ():
        if level not in there:
            raise ConfigError(
                f"level {level} is not in the schedule, whose levels are {there[0]} to {there[-1]}; ask for "
                f"another, or raise --resolution (or schedule.total_kimg)"
            )
    chosen: dict[PhaseKind, Phase] = {}
    for phase in schedule.phases:
        if levels is None or phase.level in levels:
            chosen.setdefault(kind_of(phase), phase)
    return list(chosen.values())


def count(
    config: Config,
    ceiling: Ceiling,
    levels: Sequence[int] | None = None,
    memory: float | None = None,
    *,
    compiled: bool = False,
    progress: Progress = unheard,
) -> Report:
    """Count what iterations ask for, and measure nothing.

    Args:
        config: What to train, its precision settled.
        ceiling: What a machine can do at most.
        levels: Which; None for all of the schedule.
        memory: Bytes of a device; None for any number. What is counted is taken `WORKSPACE` times.
        compiled: Ask the compiler for its kernels, too, which takes some minutes.
        progress: Told what is being done, if that takes long.

    Raises:
        ConfigError: if a level is not in the schedule, the shapes are not possible, or the compiler does not
            answer.
    """
    image, name = shapes(config), "default"
    schedule, costs = _schedule(config, image), Costs(config, image)
    fused = _compiled(schedule, costs, CompiledCosts(config, image), progress) if compiled else {}
    counted = []
    for phase in choose_phases(schedule, levels):
        level, fading = kind_of(phase)
        cost, part = costs.iteration(level, fading), None
        if memory is not None:
            part = costs.largest_part(memory / WORKSPACE, level, fading=fading)
        floor, work = ceiling.floor(cost.work), fused.get((level, fading))
        counted.append(Measurement(name, phase, cost, floor, None, part, work))
    each = {kind: ceiling.one_by_one(work) / costs.iteration(*kind).images for kind, work in fused.items()}
    return Report(
        config, image, {name: ceiling}, {}, {}, counted, {}, {name: _least(schedule, costs, ceiling)},
        _operations(schedule, costs), _whole(schedule, costs, ceiling.one_by_one),
        _length(schedule, each) if compiled else None,
    )  # fmt: skip


def _compiled(
    schedule: Schedule, costs: Costs, compiler: CompiledCosts, progress: Progress
) -> dict[PhaseKind, OpCounts]:
    """Return what a compiled iteration asks for in each kind of phase of a schedule."""
    kinds = list(dict.fromkeys(map(kind_of, schedule.phases)))
    found = {}
    for done, kind in enumerate(kinds):
        progress("asking the compiler", done, len(kinds))
        found[kind] = compiler.iteration(costs.iteration(*kind))
    return found


def bench(
    config: Config,
    device: torch.device | str = "auto",
    *,
    levels: Sequence[int] | None = None,
    variants: tuple[str, ...] = ("plain", "default"),
    rounds: int = 10,
    ceiling: Ceiling | None = None,
    progress: Progress = unheard,
) -> Report:
    """Measure iterations on synthetic pictures; the variants take turns, so that noise hits all of them.

    Args:
        config: What to train; the pictures are made to fit it.
        device: Where to compute; a name as `--run.device` takes it.
        levels: Which; None for all of the schedule.
        variants: Names of `variants.VARIANTS`; all are compared with the first.
        rounds: Rounds that count, at least 1.
        ceiling: What the machine can do at most; None to measure it.
        progress: Told what is being done.

    Raises:
        ConfigError: if a variant or level is unknown, or something is not possible on this device.
    """
    device = choose_device(device) if isinstance(device, str) else device
    if config.data.labels not in ("none", "folders"):
        config = make_config(merge(config.model_dump(mode="json"), NO_LABELS_OF_FILES), parts=config.parts)
    config = settle(config, device)
    chosen, image = choose_variants(variants, config, device), shapes(config)
    schedule = _schedule(config, image)
    phases = choose_phases(schedule, levels)
    configs = {name: variant.config(config) for name, variant in chosen.items()}
    rates = {} if ceiling else _rates(configs, device, progress)
    ceilings = {name: ceiling or rates[name].ceiling for name in configs}
    costs = _costs(configs, image)
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        packed = _pictures(config, image, Path(folder) / "set", progress)
        require_growable(config, image)
        spec = make_spec(config, image, packed.count)
        runners = [
            Runner(variant, replace(spec, config=configs[name], schedule=schedule), packed, device)
            for name, variant in chosen.items()
        ]
        for i, phase in enumerate(phases):
            progress(phase.name, i, len(phases))
            for name, timed in zip(chosen, take_turns(runners, phase, rounds), strict=True):
                cost = costs[name].iteration(*kind_of(phase))
                floor = ceilings[name].floor(cost.work)
                measurements.append(Measurement(name, phase, cost, floor, timed))
    with settings(config.run, device):
        machine = describe(device)
    return Report(
        config, image, ceilings, machine, rates, measurements,
        _projections(measurements, schedule, costs, ceilings),
        {name: _least(schedule, costs[name], ceilings[name]) for name in chosen},
        _operations(schedule, costs[variants[0]]),
    )  # fmt: skip


def _schedule(config: Config, image: ImageSpec) -> Schedule:
    return Schedule(config, image.max_level, config.data.limit or PICTURES)


def _pictures(config: Config, image: ImageSpec, folder: Path, progress: Progress) -> PackedSet:
    """Draw a set that fits a configuration."""
    size = image.resolution(image.max_level)
    count = min(1024, max(16, SET_BYTES // (image.channels * size[0] * size[1])))
    return synthetic(
        folder, count=count, resolution=size, channels=image.channels, base_shape=image.base_shape,
        labelled=bool(image.label_names), split=config.data.shares,
        progress=progress,
    )  # fmt: skip


def _rates(configs: Mapping[str, Config], device: torch.device, progress: Progress) -> dict[str, Rates]:
    """Measure the machine: products in the precision of each variant, and a copy, each once."""
    copy = measure_copy(next(iter(configs.values())).run, device)
    measured: dict[str, Rates] = {}
    for done, config in enumerate(configs.values()):
        progress("measuring the machine", done, len(configs))
        kind = _kind_of_products(config, device)
        if kind not in measured:
            measured[kind] = Rates(*measure_products(config.run, device), copy)
    return {name: measured[_kind_of_products(config, device)] for name, config in configs.items()}


def _kind_of_products(config: Config, device: torch.device) -> str:
    """Return the precision of products; tf32 is float32 where there is none."""
    precision = config.run.precision
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


def _costs(configs: Mapping[str, Config], image: ImageSpec) -> dict[str, Costs]:
    """Return what counts each variant; what they cost differs by the type of products alone."""
    by_type: dict[torch.dtype | None, Costs] = {}
    for config in configs.values():
        by_type.setdefault(SMALL_TYPES.get(config.run.precision), Costs(config, image))
    return {name: by_type[SMALL_TYPES.get(config.run.precision)] for name, config in configs.items()}


def _floors(schedule: Schedule, costs: Costs, seconds: Callable[[OpCounts], float]) -> dict[PhaseKind, float]:
    """Return the seconds an image of each kind of phase of a schedule, given those of an iteration's work."""
    made = {kind: costs.iteration(*kind) for kind in map(kind_of, schedule.phases)}
    return {kind: seconds(cost.work) / cost.images for kind, cost in made.items()}


def _whole(schedule: Schedule, costs: Costs, seconds: Callable[[OpCounts], float]) -> float:
    """Return the seconds of a whole schedule, given those of an iteration's work."""
    return _length(schedule, _floors(schedule, costs, seconds))


def _length(schedule: Schedule, each: Mapping[PhaseKind, float]) -> float:
    """Return the seconds of a whole schedule, given those of an image in each kind of phase."""
    return sum((phase.end - phase.start) * each[kind_of(phase)] for phase in schedule.phases)


def _least(schedule: Schedule, costs: Costs, ceiling: Ceiling) -> float:
    """Return the least seconds of a whole schedule."""
    return _whole(schedule, costs, ceiling.floor)


def _operations(schedule: Schedule, costs: Costs) -> float:
    """Return the operations of a whole schedule."""
    return _least(schedule, costs, Ceiling(operations=1.0, bandwidth=float("inf")))


def _projections(
    measurements: Sequence[Measurement],
    schedule: Schedule,
    costs: Mapping[str, Costs],
    ceilings: Mapping[str, Ceiling],
) -> dict[str, Projection]:
    """Return how long the whole schedule takes, of each variant of which anything was measured."""
    found = {}
    for name in costs:
        rates = {
            kind_of(one.phase): one.seconds / one.cost.images
            for one in measurements
            if one.variant == name and one.seconds is not None
        }
        made = project(schedule.phases, rates, _floors(schedule, costs[name], ceilings[name].floor))
        if made is not None:
            found[name] = made
    return found


def as_tree(report: Report) -> dict[str, Any]:
    """Return a report as JSON can hold it, in operations, bytes and seconds."""
    return {
        "machine": dict(report.machine),
        "resolution": format_resolution(report.image.resolution(report.image.max_level)),
        "config": report.config.model_dump(mode="json"),
        "rates": {name: asdict(rates) for name, rates in report.rates.items()},
        "ceilings": {name: asdict(ceiling) for name, ceiling in report.ceilings.items()},
        "measurements": [_measurement_tree(one) for one in report.measurements],
        "schedule": {
            "operations": report.operations,
            "floor_seconds": dict(report.floors),
            "eager_seconds": report.eager,
            "compiled_seconds": report.compiled,
            "projections": {name: _projection_tree(made) for name, made in report.projections.items()},
        },
    }


def _measurement_tree(one: Measurement) -> dict[str, Any]:
    timed = {} if one.timed is None else asdict(one.timed)
    cost = asdict(one.cost) | {"total": asdict(one.cost.work), "memory": one.cost.memory}
    return {
        "variant": one.variant,
        "level": one.phase.level,
        "phase": one.phase.kind,
        "images": one.cost.images,
        "floor_seconds": one.floor,
        "images_per_second": None if one.seconds is None else one.cost.images / one.seconds,
        **timed,
        "largest_part": one.largest_part,
        "compiled": None if one.compiled is None else asdict(one.compiled),
        "cost": cost,
    }


def _projection_tree(made: Projection) -> dict[str, Any]:
    phases = [
        {"phase": each.phase.name, "seconds": each.seconds, "measured": each.measured} for each in made.phases
    ]
    return {"seconds": made.seconds, "measured_share": made.measured_share, "phases": phases}

"""Everything about a run that can be checked, and its pictures prepared, before the first step."""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from progan.config import (
    DECIDED_BY_PICTURES,
    Config,
    Parts,
    format_resolution,
    load_config,
    make_config,
    merge,
    per_level,
)
from progan.config.documents import read_document
from progan.data.packed import PackedSet
from progan.data.showing import require_channels
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import CheckpointError, ConfigError, DataError, Interrupted, StorageError, command
from progan.evaluation.duality_gap import require_parts
from progan.performance.forecast import expect
from progan.performance.plan_time import plan_rest, plan_time
from progan.performance.projection import Projection
from progan.preparation.pack import Request
from progan.preparation.source import Source, open_source
from progan.runs import checkpoint
from progan.runs.callbacks.callback import Callbacks
from progan.runs.callbacks.chosen import callbacks_of
from progan.runs.reporter import Reporter
from progan.runs.resolve import hints, resolve, restrict
from progan.runs.run_folder import Dataset, RunFolder, require_resumable, require_same
from progan.runs.trained.origin import beginning
from progan.system.files import is_utf8
from progan.system.progress import format_about
from progan.system.signals import StopRequest
from progan.training.iteration import Iteration
from progan.training.losses import Objective
from progan.training.precision import check_settings, settle
from progan.training.schedule import Schedule
from progan.training.spec import ImageSpec, Spec, make_spec
from progan.training.state import require_growable, require_networks
from progan.training.terms.early_check import require_sound


def try_largest(spec: Spec, packed: PackedSet, device: torch.device, ranks: Ranks = ALONE) -> str:
    """Make two iterations at the largest level that the run reaches, and forget them.

    Args:
        spec: What the run will train.
        packed: Its pictures.
        device: Where it will compute.
        ranks: The processes that share its batches.

    Returns:
        What was found, in words.

    Raises:
        ConfigError: if memory does not hold a single minibatch-stddev group of that level.
    """
    said: list[str] = []
    level = spec.schedule.phases[-1].level
    # The fade needs the most: it computes two levels.
    phase = next(phase for phase in spec.schedule.phases if phase.level == level)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    updates = Iteration(spec, packed, device, said.append, ranks)
    # The second time Adam's moments are there; both are the first of the phase, where penalties are due.
    for _ in range(2):
        updates.state.images_seen = spec.schedule.entry(phase)
        updates(spec.schedule.at(updates.state.images_seen))
    size = format_resolution(spec.image.resolution(level))
    found = f"memory check: level {level} ({size}) fits"
    if device.type == "cuda":
        found += f", at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB in use"
    updates.batches.rest()
    del updates
    gc.collect()  # compiled functions and their networks hold each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return "; ".join([found, *said])


@dataclass(frozen=True)
class Prepared:
    """A run that has been checked and could start: what it trains, of which pictures, and where it goes.

    The dataset says where the pictures came from, the reporter watches, and the first of its ranks writes.
    """

    spec: Spec
    packed: PackedSet
    folder: RunFolder
    dataset: Dataset
    device: torch.device
    reporter: Reporter
    ranks: Ranks
    callbacks: Callbacks

    @property
    def images_seen(self) -> int:
        """Where training stands, by the newest checkpoint that tells it; 0 if there is none."""
        record, _ = checkpoint.newest_record(self.folder.checkpoints)
        return 0 if record is None else record.images_seen


def check(
    source: str | Path | Sequence[str | Path],
    out: str | Path | None,
    recipe: str | Path,
    options: Mapping[str, Any] | None,
    reporter: Reporter,
    stop: StopRequest,
    *,
    file: str | Path | None = None,
    ranks: Ranks = ALONE,
    hinted: bool = True,
    parts: Parts = Parts(),  # noqa: B008 - frozen
) -> Prepared:
    """Check everything about a run and prepare its pictures, without training.

    What is cheap to check is checked before the pictures are prepared.

    Args:
        source, out, recipe, options, reporter, file: The arguments of `progan.runs.run.train`.
        stop: Polled while pictures are prepared.
        ranks: The processes of the run, each of which checks.
        hinted: Say what may be a better choice.
        parts: Parts of one's own that the configuration may choose.

    Raises:
        ProganError: of the kind that fits.
    """
    config = _from_anywhere(load_config(recipe, options, file=file, parts=parts))
    device = ranks.device(config.run.device)
    config = settle(config, device)
    check_settings(config.run, device)
    opened = open_source(source, parts)
    named = f"{opened.name}-{Path(file or recipe).stem}"
    folder = RunFolder(out or Path("runs") / re.sub("[\ud800-\udfff]", "_", named))
    if folder.is_foreign():
        raise ConfigError(f"{folder.path} exists and is no run folder; choose another --out")
    require_writable(folder.path)

    def load(networks: Mapping[str, Any]) -> Config:
        over = _over(networks, file, options or {})
        return settle(_from_anywhere(load_config(recipe, over, file=file, parts=parts)), device)

    begun = beginning(config, folder, load)
    config = begun.config
    if folder.exists():
        config = folder.as_changed(config)
        require_same(folder, folder.config(), config, unless=DECIDED_BY_PICTURES)
    opened.require(config)
    whole = _prepare(opened, config, reporter, stop, ranks)
    packed = restrict(whole, config)
    if whole.label_size and not packed.label_size:
        reporter.say(f"the labels of {packed.path} are not used (data.labels none)")
    config = begun.filled(resolve(config, packed), ImageSpec.of(packed))
    if folder.exists():
        require_same(folder, folder.config(), config)
        if folder.dataset().fingerprint != packed.fingerprint:
            raise CheckpointError(
                f"the pictures of {source} have changed since {folder.path} was begun; go on with the "
                f"old ones: {command('train', '--resume', folder.path)}; or train on the new ones with "
                f"another --out"
            )
    prepared = _checked(config, packed, folder, opened.place, device, reporter, ranks)
    for hint in hints(prepared.spec) if hinted and not folder.exists() else ():
        reporter.say(hint)
    return prepared


IN_TIME: dict[str, Any] = {"data": {"max_resolution": 256}, "monitor": {"metrics": []}}
"""Laid over the recipe quickstart where a time decides: larger pictures, and no time for metrics."""

LENGTHS = {"stabilise_kimg", "stabilise_epochs", "fade_kimg", "fade_epochs", "stage_kimg", "total_kimg"}
"""Options that a time decides."""


def check_in_time(
    source: str | Path | Sequence[str | Path],
    out: str | Path | None,
    recipe: str | Path | None,
    options: Mapping[str, Any] | None,
    seconds: float,
    reporter: Reporter,
    stop: StopRequest,
    *,
    file: str | Path | None = None,
    ranks: Ranks = ALONE,
    parts: Parts = Parts(),  # noqa: B008 - frozen
) -> Prepared:
    """Check a run whose last level and lengths are planned for a time; one that was begun goes on as it is.

    Args:
        source, out, options, reporter, file: The arguments of `progan.runs.run.train`.
        recipe: Whose networks and rates are used; default: quickstart, without its limit of the size.
        seconds: How long training is to take.
        stop: Polled while pictures are prepared.
        ranks: There must be one.
        parts: Parts of one's own that the configuration may choose.

    Raises:
        ProganError: of the kind that fits.
    """
    given, laid = options or {}, {} if file is None else read_document(file)
    _require_free_lengths(ranks, given, laid)
    stem = "time" if recipe is None and file is None else Path(file or recipe or "").stem
    folder = RunFolder(out or Path("runs") / f"{open_source(source, parts).name}-{stem}")
    if folder.exists():
        reporter.say(f"{folder.path} goes on as it was planned")
        return check_resume(folder.path, merge(laid, given), reporter, stop, ranks=ranks, parts=parts)
    base, rest = IN_TIME if recipe is None else {}, merge(laid, given)
    own: dict[str, Any] = {
        "reporter": reporter,
        "stop": stop,
        "ranks": ranks,
        "hinted": False,
        "parts": parts,
    }
    planned = partial(check, source, folder.path, recipe or "quickstart", **own)
    tried = planned(options=merge(base, rest))
    schedule, image = tried.spec.config.schedule, tried.spec.image
    if schedule.growth != "fade" or schedule.start_level:
        raise ConfigError("--time plans runs that fade from level 0 on: leave out growth and start_level")
    made = _measured_for(seconds, tried)
    cost = {(level, fading): made.cost((level, fading))
            for level in range(image.max_level + 1) for fading in (False, True)}  # fmt: skip
    names = {level: format_resolution(image.resolution(level)) for level in range(image.max_level + 1)}
    fixed = bool({"resolution", "max_resolution"} & (rest.get("data") or {}).keys())
    plan = plan_time(seconds, cost, names, fixed=fixed)
    how = "as asked for" if fixed else "--data.max-resolution decides otherwise"
    reporter.say(f"planned for {format_about(seconds)}: {plan.reason} ({how})")
    size = {} if fixed else {"data": {"max_resolution": max(image.resolution(plan.level))}}
    return planned(options=merge(base, plan.options(), size, rest))


def check_resume(
    run: str | Path,
    options: Mapping[str, Any] | None,
    reporter: Reporter,
    stop: StopRequest,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    ranks: Ranks = ALONE,
    parts: Parts = Parts(),  # noqa: B008 - frozen
) -> Prepared:
    """Check that a run can go on, without training.

    Args:
        run: The run folder.
        options: Nested options to change from here on.
        source: Where its pictures are now, if they were moved.
        reporter: Hears what is found.
        stop: Polled while pictures are prepared again.
        ranks: The processes of the run, each of which checks.
        parts: Parts of one's own; those that the run uses are among them.

    Raises:
        ProganError: of the kind that fits.
    """
    folder = RunFolder(run)
    old = folder.config()
    tree = old.model_dump(mode="json")
    config = _from_anywhere(make_config(tree, options or {}, parts=old.parts + parts))
    require_resumable(folder, old, config)
    require_writable(folder.path)
    device = ranks.device(config.run.device)
    config = settle(config, device)
    check_settings(config.run, device)
    dataset = folder.dataset()
    place = dataset.source

    def again(place: str | Path | Sequence[str | Path]) -> tuple[PackedSet, str]:
        opened = open_source(place, config.parts)
        known = _labels_beside(config, folder, opened.place)
        return _prepare(opened, known, reporter, stop, ranks), opened.place

    try:
        packed, place = again(source) if source is not None else (PackedSet.open(dataset.packed), place)
    except DataError as gone:
        if source is not None:
            raise
        try:
            packed, place = again(place)
        except DataError as error:
            raise DataError(
                f"{folder.path}: its packed set cannot be used ({gone}), nor be made again ({error}); say "
                f"where its pictures are now: {command('train', 'PICTURES', '--resume', folder.path)}"
            ) from None
    if packed.fingerprint != dataset.fingerprint:
        raise CheckpointError(
            f"{folder.path} was trained on other pictures than {packed.path} holds now; say where those "
            f"are: {command('train', 'PICTURES', '--resume', folder.path)}; or begin a new run"
        )
    packed = restrict(packed, config)
    return _checked(config, packed, folder, place, device, reporter, ranks)


def check_rest_in_time(
    run: str | Path,
    options: Mapping[str, Any] | None,
    seconds: float,
    reporter: Reporter,
    stop: StopRequest,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    ranks: Ranks = ALONE,
    parts: Parts = Parts(),  # noqa: B008 - frozen
) -> Prepared:
    """Check that a run can go on, with lengths of what is left that are planned for a time.

    Args:
        run, options, reporter, stop, source: As `check_resume` takes them.
        seconds: How long the rest is to take.
        ranks: There must be one.
        parts: Parts of one's own; those that the run uses are among them.

    Raises:
        ProganError: of the kind that fits.
    """
    _require_free_lengths(ranks, options or {})
    again = partial(check_resume, run, reporter=reporter, stop=stop, source=source, ranks=ranks, parts=parts)
    now = again(options)
    schedule = now.spec.config.schedule
    if schedule.growth != "fade" or schedule.start_level or schedule.fade_delay or schedule.stage_kimg:
        raise ConfigError(
            "--time plans runs that fade from level 0 on, by lengths of stabilising and fading: give a "
            "longer or shorter --schedule.total-kimg instead"
        )
    plan, factor = plan_rest(seconds, _measured_for(seconds, now), now.images_seen)
    what = (
        f"what is left is {factor:.2g} times as long" if math.isfinite(factor) else "the last level goes on"
    )
    reporter.say(
        f"planned for {format_about(seconds)} from here on: {what}; "
        f"{plan['schedule']['total_kimg']:,g} kimg in all"
    )
    return again(merge(options or {}, plan))


def _require_free_lengths(ranks: Ranks, *trees: Mapping[str, Any]) -> None:
    """Refuse a time for several processes, or beside options that a time decides."""
    if ranks.size > 1:
        raise ConfigError("--time plans for one process; with several give the lengths in schedule")
    if lengths := LENGTHS & {key for tree in trees for key in tree.get("schedule") or {}}:
        raise ConfigError(f"--time decides schedule.{min(lengths)}: leave one of them out")


def _measured_for(seconds: float, run: Prepared) -> Projection:
    """Measure how long a run takes, for a hundredth of the time that is planned, or some seconds."""
    return expect(run.spec, run.packed, run.device, min(20.0, max(2.0, seconds / 100)))


def _labels_beside(config: Config, folder: RunFolder, source: str) -> Config:
    """Find a file of labels that was moved together with the pictures."""
    labels = Path(config.data.labels)
    if not labels.is_absolute() or labels.is_file():
        return config
    moved = Path(os.path.normpath(Path(source) / os.path.relpath(labels, folder.source_when_begun())))
    if not moved.is_file():
        raise DataError(f"its labels, {labels}, are not there; say where they are with --data.labels")
    return config.model_copy(update={"data": config.data.model_copy(update={"labels": str(moved)})})


def require_writable(path: Path) -> None:
    """Check that a folder can be written, or made.

    Raises:
        StorageError: if not, or if its name is no UTF-8, which formats of the files in it ask for.
    """
    if not is_utf8(str(path)):
        raise StorageError(f"{path}: the name is no UTF-8; choose another --out")
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(f"{path}: {existing} cannot be written; choose another --out")


def _prepare(
    source: Source, config: Config, reporter: Reporter, stop: StopRequest, ranks: Ranks
) -> PackedSet:
    """Find or make the packed set, telling the reporter."""

    def progress(what: str, done: int, total: int) -> None:
        ranks.at(f"preparing pictures, {done:,} of {total:,}")
        reporter.preparing(what, done, total)

    try:
        packed, report = source.find(
            Request(
                config.data,
                config.model.base_shape,
                progress=progress,
                stop=lambda: bool(stop),
                say=reporter.say,
            )
        )
    except KeyboardInterrupt:
        if stop.signal_number is None:
            raise
        raise Interrupted(
            "stopped while preparing the pictures; the same command continues", stop.signal_number
        ) from None
    if report is not None:
        reporter.prepared(report)
    return packed


def _checked(
    config: Config,
    packed: PackedSet,
    folder: RunFolder,
    source: str,
    device: torch.device,
    reporter: Reporter,
    ranks: Ranks,
) -> Prepared:
    """Check what needs both configuration and pictures."""
    image = ImageSpec.of(packed)
    for message in folder.parts.require_at_hand(config):
        reporter.say(message)
    chosen = ranks.first_only(partial(callbacks_of, config)) or []
    callbacks, objective = Callbacks(chosen, reporter.say), Objective.of(config)
    require_sound((objective.adversarial, *objective.penalties), config.parts.own, image)
    part = config.data.part
    pictures = len(packed.indices(part))
    if pictures == 0:
        raise DataError(
            f"{source}: none of its {packed.count} pictures is in the {part} part of the split "
            f"({config.data.split}); prepare it with a larger share, or set --data.part"
        )
    phases = Schedule(config, image.max_level, pictures).phases
    largest = max(per_level(config.schedule.batch_size, phase.level) for phase in phases)
    if pictures < largest:
        raise DataError(
            f"{source}: {pictures} pictures to train on are fewer than a batch of {largest}; "
            f"add pictures or lower --schedule.batch-size"
        )
    if config.monitor.duality_gap:
        require_parts(config, packed, largest, resumed=folder.exists())
    require_networks(config, image)
    require_growable(config, image)
    if config.run.grid_channels is not None:
        require_channels(config.run.grid_channels, image.channels)
    spec = make_spec(config, image, pictures)
    if spec.schedule.total == 0:
        raise ConfigError("the schedule is 0 images long; give schedule.total_kimg, or phases, a length")
    _require_checkpoint_fits(folder, spec, packed)
    dataset = Dataset(source, str(packed.path.resolve()), packed.fingerprint)
    return Prepared(spec, packed, folder, dataset, device, reporter, ranks, callbacks)


def _over(networks: Mapping[str, Any], file: str | Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Lay options over those of other networks, which count unless the file or the options have others."""
    own = merge({} if file is None else read_document(Path(file)), options).get("model") or {}
    kept = {
        name: {key: value for key, value in values.items() if key not in (own.get(name) or {})}
        for name, values in networks.items()
    }
    return merge({"model": kept}, options)


def _from_anywhere(config: Config) -> Config:
    """Name the label file by its whole path, so that a run can go on from another folder."""
    labels = config.data.labels
    if not Path(labels).is_file():  # none, or one that lies in the source
        return config
    return config.model_copy(
        update={"data": config.data.model_copy(update={"labels": str(Path(labels).resolve())})}
    )


def _require_checkpoint_fits(folder: RunFolder, spec: Spec, packed: PackedSet) -> None:
    """Refuse other pictures than a run's, and a schedule that would take it back in its growth."""
    record, _ = checkpoint.newest_record(folder.checkpoints)
    if record is None:
        return
    if record.fingerprint != packed.fingerprint:
        raise CheckpointError(
            f"{folder.path} was trained on other pictures than {packed.path} now holds; "
            f"restore that set, or begin a new run in another folder"
        )
    point, total = spec.schedule.at(record.images_seen), spec.schedule.total
    # The last iteration may go beyond the end, by less than its batches, which may be of the level before.
    largest = max(spec.schedule.at(phase.start).batch_size for phase in spec.schedule.phases)
    if record.images_seen >= total + largest * spec.config.loss.d_steps:
        raise ConfigError(
            f"{folder.path} has seen {record.images_seen:,} images, more than the {total:,} of this "
            f"schedule; give a longer --schedule.total-kimg"
        )
    if point.level < record.level:
        raise ConfigError(
            f"{folder.path} has grown to level {record.level}, but at {record.images_seen:,} images this "
            f"schedule is at level {point.level}; keep the lengths of the phases that are done"
        )

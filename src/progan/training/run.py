"""From a source of pictures, or an existing run, to a trained generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from progan.config import (
    Config,
    format_resolution,
    load_config,
    make_config,
    merge,
    per_level,
)
from progan.data.builtin import is_builtin
from progan.data.packed import PackedSet
from progan.data.prepare import find_or_prepare
from progan.errors import CheckpointError, ConfigError, DataError, Interrupted
from progan.training.plan import Plan, make_plan
from progan.training.reporting import Reporter
from progan.training.run_folder import Dataset, RunFolder, require_resumable, require_same
from progan.training.signals import StopRequest, stop_on_signals
from progan.training.state import ImageSpec
from progan.training.trainer import Trainer

DEFAULT_RECIPE = "light"


@dataclass(frozen=True)
class Prepared:
    """A run that has been checked and could start.

    Attributes:
        plan: What it will do.
        packed: Its pictures.
        folder: Where it is written.
        dataset: Where the pictures came from.
        device: Where it will compute.
    """

    plan: Plan
    packed: PackedSet
    folder: RunFolder
    dataset: Dataset
    device: torch.device


def train(
    source: str | Path,
    out: str | Path | None = None,
    *,
    recipe: str | Path = DEFAULT_RECIPE,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train a generator from pictures; the same call again goes on where the last one stopped.

    Args:
        source: A folder or .zip of pictures, a packed set, or `builtin:glyphs`.
        out: The run folder; default `runs/<source>-<recipe>`.
        recipe: Name of a shipped recipe, or a YAML file.
        options: Nested options laid over the recipe, such as `{"schedule": {"batch_size": [8]}}`.
        reporter: Who watches; default: nobody.

    Returns:
        The run folder; `progan.load` takes it.

    Raises:
        ProganError: of the kind that fits; see `progan.errors`. Everything that can be checked is checked
            before the first step.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        return _run(check(source, out, recipe, options, reporter, stop), reporter, stop)


def resume(
    run: str | Path, *, options: Mapping[str, Any] | None = None, reporter: Reporter | None = None
) -> Path:
    """Go on with a run from its newest readable checkpoint.

    Args:
        run: The run folder.
        options: Nested options to change from here on; those of data, model and the seed cannot change.
        reporter: Who watches; default: nobody.

    Returns:
        The run folder.

    Raises:
        ProganError: as `train`.
    """
    reporter = reporter or Reporter()
    with stop_on_signals() as stop:
        return _run(check_resume(run, options, reporter, stop), reporter, stop)


def check(
    source: str | Path,
    out: str | Path | None,
    recipe: str | Path,
    options: Mapping[str, Any] | None,
    reporter: Reporter,
    stop: StopRequest,
) -> Prepared:
    """Check everything about a run and prepare its pictures, without training. Arguments as `train`."""
    config = load_config(recipe, options)
    device = choose_device(config.run.device)  # before the pictures, which may take long
    packed = _prepare(source, config, reporter, stop)
    place = Path(str(source).removeprefix("builtin:"))
    name = place.stem or place.resolve().stem  # "." has no name of its own
    folder = RunFolder(out or Path("runs") / f"{name}-{Path(recipe).stem}")
    config = resolve(config, packed)
    dataset = _dataset(source, packed)
    if folder.exists():
        require_same(folder, folder.config(), config)
    elif folder.is_foreign():
        raise ConfigError(f"{folder.path} exists and is no run folder; choose another --out")
    return _checked(config, packed, folder, dataset, device)


def check_resume(
    run: str | Path, options: Mapping[str, Any] | None, reporter: Reporter, stop: StopRequest
) -> Prepared:
    """Check that a run can go on, without training. Arguments as `resume`."""
    folder = RunFolder(run)
    old = folder.config()
    config = make_config(merge(old.model_dump(mode="json"), options or {}))
    require_resumable(folder, old, config)
    device = choose_device(config.run.device)
    dataset = folder.dataset()
    try:
        packed = PackedSet.open(dataset.packed)
    except DataError:
        packed = _prepare(dataset.source, config, reporter, stop)
    if packed.fingerprint != dataset.fingerprint:
        raise CheckpointError(
            f"{folder.path} was trained on other pictures than {packed.path} holds now; restore them at "
            f"{dataset.source}, or begin a new run"
        )
    return _checked(config, packed, folder, _dataset(dataset.source, packed), device)


def resolve(config: Config, packed: PackedSet) -> Config:
    """Return the configuration with everything filled in that the pictures decide.

    Raises:
        ConfigError: if an option asks for something else than the packed set holds.
    """
    data = config.data
    found = {
        "channels": packed.channels,
        "resolution": format_resolution(packed.resolution(packed.max_level)),
    }
    base_shape = config.model.base_shape
    asked = [
        ("data.channels", data.channels, packed.channels),
        ("data.resolution", data.resolution, found["resolution"]),
        (
            "model.base_shape",
            base_shape and format_resolution(base_shape),
            format_resolution(packed.base_shape),
        ),
    ]
    for key, wanted, held in asked:
        if wanted is not None and wanted != held:
            raise ConfigError(f"{key} {wanted} was asked for, but {packed.path} holds {held}")
    tree = merge(
        config.model_dump(mode="json"), {"data": found, "model": {"base_shape": list(packed.base_shape)}}
    )
    return make_config(tree)


def choose_device(name: str) -> torch.device:
    """Return the device that `auto` (CUDA, then MPS, then CPU) or a PyTorch name means.

    Raises:
        ConfigError: if there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device {name!r} cannot be used here: {reason}") from None
    return device


def _prepare(source: str | Path, config: Config, reporter: Reporter, stop: StopRequest) -> PackedSet:
    """Find or make the packed set, telling the reporter."""
    try:
        packed, report = find_or_prepare(
            source,
            config.data,
            base_shape=config.model.base_shape,
            progress=reporter.preparing,
            stop=lambda: bool(stop),
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


def _dataset(source: str | Path, packed: PackedSet) -> Dataset:
    """Note where the pictures are, independently of the current folder."""
    place = source if is_builtin(source) else Path(source).resolve()
    return Dataset(str(place), str(packed.path.resolve()), packed.fingerprint)


def _checked(
    config: Config, packed: PackedSet, folder: RunFolder, dataset: Dataset, device: torch.device
) -> Prepared:
    """Check what needs both configuration and pictures."""
    spec = ImageSpec(packed.channels, packed.base_shape, packed.max_level, packed.label_names)
    pictures = len(packed.indices("train"))
    largest = max(
        per_level(config.schedule.batch_size, level)
        for level in range(config.schedule.start_level, spec.max_level + 1)
    )
    if pictures < largest:
        raise DataError(
            f"{dataset.source}: {pictures} pictures to train on are fewer than a batch of {largest}; "
            f"add pictures or lower --schedule.batch-size"
        )
    plan = make_plan(config, spec, pictures)
    if plan.schedule.total == 0:
        raise ConfigError("the schedule is 0 images long; give schedule.total_kimg, or phases, a length")
    return Prepared(plan, packed, folder, dataset, device)


def _run(prepared: Prepared, reporter: Reporter, stop: StopRequest) -> Path:
    """Train a checked run to its end."""
    config = prepared.plan.config
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    if prepared.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.run.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.run.tf32
        torch.backends.cudnn.benchmark = True
    trainer = Trainer(prepared.plan, prepared.packed, prepared.folder, prepared.device, reporter)
    trainer.resume()
    prepared.folder.begin(config, prepared.dataset)
    trainer.run(stop)
    return prepared.folder.path

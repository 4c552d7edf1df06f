"""The whole tree: its branches, and the rules that span them.

Each branch is checked by itself when it is built; rules that span branches are checked by `Config` alone,
after recipe, file and options have been merged.

Values "per level" are lists: entry i belongs to level i, and the last entry to every level above.
"""

from __future__ import annotations

from pydantic import model_validator

from progan.config.data import AugmentOptions, DataOptions
from progan.config.fields import Branch, per_level
from progan.config.model import ModelOptions
from progan.config.sizes import format_resolution, parse_resolution, split_resolution
from progan.config.training import Loss, LossOptions, OptimizerOptions, RunOptions, ScheduleOptions


class Options(Branch):
    """The tree without the rules that span branches: what a recipe or a command line may set in part."""

    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    model: ModelOptions = ModelOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    run: RunOptions = RunOptions()


class Config(Options):
    """The whole, checked configuration of a run."""

    loss: Loss = Loss.model_validate({})

    @model_validator(mode="after")
    def _check_across(self) -> Config:
        _check_groups(self)
        _check_levels(self)
        _check_augmentation(self)
        _check_labels(self)
        return self


def _check_groups(config: Config) -> None:
    """Batches and micro-batches are made of whole minibatch-stddev groups."""
    group, sizes = config.model.discriminator.stddev_group, config.schedule.batch_size
    if group == 0:
        return
    for size in sizes:
        if size % min(group, size):
            raise ValueError(
                f"schedule.batch_size {size} is not a multiple of model.discriminator.stddev_group "
                f"{group}; use a multiple, a batch of at most {group}, or another group size"
            )
    parts = config.run.micro_batch or ()
    for level in range(max(len(sizes), len(parts)) if parts else 0):
        size, part = per_level(sizes, level), per_level(parts, level)
        if part % group and size > part:
            raise ValueError(
                f"run.micro_batch {part} would split minibatch-stddev groups of {group}; "
                f"use a multiple of {group}"
            )


def _check_levels(config: Config) -> None:
    """The first level is one of the picture's."""
    if config.data.resolution is None:
        return
    resolution = parse_resolution(config.data.resolution)
    shape, max_level = split_resolution(resolution, config.model.base_shape)
    start = config.schedule.start_level
    if start > max_level:
        raise ValueError(
            f"schedule.start_level {start} is above the last level, {max_level} "
            f"({config.data.resolution} is {format_resolution(shape)} times 2^{max_level})"
        )


def _check_augmentation(config: Config) -> None:
    """Adaptive augmentation reads the sign of D(real), so zero must mean undecided."""
    if config.augment.adaptive and config.loss.adversarial in ("wgan", "relativistic"):
        raise ValueError(
            f"augment.adaptive needs scores whose sign means real or fake; those of loss.adversarial "
            f"{config.loss.adversarial} have no fixed zero: use logistic, hinge or least_squares, or set "
            f"augment.probability"
        )


def _check_labels(config: Config) -> None:
    """Conditioning needs labels; that there are none may be known already."""
    data, conditioning = config.data, config.model.conditioning
    if (
        conditioning in ("ac_gan", "projection")
        and data.labels == "none"
        and "labels" in data.model_fields_set
    ):
        raise ValueError(
            f"model.conditioning {conditioning} needs labels: set data.labels to 'folders' or a label file, "
            f"or leave the conditioning out"
        )

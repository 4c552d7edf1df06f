"""The whole tree: its branches, and the rules that span them.

Each branch is checked by itself when it is built; rules that span branches are checked by `Config` alone,
after recipe, file and options have been merged.

Values "per level" are lists: entry i belongs to level i, and the last entry to every level above.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from progan.config.data import AugmentOptions, DataOptions
from progan.config.fields import Branch, per_level
from progan.config.init import InitOptions
from progan.config.model import DiscriminatorOptions, GeneratorOptions, ModelOptions
from progan.config.monitor import MonitorOptions, TrackOptions
from progan.config.parts.part import Parts
from progan.config.sizes import format_resolution, parse_resolution, split_resolution
from progan.config.training import Loss, LossOptions, OptimizerOptions, RunOptions, ScheduleOptions


class Options(Branch):
    """The tree without the rules that span branches: what a recipe or a command line may set in part.

    Attributes:
        parts: Parts of one's own whose names and options the tree knows; `extended` makes such a tree.
    """

    parts: ClassVar[Parts] = Parts()

    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    model: ModelOptions = ModelOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    run: RunOptions = RunOptions()
    init: InitOptions = InitOptions()
    monitor: MonitorOptions = MonitorOptions()
    track: TrackOptions = TrackOptions()


class Config(Options):
    """The whole, checked configuration of a run."""

    loss: Loss = Loss.model_validate({})

    @model_validator(mode="after")
    def _check_across(self) -> Config:
        _check_groups(self)
        _check_levels(self)
        _check_augmentation(self)
        _check_labels(self)
        _check_idle(self)
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
    """Adaptive augmentation reads whether D takes reals for real, so its scores must say so one by one."""
    if config.augment.adaptive and config.loss.facts.middle is None:
        raise ValueError(
            f"augment.adaptive needs scores whose sign means real or fake; those of loss.adversarial "
            f"{config.loss.adversarial} have no fixed zero: use logistic, hinge or least_squares, or leave "
            f"adaptive out (--augment.no-adaptive) and set augment.probability"
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


def _check_idle(config: Config) -> None:
    """Refuse a value that would do nothing, because what it belongs to is off."""
    augment, loss, D = config.augment, config.loss, config.model.discriminator
    schedule, growth = config.schedule, config.schedule.growth
    fading, init = "schedule.growth fade", config.init
    rules: list[tuple[str, object, object, bool, str]] = [
        ("augment.probability", augment.probability, None, bool(augment.policy), "an augment.policy"),
        ("augment.target", augment.target, 0.8, augment.adaptive, "augment.adaptive"),
        ("augment.adapt_kimg", augment.adapt_kimg, 500.0, augment.adaptive, "augment.adaptive"),
        ("schedule.morph_kimg", schedule.morph_kimg, (20.0,), growth == "morph", "schedule.growth morph"),
        ("schedule.fade_kimg", schedule.fade_kimg, (600.0,), growth == "fade", fading),
        ("schedule.fade_epochs", schedule.fade_epochs, None, growth == "fade", fading),
        ("schedule.fade_fraction", schedule.fade_fraction, 0.5, growth == "fade", fading),
        ("init.skip", init.skip, (), init.source is not None, "--init FROM"),
        ("init.freeze_d", init.freeze_d, 0, init.source is not None, "--init FROM"),
        ("init.freeze_g", init.freeze_g, False, init.source is not None, "--init FROM"),
        ("schedule.start_alpha", schedule.start_alpha, 1.0,
         init.source is not None and schedule.start_level > 0, "--init FROM and schedule.start_level"),
        ("loss.gp_target", loss.gp_target, 1.0, loss.gp_lambda > 0, "loss.gp_lambda above 0"),
        ("loss.gp_sides", loss.gp_sides, "two", loss.gp_lambda > 0, "loss.gp_lambda above 0"),
        ("loss.target_noise_per", loss.target_noise_per, "batch", loss.target_noise > 0, "loss.target_noise"),
        ("loss.label_weight", loss.label_weight, 1.0, config.model.conditioning in (None, "ac_gan"),
         "model.conditioning ac_gan"),
    ]  # fmt: skip
    usual_D, usual_G, G = DiscriminatorOptions(), GeneratorOptions(), config.model.generator
    rules += [
        (f"model.discriminator.{name}", getattr(D, name), getattr(usual_D, name), D.stddev_group > 0,
         "model.discriminator.stddev_group above 0")
        for name in ("stddev_features", "stddev_of", "stddev_order", "stddev_variance")
    ]  # fmt: skip
    rules += [
        (
            f"model.generator.{name}",
            getattr(G, name),
            getattr(usual_G, name),
            used,
            f"model.generator.{needs}",
        )
        for name, used, needs in (
            ("pixel_norm_place", G.pixel_norm, "pixel_norm"),
            ("pixel_norm_form", G.pixel_norm or G.normalize_latents, "pixel_norm or normalize_latents"),
            ("dense_norm", G.pixel_norm, "pixel_norm"),
            ("latent_norm_eps", G.normalize_latents, "normalize_latents"),
            ("label_norm", G.normalize_latents, "normalize_latents"),
            ("dense_bias", G.bias, "bias"),
        )
    ]
    for name, options in (("generator", config.model.generator), ("discriminator", D)):
        leaky = options.activation == "leaky_relu"
        place = f"model.{name}"
        rules.append(
            (f"{place}.leaky_slope", options.leaky_slope, 0.2, leaky, f"{place}.activation leaky_relu")
        )
    for option, value, usual, used, needs in rules:
        if value != usual and not used:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ValueError(f"{option} {shown} does nothing without {needs}: set that, or leave it out")

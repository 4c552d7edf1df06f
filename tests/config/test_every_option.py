"""Every option does something: another value gives other weights, or a test of its own says what it does."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from progan.config import Config, Options, flatten, make_config, merge
from progan.data.batches import Batch
from progan.data.packed import PackedSet
from progan.preparation.builtin_sets import synthetic
from progan.runs.resolve import resolve, restrict
from progan.training.iteration import Iteration
from progan.training.losses import TERM_NAMES, Conditions, Terms
from progan.training.spec import ImageSpec, make_spec
from progan.training.step import Step
from tiny import OPTIONS

CPU = torch.device("cpu")
ITERATIONS = 8

LOGISTIC = {"adversarial": "logistic"}
LEAST_SQUARES = {"adversarial": "least_squares"}
ADAPTIVE = {"policy": ["color"], "adaptive": True, "probability": 0.5, "adapt_kimg": 0.4}
STAGES = {"stage_kimg": 0.064}

CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "data.resolution": ("8x8", {}),
    "data.max_resolution": (8, {}),
    "data.part": ("all", {}),
    "data.order": ("sequential", {}),
    "data.mirror": (True, {}),
    "augment.policy": (["cutout"], {}),
    "augment.probability": (0.5, {"augment": {"policy": ["color"]}}),
    "augment.target": (0.0, {"augment": ADAPTIVE, "loss": LOGISTIC}),
    "augment.adapt_kimg": (0.2, {"augment": ADAPTIVE, "loss": LOGISTIC}),
    "model.conditioning": ("projection", {}),
    "model.generator.fmap_base": (32, {}),
    "model.generator.fmap_decay": (2.0, {}),
    "model.generator.fmap_max": (6, {}),
    "model.generator.fmaps": ((4, 3), {}),
    "model.generator.kernel_size": (5, {}),
    "model.generator.activation": ("silu", {}),
    "model.generator.leaky_slope": (0.1, {}),
    "model.generator.bias": (False, {}),
    "model.generator.equalized_lr": (False, {}),
    "model.generator.weight_init": ("truncated", {}),
    "model.generator.gain": ("activation", {}),
    "model.generator.latent_size": (5, {}),
    "model.generator.normalize_latents": (False, {}),
    "model.generator.pixel_norm": (False, {}),
    "model.generator.pixel_norm_eps": (0.1, {}),
    "model.generator.latent_norm_eps": (0.5, {}),
    "model.generator.label_norm": ("apart", {}),
    "model.generator.pixel_norm_form": ("variance", {}),
    "model.generator.pixel_norm_place": ("before", {}),
    "model.generator.dense_norm": ("none", {}),
    "model.generator.dense_bias": ("unit", {}),
    "model.generator.dense_gain": (1.0, {}),
    "model.generator.upscale": ("strided", {}),
    "model.generator.output_activation": ("tanh", {}),
    "model.discriminator.fmap_base": (32, {}),
    "model.discriminator.fmap_decay": (2.0, {}),
    "model.discriminator.fmap_max": (6, {}),
    "model.discriminator.fmaps": ((4, 3), {}),
    "model.discriminator.kernel_size": (5, {}),
    "model.discriminator.activation": ("silu", {}),
    "model.discriminator.leaky_slope": (0.1, {}),
    "model.discriminator.bias": (False, {}),
    "model.discriminator.equalized_lr": (False, {}),
    "model.discriminator.weight_init": ("lecun", {}),
    "model.discriminator.gain": ("activation", {}),
    "model.discriminator.stddev_group": (2, {}),
    "model.discriminator.stddev_features": (2, {}),
    "model.discriminator.downscale": ("separate", {}),
    "model.discriminator.stddev_of": ("images", {}),
    "model.discriminator.stddev_order": ("contiguous", {}),
    "model.discriminator.stddev_variance": ("sample", {}),
    "model.discriminator.rgb_activation": (False, {}),
    "model.discriminator.last_conv": (False, {}),
    "model.discriminator.widening": ("first", {"model": {"discriminator": {"fmaps": (4, 3, 2)}}}),
    "model.discriminator.dense_features": (3, {}),
    "schedule.growth": ("none", {}),
    "schedule.start_level": (1, {}),
    "schedule.stabilise_kimg": (0.016, {}),
    "schedule.fade_kimg": (0.016, {}),
    "schedule.stabilise_epochs": (1, {}),
    "schedule.fade_epochs": (1, {}),
    "schedule.stage_kimg": (0.032, {}),
    "schedule.fade_fraction": (0.25, {"schedule": STAGES}),
    "schedule.morph_kimg": (0.016, {"schedule": {"growth": "morph", "morph_kimg": 0.048}}),
    "schedule.fade_delay": (1, {}),
    "schedule.alpha": ("smooth", {}),
    "schedule.batch_size": (8, {}),
    "loss.adversarial": ("hinge", {}),
    "loss.gp_lambda": (1.0, {}),
    "loss.gp_target": (2.0, {}),
    "loss.gp_sides": ("one", {"loss": {"gp_target": 50.0}}),
    "loss.r1_gamma": (1.0, {}),
    "loss.r2_gamma": (1.0, {}),
    "loss.penalty_interval": (2, {}),
    "loss.drift": (0.1, {}),
    "loss.target_noise": (0.1, {"loss": LEAST_SQUARES}),
    "loss.target_noise_per": ("sample", {"loss": LEAST_SQUARES}),
    "loss.label_weight": (0.5, {}),
    "loss.d_steps": (2, {}),
    "loss.updates": ("simultaneous", {}),
    "optimizer.name": ("adamw", {"optimizer": {"name": "adamw", "weight_decay": 0.0}}),
    "optimizer.weight_decay": (0.1, {"optimizer": {"name": "adamw"}}),
    "optimizer.g_lr": (0.002, {}),
    "optimizer.d_lr": (0.002, {}),
    "optimizer.beta1": (0.5, {}),
    "optimizer.beta2": (0.9, {}),
    "optimizer.eps": (0.1, {}),
    "optimizer.clip_norm": (0.1, {"optimizer": {"eps": 0.1}}),
    "optimizer.reset": ("never", {}),
    "optimizer.ema_decay": (0.9, {}),
    "optimizer.ema_half_life_kimg": (0.01, {}),
    "optimizer.ema_warmup": (0.1, {}),
    "run.seed": (1, {}),
    "run.precision": ("bfloat16", {}),
}
"""Another value of each option that decides what is learned, and what both are laid over."""

SAME_WEIGHTS = ("optimizer.name",)
"""AdamW without decay is Adam; `test_optimizer` compares it with decay."""

ELSEWHERE: dict[str, str] = {
    "augment.adaptive": "test_run_options.py::test_a_run_in_pieces_is_the_whole_run",
    "data.channels": "test_pack.py::test_mixed_modes_are_brought_to_one",
    "data.crop": "test_cropping.py::test_the_crop_of_celeba",
    "data.min_size": "test_cropping.py::test_small_pictures_are_left_out_if_that_is_asked_for",
    "data.upscale": "test_cropping.py::test_small_pictures_are_left_out_if_that_is_asked_for",
    "data.dedupe": "test_cropping.py::test_duplicates_are_left_out_and_named",
    "data.range": "test_decisions.py::test_twelve_bits_are_bright_and_can_be_given",
    "data.depth": "test_sixteen_bits.py::test_what_went_in_comes_out",
    "data.background": "test_decisions.py::test_transparency_that_is_laid_on_white_is_said",
    "data.max_pixels": "test_large_pictures.py::test_what_is_above_the_limit",
    "data.draft": "test_large_pictures.py::test_a_reduced_photograph_is_nearly_the_same",
    "data.fps": "test_formats.py::test_film",
    "data.fit": "test_fitting.py::test_result_has_the_target_size",
    "data.labels": "test_run_options.py::test_labels_of_each_form",
    "data.label_form": "test_run_options.py::test_labels_of_each_form",
    "data.limit": "test_pack.py::test_folder_labels_limit_and_split",
    "data.split": "test_run_options.py::test_the_part_that_is_trained_on",
    "data.in_memory": "test_batches.py::test_a_level_in_memory_gives_the_same_batches",
    "data.on_device": "test_background.py::test_pictures_on_the_device_make_the_same_batches",
    "data.cache": "test_run_options.py::test_the_part_that_is_trained_on",
    "model.base_shape": "test_pack.py::test_resolution_is_what_nine_tenths_have",
    "schedule.total_kimg": "test_run.py::test_a_longer_total_ends_where_one_long_run_ends",
    "run.device": "test_cli.py::test_a_device_that_is_not_here",
    "run.compile": "test_step.py::test_compiled_updates_are_the_eager_ones",
    "run.cuda_graphs": "test_acceleration.py::test_updates_recorded_on_cuda_are_those_of_the_cpu",
    "run.fused_kernels": "test_fused_hidden.py::test_where_a_device_has_no_kernels_that_is_said",
    "run.deterministic": "test_precision.py::test_settings_are_set_and_put_back",
    "run.threads": "test_precision.py::test_settings_are_set_and_put_back",
    "run.micro_batch": "test_step.py::test_micro_batches_per_level",
    "run.memory_fraction": "test_run_options.py::test_what_the_device_cannot_do_is_refused",
    "run.timeout_minutes": "test_watchdog.py::test_nobody_moves",
    "run.log_minutes": "test_reporter.py::test_how_often_a_slow_machine_speaks",
    "run.log_kimg": "test_run_options.py::test_intervals",
    "run.snapshot_kimg": "test_run_options.py::test_intervals",
    "run.checkpoint_kimg": "test_run_options.py::test_intervals",
    "run.checkpoint_minutes": "test_run.py::test_what_is_free_changes_nothing",
    "run.grid_channels": "test_many_channels.py::test_a_run_on_many_channels",
    "run.keep_checkpoints": "test_kept_generators.py::test_which_checkpoints_are_kept",
    "run.generator_kimg": "test_kept_generators.py::test_generators_are_kept_small_beside_the_states",
    "run.best": "test_kept_generators.py::test_the_best_is_what_was_measured_best",
    "run.grid": "test_run.py::test_samples_of_every_log_point",
    "init.source": "test_origin.py::test_growing_on",
    "init.skip": "test_origin.py::test_the_command",
    "init.freeze_d": "test_origin.py::test_what_is_frozen_stays_and_a_resumed_run_has_the_same_bits",
    "init.freeze_g": "test_origin.py::test_what_is_frozen_stays_and_a_resumed_run_has_the_same_bits",
    "init.sha256": "test_origin.py::test_what_cannot_be",
    "init.level": "test_origin.py::test_growing_on",
    "init.new": "test_origin.py::test_growing_on",
    "schedule.start_alpha": "test_origin.py::test_a_fade_goes_on_at_its_alpha",
    "monitor.metrics": "test_run_options.py::test_metrics_during_training",
    "monitor.duality_gap": "test_duality_gap.py::test_training_is_untouched_and_goes_on",
    "monitor.gap_steps": "test_duality_gap.py::test_how_the_copies_are_trained",
    "monitor.gap_lr": "test_duality_gap.py::test_how_the_copies_are_trained",
    "monitor.gap_beta1": "test_duality_gap.py::test_how_the_copies_are_trained",
    "monitor.gap_beta2": "test_duality_gap.py::test_how_the_copies_are_trained",
    "monitor.interval_kimg": "test_run_options.py::test_metrics_during_training",
    "monitor.num_images": "test_run_options.py::test_metrics_during_training",
    "monitor.extractor": "test_run_options.py::test_a_missing_extractor_is_found_missing_before_training",
    "monitor.resize": "test_run_options.py::test_what_cannot_be_measured_does_not_end_the_training",
    "monitor.normalise": "test_run_options.py::test_what_cannot_be_measured_does_not_end_the_training",
    "loss.penalties": "test_own_parts.py::test_on_the_command_line",
    "model.generator_class": "test_own_networks.py::test_on_the_command_line",
    "model.discriminator_class": "test_own_networks.py::test_the_same_bits_as_the_shipped_one",
    "track.to": "test_callbacks.py::test_the_exact_moments",
    "track.project": "test_callbacks.py::test_weights_and_biases_offline",
    "track.name": "test_callbacks.py::test_weights_and_biases_offline",
    "track.url": "test_callbacks.py::test_a_webhook",
    "run.on_divergence": "test_reliability.py::test_going_back_takes_another_way",
    "run.max_rollbacks": "test_reliability.py::test_it_goes_back_so_often_and_no_more",
    "run.rollback_lr": "test_reliability.py::test_going_back_takes_another_way",
    "run.on_alarm": "test_reliability.py::test_an_alarm_warns_or_stops",
    "run.stop_after": "test_run_options.py::test_each_level_as_a_process_of_its_own",
}
"""Which test shows what each of the other options does."""


@pytest.fixture(scope="module", name="pictures")
def pictures_in_two_parts(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    folder = tmp_path_factory.mktemp("sets") / "parts"
    return synthetic(folder, count=48, resolution=16, labelled=True, split=(0.8, 0.2, 0.0))


def configuration(tree: dict[str, Any]) -> Config:
    lengths = {"schedule": {"stabilise_kimg": 0.032, "fade_kimg": 0.048, "batch_size": 16}}
    return make_config(merge(OPTIONS, lengths), tree)


@pytest.fixture(autouse=True)
def processes_would_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without samples knows what the others add up: the parameters in use, and the terms."""

    gather = Step._gather

    def gathered(which: Step, batch: Batch, at: Conditions, *rest: Any) -> Terms:
        means = gather(which, batch, at, *rest)
        fading = at.alpha is not None and which._networks[0].growth == "fade"
        for optimizer in which.optimizers.values():
            there = sum(parameter.grad is not None for parameter in optimizer._parameters.values())
            assert len(optimizer.gradients(at.level, fading=fading)) == there
        assert means.keys() <= set(which.eager.term_names)
        assert {name[2:] for name in means} <= set(TERM_NAMES)
        return means

    monkeypatch.setattr(Step, "_gather", gathered)


@lru_cache(maxsize=32)
def _learned(config: Config, pictures: PackedSet) -> dict[str, torch.Tensor]:
    """Weights after some iterations: level 0, the fade to level 1, level 1, and into the fade to level 2."""
    packed = restrict(pictures, config)
    config = resolve(config, packed)
    image = ImageSpec(packed.channels, packed.base_shape, packed.max_level, packed.label_names)
    spec = make_spec(config, image, len(packed.indices(config.data.part)))
    updates = Iteration(spec, packed, CPU, print)
    for _ in range(ITERATIONS):
        updates(spec.schedule.at(updates.state.images_seen))
    networks = ("G/", "D/", "G_ema/")
    return {name: value for name, value in updates.state.tensors().items() if name.startswith(networks)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in one.items()
    )


@pytest.mark.parametrize("name", CHANGES)
def test_another_value_gives_other_weights(pictures: PackedSet, name: str) -> None:
    value, base = CHANGES[name]
    tree: dict[str, Any] = {}
    branch = tree
    *path, leaf = name.split(".")
    for part in path:
        branch = branch.setdefault(part, {})
    branch[leaf] = value
    usual = configuration(base)
    changed = configuration(merge(base, tree))
    given = flatten(changed.model_dump(mode="json"))[name]
    if name not in SAME_WEIGHTS:
        assert given != flatten(usual.model_dump(mode="json"))[name], "the value is another one"
    assert same(_learned(usual, pictures), _learned(changed, pictures)) == (name in SAME_WEIGHTS)


def test_every_option_is_here() -> None:
    options = set(flatten(Options().model_dump(mode="json")))
    assert set(CHANGES) | set(ELSEWHERE) == options
    assert not set(CHANGES) & set(ELSEWHERE)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_tested_elsewhere_is(name: str) -> None:
    file, test = ELSEWHERE[name].split("::")
    [path] = Path(__file__).parents[1].rglob(file)
    text = path.read_text(encoding="utf-8")
    assert f"def {test}(" in text

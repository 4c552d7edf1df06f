"""Configurations from recipes, files and options, and back to text.

What is given later wins, leaf by leaf: defaults, then the recipe, then a file, then the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from progan.config.data import NEWER
from progan.config.documents import read_document
from progan.config.parts.extended import extended
from progan.config.parts.part import Parts
from progan.config.problems import explain
from progan.config.recipes import DEFAULT_RECIPE, read_recipe
from progan.config.tree import Config, Options
from progan.errors import ConfigError

DECIDED_BY_PICTURES = (
    "data.resolution",
    "data.channels",
    "data.labels",
    "data.label_form",
    "data.fit",
    "data.limit",
    "data.split",
    *(f"data.{name}" for name in NEWER),
    "model.base_shape",
    "model.conditioning",
)
"""Options that are filled in from the packed set."""

OF_ONE_LOSS = (
    "gp_lambda",
    "gp_target",
    "gp_sides",
    "r1_gamma",
    "r2_gamma",
    "penalty_interval",
    "drift",
    "target_noise",
    "target_noise_per",
)
"""Options that are chosen for one adversarial loss and mean nothing to another."""

OF_ONE_GROWTH = ("fade_kimg", "fade_epochs", "fade_fraction", "morph_kimg")
"""Options that are chosen for one way of growing and mean nothing to another."""

_BY_PHASE = ("stabilise_kimg", "stabilise_epochs", "fade_kimg", "fade_epochs")
INSTEAD: dict[str, tuple[str, ...]] = {
    "schedule.stage_kimg": _BY_PHASE,
    "schedule.stabilise_kimg": ("stage_kimg", "stabilise_epochs"),
    "schedule.fade_kimg": ("stage_kimg", "fade_epochs"),
    "schedule.stabilise_epochs": ("stage_kimg", "stabilise_kimg"),
    "schedule.fade_epochs": ("stage_kimg", "fade_kimg"),
    "optimizer.ema_decay": ("ema_half_life_kimg",),
    "optimizer.ema_half_life_kimg": ("ema_decay",),
}
"""Options that stand instead of others of their branch: what is given later wins, whichever of them it is."""


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings into a new one; later ones win, leaf by leaf."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            old = result.get(key)
            if isinstance(value, Mapping):
                result[key] = merge(old if isinstance(old, Mapping) else {}, value)
            else:
                result[key] = value
    return result


def make_config(*trees: Mapping[str, Any], parts: Parts = Parts()) -> Config:  # noqa: B008 - frozen
    """Merge nested mappings (later ones win) and check the result.

    A tree that names another adversarial loss than the ones before it brings that loss's own penalties: those
    of the ones before are dropped. So are the lengths of another way of growing, and an option that a later
    tree gives another one instead of, such as `schedule.stage_kimg` of a recipe where `schedule.fade_kimg` is
    given.

    Args:
        trees: The mappings.
        parts: Parts of one's own whose names and options are allowed.

    Raises:
        ConfigError: naming every wrong key with its nearest right name, and every wrong value.
    """
    whole: dict[str, Any] = {}
    for tree in trees:
        whole = merge(_without_what_is_replaced(whole, tree), tree)
    try:
        config: Config = extended(Config, parts).model_validate(whole)
    except ValidationError as error:
        raise ConfigError(explain(error, extended(Options, parts))) from None
    return config


def _without_what_is_replaced(tree: dict[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Drop options that one of a later tree stands instead of, and those of another loss or growth."""
    kept: dict[str, Any] = {}
    for branch, values in tree.items():
        new = later.get(branch)
        if not (isinstance(values, Mapping) and isinstance(new, Mapping)):
            kept[branch] = values
            continue
        given = [name for name, value in new.items() if value is not None]
        replaced = {old for name in given for old in INSTEAD.get(f"{branch}.{name}", ())}
        kind = values.get("adversarial", "wgan")
        if branch == "loss" and new.get("adversarial", kind) != kind:
            replaced |= set(OF_ONE_LOSS)
        if branch == "schedule" and new.get("growth", growth := values.get("growth", "fade")) != growth:
            replaced |= set(OF_ONE_GROWTH)
        kept[branch] = {name: value for name, value in values.items() if name not in replaced}
    return kept


def load_config(
    recipe: str | Path = DEFAULT_RECIPE,
    options: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    parts: Parts = Parts(),  # noqa: B008 - frozen
) -> Config:
    """Return the configuration of a recipe, with a file and then `options` laid over it.

    Args:
        recipe: Name of a shipped recipe, or path of a configuration file that stands alone.
        options: Nested mapping, for example `{"schedule": {"batch_size": [16, 8]}}`.
        file: Configuration file (.yaml, .json or .toml) that is laid over the recipe.
        parts: Parts of one's own whose names and options are allowed.

    Raises:
        ConfigError: if a recipe or file cannot be read, or an option is unknown or wrong.
    """
    laid = {} if file is None else read_document(file)
    return make_config(read_recipe(recipe), laid, options or {}, parts=parts)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as `{"schedule.batch_size": ..., ...}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def differing_keys(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the options in which two configurations differ, sorted."""
    a, b = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def to_yaml(config: Config) -> str:
    """Write a configuration as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def to_recipe(config: Config, kind: Literal["yaml", "json"] = "yaml") -> str:
    """Write a configuration for other pictures: what they decide is left out unless it was set."""
    tree = config.model_dump(mode="json")
    for key in DECIDED_BY_PICTURES:
        branch, name = key.split(".")
        if name not in getattr(config, branch).model_fields_set:
            del tree[branch][name]
    if kind == "json":
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(tree, sort_keys=False)
    return text

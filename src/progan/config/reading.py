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

from progan.config.problems import explain
from progan.config.tree import Config
from progan.errors import ConfigError
from progan.recipes import DEFAULT_RECIPE, read_recipe
from progan.recipes.documents import read_document

DECIDED_BY_PICTURES = (
    "data.resolution",
    "data.channels",
    "data.labels",
    "data.label_form",
    "data.fit",
    "data.limit",
    "data.split",
    "model.base_shape",
    "model.conditioning",
)
"""Options that are filled in from the packed set."""


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


def make_config(*trees: Mapping[str, Any]) -> Config:
    """Merge nested mappings (later ones win) and check the result.

    Raises:
        ConfigError: naming every wrong key with its nearest right name, and every wrong value.
    """
    try:
        return Config.model_validate(merge(*trees))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def load_config(
    recipe: str | Path = DEFAULT_RECIPE,
    options: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
) -> Config:
    """Return the configuration of a recipe, with a file and then `options` laid over it.

    Args:
        recipe: Name of a shipped recipe, or path of a configuration file that stands alone.
        options: Nested mapping, for example `{"schedule": {"batch_size": [16, 8]}}`.
        file: Configuration file (.yaml, .json or .toml) that is laid over the recipe.

    Raises:
        ConfigError: as in `read_recipe`, `read_document` and `make_config`.
    """
    return make_config(read_recipe(recipe), {} if file is None else read_document(file), options or {})


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

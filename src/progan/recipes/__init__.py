"""Ready-made configurations, one YAML file each, and how recipes are read."""

from __future__ import annotations

from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from progan.errors import ConfigError, suggest

DEFAULT_RECIPE = "light"


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases, which a few lines of text could use to describe a tree without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package, sorted."""
    folder = resources.files("progan.recipes")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_summary(name: str) -> str:
    """Return the comment that a shipped recipe begins with, as one line."""
    comment = takewhile(lambda line: line.startswith("#"), _shipped(name).splitlines())
    return " ".join(line.removeprefix("#").strip() for line in comment)


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Read a shipped recipe by name, or a YAML file by path, as a nested mapping.

    A shipped recipe wins over a file of the same name without an ending.

    Raises:
        ConfigError: if there is no such recipe or file, or it is not a YAML mapping.
    """
    path = Path(name)
    if str(name) in recipe_names():
        text = _shipped(str(name))
    elif path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe file {path}: cannot be read ({error})") from None
    else:
        raise ConfigError(
            f"no recipe is called {str(name)!r}{suggest(str(name), recipe_names())} "
            f"Recipes: {', '.join(recipe_names())}; or give a .yaml file."
        )
    try:
        tree = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"recipe {name}: not valid YAML ({error})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"recipe {name}: expected a mapping of options, found {type(tree).__name__}")
    return tree


def _shipped(name: str) -> str:
    return (resources.files("progan.recipes") / f"{name}.yaml").read_text(encoding="utf-8")

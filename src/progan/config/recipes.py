"""Ready-made configurations, one YAML file each, and how recipes are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from progan.config.documents import PARSERS, parse_document, read_document
from progan.errors import ConfigError, suggest

DEFAULT_RECIPE = "paper-light-128"


@dataclass(frozen=True)
class About:
    """What the comment at the head of a shipped recipe says.

    That is what it is, where its numbers come from, figures `published` for it and by whom, and a note or "".
    """

    what: str
    source: str
    published: str
    note: str = ""


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package, sorted."""
    folder = resources.files("progan.config") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_head(name: str) -> str:
    """Return the comment that a shipped recipe begins with, as it is written."""
    return "\n".join(takewhile(lambda line: line.startswith("#"), _shipped(name).splitlines()))


def recipe_about(name: str) -> About:
    """Return what the head of a shipped recipe says: `what`, then `Source:`, `Published:` and `Note:`."""
    text = " ".join(line.removeprefix("#").strip() for line in recipe_head(name).splitlines())
    what, *rest = re.split(r" (Source|Published|Note): ", text)
    said = dict(zip((key.lower() for key in rest[::2]), rest[1::2], strict=True))
    return About(what, **said)


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Read a shipped recipe by name, or a configuration file by path, as a nested mapping.

    A shipped recipe wins over a file of the same name without an ending.

    Raises:
        ConfigError: if there is no such recipe, or the file cannot be read or is no mapping of options.
    """
    if str(name) in recipe_names():
        return parse_document(_shipped(str(name)), ".yaml", f"recipe {name}")
    path = Path(name)
    if path.suffix.lower() in PARSERS or path.is_file():
        return read_document(path)
    raise ConfigError(
        f"no recipe is called {str(name)!r}{suggest(str(name), recipe_names())} "
        f"Recipes: {', '.join(recipe_names())}; or give a file ({', '.join(PARSERS)})."
    )


def _shipped(name: str) -> str:
    return ((resources.files("progan.config") / "recipes") / f"{name}.yaml").read_text(encoding="utf-8")

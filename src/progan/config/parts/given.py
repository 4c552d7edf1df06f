"""Parts of one's own that Python code gives, classes or instances, and the options that choose them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from progan.config.fields import Branch
from progan.config.parts.part import Part, Parts, PluginFile
from progan.config.parts.plugin_files import require_whole
from progan.errors import ConfigError

SESSION = "a Python session"
"""Where parts come from that are in no file."""


def source_of(part: type[Part]) -> str:
    """Return the file that defines a part, or words for a session that has none."""
    try:
        file = inspect.getsourcefile(part)
    except (TypeError, OSError):
        return SESSION
    return str(Path(file).resolve()) if file and Path(file).is_file() else SESSION


def gathered(
    given: Iterable[Part | type[Part]], places: Iterable[str], *, lists: bool = True
) -> tuple[Parts, dict[str, Any]]:
    """Return the parts that were given, and the options that choose them.

    Args:
        given: Classes, or instances that were told their options.
        places: Options that choose several parts.
        lists: Choose parts of these places, too.

    Raises:
        ConfigError: if something else was given, or a class lacks what its kind asks for.
    """
    own, tree, several = list[type[Part]](), dict[str, Any](), set(places)
    for one in given:
        part = one if isinstance(one, type) else type(one)
        if not issubclass(part, Part) or not part.chosen_by:
            raise ConfigError(f"{part.__qualname__} is no part: derive it from a class of progan")
        require_whole(part)
        branch, _, leaf = part.chosen_by.rpartition(".")
        into = tree
        for name in branch.split("."):
            into = into.setdefault(name, {})
        if part.chosen_by in several:
            if lists:
                into.setdefault(leaf, []).append(part.name)
        elif into.setdefault(leaf, part.name) != part.name:
            raise ConfigError(f"{part.chosen_by} is one part, not {into[leaf]} and {part.name}")
        if part.__module__.partition(".")[0] != "progan":
            own.append(part)
        if isinstance(one, Part) and isinstance(one.options, Branch):
            into |= _told(one, part in own)
    files = tuple(dict.fromkeys(_files(own)))
    return Parts(tuple(dict.fromkeys(own)), files), tree


def _told(part: Part, is_own: bool) -> dict[str, Any]:
    """Return the options that an instance was told, as they stand in its branch."""
    told = part.options.model_dump(mode="json", exclude_unset=True)
    if not told:
        return {}
    return {part.name: told} if is_own else told


def _files(parts: Iterable[type[Part]]) -> Iterator[PluginFile]:
    """Yield the files that define parts."""
    for part in parts:
        if (place := source_of(part)) != SESSION:
            yield PluginFile(place, hashlib.sha256(Path(place).read_bytes()).hexdigest())

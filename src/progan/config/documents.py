"""Configuration files as nested mappings: YAML, JSON and TOML, by the ending of their names."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from progan.errors import ConfigError

MAX_CHARACTERS = 2**16
"""A whole configuration has a tenth of it; the time that crafted text takes grows faster than its length."""
MAX_DOTS = 500
"""In a line of TOML: a key of thousands of parts takes tomllib minutes."""


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a configuration file as a nested mapping; an empty file is an empty one.

    The entry `$schema`, by which an editor finds the JSON schema of a file, is left out.

    Args:
        path: A file whose name ends in .yaml, .yml, .json or .toml.

    Raises:
        ConfigError: naming the file, and the line where there is one, if it cannot be read, or is no mapping
            of options, or says one thing twice.
    """
    path = Path(path)
    if path.suffix.lower() not in PARSERS:
        raise ConfigError(
            f"{path}: the ending of its name does not say what it is; expected {', '.join(PARSERS)}"
        )
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return parse_document(text, path.suffix.lower(), str(path))


def parse_document(text: str, suffix: str, name: str) -> dict[str, Any]:
    """Read the text of a configuration file; `suffix` says what it is, `name` what to call it in errors.

    Raises:
        ConfigError: naming the line where there is one, if it holds no options, or one of them twice.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name}: longer than {MAX_CHARACTERS:,} characters, so no configuration")
    try:
        tree = PARSERS[suffix](text)
    except _Problem as problem:
        raise ConfigError(f"{name}, line {problem.lines}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply to be a configuration") from None
    except ValueError as error:  # a number of thousands of digits, and what tomllib finds
        raise ConfigError(f"{name}: not valid {suffix[1:].upper()} ({error})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: expected a mapping of options, found {type(tree).__name__}")
    tree.pop("$schema", None)
    return tree


class _Problem(Exception):  # noqa: N818 - it becomes an error when the file's name is added
    """What is wrong with a text, and in which line or lines."""

    def __init__(self, lines: object, message: str) -> None:
        super().__init__(message)
        self.lines = lines


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML in which every key is text and stands once, and 1e-4 is a number as in YAML 1.2.

    There are no aliases, with which a few lines could describe a tree without end.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _Problem(self.get_mark().line + 1, "aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _Problem(line, f"{key!r} cannot be the name of an option")
            if key in keys:
                raise _Problem(line, f"{key!r} stands twice")
            keys.add(key)
        return super().construct_mapping(node, deep)


EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Problem(mark.line + 1 if mark else 1, f"not valid YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (IndexError, KeyError, TypeError, AttributeError):
        # The constructors of explicit tags do not look at what they are given: `!!int ""`, `!!set x`.
        raise ValueError("a tag (!!name) that does not fit its value") from None


def _parse_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                written = re.compile(re.escape(json.dumps(key)) + r"\s*:")
                lines = [text.count("\n", 0, match.start()) + 1 for match in written.finditer(text)]
                raise _Problem(" or ".join(map(str, lines)) or "?", f"{key!r} stands twice in one object")
            seen[key] = value
        return seen

    def constant(name: str) -> None:
        found = re.search(rf"[\[:,\s]({re.escape(name)})\s*(?:[,}}\]]|$)", text)
        line = text.count("\n", 0, found.start(1) if found else 0) + 1
        raise _Problem(line, f"{name} is no number of JSON")

    if not text.strip():
        return None
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise _Problem(error.lineno, f"not valid JSON ({error.msg})") from None


def _parse_toml(text: str) -> Any:
    for i, content in enumerate(text.splitlines()):
        if content.count(".") > MAX_DOTS:
            raise _Problem(i + 1, f"more than {MAX_DOTS} dots in a line are not supported")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        message = str(error).split(" (at ")[0]
        raise _Problem(line, f"not valid TOML ({message})") from None


PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": _parse_json,
    ".toml": _parse_toml,
}
"""How each kind of file is read."""

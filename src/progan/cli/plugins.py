"""Options of parts of one's own on the command line: the files of --plugin decide which options there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from progan.config import Parts, extended, read_plugins

OPTION = "--plugin"

Plugins = Annotated[
    tuple[str, ...],
    Parameter(
        name=OPTION,
        show_default=False,
        help="Python files with parts of your own (docs/extend.md); they are run, and their options known.",
    ),
]


def plugin_parts(words: Sequence[str]) -> Parts:
    """Return the parts that the files of a command line define.

    Args:
        words: Of the command.

    Raises:
        ConfigError: if a file cannot be read, fails, or defines none.
    """
    files, taking = list[str](), False
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            name, sign, value = word.partition("=")
            taking = name == OPTION and not sign
            files += [value] if name == OPTION and sign else []
        elif taking:
            files.append(word)
    return read_plugins(files)


def knowing(command: Callable[..., None], tree: Any, model: type, parts: Parts) -> Callable[..., None]:
    """Return a command whose options are those of a tree that knows parts of one's own.

    Args:
        command: It has a parameter annotated with `tree`.
        tree: Annotated with the model, or None.
        model: The model of the options.
        parts: Those parts.
    """
    if not parts.own:
        return command
    assert isinstance(command, FunctionType)
    made = FunctionType(
        command.__code__, command.__globals__, command.__name__, command.__defaults__, command.__closure__
    )
    made.__kwdefaults__, made.__doc__, made.__module__ = (
        command.__kwdefaults__,
        command.__doc__,
        command.__module__,
    )
    hints = get_type_hints(command, include_extras=True)
    wider: Any = Annotated.__class_getitem__((extended(model, parts) | None, *tree.__metadata__))  # type: ignore[attr-defined]
    made.__annotations__ = {name: wider if hint == tree else hint for name, hint in hints.items()}
    return made

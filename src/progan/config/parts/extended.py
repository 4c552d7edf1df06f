"""The tree of options, taking in the names and the options of parts of one's own."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from progan.config.fields import Branch, OwnName
from progan.config.parts.part import Part, Parts
from progan.errors import ConfigError

BranchT = TypeVar("BranchT", bound=Branch)


@lru_cache(maxsize=32)  # parts of a call may hold much
def extended(model: type[BranchT], parts: Parts, prefix: str = "") -> type[BranchT]:
    """Return a model that allows the names of parts where the original allows the shipped ones.

    Each part that has options brings a branch of them, under its name, beside the option that chooses it.

    Args:
        model: The tree, or a branch of it.
        parts: Those of one's own.
        prefix: The place of the branch, such as `loss.`; empty for the whole tree.

    Returns:
        A model derived from `model`, which knows the parts (`parts`); the same one if there are none.

    Raises:
        ConfigError: if a name is taken.
    """
    mine = [part for part in parts.own if part.chosen_by.startswith(prefix)]
    if not mine and (prefix or parts == Parts()):
        return model
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        place, kind = prefix + name, field.annotation
        if isinstance(kind, type) and issubclass(kind, Branch):
            branch = extended(kind, parts, f"{place}.")
            if branch is not kind:
                # A new field, for a copy would keep the old type's default.
                fields[name] = (_annotated(branch, field), branch.model_validate({}))
        elif chosen := [part for part in mine if part.chosen_by == place]:
            fields[name] = _with_names(place, field, chosen)
            fields |= _options(model, chosen)
    made = create_model(
        model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **fields
    )
    made.parts = parts  # type: ignore[attr-defined]
    return made


def _annotated(kind: Any, field: FieldInfo) -> Any:
    """Return a type with what is noted beside that of a field."""
    return Annotated[(kind, *field.metadata)] if field.metadata else kind


def _with_names(place: str, field: FieldInfo, parts: list[type[Part]]) -> Any:
    """Return the field of an option that also takes the names of parts."""
    names = [part.name for part in parts]
    shipped = _words(field.annotation)
    for name in names:
        if name in shipped:
            raise ConfigError(f"{place}: {name!r} ships with progan; give your own part another name")
    kind = _replaced(field.annotation, (*shipped, *names))
    new = copy(field)
    new.annotation = kind
    about = "; ".join(f"'{part.name}': {part.about().rstrip('.')}" for part in parts if part.about())
    new.description = f"{field.description} Of your own: {about}." if about else field.description
    return (kind, new)


def _options(model: type[BaseModel], parts: list[type[Part]]) -> dict[str, Any]:
    """Return the branches of the options of parts, by name."""
    fields: dict[str, Any] = {}
    for part in parts:
        if not part.Options.model_fields and part.Options.model_config.get("extra") != "allow":
            continue
        if part.name in model.model_fields:
            raise ConfigError(
                f"{part.chosen_by.rpartition('.')[0]}.{part.name} is an option of progan; give your own part "
                f"{part.name!r} another name"
            )
        try:
            fields[part.name] = (part.Options, part.Options())
        except ValueError as error:
            raise ConfigError(f"{part.name}: each of its options needs a default ({error})") from None
    return fields


def _words(kind: Any) -> tuple[str, ...]:
    """Return the words that a type allows, at any depth."""
    if get_origin(kind) is Literal:
        return cast("tuple[str, ...]", get_args(kind))
    return tuple(word for inner in get_args(kind) for word in _words(inner))


def _replaced(kind: Any, words: tuple[str, ...]) -> Any:
    """Return a type with other words in the place of its own."""
    if get_origin(kind) is Literal or kind == OwnName:
        return Literal[words]
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        return tuple.__class_getitem__(tuple(_replaced(one, words) for one in inner))
    if not inner:
        return kind
    made = [_replaced(one, words) for one in inner]
    union = made[0]
    for one in made[1:]:
        union = union | one
    return union

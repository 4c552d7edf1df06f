"""What a part of a run is, and the parts of one's own that a configuration knows beside the shipped ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, ValidationError

from progan.config.fields import Branch
from progan.errors import ConfigError

PartT = TypeVar("PartT", bound="Part")

NAME = re.compile(r"[a-z][a-z0-9_]*")


class PartOptions(Branch):
    """Base of the options of parts of one's own; each option has a default (`option`)."""


class Part:
    """One of the things that a run is made of; the classes of each kind derive from this one.

    Args:
        options: What it is told, of the type `Options`; or
        given: the same by name.

    Attributes:
        chosen_by: The option that chooses parts of this kind, such as `loss.adversarial`; a kind sets it.
        name: What it is called there; default: the name of the class, in lower case with underscores. Its own
            options are beside the one that chooses, under this name.
        Options: A model of what it is told.
        missing: Where the part is defined, if all that is known of it is its name; else empty.
        options: What it was told.
    """

    chosen_by: ClassVar[str] = ""
    name: str = ""
    Options: ClassVar[type[Branch]] = PartOptions
    missing: ClassVar[str] = ""
    options: Any

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, options: Branch | None = None, **given: Any) -> None:
        try:
            self.options = self.Options(**given) if options is None else options
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            where = ".".join([self.name, *map(str, wrong["loc"])])
            raise ConfigError(f"{where}: {wrong['msg']} (given: {wrong['input']!r})") from None

    @classmethod
    def about(cls) -> str:
        """Return the first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]


def made(part: type[Part], kind: type[PartT], branch: Branch) -> PartT:
    """Return a part with its options: those under its name in a branch, or the branch itself.

    Args:
        part: Its class.
        kind: What it has to be.
        branch: Where the option is that chooses it.

    Raises:
        ConfigError: if its definition is not at hand, or it is of another kind.
    """
    known = at_hand(part, kind)
    return known(options_of(part, branch))


def options_of(part: type[Part], branch: Branch) -> Branch:
    """Return the options of a part: those under its name in a branch, the branch itself, or defaults."""
    own = getattr(branch, part.name, None)
    if isinstance(own, part.Options):
        return own
    return branch if isinstance(branch, part.Options) else part.Options()


def at_hand(part: type[Part], kind: type[PartT]) -> type[PartT]:
    """Return the class of a part, which is of a kind; a ConfigError if it is not at hand, or of another."""
    if part.missing:
        raise ConfigError(
            f"{part.chosen_by} {part.name} is defined in {part.missing}: give that file with --plugin "
            f"(in Python, plugins=[...] or the part itself)"
        )
    if not issubclass(part, kind):
        raise ConfigError(f"{part.name}: expected a class derived from progan.{kind.__name__}")
    return part


class AnyOptions(Branch):
    """Options of a part whose definition is not at hand."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class PluginFile:
    """A file that defines parts, and the SHA-256 of what it held when it was read."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Parts:
    """Parts of one's own, beside those that ship with the package; none of them is chosen by being here.

    Attributes:
        own: Their classes.
        files: Where those come from that come from files.
        followers: Callbacks that a call gives, which follow a run and are no part of its configuration.
    """

    own: tuple[type[Part], ...] = ()
    files: tuple[PluginFile, ...] = ()
    followers: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[tuple[str, str], type[Part]] = {}
        for part in self.own:
            if not NAME.fullmatch(part.name):
                raise ConfigError(
                    f"{part.__qualname__}: its name {part.name!r} must be of lower-case letters, digits and "
                    f"underscores, such as {part.__qualname__.lower()!r}"
                )
            if not part.chosen_by:
                raise ConfigError(f"{part.__qualname__} is of no kind: derive it from a class of progan")
            other = seen.setdefault((part.chosen_by, part.name), part)
            if other is not part:
                raise ConfigError(f"{part.chosen_by}: two parts are called {part.name!r}; rename one of them")

    def of(self, place: str) -> dict[str, type[Part]]:
        """Return the classes of the parts that an option chooses, by name."""
        return {part.name: part for part in self.own if part.chosen_by == place}

    def __add__(self, other: Parts) -> Parts:
        """Return both; what has the same name in the other one, and is at hand there, counts."""
        better = {(part.chosen_by, part.name) for part in other.own if not part.missing}
        kept = [part for part in self.own if (part.chosen_by, part.name) not in better]
        known = {(part.chosen_by, part.name) for part in kept}
        more = [part for part in other.own if (part.chosen_by, part.name) not in known]
        files = tuple(dict.fromkeys((*self.files, *other.files)))
        return Parts((*kept, *more), files, (*self.followers, *other.followers))

    def chosen(self, tree: Mapping[str, Any]) -> tuple[type[Part], ...]:
        """Return the parts that a configuration, as nested plain data, chooses."""
        found = []
        for part in self.own:
            value: Any = tree
            for name in part.chosen_by.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if part.name == value or (isinstance(value, list | tuple) and part.name in value):
                found.append(part)
        return tuple(found)

    @staticmethod
    def named(place: str, name: str, where: str, has_options: bool) -> type[Part]:
        """Return a part of which no more is known than its name, and where it is defined."""
        options = AnyOptions if has_options else PartOptions
        return type(name, (Part,), {"chosen_by": place, "name": name, "Options": options, "missing": where})

"""The options of the configuration on the command line, and the commands about configurations."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import App, Group, Parameter
from pydantic import Field

from progan.cli.terminal.console import PlainConsole, say
from progan.config import (
    AugmentOptions,
    DataOptions,
    DiscriminatorOptions,
    GeneratorOptions,
    InitOptions,
    LossOptions,
    ModelOptions,
    MonitorOptions,
    OptimizerOptions,
    Options,
    Parts,
    RunOptions,
    ScheduleOptions,
    TrackOptions,
    extended,
    file_schema,
    flatten,
    load_config,
    make_config,
    read_plugins,
    to_recipe,
)
from progan.config.documents import read_document
from progan.config.fields import NonNegative, PerLevelCount, PerLevelRate, Resolution
from progan.config.recipes import DEFAULT_RECIPE, read_recipe, recipe_about, recipe_head, recipe_names
from progan.config.training import Precision
from progan.errors import ConfigError

OPTION = "--plugin"

Plugins = Annotated[
    tuple[str, ...],
    Parameter(
        name=OPTION,
        show_default=False,
        consume_multiple=False,
        help="Python file with parts of your own (docs/extend.md), which is run; it may be given again.",
    ),
]


def _group(title: str, place: int) -> Parameter:
    """Return what puts the options of a branch under a title of their own in the help."""
    return Parameter(group=Group(title, sort_key=place))


def _same(branch: type[Options] | type[Any], name: str) -> Any:
    """Return an option of a branch as it is there: default, description, limits."""
    return copy(branch.model_fields[name])


class _Data(DataOptions):
    """The options of the pictures, some with short names."""

    resolution: Annotated[Resolution | None, Parameter(alias="--resolution")] = _same(
        DataOptions, "resolution"
    )
    labels: Annotated[str, Parameter(alias="--labels")] = _same(DataOptions, "labels")
    mirror: Annotated[bool, Parameter(alias="--mirror", negative=("--data.no-mirror", "--no-mirror"))] = (
        _same(DataOptions, "mirror")
    )


class _Schedule(ScheduleOptions):
    """The options of the schedule, some with short names."""

    total_kimg: Annotated[NonNegative | None, Parameter(alias="--kimg")] = _same(
        ScheduleOptions, "total_kimg"
    )
    batch_size: Annotated[PerLevelCount, Parameter(alias="--batch")] = _same(ScheduleOptions, "batch_size")


class _Run(RunOptions):
    """The options of how a run is carried out, some with short names."""

    seed: Annotated[int, Parameter(alias="--seed")] = _same(RunOptions, "seed")
    precision: Annotated[Precision, Parameter(alias="--precision")] = _same(RunOptions, "precision")


class _Model(ModelOptions):
    """The options of the networks, under titles of their own."""

    generator: Annotated[GeneratorOptions, _group("Generator", 5)] = GeneratorOptions()
    discriminator: Annotated[DiscriminatorOptions, _group("Discriminator", 6)] = DiscriminatorOptions()


class _Init(InitOptions):
    """What a run begins with; what is filled in is no option of the command line."""

    sha256: Annotated[str | None, Parameter(show=False)] = None
    level: Annotated[int | None, Parameter(show=False)] = None
    new: Annotated[tuple[str, ...], Parameter(show=False)] = ()


class Branches(Options):
    """The options of the configuration, each branch under a title of its own."""

    data: Annotated[_Data, _group("Pictures", 2)] = _Data()
    augment: Annotated[AugmentOptions, _group("Augmentation", 3)] = AugmentOptions()
    model: Annotated[_Model, _group("Networks", 4)] = _Model()
    schedule: Annotated[_Schedule, _group("Schedule", 7)] = _Schedule()
    loss: Annotated[LossOptions, _group("Loss", 8)] = LossOptions()
    optimizer: Annotated[OptimizerOptions, _group("Optimizer", 9)] = OptimizerOptions()
    run: Annotated[_Run, _group("Run", 10)] = _Run()
    init: Annotated[_Init, _group("Beginning", 12)] = _Init()
    monitor: Annotated[MonitorOptions, _group("Monitoring", 11)] = MonitorOptions()
    track: Annotated[TrackOptions, _group("Tracking", 11)] = TrackOptions()
    lr: Annotated[PerLevelRate | None, Parameter(name="--lr"), _group("Optimizer", 9)] = Field(
        None, description="Learning rate of both networks; --optimizer.g-lr and d-lr are of one of them."
    )


Tree = Annotated[Branches | None, Parameter(name="*", show_default=False)]


def given(options: Options | None) -> dict[str, Any]:
    """Return what was given on the command line, and no defaults, as a nested mapping.

    Raises:
        ConfigError: if --lr is given and what it is short for, too.
    """
    tree: dict[str, Any] = {} if options is None else options.model_dump(mode="json", exclude_unset=True)
    if (rate := tree.pop("lr", None)) is not None:
        rates = tree.setdefault("optimizer", {})
        if {"g_lr", "d_lr"} <= set(rates):
            raise ConfigError(
                "--lr does nothing where --optimizer.g-lr and --optimizer.d-lr are given: leave it out"
            )
        tree["optimizer"] = {"g_lr": rate, "d_lr": rate} | rates
    return tree


Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


def recipes(name: str | None = None, *, as_json: Json = False) -> None:
    """List the recipes that ship with progan, or print one with all its options.

    Parameters
    ----------
    name
        The recipe to print, as YAML.
    as_json
        Print JSON.
    """
    console = PlainConsole()
    if as_json:
        shown = (
            load_config(name).model_dump(mode="json")
            if name
            else [{"name": each} | asdict(recipe_about(each)) for each in recipe_names()]
        )
        say(console, json.dumps(shown, indent=2))
        return
    if name is not None:
        config = load_config(name)
        head = f"{recipe_head(name)}\n" if name in recipe_names() else ""
        say(console, head + to_recipe(config).rstrip())
        return
    width = min(console.width, 100)
    for each in recipe_names():
        about = recipe_about(each)
        console.print(f"[bold]{each}[/bold]", highlight=False)
        for text in (about.what, f"Source: {about.source}", f"Published: {about.published}"):
            say(console, textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    "))


def show(
    *,
    recipe: str = DEFAULT_RECIPE,
    config: Path | None = None,
    format: Literal["yaml", "json"] = "yaml",
    as_json: Json = False,
    plugin: Plugins = (),
    options: Tree = None,
) -> None:
    """Print the configuration that recipe, file and options make together; it can be used as a file.

    Parameters
    ----------
    recipe
        Name of a recipe, or a file.
    config
        YAML, JSON or TOML file of options that is laid over the recipe.
    format
        How to print it.
    as_json
        Short for --format json.
    """
    made = load_config(recipe, given(options), file=config, parts=read_plugins(plugin))
    say(PlainConsole(), to_recipe(made, "json" if as_json else format).rstrip())


def validate(
    file: Path, *, recipe: str = DEFAULT_RECIPE, as_json: Json = False, plugin: Plugins = ()
) -> None:
    """Check a configuration file; says everything that is wrong with it.

    Parameters
    ----------
    file
        YAML, JSON or TOML file of options.
    recipe
        Recipe, or file, that it will be laid over.
    as_json
        Print JSON.
    """
    tree, beneath = read_document(file), read_recipe(recipe)
    try:
        make_config(beneath, tree, parts=read_plugins(plugin))
    except ConfigError as error:
        raise ConfigError(f"{file} over the recipe {recipe}:\n{error}") from None
    count = len(flatten(tree))
    told = f"{file} is valid over the recipe {recipe}; options that it sets: {count}"
    facts = {"file": str(file), "recipe": recipe, "valid": True, "options": count}
    say(PlainConsole(), json.dumps(facts, indent=2) if as_json else told)


def schema(*, plugin: Plugins = ()) -> None:
    """Print the JSON schema of configuration files, for editors."""
    say(PlainConsole(), json.dumps(file_schema(read_plugins(plugin)), indent=2))


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
            taking = False
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


def config_app(parts: Parts) -> App:
    """Return the commands about configurations, whose options know parts of one's own."""
    app = App(name="config", help="Show, check and describe configurations.")
    app.command(knowing(show, Tree, Branches, parts))
    app.command(validate)
    app.command(schema)
    return app

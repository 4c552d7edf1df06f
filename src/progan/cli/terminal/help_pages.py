"""The help of commands that take the options of the configuration: short, or as much of it as is asked for.

`--help` has what most need, with defaults and examples; `--help all` has everything, `--help model` a branch,
and `--help penalty` the options with that word in their name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cyclopts import App, Argument, ArgumentCollection, Group
from cyclopts.help import (
    DefaultFormatter,
    HelpEntry,
    HelpPanel,
    create_parameter_help_panel,
    format_doc,
    format_usage,
)

from progan.cli.terminal.console import PlainConsole, say
from progan.cli.terminal.option_names import check_topic
from progan.config import Config, Options, load_config
from progan.config.recipes import DEFAULT_RECIPE

ASKS = ("--help", "-h")
NEEDED = {
    "train": (
        "--recipe", "--time", "--kimg", "--batch", "--lr", "--resolution", "--labels", "--mirror", "--gpus",
        "--precision", "--seed", "--out", "--resume", "--dry-run",
    )
}  # fmt: skip
"""Command -> what most need of its options, in this order; of other commands all their own."""
MEANS = {"--lr": "--optimizer.g-lr"}
"""An option of several -> the one whose default is shown."""
EXAMPLES = {
    "train": (
        "progan train photos/ --time 2h",
        "progan train photos/ --recipe small-data-256 --mirror --kimg 2000 --batch 32 16",
    ),
    "bench": ("progan bench --recipe celeba-128-bf16 --levels 4 5",),
    "config show": ("progan config show --recipe small-data-256 --batch 32 16",),
}


def print_help(app: App, words: Sequence[str]) -> bool:
    """Print the help of a command with options of the configuration, if that is what the words ask for.

    Args:
        app: The command line.
        words: Of the command, without `progan`.

    Returns:
        Whether it was printed. If not, the words ask for nothing, or for the help of another command.

    Raises:
        ConfigError: if the words ask for the help of what there is not.
    """
    asked = next((place for place, word in enumerate(words) if word in ASKS), None)
    if asked is None:
        return False
    chain, apps, _ = app.parse_commands(list(words[:asked]))
    if apps[-1].default_command is None:
        return False
    with app.app_stack(apps):
        arguments = apps[-1].assemble_argument_collection(parse_docstring=True).filter_by(show=True)
    if not any(name.startswith("--schedule.") for argument in arguments for name in argument.names):
        return False
    after = [*words[asked + 1 :], "-"][0]  # a word farther on is the value of an option
    topic = "" if after.startswith("-") else after
    command, console, formatter = " ".join(chain), PlainConsole(), DefaultFormatter()
    panels = _about(topic, arguments) if topic else _short(command, arguments)
    formatter.render_usage(console, console.options, format_usage(app, list(chain), execution_path=apps))
    if not topic:
        formatter.render_description(console, console.options, format_doc(apps[-1], "markdown"))
    for panel in panels:
        formatter(console, console.options, panel)
    if not topic:
        say(console, "\n".join(["Examples:", *(f"  {example}" for example in EXAMPLES[command]), ""]))
    branches = ", ".join(Options.model_fields)
    more = f"More: progan {command} --help WORD, where WORD is all, a branch ({branches}) or part of a name."
    console.print(more, highlight=False, markup=False)
    return True


def _short(command: str, arguments: ArgumentCollection) -> list[HelpPanel]:
    """Return the panels of what most need of a command."""
    plain = [each for each in arguments if each.field_info.is_positional]
    usual = Group.create_default_parameters()
    own = [each for each in arguments.filter_by(group=usual) if each not in plain]
    by_name = {name: each for each in arguments for name in each.names}
    chosen = [by_name[name] for name in NEEDED.get(command, ())] or own
    of_plugins = [each for each in arguments if _is_of_plugin(each.names[0])]
    defaults = load_config(DEFAULT_RECIPE)
    panels = [_panel("Arguments", plain)] if plain else []
    options = _panel("Options that most need" if command in NEEDED else "Options", chosen)
    entries = [_plain_entry(*pair, defaults) for pair in zip(chosen, options.entries, strict=True)]
    panels.append(options.copy(entries=entries))
    return [*panels, _panel("Options of plugins", of_plugins)] if of_plugins else panels


def _plain_entry(argument: Argument, entry: HelpEntry, defaults: Config) -> HelpEntry:
    """Return the entry of an option with its short names alone, and its value in the usual recipe."""
    option = MEANS.get(argument.names[0], argument.names[0])
    names = tuple(name for name in argument.names if "." not in name and not name.startswith("--no-"))
    default = (_default(defaults, option) if _branch(option) else "") or entry.default
    return HelpEntry(
        positive_names=names, metavar=entry.metavar, description=entry.description, choices=entry.choices,
        default=default, required=entry.required,
    )  # fmt: skip


def _about(topic: str, arguments: ArgumentCollection) -> list[HelpPanel]:
    """Return the panels of everything, of a branch, or of the options with a word in their name."""

    def named(word: str) -> list[bool]:
        return [any(word.replace("_", "-") in name for name in each.names) for each in arguments]

    check_topic(topic, Options.model_fields, lambda word: any(named(word)))
    of_branch = topic in Options.model_fields
    chosen = [
        each
        for each, has_word in zip(arguments, named(topic), strict=True)
        if topic == "all" or (_branch(each.names[0]) == topic if of_branch else has_word)
    ]
    by_group = {
        str(group.name): [each for each in arguments.filter_by(group=group) if each in chosen]
        for group in arguments.groups
    }
    return [_panel(title, members) for title, members in by_group.items() if members]


def _panel(title: str, arguments: Sequence[Argument]) -> HelpPanel:
    return create_parameter_help_panel(Group(title), ArgumentCollection(arguments), "markdown")  # type: ignore[no-untyped-call]


def _branch(name: str) -> str:
    """Return the branch of an option, or an empty text."""
    return name[2:].partition(".")[0] if "." in name else ""


def _is_of_plugin(name: str) -> bool:
    """Whether an option belongs to a part of one's own: the options that ship do not have it."""
    branch: Any = Options
    for part in name[2:].split(".") if "." in name else ():
        field = getattr(branch, "model_fields", {}).get(part.replace("-", "_"))
        if field is None:
            return True
        branch = field.annotation
    return False


def _default(defaults: Config, name: str) -> str:
    """Return an option's value in the usual recipe as a command line has it; empty if nothing is set."""
    value: object = defaults
    for part in name[2:].split("."):
        value = getattr(value, part.replace("-", "_"))
    if isinstance(value, tuple):
        return " ".join(f"{each:g}" for each in value)
    if value is None:
        return ""
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"

"""The commands; every one is a thin call into a room below.

Nothing heavy is imported before a command runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from progan.cli.bench import bench
from progan.cli.config import Branches, Json, Plugins, Tree, config_app, knowing, recipes
from progan.cli.explore import directions, explore, mix, project
from progan.cli.export import export, push
from progan.cli.generate import generate, interpolate
from progan.cli.import_weights import import_file
from progan.cli.measure import compare, evaluate
from progan.cli.prepare import prepare
from progan.cli.report import movie, report
from progan.cli.terminal.chosen import Kimg, choose
from progan.cli.terminal.console import PlainConsole, say
from progan.cli.terminal.option_names import split_commas
from progan.cli.terminal.run_status import status
from progan.cli.train import train
from progan.config import Parts, read_plugins
from progan.errors import ConfigError
from progan.version import __version__


def info(path: Path, *, kimg: Kimg = None, as_json: Json = False, plugin: Plugins = ()) -> None:
    """Say what a run folder, weight file, checkpoint or packed set is, and how far it got.

    Parameters
    ----------
    path
        The folder or file; or a name on the hub.
    as_json
        Print JSON.
    """
    from progan.cli.info import describe, print_facts
    from progan.cli.terminal.facts_json import facts_json

    found = path if kimg is None else choose(path, kimg).file
    if as_json:
        say(PlainConsole(), facts_json(found, describe(found, plugin), plugin))
    else:
        print_facts(PlainConsole(), describe(found, plugin))


def install_completion(
    shell: Literal["bash", "zsh", "fish", "powershell"] | None = None,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Let the Tab key complete commands and options in your shell.

    Parameters
    ----------
    shell
        Default: the one that this is given in.
    out
        File to write; default: where the shell looks, and the shell's own file of settings then loads it.
    """
    from cyclopts.completion.detect import ShellDetectionError

    app = make_app(read_plugins(()))
    try:
        file = app.install_completion(shell=shell, output=out, add_to_startup=out is None)
    except ShellDetectionError:
        raise ConfigError("which shell this is cannot be told: progan --install-completion bash") from None
    say(PlainConsole(), f"written: {file}; it works in shells that are opened from now on")


def make_app(parts: Parts) -> App:
    """Return the command line, whose options know parts of one's own."""
    app = App(
        name="progan",
        help="Train progressively grown GANs from a folder of pictures, and use the generators.",
        version=__version__,
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
        config=split_commas,
        help_on_error=False,
        suppress_keyboard_interrupt=False,  # `main` says it in words
    )
    app.command(knowing(train, Tree, Branches, parts))
    app.command(status)
    app.command(prepare)
    app.command(generate)
    app.command(interpolate)
    app.command(project)
    app.command(directions)
    app.command(mix)
    app.command(explore)
    app.command(movie)
    app.command(report)
    app.command(config_app(parts))
    app.command(knowing(bench, Tree, Branches, parts))
    app.command(evaluate)
    app.command(compare)
    app.command(import_file, name="import")
    app.command(export)
    app.command(push)
    app.command(recipes)
    app.command(info)
    app.command(install_completion, name="--install-completion")
    return app

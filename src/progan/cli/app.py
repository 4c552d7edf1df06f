"""The commands; every one is a thin call into a room below.

Nothing heavy is imported before a command runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

from pathlib import Path

from cyclopts import App, Parameter

from progan.cli.bench import bench
from progan.cli.config import Branches, Tree, config_app, knowing, recipes
from progan.cli.explore import directions, explore, mix, project
from progan.cli.export import export, push
from progan.cli.generate import generate, interpolate
from progan.cli.import_weights import import_file
from progan.cli.measure import compare, evaluate
from progan.cli.prepare import prepare
from progan.cli.report import movie, report
from progan.cli.terminal.chosen import Kimg, choose
from progan.cli.terminal.console import PlainConsole
from progan.cli.terminal.run_status import status
from progan.cli.train import train
from progan.config import Parts
from progan.version import __version__


def info(path: Path, *, kimg: Kimg = None) -> None:
    """Say what a run folder, weight file, checkpoint or packed set is, and how far it got.

    Parameters
    ----------
    path
        The folder or file; or a name on the hub.
    """
    from progan.cli.info import describe, print_facts

    print_facts(PlainConsole(), describe(path if kimg is None else choose(path, kimg).file))


def make_app(parts: Parts) -> App:
    """Return the command line, whose options know parts of one's own."""
    app = App(
        name="progan",
        help="Train progressively grown GANs from a folder of pictures, and use the generators.",
        version=__version__,
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
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
    return app

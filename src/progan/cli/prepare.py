"""The command that makes a packed set of pictures."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from progan.cli.config import Plugins
from progan.cli.terminal.console import PlainConsole
from progan.config import PictureOptions, parse_resolution, split_resolution
from progan.errors import ConfigError, Interrupted


def prepare(
    *places: str,
    base_shape: tuple[int, int] | None = None,
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1))] | None = None,
    plugin: Plugins = (),
    options: Annotated[PictureOptions | None, Parameter(name="*")] = None,
) -> None:
    """Make a packed set of pictures; it continues where it was interrupted.

    Parameters
    ----------
    places
        SOURCE... DESTINATION. Sources are folders and archives of pictures, and every form that docs/data.md
        lists, also quoted patterns; DESTINATION is the folder of the packed set: `progan train DESTINATION`
        uses it. `celeba-hq CELEBA DELTAS DESTINATION` makes CelebA-HQ of CelebA and the differences to it;
        `celeba-hq READY DESTINATION` takes it as it is, and checks count and size.
    base_shape
        Height and width of level 0.
    workers
        Processes; default: all cores.
    """
    from progan.cli.terminal.training import reporting
    from progan.preparation.source import prepare as prepare_set
    from progan.system.signals import stop_on_signals

    if len(places) < 2:
        raise ConfigError(
            "give a source of pictures and then the folder to make: progan prepare SOURCE... DESTINATION"
        )
    *sources, destination = places
    options = options or PictureOptions()
    if options.resolution is not None:
        split_resolution(parse_resolution(options.resolution), base_shape)
    with reporting(PlainConsole()) as reporter, stop_on_signals() as stop:
        try:
            report = prepare_set(
                sources,
                destination,
                options,
                base_shape=base_shape,
                workers=workers,
                progress=reporter.preparing,
                stop=lambda: bool(stop),
                say=reporter.say,
                plugins=plugin,
            )
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues", stop.signal_number or 2) from None
        reporter.prepared(report)

"""The command that trains."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

from cyclopts import Parameter

from progan.cli.config import Plugins, Tree, given
from progan.cli.terminal.console import say, training_console
from progan.config import Parts, merge, read_plugins
from progan.config.documents import read_document
from progan.config.recipes import DEFAULT_RECIPE
from progan.errors import ConfigError, command


def train(
    *source: str,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    time: str | None = None,
    until: str | None = None,
    resume: Path | None = None,
    init: str | None = None,
    freeze_d: int | None = None,
    freeze_g: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    memory_check: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    device: str | None = None,
    devices: Annotated[int | None, Parameter(alias="--gpus")] = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    track: tuple[str, ...] | None = None,
    show: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    plugin: Plugins = (),
    options: Tree = None,
) -> None:
    """Train a generator from pictures. The same command again goes on where it stopped.

    Options win over the file of --config, that over the recipe, and that over the defaults; progan config
    show prints what comes of it.

    Parameters
    ----------
    source
        Folder or archive of pictures, or any form that docs/data.md lists, also several and quoted patterns;
        a packed set; or builtin:glyphs.
    out
        Run folder; default: runs/SOURCE-RECIPE, or the name of the file of --config.
    recipe
        Name of a recipe (`progan recipes` lists them) or a file; default: paper-light-128.
    config
        YAML, JSON or TOML file of options that is laid over the recipe.
    time
        Plan size and lengths so that training takes this long: 30m, 2h, 1d; with --resume, what is left.
    until
        The same, by the time of day at which it ends: 07:00.
    resume
        Go on with this run; a source says where its pictures are now, if they were moved.
    init
        Begin with trained networks: a run, checkpoint, weight file (also of another system) or name on the
        hub.
    freeze_d
        Short for --init.freeze-d (FreezeD).
    freeze_g
        Short for --init.freeze-g.
    dry_run
        Prepare and check everything, print the plan, and do not train.
    memory_check
        Try a step of the largest level first, to see whether the memory suffices.
    device
        Short for --run.device.
    devices
        Train in so many processes on this machine, on CUDA one a GPU; more machines: torchrun.
    on_divergence
        Short for --run.on-divergence.
    track
        Short for --track.to: tensorboard, csv, webhook, wandb, mlflow, trackio.
    show
        Draw samples in the terminal, with half blocks, whenever a grid of them is written.
    """
    from progan.distributed.launcher import launch, to_launch

    if to_launch(devices, os.environ):
        sys.exit(launch(cast(int, devices), sys.argv[1:]))
    tree = given(options)
    short = {"device": device, "on_divergence": on_divergence}
    begun = {"source": init, "freeze_d": freeze_d, "freeze_g": freeze_g or None}
    for branch, values in (("run", short), ("init", begun), ("track", {"to": track})):
        if any(value is not None for value in values.values()):
            into = tree.setdefault(branch, {})
            into.update({name: value for name, value in values.items() if value is not None})
    if not source and resume is None:
        raise ConfigError("give a source of pictures, or --resume RUN")
    if resume is not None and (out is not None or recipe is not None):
        raise ConfigError("--resume goes on with a run as it is: leave out --out and --recipe")
    if time is not None and until is not None:
        raise ConfigError("--time and --until say the same thing: give one of them")
    if dry_run and memory_check:
        raise ConfigError("--memory-check computes a step and --dry-run computes none: leave one out")
    from progan.cli.terminal.shown_samples import ShownSamples
    from progan.cli.terminal.training import print_plan, reporting
    from progan.performance.forecast import expect
    from progan.performance.plan_time import parse_duration, seconds_until
    from progan.runs import checks
    from progan.runs.run import Check, carry_out, only_check

    checked: Check
    console = training_console()
    parts = read_plugins(plugin) + Parts(
        followers=(ShownSamples(console),) if show and console.is_terminal else ()
    )
    seconds = None if time is None else parse_duration(time)
    if until is not None:
        seconds = seconds_until(until, datetime.now())
    if resume is not None:
        tree = merge({} if config is None else read_document(config), tree)
        there = source or None
        checked = partial(checks.check_resume, resume, tree, source=there, parts=parts)
        if seconds is not None:
            checked = partial(checks.check_rest_in_time, resume, tree, seconds, source=there, parts=parts)
    elif seconds is not None:
        checked = partial(checks.check_in_time, source, out, recipe, tree, seconds, file=config, parts=parts)
    else:
        checked = partial(checks.check, source, out, recipe or DEFAULT_RECIPE, tree, file=config, parts=parts)
    with reporting(console) as reporter:
        if show and not console.is_terminal:
            reporter.say("--show draws in a terminal; grids of samples are in the run folder")
        if dry_run:
            prepared = only_check(checked, reporter)
            expected = expect(prepared.spec, prepared.packed, prepared.device)
            print_plan(console, prepared, expected)
            return
        folder = carry_out(checked, reporter, memory_check)
    pictures = command("generate", folder, "--n", 64, "--out", "samples.png")
    film = command("movie", folder, "--out", folder / "growth.gif")
    say(
        console,
        f"run folder: {folder}; its grids of samples: {folder / 'samples'}\n"
        f"use it: {pictures}\na film of its training: {film}; a page about it: {command('report', folder)}",
    )

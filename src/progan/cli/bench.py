"""The command that measures training: how fast it is, and how fast it could be at best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from progan.cli.config import Plugins, Tree, given
from progan.cli.terminal.console import PlainConsole, say, stages
from progan.config import load_config, merge, read_plugins
from progan.errors import ConfigError
from progan.system.files import write_text

AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Positive = Annotated[float, Parameter(validator=validators.Number(gt=0))]


def bench(
    *,
    recipe: str = "quickstart",
    config: Path | None = None,
    levels: tuple[int, ...] | None = None,
    variants: Annotated[tuple[str, ...], Parameter(show_default=" ".join)] = ("plain", "default"),
    rounds: AtLeastOne = 10,
    device: str | None = None,
    ceiling: tuple[Positive, Positive] | None = None,
    count_only: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    memory: Positive | None = None,
    compiled: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    plugin: Plugins = (),
    options: Tree = None,
) -> None:
    """Measure iterations of training on synthetic pictures, beside what they must cost at least.

    Parameters
    ----------
    recipe
        Name of a recipe (`progan recipes` lists them) or a file.
    config
        YAML, JSON or TOML file of options that is laid over the recipe.
    levels
        Levels to measure; default: all of the schedule.
    variants
        Ways to compute the same, which take turns and are compared with the first: plain, default, eager,
        float32, tf32, bfloat16, float16, compile, graphs.
    rounds
        Rounds that count; medians are shown.
    device
        Short for --run.device.
    ceiling
        What the machine can do at most, in TFLOP/s and GB/s; default: measured.
    count_only
        Count operations, bytes and memory, and measure nothing; needs --ceiling.
    memory
        With --count-only: also say how many images can be computed at once in so many GB.
    compiled
        With --count-only: also ask PyTorch's compiler which kernels it would make, what they move, and model
        the schedule with them; takes minutes.
    json_file
        Write everything that was found into this file, too.
    """
    from progan.cli.terminal.bench_tables import print_counts, print_measurements
    from progan.performance import bench as benches
    from progan.performance.iteration_cost import Ceiling
    from progan.system.device import choose_device
    from progan.training.precision import settle

    asked = {} if device is None else {"run": {"device": device}}
    made = load_config(recipe, merge(given(options), asked), file=config, parts=read_plugins(plugin))
    if count_only and ceiling is None:
        raise ConfigError("--count-only measures nothing, so it needs --ceiling TFLOP/s GB/s")
    if memory is not None and not count_only:
        raise ConfigError("--memory belongs to --count-only: what is measured has the memory it has")
    if compiled and not count_only:
        raise ConfigError("--compiled belongs to --count-only; --variants default compile measures both")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}; make it first")
    top = None if ceiling is None else Ceiling(ceiling[0] * 1e12, ceiling[1] * 1e9)
    console, place = PlainConsole(), choose_device(made.run.device)
    if count_only:
        assert top is not None
        room = None if memory is None else memory * 1e9
        with stages() as show:
            report = benches.count(settle(made, place), top, levels, room, compiled=compiled, progress=show)
        print_counts(console, report)
    else:
        with stages() as show:
            report = benches.bench(
                made, place, levels=levels, variants=variants, rounds=rounds, ceiling=top, progress=show
            )
        print_measurements(console, report)
    if json_file is not None:
        write_text(json_file, json.dumps(benches.as_tree(report), indent=2) + "\n")
        say(console, f"everything in numbers: {json_file}")

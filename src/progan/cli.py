"""The commands; every one is a thin call into a room below.

Nothing heavy is imported before a command runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import App, CycloptsError, Parameter, Token, validators
from rich.console import Console

from progan.cli_bench import bench
from progan.cli_config import Tree, config_app, given, recipes, say
from progan.cli_exit import fail, interrupted, leave_others
from progan.cli_import import import_file
from progan.cli_metrics import compare, evaluate
from progan.config import Options, PictureOptions, explain, merge, parse_resolution, split_resolution
from progan.errors import ConfigError, Interrupted, ProganError, StorageError, ToldElsewhere
from progan.heap import keep_freed_memory
from progan.recipes import DEFAULT_RECIPE
from progan.recipes.documents import read_document
from progan.streams import patient
from progan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from progan.models.generator import Generator

app = App(
    name="progan",
    help="Train progressively grown GANs from a folder of pictures, and use the generators.",
    version=__version__,
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    help_on_error=False,
    suppress_keyboard_interrupt=False,  # `main` says it in words
)
app.command(config_app)
app.command(bench)
app.command(evaluate)
app.command(compare)
app.command(import_file, name="import")
app.command(recipes)


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """Read a whole number; `1.5` is a mistake, not 1 or 2."""
    return int(tokens[0].value)


@app.command
def train(
    source: str | None = None,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    resume: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    memory_check: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    device: str | None = None,
    devices: int | None = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    options: Tree = None,
) -> None:
    """Train a generator from pictures. The same command again goes on where it stopped.

    Options win over the file of --config, that over the recipe, and that over the defaults; progan config
    show prints what comes of it.

    Parameters
    ----------
    source
        Folder or .zip of pictures, a packed set, or builtin:glyphs.
    out
        Run folder; default: runs/SOURCE-RECIPE, or the name of the file of --config.
    recipe
        Name of a recipe (`progan recipes` lists them) or a file; default: paper-light-128.
    config
        YAML, JSON or TOML file of options that is laid over the recipe.
    resume
        Go on with this run; needs no source.
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
    """
    from progan.training.launching import launch, to_launch

    if to_launch(devices, os.environ):
        sys.exit(launch(cast(int, devices), sys.argv[1:]))
    tree = given(options)
    short = {"device": device, "on_divergence": on_divergence}
    if any(value is not None for value in short.values()):
        run = tree.setdefault("run", {})
        run.update({name: value for name, value in short.items() if value is not None})
    if (source is None) == (resume is None):
        raise ConfigError("give either a source of pictures or --resume RUN")
    if resume is not None and (out is not None or recipe is not None):
        raise ConfigError("--resume goes on with a run as it is: leave out --out and --recipe")
    if dry_run and memory_check:
        raise ConfigError("--memory-check computes a step and --dry-run computes none: leave one out")
    if resume is not None:
        tree = merge({} if config is None else read_document(config), tree)
        _resume(resume, tree, dry_run=dry_run, memory_check=memory_check)
    else:
        place = (str(source), out, recipe or DEFAULT_RECIPE)
        _begin(*place, config, tree, dry_run=dry_run, memory_check=memory_check)


def _begin(
    source: str, out: Path | None, recipe: str, config: Path | None, tree: dict[str, Any], *,
    dry_run: bool, memory_check: bool,
) -> None:  # fmt: skip
    """Train from pictures, or say what would happen."""
    from progan.training import checks
    from progan.training import run as training
    from progan.training.distributed import join
    from progan.training.progress import TerminalReporter, print_plan
    from progan.training.signals import stop_on_signals

    console = _console_of_training()
    with TerminalReporter(console) as reporter:
        if dry_run:
            with join() as ranks, stop_on_signals() as stop:
                place = (source, out, recipe, tree, reporter, stop)
                prepared = ranks.in_turn(
                    lambda: checks.check(*place, file=config, ranks=ranks), training.facts
                )
            print_plan(console, prepared.plan, str(prepared.device), prepared.folder.path)
            return
        folder = training.train(
            source,
            out,
            recipe=recipe,
            file=config,
            options=tree,
            reporter=reporter,
            memory_check=memory_check,
        )
    _say_done(console, folder)


def _resume(run: Path, tree: dict[str, Any], *, dry_run: bool, memory_check: bool) -> None:
    """Go on with a run, or say what would happen."""
    from progan.training import checks
    from progan.training import run as training
    from progan.training.distributed import join
    from progan.training.progress import TerminalReporter, print_plan
    from progan.training.signals import stop_on_signals

    console = _console_of_training()
    with TerminalReporter(console) as reporter:
        if dry_run:
            with join() as ranks, stop_on_signals() as stop:
                prepared = ranks.in_turn(
                    lambda: checks.check_resume(run, tree, reporter, stop, ranks=ranks), training.facts
                )
            print_plan(console, prepared.plan, str(prepared.device), prepared.folder.path)
            return
        folder = training.resume(run, options=tree, reporter=reporter, memory_check=memory_check)
    _say_done(console, folder)


def _console_of_training() -> Console:
    """Return where training reports: of the processes that torchrun has started, the first does."""
    return Console(file=patient(sys.stdout), quiet=_rank() != 0)


def _rank() -> int:
    """Return which of the processes of torchrun this is; 0 if it has started none."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _say_done(console: Console, folder: Path) -> None:
    say(console, f"run folder: {folder}\nuse it: progan generate {folder} --n 64 --out samples.png")


@app.command
def prepare(
    source: Path,
    destination: Path,
    *,
    base_shape: tuple[int, int] | None = None,
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1))] | None = None,
    options: Annotated[PictureOptions | None, Parameter(name="*")] = None,
) -> None:
    """Make a packed set of a folder or .zip of pictures; it continues where it was interrupted.

    Parameters
    ----------
    source
        Folder or .zip of pictures.
    destination
        Folder of the packed set; `progan train DESTINATION` uses it.
    base_shape
        Height and width of level 0.
    workers
        Processes; default: all cores.
    """
    from progan.data.prepare import prepare as prepare_set
    from progan.training.progress import TerminalReporter
    from progan.training.signals import stop_on_signals

    options = options or PictureOptions()
    if options.resolution is not None:
        split_resolution(parse_resolution(options.resolution), base_shape)
    with TerminalReporter(Console(file=patient(sys.stdout))) as reporter, stop_on_signals() as stop:
        try:
            report = prepare_set(
                source,
                destination,
                options,
                base_shape=base_shape,
                workers=workers,
                progress=reporter.preparing,
                stop=lambda: bool(stop),
            )
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues", stop.signal_number or 2) from None
        reporter.prepared(report)


@app.command
def generate(
    path: Path,
    *,
    n: Annotated[int, Parameter(converter=_whole)] = 64,
    out: Annotated[Path, Parameter(alias="-o")] = Path("samples"),
    seed: int = 0,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    level: int | None = None,
    resolution: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Make pictures with a trained generator; under torchrun, with several processes.

    Parameters
    ----------
    path
        Run folder or weight file.
    n
        Number of pictures.
    out
        Folder of PNGs, or a file: .png (one grid), .npy (uint8 NCHW) or .zip.
    seed
        The same seed gives the same pictures, whatever n.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: any.
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    batch_size
        Pictures computed at once.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.evaluation.sampling import digest, level_of
    from progan.training.checks import choose_device
    from progan.training.distributed import join
    from progan.viewers.samples import save_samples

    with join() as ranks:

        def loaded() -> tuple[Generator, int]:
            G = _load(path, str(ranks.device(choose_device(device, ranks.local_rank))))
            return G, level_of(G, level, resolution)

        G, chosen = ranks.in_turn(loaded, lambda found: {"the generator": digest(found[0])})
        try:
            with _progress("generating") as progress:
                made = save_samples(
                    G, out, n, seed=seed, label=label, level=chosen, batch_size=batch_size,
                    progress=progress, ranks=ranks,
                )  # fmt: skip
        except ConfigError:  # which all processes meet
            ranks.let_first_tell()
            raise
    say(_console_of_training(), f"{n} pictures: {made}")


@app.command
def interpolate(
    path: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("walk.gif"),
    seconds: float = 10.0,
    fps: float = 30.0,
    grid: tuple[int, int] = (1, 1),
    seed: int = 0,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    level: int | None = None,
    resolution: str | None = None,
    device: str = "auto",
) -> None:
    """Make a video of a smooth closed walk through latent space.

    Parameters
    ----------
    path
        Run folder or weight file.
    out
        .gif, or .mp4 (with the extra `video`).
    seconds
        Length.
    fps
        Frames a second.
    grid
        Rows and columns of pictures.
    seed
        The same seed gives the same walk.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: one for each
        picture of the grid.
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.evaluation.sampling import level_of
    from progan.viewers.video import interpolate as write_video

    G = _load(path, device)
    level = level_of(G, level, resolution)
    with _progress("rendering") as progress:
        made = write_video(
            G, out, seconds=seconds, fps=fps, grid=grid, seed=seed, label=label, level=level,
            progress=progress,
        )  # fmt: skip
    say(Console(), f"video: {made}")


@app.command
def info(path: Path) -> None:
    """Say what a run folder, weight file, checkpoint or packed set is, and how far it got.

    Parameters
    ----------
    path
        The folder or file.
    """
    from progan.viewers.info import describe, print_facts

    print_facts(Console(), describe(path))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 a user's mistake, 128 + n stopped by signal n.

    Args:
        arguments: Words of the command; None for those of the process, which is all that it does then.
    """
    try:
        _carry_out(arguments)
    except SystemExit as end:
        if arguments is None:
            leave_others(end.code)
        raise


def _carry_out(arguments: list[str] | None) -> None:
    """Run the command line; see `main`."""
    _wait_politely()
    keep_freed_memory()
    # A broken connection is told in words; PyTorch would add a page of addresses.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from pydantic import ValidationError

    try:
        app(arguments, print_error=False, exit_on_error=False)
    except ToldElsewhere as error:
        time.sleep(1)  # torchrun ends all as soon as one has ended, so who tells it goes first
        sys.exit(error.exit_code)
    except ProganError as error:
        fail(str(error), error.exit_code)
    except CycloptsError as error:
        fail(_explain_command(error), ConfigError.exit_code)
    except ValidationError as error:
        fail(explain(error), ConfigError.exit_code)
    except OSError as error:
        # Of a path that nothing more particular was said about: too long a name, a disk that fails.
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}; look at that path", StorageError.exit_code)
    except KeyboardInterrupt:
        interrupted(quiet=_rank() != 0)


def _wait_politely() -> None:
    """Have PyTorch's threads spin for some microseconds while they wait for each other, then sleep.

    By default they spin on, and slow each other down many times when other processes use the cores, too.
    Those that sleep at once are slow when no other process does. OMP_WAIT_POLICY, if set, decides instead.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by GNU's OpenMP, which wins over the policy


def _explain_command(error: CycloptsError) -> str:
    """Return the message of a command line that cannot be read."""
    from pydantic import ValidationError

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    return explain(cause, PictureOptions if PictureOptions.__name__ in cause.title else Options)


def _load(path: Path, device: str) -> Generator:
    """Load a generator onto a device."""
    from progan.models.weights import load
    from progan.training.checks import choose_device

    return load(path, choose_device(device))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; yields the function that moves it by (done, total)."""
    from progan.cli_progress import stages

    with stages() as show:
        yield lambda done, total: show(what, done, total)

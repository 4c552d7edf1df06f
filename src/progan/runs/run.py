"""From a source of pictures, or an existing run, to a trained generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

import torch

from progan.config import Part, Parts, flatten, merge, read_plugins
from progan.config.parts.given import gathered
from progan.config.recipes import DEFAULT_RECIPE
from progan.distributed.ranks import Ranks, join
from progan.metrics.metric import Metric
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.performance.peak_rates import describe
from progan.performance.plan_time import parse_duration
from progan.preparation.own_source import PictureSource
from progan.runs.callbacks.callback import Callback
from progan.runs.checks import Prepared, check, check_in_time, check_rest_in_time, check_resume, try_largest
from progan.runs.loop import Trainer
from progan.runs.monitors import MetricsWatch
from progan.runs.reporter import LineReporter, Reporter
from progan.system.signals import StopRequest, stop_on_signals
from progan.training.augment import Augmentation
from progan.training.precision import settings
from progan.training.terms.kinds import AdversarialLoss, Penalty
from progan.version import __version__

SEVERAL = (Penalty.chosen_by, Augmentation.chosen_by, Metric.chosen_by)
"""Options that choose several parts."""


class OwnParts(TypedDict, total=False):
    """Parts of one's own: classes, or instances that were told their options.

    Each is chosen by being given; options of the call that say otherwise win. `plugins` are Python files
    whose parts may be chosen by options. `callbacks` follow this call, beside those of `track.to`.
    """

    loss: AdversarialLoss | type[AdversarialLoss]
    penalties: Sequence[Penalty | type[Penalty]]
    augmentations: Sequence[Augmentation | type[Augmentation]]
    metrics: Sequence[Metric | type[Metric]]
    generator: type[Generator]
    discriminator: type[Discriminator]
    callbacks: Sequence[Callback | type[Callback]]
    plugins: Sequence[str | Path]


def train(
    source: str | Path | Sequence[str | Path] | PictureSource,
    out: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    file: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    time: str | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
    **own: Unpack[OwnParts],
) -> Path:
    """Train a generator from pictures, and return the run folder; `progan.train` explains the arguments.

    Raises:
        ProganError: of the kind that fits.
    """
    parts, chosen = own_parts(own)
    if isinstance(source, PictureSource):
        parts, source = parts + Parts((type(source),)), source.place
    tree = merge(chosen, options or {})
    checked: Check = partial(check, source, out, recipe or DEFAULT_RECIPE, tree, file=file, parts=parts)
    if time is not None:
        seconds = parse_duration(time)
        checked = partial(check_in_time, source, out, recipe, tree, seconds, file=file, parts=parts)
    return carry_out(checked, reporter or LineReporter(), memory_check)


def resume(
    run: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    time: str | None = None,
    reporter: Reporter | None = None,
    memory_check: bool = False,
    **own: Unpack[OwnParts],
) -> Path:
    """Go on with a run, and return its folder; `progan.resume` explains the arguments.

    Raises:
        ProganError: of the kind that fits.
    """
    parts, chosen = own_parts(own, lists=False)  # those of the run stay as they are
    tree = merge(chosen, options or {})
    checked: Check = partial(check_resume, run, tree, parts=parts)
    if time is not None:
        checked = partial(check_rest_in_time, run, tree, parse_duration(time), parts=parts)
    return carry_out(checked, reporter or LineReporter(), memory_check)


class Check(Protocol):
    """Checks a run, each of its processes by itself."""

    def __call__(self, *, reporter: Reporter, stop: StopRequest, ranks: Ranks) -> Prepared:
        """Return the run, which could start."""


def carry_out(checked: Check, reporter: Reporter, memory_check: bool = False) -> Path:
    """Check a run and train it to its end.

    Args:
        checked: Checks it.
        reporter: Who watches.
        memory_check: First try one update at the largest level.

    Returns:
        The run folder.

    Raises:
        ProganError: of the kind that fits.
    """
    with _checked(checked, reporter) as (run, stop):
        options, folder, ranks = run.spec.config.run, run.folder, run.ranks
        ranks.limit(options.timeout_minutes)
        held = ranks.first_only(lambda: folder.lock(run.reporter.say)) or nullcontext()
        with held, settings(options, run.device):
            if memory_check:
                run.reporter.say(try_largest(run.spec, run.packed, run.device, ranks))
            trainer = Trainer(run)
            trainer.resume()
            ranks.first_only(lambda: _begin(run, trainer.state.images_seen))
            trainer.run(stop)
    return folder.path


def _begin(run: Prepared, images_seen: int) -> None:
    """Write down what is trained, and by what."""
    run.folder.begin(run.spec.config, run.dataset)
    run.folder.note_machine(images_seen, {**describe(run.device), "processes": run.ranks.size})


def only_check(checked: Check, reporter: Reporter) -> Prepared:
    """Check a run, prepare its pictures, and do not train.

    Args:
        checked: Checks it.
        reporter: Who watches.

    Raises:
        ProganError: of the kind that fits.
    """
    with _checked(checked, reporter) as (run, _):
        if run.spec.config.monitor.metrics:
            MetricsWatch(run)  # it says what cannot be measured, or refuses
        return run


@contextmanager
def _checked(checked: Check, reporter: Reporter) -> Iterator[tuple[Prepared, StopRequest]]:
    """Meet the processes of a run, each of which checks it; only the first reports."""
    with join() as ranks, stop_on_signals() as stop:
        heard = ranks.first_only(lambda: reporter) or Reporter()
        yield ranks.in_turn(lambda: checked(reporter=heard, stop=stop, ranks=ranks), facts), stop


def facts(prepared: Prepared) -> dict[str, str]:
    """Return what all processes of a run must agree about, by name.

    The device is left out, and the number of threads: machines may differ there.
    """
    config = flatten(prepared.spec.config.model_dump(mode="json"))
    own = ("run.device", "run.threads")
    return {
        "progan": __version__,
        "torch": ".".join(str(torch.__version__).split(".")[:2]),
        "pictures": prepared.packed.fingerprint,
        **{name: str(value) for name, value in config.items() if name not in own},
    }


def own_parts(own: OwnParts, *, lists: bool = True) -> tuple[Parts, dict[str, object]]:
    """Return the parts of a call, and the options that choose them.

    Args:
        own: The parts.
        lists: Choose those, too, of which there may be several.

    Raises:
        ConfigError: if one is no part or lacks something, or a file cannot be read.
    """
    given: list[Part | type[Part]] = [
        *own.get("penalties", ()),
        *own.get("augmentations", ()),
        *own.get("metrics", ()),
    ]
    given += [own["loss"]] if "loss" in own else []
    given += [own["generator"]] if "generator" in own else []
    given += [own["discriminator"]] if "discriminator" in own else []
    parts, chosen = gathered(given, SEVERAL, lists=lists)
    followers = tuple(one() if isinstance(one, type) else one for one in own.get("callbacks", ()))
    return read_plugins(own.get("plugins", ())) + parts + Parts(followers=followers), chosen

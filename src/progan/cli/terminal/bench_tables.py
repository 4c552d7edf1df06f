"""Tables of what iterations of training must do, and of how fast they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from progan.cli.terminal.console import say
from progan.config import format_resolution
from progan.performance.bench import Measurement as Measured
from progan.performance.bench import Report
from progan.performance.estimate import WORKSPACE
from progan.performance.interleaved import NO_MEMORY
from progan.system.progress import format_seconds

HEAD = (
    *("phase", "variant", "images/s", "ms", "ratio", "D/pen/G/Adam/load %"),
    *("MiB", "GFLOP/s", "best %", "floor ms", "x floor"),
)
LEGEND = """D, pen(alties), G, Adam (with the average), load: shares of the parts' time, each measured alone
best: share of what the machine does at best; floor: what counted operations or bytes take at best"""
COUNT_HEAD = (
    *("level", "size", "phase", "images", "D", "pen", "G", "GFLOP", "calls"),
    *("MB", "eager", "compiled", "op/B", "GiB", "at once", "images/s"),
)
IF_ASKED = ("compiled", "at once")
"""Columns that are left out where nobody asked for them."""

COUNT_LEGEND = """GFLOP of D, penalties, G and all, MB at least and operator by operator (eager): of an image
calls: operators of an iteration; op/B: operations a byte at least; GiB: tensors at once"""


def print_measurements(console: Console, report: Report) -> None:
    """Print the machine, a table a level, and the length of the schedule."""
    machine = report.machine
    what = f"{machine['name']}, device {machine['device']}, {machine['threads']} threads"
    say(console, f"{what}, PyTorch {machine['torch']}")
    for name, ceiling in report.ceilings.items():
        rates = report.rates.get(name)
        how = "as given" if rates is None else f"a {rates.faster}, a copy"
        operations = f"{ceiling.operations / 1e9:,.1f} GFLOP/s"
        say(console, f"at best, {name}: {operations}, {ceiling.bandwidth / 1e9:,.1f} GB/s ({how})")
    for _, group in groupby(report.measurements, key=lambda one: one.phase.level):
        _print_level(console, report, list(group))
    say(console, LEGEND)
    measured = machine["device"].startswith("cuda")
    say(console, "MiB: at most in use" if measured else "MiB: counted from the shapes, not measured")
    for name in report.projections:
        say(console, _projected(report, name))


def print_counts(console: Console, report: Report) -> None:
    """Print what was counted: a row a level and kind of phase."""
    rows = [_count_row(report, one) for one in report.measurements]
    kept = [
        i for i, name in enumerate(COUNT_HEAD) if name not in IF_ASKED or any(row[i] != "-" for row in rows)
    ]
    head, rows = [COUNT_HEAD[i] for i in kept], [[row[i] for i in kept] for row in rows]
    _print_rows(console, f"what iterations must do, {report.config.run.precision}", head, rows, 3, 9)
    say(console, COUNT_LEGEND)
    if report.compiled is not None:
        say(
            console, "compiled: MB of an image, kernel by kernel, fused as PyTorch's compiler would for a GPU"
        )
    if any(one.largest_part is not None for one in report.measurements):
        say(console, f"at once: images that fit, each byte counted as {WORKSPACE:g} bytes")
    ceiling = report.ceilings["default"]
    best = f"{ceiling.operations / 1e12:,.3g} TFLOP/s and {ceiling.bandwidth / 1e9:,.0f} GB/s"
    say(console, f"images/s: at most, at {best}")
    least = format_seconds(report.floors["default"])
    say(console, f"whole schedule: {report.operations:.4g} floating-point operations, at least {least}")
    if report.eager is not None:
        say(console, f"modelled, each operator for itself: {format_seconds(report.eager)}")
    if report.compiled is not None:
        say(console, f"modelled, each compiled kernel for itself: {format_seconds(report.compiled)}")


def _count_row(report: Report, one: Measured) -> list[str]:
    cost, work, n = one.cost, one.cost.work, one.cost.images
    each = [part.operations / n / 1e9 for part in (cost.d, cost.penalty, cost.g, work)]
    return [
        str(one.phase.level),
        format_resolution(report.image.resolution(one.phase.level)),
        one.phase.kind,
        str(n),
        *map(_number, each),
        f"{work.operators:.0f}",
        *map(_number, (work.least_bytes / n / 1e6, work.bytes / n / 1e6)),
        "-" if one.compiled is None else _number(one.compiled.bytes / n / 1e6),
        _number(work.operations / work.least_bytes),
        f"{cost.memory / 2**30:.2f}",
        "-" if one.largest_part is None else str(one.largest_part),
        _number(n / one.floor),
    ]


def _print_level(console: Console, report: Report, found: list[Measured]) -> None:
    """Print what was measured of one level."""
    level = found[0].phase.level
    size = format_resolution(report.image.resolution(level))
    rows = [[one.phase.kind, one.variant, *_cells(report, one)] for one in found]
    _print_rows(
        console, f"level {level}: {size}, {found[0].cost.images} images an iteration", HEAD, rows, 2, 6
    )
    for kind, same in groupby(found, key=lambda one: one.phase.kind):
        first = next(same)
        say(console, f"{kind}, {first.variant}: {_counted(first)}")
    for one in found:
        for note in one.timed.notes if one.timed else ():
            say(console, f"{one.phase.kind}, {one.variant}: {note}")


def _cells(report: Report, one: Measured) -> list[str]:
    """Return the numbers of a row."""
    timed, work = one.timed, one.cost.work
    if timed is None or timed.seconds is None:
        failed = timed is not None and not any(note.startswith(NO_MEMORY) for note in timed.notes)
        return ["failed" if failed else "no memory", *["-"] * (len(HEAD) - 3)]
    rate = work.operations / timed.seconds
    shares = [f"{100 * share:.0f}" for share in timed.parts.shares()] if timed.parts else ["-"]
    return [
        _number(one.cost.images / timed.seconds),
        _number(1000 * timed.seconds),
        "-" if timed.ratio is None else f"{timed.ratio:.2f}",
        "/".join(shares),
        f"{(timed.peak_memory or one.cost.memory) / 2**20:,.0f}",
        _number(rate / 1e9),
        f"{100 * rate / report.ceilings[one.variant].operations:.1f}",
        _number(1000 * one.floor),
        f"{timed.seconds / one.floor:.1f}",
    ]


def _counted(one: Measured) -> str:
    """Say what an iteration asks for."""
    cost, work = one.cost, one.cost.work
    parts = {"D": cost.d, "penalties": cost.penalty, "G": cost.g}
    shares = ", ".join(f"{name} {part.operations / work.operations:.0%}" for name, part in parts.items())
    return (
        f"{_number(work.operations / 1e9)} GFLOP ({shares}); {_number(work.least_bytes / 1e6)} MB at least, "
        f"{_number(work.bytes / 1e6)} operator by operator; {work.operators:.0f} operators"
    )


def _projected(report: Report, name: str) -> str:
    """Say how long the whole schedule takes."""
    made = report.projections[name]
    length, least = format_seconds(made.seconds), format_seconds(report.floors[name])
    told = f"whole schedule, {name}: {length}, at least {least}"
    missing = sorted({each.phase.level for each in made.phases if not each.measured})
    if missing:
        told += f"; levels {', '.join(map(str, missing))} taken to be as far from their floor as the nearest"
    return told


def _print_rows(
    console: Console, title: str, head: Sequence[str], rows: list[list[str]], keys: int, half: int
) -> None:
    """Print a table; if it is wider than the console, as two.

    Both have the first `keys` columns; the first ends with column `half`.
    """
    whole = _table(title, head, rows, range(len(head)), keys)
    room = console.options.update(max_width=1000)
    if Measurement.get(console, room, whole).maximum <= console.width:
        console.print(whole)
        return
    console.print(_table(title, head, rows, range(half), keys))
    console.print(_table("", head, rows, [*range(keys), *range(half, len(head))], keys))


def _table(
    title: str, head: Sequence[str], rows: list[list[str]], columns: Sequence[int], keys: int
) -> Table:
    table = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
        collapse_padding=True, padding=(0, 1),
    )  # fmt: skip
    for column in columns:
        table.add_column(head[column], justify="left" if column < keys else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def _number(value: float) -> str:
    """Write a number with three digits, or more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

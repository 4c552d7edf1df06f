"""Results of metrics, as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from progan.cli.terminal.console import say

if TYPE_CHECKING:
    from progan.evaluation.results import Result


def print_results(console: Console, results: Sequence[Result]) -> None:
    """Print results as a table, the same numbers of the reals among themselves beside them, then notes."""
    table = Table(box=box.SIMPLE)
    table.add_column("metric", no_wrap=True)
    pairs = [{name: _beside(result, name) for name in result.numbers} for result in results]
    among = any(other is not None for beside in pairs for other in beside.values())
    for title in ("number", *(["among reals"] if among else []), "images", "reals"):
        table.add_column(title, justify="right")
    table.add_column("")
    for result, beside in zip(results, pairs, strict=True):
        for name, other in beside.items():
            if name in beside.values() or name.endswith("/images"):
                continue
            table.add_row(
                name,
                f"{result.numbers[name]:.4f}",
                *(["" if other is None else f"{result.numbers[other]:.4f}"] if among else []),
                f"{result.num_images:,}",
                "" if result.num_reals is None else f"{result.num_reals:,}",
                "known" if result.cached else "",
            )
    console.print(table)
    for result in results:
        halves = result.numbers.get(f"{result.metric}_floor/images")
        if halves is not None:
            say(console, f"{result.metric} among reals: of two halves with {halves:,.0f} images each")
        for note in result.notes:
            say(console, f"note: {note}")


def _beside(result: Result, name: str) -> str | None:
    """Return the name of the number that stands beside another: the floor, or the same of the reals."""
    for suffix in ("_floor", "_reals"):
        other = name.replace(result.metric, result.metric + suffix, 1)
        if other in result.numbers and suffix not in name:
            return other
    return None

"""Bars leave room for what a terminal shows of Ctrl-C; else their first line stays when they are removed."""

from __future__ import annotations

import io

import pytest

from progan.cli.terminal.console import Bars, PlainConsole
from progan.cli.terminal.training import TerminalReporter


@pytest.mark.parametrize("width", [20, 60, 80, 120])
def test_bars_are_narrower_than_the_terminal(width: int) -> None:
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    reporter = TerminalReporter(console)
    bars = reporter._bars
    assert isinstance(bars, Bars)
    bars.add_task("all phases", total=10, note="a note")
    bars.add_task("8x8 stabilise", total=10, note="of some length")
    lines = console.render_lines(bars.get_renderable(), pad=False)
    assert len(lines) >= 2
    assert max(sum(segment.cell_length for segment in line) for line in lines) <= width - len("^C^C") - 1

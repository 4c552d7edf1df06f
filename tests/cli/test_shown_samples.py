"""Samples in the terminal: what fits, from all rows of a grid, in two colours a character."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from progan.cli.terminal.shown_samples import SIDE, ShownSamples, strip_of
from progan.generation.grids import write_grid

ROWS, COLUMNS = 10, 10


def grid_of(folder: Path, height: int, width: int, rows: int = ROWS) -> Path:
    """Write a grid in which a sample is as red as its row and as green as its column, ten a step."""
    places = [(10 * row, 10 * column, 200) for row in range(rows) for column in range(COLUMNS)]
    images = np.broadcast_to(
        np.array(places, np.uint8)[:, :, None, None], (len(places), 3, height, width)
    ).copy()
    path = folder / f"000058000_{height}x{width}.png"
    write_grid(images, COLUMNS, path)
    return path


@pytest.mark.parametrize(("height", "width"), [(4, 4), (32, 32), (48, 32), (128, 128)])
def test_samples_come_from_all_rows_and_lie_apart(tmp_path: Path, height: int, width: int) -> None:
    with Image.open(grid_of(tmp_path, height, width)) as grid:
        strip = strip_of(grid.convert("RGB"), (height, width), 5)
    high = SIDE * height // width
    assert strip.size == (5 * (SIDE + 1) - 1, 2 * (high + 2) - 2)
    pixels = np.asarray(strip)
    for k in range(10):
        top, left = k // 5 * (high + 2), k % 5 * (SIDE + 1)
        sample = pixels[top : top + high, left : left + SIDE]
        assert (sample == (10 * k, 10 * k, 200)).all()  # row k, column k
    assert (pixels[high : high + 2] == 0).all()
    assert (pixels[:, SIDE] == 0).all()


def test_a_grid_of_few_samples_is_shown_whole(tmp_path: Path) -> None:
    with Image.open(grid_of(tmp_path, 32, 32, rows=1)) as grid:
        strip = strip_of(grid.convert("RGB"), (32, 32), 9)
    assert strip.size == (5 * (SIDE + 1) - 1, 2 * (SIDE + 2) - 2)
    assert {tuple(p) for p in np.asarray(strip).reshape(-1, 3)} >= {(0, 10 * k, 200) for k in range(10)}


@pytest.mark.parametrize("columns", [10, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, columns: int) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=columns, color_system="truecolor", _environ={})
    ShownSamples(console).samples(grid_of(tmp_path, 32, 32), 58_000)

    lines = Text.from_ansi(shown.getvalue()).split("\n")
    across = max(1, (columns + 1) // (SIDE + 1))
    assert max(line.cell_len for line in lines) == across * (SIDE + 1) - 1 or columns < SIDE
    assert "▄" in shown.getvalue()
    assert "48;2;" in shown.getvalue()

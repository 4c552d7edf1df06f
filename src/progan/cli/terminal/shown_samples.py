"""Samples in the terminal, drawn with half blocks, whenever a run writes a grid of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from PIL import Image
from rich.console import Console

from progan.config import Config
from progan.errors import DependencyError
from progan.generation.grids import GAP, grid_factor
from progan.runs.callbacks.callback import Callback

SIDE = 16
"""Columns of the terminal that a sample takes; half a line is as high as a column is wide."""

ROWS = 2
"""Samples above one another."""


class ShownSamples(Callback):
    """Shows as many samples of each grid as fit side by side, in two rows; the same places of every grid.

    Args:
        console: Where training reports: a terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def check(self, config: Config) -> None:  # noqa: ARG002 - what draws does not depend on it
        """Raise a DependencyError if what draws half blocks is missing."""
        _pixels()

    def samples(self, picture: Path, images_seen: int) -> None:  # noqa: ARG002 - the row above says it
        """Show samples of a grid."""
        across = max(1, (self._console.width + 1) // (SIDE + 1))
        height, width = map(int, picture.stem.rpartition("_")[2].split("x"))
        with Image.open(picture) as grid:
            strip = strip_of(grid.convert("RGB"), (height, width), across)
        self._console.print(_pixels().Pixels.from_image(strip))


def strip_of(grid: Image.Image, size: tuple[int, int], across: int) -> Image.Image:
    """Return samples of a grid, small, in two rows on black.

    They are taken from all rows of the grid in turn, so that of ten classes ten can be seen.

    Args:
        grid: As a run writes it: samples enlarged by a whole factor, with gaps between them.
        size: Height and width of a sample.
        across: Samples side by side, at most.
    """
    factor = grid_factor(size)
    height, width = size[0] * factor + GAP, size[1] * factor + GAP
    rows, columns = (grid.height + GAP) // height, (grid.width + GAP) // width
    high = max(2, 2 * round(SIDE * size[0] / size[1] / 2))
    count = min(ROWS * across, rows * columns)
    across = -(-count // ROWS)
    strip = Image.new("RGB", (across * (SIDE + 1) - 1, -(-count // across) * (high + 2) - 2))
    for k in range(count):
        row, column = k * rows // count, k % columns
        left, top = column * width, row * height
        sample = grid.crop((left, top, left + width - GAP, top + height - GAP))
        small = sample.resize((SIDE, high), Image.Resampling.BOX)
        strip.paste(small, (k % across * (SIDE + 1), k // across * (high + 2)))
    return strip


def _pixels() -> ModuleType:
    """Return the library that draws pictures with half blocks.

    Raises:
        DependencyError: if it is not there.
    """
    try:
        import rich_pixels
    except ImportError:
        raise DependencyError(
            "--show draws with an extra (rich-pixels is missing): pip install 'progan[show]'"
        ) from None
    return rich_pixels

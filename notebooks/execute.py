"""Executes the notebooks, in a folder that is thrown away: `make notebooks`.

The cell with the tag `parameters` is given small values, so that each takes a minute or two. With the
names of notebooks, only those.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SMALL = {"LENGTHS": '{"stabilise_kimg": 0.1, "fade_kimg": 0.1}', "RESOLUTION": "16"}


def small(cell: Any) -> None:
    """Give parameters small values."""
    lines = []
    for line in cell.source.splitlines():
        name = line.partition(" ")[0]
        lines.append(f"{name} = {SMALL[name]}" if name in SMALL else line)
    cell.source = "\n".join(lines)


def execute(notebook: Path) -> None:
    """Execute a notebook; whatever goes wrong in a cell is raised."""
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            small(cell)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=900, resources={"metadata": {"path": folder}}).execute()


if __name__ == "__main__":
    chosen = [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb"))
    for each in chosen:
        print(f"{each.name} ...", flush=True)
        execute(each)

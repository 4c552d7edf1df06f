"""Libraries that read one format, imported where they are needed, or used in a process of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from progan.errors import DataError, DependencyError
from progan.system.worker_pool import run_chunks

C = TypeVar("C")
R = TypeVar("R")


def needed(module: str, extra: str, path: Path) -> Any:
    """Import a library that is installed with an extra.

    Raises:
        DependencyError: if it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise DependencyError(
            f'{path}: reading it needs the package {missing}: pip install "progan[{extra}]"'
        ) from None


def elsewhere(function: Callable[[C], R], context: C, path: Path) -> R:
    """Return `function(context)`, computed in another process, which damaged files may end.

    Args:
        function: A function of a module; what it raises as DataError is raised here.
        context: Its argument; both it and the result must be picklable.
        path: The file, for messages.

    Raises:
        DataError: as the function, or if it ends its process.
    """
    crashed = f"{path}: reading it ends the process: the file is damaged"
    task = (function, context)
    with closing(run_chunks(_called, task, [["it"]], workers=2, crashed=crashed)) as results:
        result = next(results)[0]
    if isinstance(result, str):
        raise DataError(result)
    return result[0]


def _called(task: tuple[Callable[[C], R], C], _item: str) -> tuple[R] | str:
    function, context = task
    try:
        return (function(context),)
    except DataError as error:
        return str(error)

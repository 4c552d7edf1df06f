"""Libraries that read one format, imported where they are needed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from progan.errors import DependencyError


def needed(module: str, extra: str, path: Path) -> Any:
    """Import a library that is installed with an extra.

    Raises:
        DependencyError: if it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        if missing.partition(".")[0] != module.partition(".")[0]:
            missing = f"{module}, and {missing} for it"
        raise DependencyError(
            f'{path}: reading it needs the package {missing}: pip install "progan[{extra}]"'
        ) from None

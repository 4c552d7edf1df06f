"""Python files that define parts of one's own; reading one runs it."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Sequence
from functools import reduce
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract
from pathlib import Path
from types import ModuleType

from progan.config.parts.part import Part, Parts, PluginFile
from progan.errors import ConfigError


def read_plugins(files: Sequence[str | Path]) -> Parts:
    """Run Python files and return the parts that they define.

    Args:
        files: Their paths.

    Raises:
        ConfigError: if one cannot be read, fails, or defines no part.
    """
    return reduce(Parts.__add__, map(_read, files), Parts())


def _read(file: str | Path) -> Parts:
    path = Path(file).resolve()
    try:
        code = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--plugin {file}: cannot be read ({error.strerror})") from None
    sha256 = hashlib.sha256(code).hexdigest()
    module = _run(path, sha256)
    own = tuple(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Part)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
        and value.chosen_by
    )
    if not own:
        raise ConfigError(
            f"--plugin {file}: defines no part; derive a class from one of progan's, such as "
            f"progan.AdversarialLoss"
        )
    for part in own:
        require_whole(part)
    return Parts(own, (PluginFile(str(path), sha256),))


def _run(path: Path, sha256: str) -> ModuleType:
    """Run a file as a module, once in a process unless it has changed."""
    # The name tells place and contents: a changed file is another module, and so is a copy, whose parts say
    # where they are defined.
    place = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = f"progan_plugin_{path.stem}_{sha256[:12]}_{place}"
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {path}: is no Python file; its name must end in .py")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ConfigError(f"--plugin {path}{where}: {type(error).__name__}: {error}") from error
    return module


def require_whole(part: type[Part]) -> None:
    """Check that a class defines all that its kind asks for.

    Raises:
        ConfigError: naming what it lacks.
    """
    if isabstract(part):
        lacking = ", ".join(sorted(part.__abstractmethods__))  # type: ignore[attr-defined]
        raise ConfigError(f"{part.__qualname__} lacks {lacking}, which its base class asks for")

"""Progressive Growing of GANs (Karras et al., arXiv 1710.10196): from pictures to a generator, and its use.

Everything is imported when it is first used, so that `import progan` is fast and touches no device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from progan.version import __version__

_HOMES = {
    "Config": "progan.config",
    "load_config": "progan.config",
    "recipe_names": "progan.recipes",
    "PackedSet": "progan.data.packed",
    "prepare": "progan.data.prepare",
    "Generator": "progan.models.generator",
    "Discriminator": "progan.models.discriminator",
    "load": "progan.models.weights",
    "import_weights": "progan.interop.importing",
    "save": "progan.models.weights",
    "train": "progan.training.run",
    "resume": "progan.training.run",
    "generate": "progan.evaluation.sampling",
    "interpolate": "progan.viewers.video",
    "ProganError": "progan.errors",
}

__all__ = [
    "Config",
    "Discriminator",
    "Generator",
    "PackedSet",
    "ProganError",
    "__version__",
    "generate",
    "import_weights",
    "interpolate",
    "load",
    "load_config",
    "prepare",
    "recipe_names",
    "resume",
    "save",
    "train",
]

if TYPE_CHECKING:
    from progan.config import Config, load_config
    from progan.data.packed import PackedSet
    from progan.data.prepare import prepare
    from progan.errors import ProganError
    from progan.evaluation.sampling import generate
    from progan.interop.importing import import_weights
    from progan.models.discriminator import Discriminator
    from progan.models.generator import Generator
    from progan.models.weights import load, save
    from progan.recipes import recipe_names
    from progan.training.run import resume, train
    from progan.viewers.video import interpolate


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'progan' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

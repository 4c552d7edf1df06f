"""Progressive Growing of GANs (Karras et al., arXiv 1710.10196): from pictures to a generator, and its use.

Everything is imported when it is first used, so that `import progan` is fast and touches no device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from progan.version import __version__

_HOMES = {
    "Callback": "progan.runs.callbacks.callback",
    "Config": "progan.config",
    "PartOptions": "progan.config",
    "option": "progan.config",
    "LossFacts": "progan.config",
    "AdversarialLoss": "progan.training.terms.adversarial",
    "RunStart": "progan.runs.callbacks.callback",
    "Penalty": "progan.training.terms.penalties",
    "PenaltyOptions": "progan.config",
    "Seen": "progan.training.terms.penalties",
    "Verdict": "progan.training.terms.penalties",
    "load_config": "progan.config",
    "recipe_names": "progan.config.recipes",
    "PackedSet": "progan.data.packed",
    "prepare": "progan.preparation.source",
    "Generator": "progan.models.generator",
    "Discriminator": "progan.models.discriminator",
    "load": "progan.models.loading",
    "import_weights": "progan.interop.import_weights",
    "export": "progan.interop.export",
    "push": "progan.runs.trained.publish",
    "find_generator": "progan.runs.trained.kept_generators",
    "save": "progan.models.weights",
    "Reporter": "progan.runs.reporter",
    "train": "progan.runs.run",
    "resume": "progan.runs.run",
    "generate": "progan.generation.sampling",
    "interpolate": "progan.generation.video",
    "ProganError": "progan.errors",
}

__all__ = [
    "AdversarialLoss",
    "Callback",
    "Config",
    "Discriminator",
    "Generator",
    "LossFacts",
    "PackedSet",
    "PartOptions",
    "Penalty",
    "PenaltyOptions",
    "ProganError",
    "Reporter",
    "RunStart",
    "Seen",
    "Verdict",
    "__version__",
    "export",
    "find_generator",
    "generate",
    "import_weights",
    "interpolate",
    "load",
    "load_config",
    "option",
    "prepare",
    "push",
    "recipe_names",
    "resume",
    "save",
    "train",
]

if TYPE_CHECKING:
    from progan.config import Config, LossFacts, PartOptions, PenaltyOptions, load_config, option
    from progan.config.recipes import recipe_names
    from progan.data.packed import PackedSet
    from progan.errors import ProganError
    from progan.generation.sampling import generate
    from progan.generation.video import interpolate
    from progan.interop.export import export
    from progan.interop.import_weights import import_weights
    from progan.models.discriminator import Discriminator
    from progan.models.generator import Generator
    from progan.models.loading import load
    from progan.models.weights import save
    from progan.preparation.source import prepare
    from progan.runs.callbacks.callback import Callback, RunStart
    from progan.runs.reporter import Reporter
    from progan.runs.run import resume, train
    from progan.runs.trained.kept_generators import find_generator
    from progan.runs.trained.publish import push
    from progan.training.terms.adversarial import AdversarialLoss
    from progan.training.terms.penalties import Penalty, Seen, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'progan' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

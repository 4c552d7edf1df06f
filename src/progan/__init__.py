"""Progressive Growing of GANs (Karras et al., arXiv 1710.10196): from pictures to a generator, and its use.

Everything is imported when it is first used, so that `import progan` is fast and touches no device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from progan.version import __version__

_HOMES = {
    "PictureSource": "progan.preparation.own_source",
    "Augmentation": "progan.training.augment",
    "Metric": "progan.metrics.metric",
    "SetMetric": "progan.metrics.metric",
    "MetricTools": "progan.metrics.metric",
    "Callback": "progan.runs.callbacks.callback",
    "Config": "progan.config",
    "PartOptions": "progan.config",
    "option": "progan.config",
    "LossFacts": "progan.config",
    "AdversarialLoss": "progan.training.terms.kinds",
    "RunStart": "progan.runs.callbacks.callback",
    "Penalty": "progan.training.terms.kinds",
    "PenaltyOptions": "progan.config",
    "Seen": "progan.training.terms.kinds",
    "Verdict": "progan.training.terms.kinds",
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
    "train": "progan.api.training",
    "resume": "progan.api.training",
    "Run": "progan.api.run",
    "open_run": "progan.api.run",
    "OwnParts": "progan.runs.run",
    "evaluate": "progan.evaluation.measure",
    "compare": "progan.evaluation.measure",
    "project": "progan.explore.projection",
    "find_directions": "progan.explore.directions",
    "mix": "progan.explore.mixing",
    "write_page": "progan.explore.web_page",
    "bench": "progan.performance.bench",
    "write_report": "progan.report.html_page",
    "make_movie": "progan.report.growth_film",
    "save_grid": "progan.generation.grids",
    "Batches": "progan.data.batches",
    "Iteration": "progan.training.iteration",
    "ImageSpec": "progan.training.spec",
    "make_spec": "progan.training.spec",
    "PictureDataset": "progan.data.torch_dataset",
    "generate": "progan.generation.sampling",
    "interpolate": "progan.generation.video",
    "ProganError": "progan.errors",
}

__all__ = [
    "AdversarialLoss",
    "Augmentation",
    "Batches",
    "Callback",
    "Config",
    "Discriminator",
    "Generator",
    "ImageSpec",
    "Iteration",
    "LossFacts",
    "Metric",
    "MetricTools",
    "OwnParts",
    "PackedSet",
    "PartOptions",
    "Penalty",
    "PenaltyOptions",
    "PictureDataset",
    "PictureSource",
    "ProganError",
    "Reporter",
    "Run",
    "RunStart",
    "Seen",
    "SetMetric",
    "Verdict",
    "__version__",
    "bench",
    "compare",
    "evaluate",
    "export",
    "find_directions",
    "find_generator",
    "generate",
    "import_weights",
    "interpolate",
    "load",
    "load_config",
    "make_movie",
    "make_spec",
    "mix",
    "open_run",
    "option",
    "prepare",
    "project",
    "push",
    "recipe_names",
    "resume",
    "save",
    "save_grid",
    "train",
    "write_page",
    "write_report",
]

if TYPE_CHECKING:
    from progan.api.run import Run, open_run
    from progan.api.training import resume, train
    from progan.config import Config, LossFacts, PartOptions, PenaltyOptions, load_config, option
    from progan.config.recipes import recipe_names
    from progan.data.batches import Batches
    from progan.data.packed import PackedSet
    from progan.data.torch_dataset import PictureDataset
    from progan.errors import ProganError
    from progan.evaluation.measure import compare, evaluate
    from progan.explore.directions import find_directions
    from progan.explore.mixing import mix
    from progan.explore.projection import project
    from progan.explore.web_page import write_page
    from progan.generation.grids import save_grid
    from progan.generation.sampling import generate
    from progan.generation.video import interpolate
    from progan.interop.export import export
    from progan.interop.import_weights import import_weights
    from progan.metrics.metric import Metric, MetricTools, SetMetric
    from progan.models.discriminator import Discriminator
    from progan.models.generator import Generator
    from progan.models.loading import load
    from progan.models.weights import save
    from progan.performance.bench import bench
    from progan.preparation.own_source import PictureSource
    from progan.preparation.source import prepare
    from progan.report.growth_film import make_movie
    from progan.report.html_page import write_report
    from progan.runs.callbacks.callback import Callback, RunStart
    from progan.runs.reporter import Reporter
    from progan.runs.run import OwnParts
    from progan.runs.trained.kept_generators import find_generator
    from progan.runs.trained.publish import push
    from progan.training.augment import Augmentation
    from progan.training.iteration import Iteration
    from progan.training.spec import ImageSpec, make_spec
    from progan.training.terms.kinds import AdversarialLoss, Penalty, Seen, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'progan' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

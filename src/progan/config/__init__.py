"""One typed tree of every choice of a run: data, augment, model, schedule, loss, optimizer, run.

The same models are read from recipes and files, from Python and from the command line, so an option has one
name, one type, one default and one description.
"""

from progan.config.data import (
    Augmentation,
    AugmentOptions,
    DataOptions,
    LabelForm,
    PictureOptions,
)
from progan.config.fields import per_level
from progan.config.model import (
    Activation,
    Conditioning,
    DiscriminatorOptions,
    GeneratorOptions,
    Growth,
    ModelOptions,
    NetworkOptions,
    Scaling,
)
from progan.config.monitor import MonitorOptions
from progan.config.problems import explain
from progan.config.reading import (
    DECIDED_BY_PICTURES,
    differing_keys,
    flatten,
    load_config,
    make_config,
    merge,
    to_recipe,
    to_yaml,
)
from progan.config.schema import file_schema
from progan.config.sizes import (
    format_resolution,
    level_resolution,
    parse_resolution,
    split_resolution,
)
from progan.config.training import (
    Adversarial,
    Loss,
    LossOptions,
    OptimizerOptions,
    Precision,
    RunOptions,
    ScheduleOptions,
)
from progan.config.tree import Config, Options

__all__ = [
    "DECIDED_BY_PICTURES",
    "Activation",
    "Adversarial",
    "AugmentOptions",
    "Augmentation",
    "Conditioning",
    "Config",
    "DataOptions",
    "DiscriminatorOptions",
    "GeneratorOptions",
    "Growth",
    "LabelForm",
    "Loss",
    "LossOptions",
    "ModelOptions",
    "MonitorOptions",
    "NetworkOptions",
    "OptimizerOptions",
    "Options",
    "PictureOptions",
    "Precision",
    "RunOptions",
    "Scaling",
    "ScheduleOptions",
    "differing_keys",
    "explain",
    "file_schema",
    "flatten",
    "format_resolution",
    "level_resolution",
    "load_config",
    "make_config",
    "merge",
    "parse_resolution",
    "per_level",
    "split_resolution",
    "to_recipe",
    "to_yaml",
]

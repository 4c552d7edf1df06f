"""One typed tree of every choice of a run: data, augment, model, schedule, loss, optimizer, run.

The same models are read from recipes and files, from Python and from the command line, so an option has one
name, one type, one default and one description.
"""

from progan.config.data import NEWER as NEWER
from progan.config.data import Augmentation as Augmentation
from progan.config.data import AugmentOptions as AugmentOptions
from progan.config.data import DataOptions as DataOptions
from progan.config.data import LabelForm as LabelForm
from progan.config.data import PictureOptions as PictureOptions
from progan.config.data import asked_for as asked_for
from progan.config.fields import Branch as Branch
from progan.config.fields import Keeping as Keeping
from progan.config.fields import option as option
from progan.config.fields import parse_colour as parse_colour
from progan.config.fields import per_level as per_level
from progan.config.init import InitOptions as InitOptions
from progan.config.model import Activation as Activation
from progan.config.model import Conditioning as Conditioning
from progan.config.model import DiscriminatorOptions as DiscriminatorOptions
from progan.config.model import GeneratorOptions as GeneratorOptions
from progan.config.model import Growth as Growth
from progan.config.model import ModelOptions as ModelOptions
from progan.config.model import NetworkOptions as NetworkOptions
from progan.config.model import PixelNormForm as PixelNormForm
from progan.config.model import Scaling as Scaling
from progan.config.monitor import MonitorOptions as MonitorOptions
from progan.config.monitor import TrackOptions as TrackOptions
from progan.config.parts.extended import extended as extended
from progan.config.parts.part import Part as Part
from progan.config.parts.part import PartOptions as PartOptions
from progan.config.parts.part import Parts as Parts
from progan.config.parts.part import at_hand as at_hand
from progan.config.parts.part import made as made
from progan.config.parts.part import options_of as options_of
from progan.config.parts.plugin_files import read_plugins as read_plugins
from progan.config.problems import explain as explain
from progan.config.reading import DECIDED_BY_PICTURES as DECIDED_BY_PICTURES
from progan.config.reading import differing_keys as differing_keys
from progan.config.reading import flatten as flatten
from progan.config.reading import load_config as load_config
from progan.config.reading import make_config as make_config
from progan.config.reading import merge as merge
from progan.config.reading import to_recipe as to_recipe
from progan.config.reading import to_yaml as to_yaml
from progan.config.schema import file_schema as file_schema
from progan.config.sizes import MIN_BASE as MIN_BASE
from progan.config.sizes import format_resolution as format_resolution
from progan.config.sizes import growable_resolution as growable_resolution
from progan.config.sizes import grown_from as grown_from
from progan.config.sizes import level_resolution as level_resolution
from progan.config.sizes import parse_resolution as parse_resolution
from progan.config.sizes import split_resolution as split_resolution
from progan.config.training import LOSSES as LOSSES
from progan.config.training import Adversarial as Adversarial
from progan.config.training import Loss as Loss
from progan.config.training import LossFacts as LossFacts
from progan.config.training import LossOptions as LossOptions
from progan.config.training import LossPart as LossPart
from progan.config.training import OptimizerOptions as OptimizerOptions
from progan.config.training import PenaltyOptions as PenaltyOptions
from progan.config.training import Precision as Precision
from progan.config.training import RunOptions as RunOptions
from progan.config.training import ScheduleOptions as ScheduleOptions
from progan.config.tree import Config as Config
from progan.config.tree import Options as Options

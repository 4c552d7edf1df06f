"""One typed tree of every choice of a run: data, model, schedule, loss, optimizer, run.

The same models are read from recipes (YAML), from Python and from the command line, so an option has
one name, one type, one default and one description. Each branch is checked by itself when it is built;
rules that span branches are checked by `Config` alone, after recipe and options have been merged.

Values "per level" are lists: entry i belongs to level i, and the last entry to every level above.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from progan.errors import ConfigError, suggest
from progan.recipes import DEFAULT_RECIPE, read_recipe

T = TypeVar("T")

DECIDED_BY_PICTURES = (
    "data.resolution",
    "data.channels",
    "data.labels",
    "data.fit",
    "data.limit",
    "data.split",
    "model.base_shape",
)
"""Options that are filled in from the packed set."""

MIN_BASE = 4
"""Smallest side of a base shape that is inferred from a resolution."""


def per_level(values: tuple[T, ...], level: int) -> T:
    """Return the entry of a per-level list that belongs to `level` (the last one serves all above)."""
    return values[min(level, len(values) - 1)]


def parse_resolution(text: str | int) -> tuple[int, int]:
    """Read `128` or `96x144` as (height, width) in pixels.

    Raises:
        ConfigError: if the text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text).strip().lower())
    if match is None or int(match[1]) == 0 or (match[2] and int(match[2]) == 0):
        raise ConfigError(f"resolution {text!r}: expected a side such as 128, or HEIGHTxWIDTH such as 96x144")
    height = int(match[1])
    return height, int(match[2] or height)


def split_resolution(
    resolution: tuple[int, int], base_shape: tuple[int, int] | None = None
) -> tuple[tuple[int, int], int]:
    """Write a resolution as base shape times a power of two.

    Args:
        resolution: (height, width) in pixels.
        base_shape: The shape of level 0. If None, the resolution is halved while both sides stay even
            and at least 4; the result must be small (no side above 16) for growth to make sense.

    Returns:
        The base shape and the highest level L: resolution = base_shape * 2**L.

    Raises:
        ConfigError: if there is no such power; the message names the nearest resolution that works.
    """
    height, width = resolution
    if base_shape is not None:
        for level in range(20):
            if (base_shape[0] << level, base_shape[1] << level) == resolution:
                return base_shape, level
        scale = min((1 << k for k in range(20)), key=lambda s: abs(base_shape[0] * s - height))
        near_text = format_resolution((base_shape[0] * scale, base_shape[1] * scale))
        raise ConfigError(
            f"resolution {format_resolution(resolution)} is not the base shape "
            f"{base_shape[0]}x{base_shape[1]} times a power of two; the nearest that is: {near_text}"
        )
    level = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_BASE:
        height, width, level = height // 2, width // 2, level + 1
    if max(height, width) > 16 or min(height, width) < MIN_BASE:
        raise ConfigError(
            f"resolution {format_resolution(resolution)} is not a small base shape (such as 4x4 or 4x6) "
            f"times a power of two; the nearest that is: {format_resolution(_nearest_growable(resolution))}"
        )
    return (height, width), level


def _nearest_growable(resolution: tuple[int, int]) -> tuple[int, int]:
    """Return the nearest resolution that is a base shape of sides 4 to 16 times a power of two."""
    sides = range(MIN_BASE, 17)
    grown = ((k, (h << k, w << k)) for k in range(12) for h in sides for w in sides)
    # Of two that are equally near, the one with the higher power has more levels to grow through.
    return min(grown, key=lambda one: (math.dist(one[1], resolution), -one[0]))[1]


def format_resolution(resolution: tuple[int, int]) -> str:
    """Write (height, width) as `HEIGHTxWIDTH`."""
    return f"{resolution[0]}x{resolution[1]}"


def level_resolution(base_shape: tuple[int, int], level: int) -> tuple[int, int]:
    """Return (height, width) at a level: the base shape, doubled once a level."""
    return base_shape[0] << level, base_shape[1] << level


def _as_tuple(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("needs at least one value")
    return values


def _shares_text(given: Any) -> str:
    """Bring `0.8,0.1,0.1`, or a list of three numbers, into one form; they must add up to 1."""
    parts = given.split(",") if isinstance(given, str) else given
    try:
        train, validation, test = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError("expected three shares such as 0.8,0.1,0.1") from None
    total = train + validation + test
    if min(train, validation, test) < 0 or not abs(total - 1) <= 1e-6:
        raise ValueError(f"the shares must not be negative and add up to 1, not {total:g}")
    return f"{train:g},{validation:g},{test:g}"


_List = (BeforeValidator(_as_tuple), AfterValidator(_not_empty))
PerLevelCount = Annotated[tuple[Annotated[int, Field(ge=1)], ...], *_List]
PerLevelLength = Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], *_List]
PerLevelRate = Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], *_List]
Resolution = Annotated[str, BeforeValidator(lambda given: format_resolution(parse_resolution(given)))]
Split = Annotated[str, BeforeValidator(_shares_text)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Options(BaseModel):
    """A branch of the tree: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureOptions(_Options):
    """How pictures become a packed set."""

    resolution: Resolution | None = Field(
        None, description="Size to train at, 128 or 96x144; default: what the pictures support."
    )
    max_resolution: int = Field(
        1024, ge=4, description="Largest side that is chosen when no resolution is given."
    )
    channels: int | None = Field(
        None, ge=1, le=4, description="1 gray, 2 gray+alpha, 3 RGB, 4 RGBA; default: from the data."
    )
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="How a picture of another aspect is fitted: centre crop, pad, or stretch."
    )
    labels: str = Field(
        "none", description="'none', 'folders' (sub-folders are classes), or a CSV file of name,label."
    )
    limit: int | None = Field(None, ge=1, description="Use at most this many pictures.")
    split: Split = Field(
        "1,0,0",
        description="Shares of train, validation and test, such as 0.8,0.1,0.1, by a hash of the name.",
    )

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares of `split` as numbers."""
        train, validation, test = (float(part) for part in self.split.split(","))
        return train, validation, test


class DataOptions(PictureOptions):
    """How pictures become a packed set, and how batches are taken from it."""

    mirror: bool = Field(False, description="Flip half of the training images left to right.")
    cache: Path | None = Field(None, description="Where the packed set goes; default: beside the source.")


class GeneratorOptions(_Options):
    """The generator of Table 2: filters at level l are min(fmap_base / 2^((l + 1) * decay), fmap_max)."""

    fmap_base: int = Field(8192, ge=1, description="Filters are fmap_base / 2^((level + 1) * decay).")
    fmap_decay: NonNegative = Field(1.0, description="How fast filters shrink with the level.")
    fmap_max: int = Field(512, ge=1, description="Largest number of filters of a layer.")
    latent_size: int | None = Field(None, ge=1, description="Size of z; default: min(fmap_base, fmap_max).")
    normalize_latents: bool = Field(True, description="Pixel-normalise the latent (with its label).")
    pixel_norm: bool = Field(True, description="Pixel norm after every activation.")


class DiscriminatorOptions(_Options):
    """The discriminator of Table 2; filters as in the generator."""

    fmap_base: int = Field(8192, ge=1, description="Filters are fmap_base / 2^((level + 1) * decay).")
    fmap_decay: NonNegative = Field(1.0, description="How fast filters shrink with the level.")
    fmap_max: int = Field(512, ge=1, description="Largest number of filters of a layer.")
    stddev_group: int = Field(
        4, ge=0, description="Group size of the minibatch standard deviation; 0 leaves it out."
    )
    downscale: Literal["fused", "separate"] = Field(
        "fused",
        description="'fused' pools before bias and activation (original code), 'separate' after (Table 2).",
    )


class ModelOptions(_Options):
    """Both networks; channels, labels and resolution come from the data."""

    base_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Height and width of level 0; default: from the resolution (4 4 if square)."
    )
    generator: GeneratorOptions = GeneratorOptions()
    discriminator: DiscriminatorOptions = DiscriminatorOptions()


class ScheduleOptions(_Options):
    """Growth: lengths in kimg (1,000 real images shown to D); per-level lists may be shorter."""

    start_level: int = Field(0, ge=0, description="Level that training begins with (0 = base shape).")
    stabilise_kimg: PerLevelLength = Field((600.0,), description="Training at each level after its fade.")
    fade_kimg: PerLevelLength = Field((600.0,), description="Fading each level in; entry 0 is not used.")
    total_kimg: NonNegative | None = Field(
        None, description="Whole length; default: all phases. Longer goes on at the last level."
    )
    batch_size: PerLevelCount = Field((16,), description="Images in a batch, from the fade of a level on.")
    tick_kimg: PerLevelRate = Field((10.0,), description="Interval of log points and sample grids.")


class LossOptions(_Options):
    """WGAN-GP with drift (section 2 and appendix A.1) and, for labelled data, AC-GAN."""

    gp_lambda: NonNegative = Field(10.0, description="Weight of the gradient penalty.")
    gp_target: Positive = Field(1.0, description="Gradient norm that is not penalised (gamma).")
    drift: NonNegative = Field(0.001, description="Weight of D(real)^2.")
    label_weight: NonNegative = Field(1.0, description="Weight of the label cross-entropy (AC-GAN).")
    d_steps: int = Field(1, ge=1, description="Updates of D for each update of G.")


class OptimizerOptions(_Options):
    """Adam in the original's form (epsilon outside the bias correction), and the averaged generator."""

    g_lr: PerLevelRate = Field((0.001,), description="Learning rate of G per level.")
    d_lr: PerLevelRate = Field((0.001,), description="Learning rate of D per level.")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the first moment.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the second moment.")
    eps: Positive = Field(1e-8, description="Adam's epsilon.")
    reset: Literal["never", "level", "phase"] = Field(
        "phase", description="Forget Adam's moments never, at each new level, or also when a fade ends."
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged generator per D step.")


class RunOptions(_Options):
    """What does not change the mathematics: seed, device, and what is written when."""

    seed: int = Field(0, ge=0, lt=2**63, description="Decides every random choice of the run.")
    device: str = Field("auto", description="'auto' (CUDA, then MPS, then CPU), 'cpu', 'cuda:1', ...")
    tf32: bool = Field(True, description="Allow TF32 matrix products on CUDA.")
    micro_batch: int | None = Field(
        None, ge=1, description="Largest part of a batch that is computed at once (saves memory)."
    )
    checkpoint_minutes: NonNegative = Field(10.0, description="Time between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="How many of the newest checkpoints are kept.")
    grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (6, 10), description="Rows and columns of the sample grids."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default: PyTorch's choice.")


class Options(_Options):
    """The tree without the rules that span branches: what a recipe or a command line may set in part."""

    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    run: RunOptions = RunOptions()


class Config(Options):
    """The whole, checked configuration of a run."""

    @model_validator(mode="after")
    def _check_across(self) -> Config:
        group = self.model.discriminator.stddev_group
        if group > 0:
            for size in self.schedule.batch_size:
                if size % min(group, size):
                    raise ValueError(
                        f"schedule.batch_size {size} is not a multiple of model.discriminator.stddev_group "
                        f"{group}; use a multiple, a batch of at most {group}, or another group size"
                    )
            micro = self.run.micro_batch
            if micro is not None and micro % group and any(size > micro for size in self.schedule.batch_size):
                raise ValueError(
                    f"run.micro_batch {micro} would split minibatch-stddev groups of {group}; "
                    f"use a multiple of {group}"
                )
        if self.data.resolution is not None:
            shape, max_level = split_resolution(parse_resolution(self.data.resolution), self.model.base_shape)
            if self.schedule.start_level > max_level:
                raise ValueError(
                    f"schedule.start_level {self.schedule.start_level} is above the last level, {max_level} "
                    f"({self.data.resolution} is {format_resolution(shape)} times 2^{max_level})"
                )
        return self


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings into a new one; later ones win, leaf by leaf."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            old = result.get(key)
            if isinstance(value, Mapping):
                result[key] = merge(old if isinstance(old, Mapping) else {}, value)
            else:
                result[key] = value
    return result


def make_config(*trees: Mapping[str, Any]) -> Config:
    """Merge nested mappings (later ones win) and check the result.

    Raises:
        ConfigError: naming every wrong key with its nearest right name, and every wrong value.
    """
    try:
        return Config.model_validate(merge(*trees))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def load_config(recipe: str | Path = DEFAULT_RECIPE, options: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a recipe (name or YAML file) with `options` laid over it.

    Args:
        recipe: Name of a shipped recipe or path of a YAML file.
        options: Nested mapping, for example `{"schedule": {"batch_size": [16, 8]}}`.

    Raises:
        ConfigError: as in `read_recipe` and `make_config`.
    """
    return make_config(read_recipe(recipe), options or {})


def explain(error: ValidationError) -> str:
    """Turn a validation error into one line a problem: where, what, and the nearest name."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parent = [str(part) for part in problem["loc"][:-1]]
            key = str(problem["loc"][-1])
            lines.append(f"unknown option {place!r}{suggest(key, _keys_at(parent), parent)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = "" if problem["type"] == "value_error" else f" (given: {problem['input']!r})"
            lines.append(f"{place}: {message}{given}" if place else message)
    return "\n".join(lines)


def _keys_at(parent: list[str]) -> list[str]:
    """Return the option names of the branch that `parent` leads to."""
    branch: type[BaseModel] = Config
    for part in parent:
        annotation = branch.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        branch = annotation
    return list(branch.model_fields)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as `{"schedule.batch_size": ..., ...}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def differing_keys(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the options in which two configurations differ, sorted."""
    a, b = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def to_yaml(config: Config) -> str:
    """Write a configuration as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def to_recipe(config: Config) -> str:
    """Write a configuration as YAML for other pictures: what they decide is left out unless it was set."""
    tree = config.model_dump(mode="json")
    for key in DECIDED_BY_PICTURES:
        branch, name = key.split(".")
        if name not in getattr(config, branch).model_fields_set:
            del tree[branch][name]
    text: str = yaml.safe_dump(tree, sort_keys=False)
    return text

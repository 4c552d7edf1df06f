"""What the pictures decide about a configuration, and what a configuration asks of the pictures."""

from __future__ import annotations

from typing import Any

from progan.config import NEWER, Config, PictureOptions, format_resolution, make_config, merge
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.training.spec import Spec


def restrict(packed: PackedSet, config: Config) -> PackedSet:
    """Return the part of a packed set that a configuration asks for: fewer levels, or without its labels.

    Raises:
        ConfigError: if the resolution that was asked for is not one of the set's.
    """
    data, levels = config.data, range(packed.max_level + 1)
    sizes = [packed.resolution(level) for level in levels]
    if data.resolution is None:
        level = max((i for i in levels if max(sizes[i]) <= data.max_resolution), default=0)
    elif data.resolution in map(format_resolution, sizes):
        level = [format_resolution(size) for size in sizes].index(data.resolution)
    else:
        raise ConfigError(
            f"data.resolution {data.resolution} was asked for, but {packed.path} holds "
            f"{', '.join(map(format_resolution, sizes))}"
        )
    changes: dict[str, Any] = {"max_level": level}
    unwanted = "labels" in data.model_fields_set and data.labels == "none"
    if unwanted or config.model.conditioning == "none":
        changes |= {"label_kind": "none", "label_names": (), "label_form": "class"}
    return PackedSet(packed.path, packed.manifest.model_copy(update=changes))


def resolve(config: Config, packed: PackedSet) -> Config:
    """Return the configuration with everything filled in that the pictures decide.

    Raises:
        ConfigError: if an option was given that asks for something else than the packed set holds.
    """
    data, manifest = config.data, packed.manifest
    split = ",".join(f"{share:g}" for share in manifest.split)
    # A CSV file is named by its path when it is read, and remembered as "file".
    labels = manifest.label_kind if data.labels in ("none", "folders", "inside") else data.labels
    held: dict[str, Any] = {
        "channels": packed.channels,
        "resolution": format_resolution(packed.resolution(packed.max_level)),
        "fit": manifest.fit,
        "limit": manifest.limit,
        "split": split,
        "labels": labels if packed.label_size else "none",
        "label_form": packed.label_form,
    }
    # Sets that were made before there were these options were made with their defaults.
    held |= {name: manifest.asked.get(name, PictureOptions.model_fields[name].default) for name in NEWER}
    if packed.depth == 16 or data.depth is not None:
        held["depth"] = packed.depth
    conditioning = _conditioning(config, packed)
    if conditioning == "none" and packed.label_size == 0 and config.model.conditioning == "none":
        # Labels that are there are ignored because that was asked for; what they are need not be said.
        del held["labels"], held["label_form"]
    given = {key: getattr(data, key) for key in held if key in data.model_fields_set}
    base_shape = config.model.base_shape
    asked = [(f"data.{key}", value, held[key]) for key, value in given.items() if value is not None]
    if base_shape is not None:
        shapes = format_resolution(base_shape), format_resolution(packed.base_shape)
        asked.append(("model.base_shape", *shapes))
    for key, wanted, there in asked:
        if wanted != there:
            raise ConfigError(
                f"{key} {wanted} was asked for, but {packed.path} was prepared with "
                f"{_said(key, there)}; "
                f"leave the option out, or prepare the pictures again"
            )
    model = {"base_shape": list(packed.base_shape), "conditioning": conditioning}
    tree = merge(config.model_dump(mode="json"), {"data": held, "model": model})
    return make_config(tree, parts=config.parts)


def _said(key: str, value: object) -> str:
    """Write the value of an option that a set was prepared with."""
    if value is None:
        return "no limit" if key == "data.limit" else "its default"
    return str(value)


def _conditioning(config: Config, packed: PackedSet) -> str:
    """Return what labels do in this run; a ConfigError if they are to be used but there are none."""
    asked = config.model.conditioning
    if packed.label_size:
        return asked or "ac_gan"
    if asked in ("ac_gan", "projection"):
        raise ConfigError(
            f"model.conditioning {asked} needs labels, and {packed.path} holds none: prepare the pictures "
            f"with data.labels, or leave the conditioning out"
        )
    return "none"


FEW = 2000
"""Pictures that a discriminator without augmentation learns by heart."""

OFTEN = 1000
"""Times that each picture is shown from which on that is told, 20 times as often with augmentation; the paper
shows each of 30,000 some 400 times."""


LONG = 1_000_000
"""Images of a schedule that is long."""


def hints(spec: Spec) -> list[str]:
    """Return what somebody should know before such a run: few pictures, or a recipe for much larger ones."""
    told, data = [], spec.config.data
    shown = spec.schedule.total / spec.pictures
    if spec.pictures < FEW and shown > OFTEN / 20 and not spec.config.augment.policy:
        told.append(
            f"hint: {spec.pictures:,} pictures are few, and each is shown about {shown:,.0f} times: "
            f"--recipe small-data-256 is for that (it augments them), --time 2h plans a shorter run"
        )
    elif shown > OFTEN * (20 if spec.config.augment.policy else 1):
        told.append(
            f"hint: each picture is shown about {shown:,.0f} times; --time 2h plans a shorter run, "
            f"--schedule.total-kimg ends it earlier"
        )
    size = max(spec.image.resolution(spec.image.max_level))
    if data.max_resolution >= 4 * size and spec.schedule.total >= LONG:
        told.append(
            f"hint: this recipe is for pictures of up to {data.max_resolution} pixels a side, and these have "
            f"{size}: its networks and lengths are larger than they need; --time 2h plans by the pictures"
        )
    return told

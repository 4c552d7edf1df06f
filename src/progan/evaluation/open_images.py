"""From what a user names to a set of images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from progan.config import format_resolution
from progan.data.packed import PackedSet
from progan.data.showing import Colour
from progan.errors import ConfigError, DataError
from progan.evaluation.folder_images import PictureImages
from progan.evaluation.generated_images import GeneratedImages
from progan.evaluation.halved_images import HalvedImages, halvings
from progan.evaluation.image_set import ArrayImages, ImageSet, MirroredImages, PackedImages
from progan.generation.label_arguments import Label
from progan.generation.sampling import level_of
from progan.models.averaged import GENERATOR_FILE
from progan.models.generator import Generator
from progan.models.hub import is_hub_name
from progan.models.weights import HUB_FILE, Own
from progan.preparation.source import PackedSource, open_source

Place: TypeAlias = ImageSet | Generator | PackedSet | NDArray[Any] | Iterable[NDArray[Any]] | str | Path
"""What can be measured, a set of images or what leads to one."""


def open_images(
    place: Place,
    *,
    size: tuple[int, int] | None = None,
    part: str = "train",
    mirror: bool = False,
    seed: int = 0,
    label: Label | None = None,
    device: torch.device | None = None,
    most: int | None = None,
    halve: bool = False,
    background: Colour | None = None,
    own: Own = (),
) -> ImageSet:
    """Open a set of images.

    Args:
        place: A folder or .zip of pictures, all of one size and kind; a packed set; a `.npy` file or an
            array, as `ArrayImages` takes them; a generator, run folder or weight file; an iterable of
            batches; or an `ImageSet`, which is taken as it is.
        size: (height, width): of a generator or packed set, the level of this size; all others must have it.
            None: their highest.
        part: Of a packed set: "train", "validation", "test" or "all".
        mirror: Flip each image left to right with probability 1/2, by `seed` and its index.
        seed: Of flips and samples.
        label: Of a generator's samples; None draws one for each.
        device: Where a generator makes its samples; None: where it is, or the CPU.
        most: Take so many images at most from an iterable.
        halve: Bring pictures of twice the size, four times, ... to `size` by means of 2x2 pixels.
        background: What images with transparency are laid on; None keeps it.
        own: Networks of one's own, one of which a generator may be.

    Raises:
        DataError, CheckpointError, ConfigError: of the kind that fits, saying what is wrong.
    """
    images = _open(place, size, part, seed, label, device, most, own)
    if halve and size is not None and (times := halvings(images.shape[1:], size)):
        images = HalvedImages(images, times)
    if size is not None and images.shape[1:] != size:
        raise DataError(
            f"{images.name}: has images of {format_resolution(images.shape[1:])}, not "
            f"{format_resolution(size)}, which is what it is compared at; give a set of that size, or a "
            f"packed set, which has one for each level"
        )
    if mirror:
        images = MirroredImages(images, seed)
    return images if background is None else images.on(background)


def _open(
    place: Place,
    size: tuple[int, int] | None,
    part: str,
    seed: int,
    label: Label | None,
    device: torch.device | None,
    most: int | None,
    own: Own,
) -> ImageSet:
    match place:
        case ImageSet():
            return place
        case Generator():
            level = level_of(place, None, None if size is None else format_resolution(size))
            G = place if device is None else place.to(device)
            return GeneratedImages(G, seed=seed, label=label, level=level)
        case PackedSet():
            return PackedImages(place, part=part, size=size)
        case np.ndarray():
            return ArrayImages(place, "the array")
        case str() | Path():
            path = Path(place)
            if is_generator(path):
                return GeneratedImages.open(path, device=device, seed=seed, label=label, size=size, own=own)
            if isinstance(open_source(path), PackedSource):
                return PackedImages(PackedSet.open(path), part=part, size=size)
            if path.suffix.lower() == ".npy" and not path.is_dir():
                return ArrayImages.open(path)
            return PictureImages(path)
        case Iterable():
            return ArrayImages.gather(place, "the batches", most)
    raise ConfigError(f"a {type(place).__name__} is no set of images")


def is_generator(path: Path) -> bool:
    """Tell whether a generator is meant: a run or hub folder, a safetensors file, or a name on the hub."""
    if is_hub_name(path):
        return True
    if path.is_dir():
        return any((path / name).is_file() for name in ("config.yaml", GENERATOR_FILE, HUB_FILE))
    return path.suffix.lower() == ".safetensors"

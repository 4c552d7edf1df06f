"""Options of the pictures: how they are packed, how batches are taken, how they are augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from progan.config.fields import (
    Branch,
    Colour,
    Crop,
    PixelCount,
    Positive,
    Resolution,
    Share,
    Split,
    ValueRange,
    option,
)

LabelForm = Literal["class", "classes", "vector"]
Augmentation = Literal["color", "translation", "cutout"]


class PictureOptions(Branch):
    """How pictures become a packed set."""

    resolution: Resolution | None = option(
        None, "Size to train at, 128 or 96x144; default: what the pictures support."
    )
    max_resolution: int = option(1024, "Largest side that is chosen when no resolution is given.", ge=4)
    channels: int | None = option(
        None,
        "1 gray, 2 gray+alpha, 3 RGB, 4 RGBA, or more of any meaning; default: from the data.",
        ge=1,
        le=64,
    )
    fit: Literal["crop", "pad", "stretch", "tile"] = option(
        "crop",
        "How a picture of another aspect is fitted: centre crop, pad, stretch, or tile: cut into parts of "
        "the resolution, nothing resized.",
    )
    crop: Crop | None = option(
        None,
        "What is cut out of each picture first: CX,CY,SIZE (CelebA: 89,121,128), random:K for K parts by a "
        "hash of the name, or a CSV file of boxes.",
    )
    min_size: int | None = option(
        None, "Leave out pictures (or crops) of which a side is shorter than so many pixels.", ge=1
    )
    upscale: Literal["always", "never"] = option(
        "always", "Enlarge pictures that are smaller than the resolution, or leave them out."
    )
    dedupe: Literal["never", "exact", "near"] = option(
        "never",
        "Leave out pictures that are in the set already: with the same pixels, or nearly so (16x16 "
        "thumbnails that differ by at most 3 of 255, root mean square).",
    )
    labels: str = option(
        "none",
        "'none', 'folders' (sub-folders are classes), 'inside' (what the source itself brings), or a file of "
        "labels: CSV, JSON or a list, also FILE:COLUMN.",
    )
    range: ValueRange | None = option(
        None,
        "Values of black and white in pictures of floats or more than 8 bits, such as 0:4095 (below 256, in "
        "those of 8 bits, too), or auto: the smallest and largest of the set; default: the nearest usual "
        "range that holds the values of the set.",
    )
    depth: Literal[8, 16] | None = option(
        None, "Bits of a stored value; default: 16 if all pictures have more than 8, else 8."
    )
    background: Colour = option(
        "white",
        "Ground for transparency that is not kept, and for metrics of pictures with transparency: white, "
        "black, gray, magenta, #rrggbb or R,G,B.",
    )
    max_pixels: PixelCount | None = option(
        None,
        "Largest picture that is decoded, in pixels, such as 200M; default: 89478485. JPEG files that are "
        "decoded at a reduced size may be larger.",
    )
    draft: bool = option(
        True,
        "Decode JPEG files that are much larger than wanted at a half, quarter or eighth of their size, "
        "which is faster.",
    )
    label_form: LabelForm = option(
        "class",
        "What a label file holds for each picture: one class, several classes (columns of 0 and 1), or a "
        "vector (columns of numbers).",
    )
    fps: float | None = option(
        None,
        "Frames a second that are taken of a film; default: all of a short one, one a second of others.",
        gt=0,
        le=1000,
    )
    limit: int | None = option(None, "Use at most this many pictures.", ge=1)
    split: Split = option(
        "1,0,0", "Shares of train, validation and test, such as 0.8,0.1,0.1, by a hash of the name."
    )

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares of `split` as numbers."""
        train, validation, test = (float(part) for part in self.split.split(","))
        return train, validation, test

    @model_validator(mode="after")
    def _check(self) -> PictureOptions:
        if self.fit == "tile" and self.resolution is None:
            raise ValueError("data.fit tile cuts parts of the resolution: set data.resolution, too")
        if self.fit == "tile" and self.crop is not None:
            raise ValueError("data.fit tile takes all of a picture: leave data.crop out")
        if self.labels == "folders" and self.label_form != "class":
            raise ValueError(
                f"data.label_form {self.label_form} needs a label file: a picture lies in one folder; "
                f"give data.labels a CSV file, or leave data.label_form at 'class'"
            )
        return self


NEWER = (
    "crop", "min_size", "upscale", "dedupe", "range", "depth", "background", "max_pixels", "draft", "fps",
)  # fmt: skip
"""Options of pictures that packed sets did not always have: what was made without them had the defaults."""


def asked_for(options: PictureOptions) -> dict[str, Any]:
    """Return those of the newer options that differ from their defaults, ready for JSON."""
    given = options.model_dump(mode="json", include=set(NEWER))
    return {
        name: value for name, value in given.items() if value != PictureOptions.model_fields[name].default
    }


class DataOptions(PictureOptions):
    """How pictures become a packed set, and how batches are taken from it."""

    part: Literal["train", "validation", "test", "all"] = option(
        "train", "Part of the split that is trained on."
    )
    order: Literal["shuffle", "sequential"] = option(
        "shuffle", "Order of the pictures: another one each time round, or as they are stored."
    )
    mirror: bool = option(False, "Flip half of the training images left to right.")
    in_memory: bool = option(False, "Read a level of the packed set into memory when its training begins.")
    on_device: Literal["auto", "always", "never"] = option(
        "auto",
        "Keep a level on the device that trains on it; 'auto' does so on CUDA, if it takes at most an "
        "eighth of the memory.",
    )
    cache: Path | None = option(None, "Where the packed set goes; default: beside the source.")


class AugmentOptions(Branch):
    """Differentiable augmentation of what D sees, real and fake (DiffAugment, Zhao et al. 2020).

    Adaptive: the probability rises while D is too sure of the real images (Karras et al. 2020).
    """

    policy: tuple[Augmentation, ...] = option(
        (), "Any of color, translation and cutout; if none is given, nothing is augmented."
    )
    probability: Share | None = option(
        None, "Probability of each augmentation of an image; default: 1, or 0 where adaptive begins."
    )
    adaptive: bool = option(
        False, "Adjust the probability, to hold the share of positive D(real) at the target."
    )
    target: Share = option(0.8, "Share of real images with positive scores that is held.")
    adapt_kimg: Positive = option(500.0, "How fast: images for the probability to go from 0 to 1, in kimg.")

    @property
    def initial(self) -> float:
        """The probability at the start of a run, in [0, 1]."""
        if self.probability is not None:
            return self.probability
        return 0.0 if self.adaptive else 1.0

    @model_validator(mode="after")
    def _check(self) -> AugmentOptions:
        if len(set(self.policy)) < len(self.policy):
            raise ValueError(f"augment.policy {', '.join(self.policy)}: name each augmentation once")
        if self.adaptive and not self.policy:
            raise ValueError(
                "augment.adaptive needs something to adapt: set augment.policy, for example to "
                "color translation cutout"
            )
        return self

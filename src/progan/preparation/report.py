"""What preparing a packed set did, for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from progan.config import LabelForm, format_resolution
from progan.data.packed import Manifest, PackedSet
from progan.preparation.decisions import spelled
from progan.preparation.decoding import LAID, REDUCED, SHALLOW
from progan.preparation.picture.colour_profiles import CONVERTED, GAMMA, NOT_CONVERTED, UNREADABLE
from progan.preparation.picture.value_range import FEW

SHOWN_CLASSES = 12
KINDS = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGBA"}

COUNTED = {
    LAID: "with transparency, laid on {background} (--channels {with_alpha} keeps it)",
    CONVERTED: "converted to sRGB by their colour profiles",
    GAMMA: "converted to sRGB by the gamma of their PNG files",
    UNREADABLE: "with a colour profile that cannot be used ({example}); their values are taken as sRGB",
    NOT_CONVERTED: "of 16 bits with a colour profile, taken as sRGB ({example}); converted by an extra: "
    "pip install 'progan[deep]'",
    REDUCED: "JPEG files much larger than wanted, decoded at a reduced size (--no-draft: in full)",
    SHALLOW: "of 16 bits a colour read with 8 ({example}); all of them: pip install 'progan[deep]'",
}
"""What is done to pictures and counted, in words."""


@dataclass(frozen=True)
class PrepareReport:
    """What preparing a set did.

    Attributes:
        path: The packed set.
        found: Picture files in the source.
        used: Pictures in the set.
        skipped: Picture files that could not be used, or have no label; listed in `skipped.csv`.
        left_out: Usable pictures beyond the limit.
        ignored: Files that are no pictures.
        upscaled: Pictures that were smaller than the resolution.
        animated: Pictures of which only the first frame was used.
        resolution: (height, width) of the top level.
        channels: 1, 2, 3, 4 or more.
        label_form: What a label is: a class, several classes, or a vector.
        label_names: Names of the classes in the order of their numbers, or of the entries of a vector.
        notes: What was decided about the source or left out of it, a sentence each.
        depth: Bits of a stored value.
        facts: What was decided for the whole set, and in how many pictures something was done.
        warnings: What is unusual, with the option that changes it, as `progan prepare` spells it.
        files: Pictures of which the set holds parts; None if it holds whole ones.
        training: Whether `lines` spells options as `progan train` does.
    """

    path: Path
    found: int
    used: int
    skipped: int
    left_out: int
    ignored: int
    upscaled: int
    animated: int
    resolution: tuple[int, int]
    channels: int
    label_form: LabelForm
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    depth: int = 8
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    training: bool = False
    files: int | None = None

    @classmethod
    def of(cls, packed: PackedSet, *, training: bool = False) -> PrepareReport:
        """Return the report of a set that exists; options in it are spelled as for `training`."""
        manifest = packed.manifest
        return cls(
            path=packed.path,
            found=manifest.found,
            used=manifest.count,
            skipped=manifest.skipped_files,
            left_out=manifest.found - (manifest.files or manifest.count) - manifest.skipped_files,
            ignored=manifest.ignored,
            upscaled=manifest.upscaled,
            animated=manifest.animated,
            resolution=manifest.resolution(manifest.max_level),
            channels=manifest.channels,
            label_form=packed.label_form,
            label_names=manifest.label_names,
            notes=manifest.notes,
            depth=8 if manifest.dtype == "uint8" else 16,
            facts=(*manifest.facts, *_counted(manifest)),
            warnings=(*manifest.warnings, *_of_one_shade(manifest)),
            training=training,
            files=manifest.files,
        )

    def lines(self) -> list[str]:
        """Return the summary, a line a fact."""
        kind = KINDS.get(self.channels, f"{self.channels} channels")
        deep = "" if self.depth == 8 else f", {self.depth} bits"
        used = f"{self.used} of {self.found} pictures"
        if self.files not in (None, self.used):
            used = f"{self.used:,} crops of {self.files:,} of {self.found:,} pictures"
        lines = [f"{used}, {format_resolution(self.resolution)}, {kind}{deep}"]
        if self.label_names:
            more = ", ..." if len(self.label_names) > SHOWN_CLASSES else ""
            what = {
                "class": "classes",
                "classes": "classes, several a picture",
                "vector": "numbers a picture",
            }
            lines.append(
                f"{len(self.label_names)} {what[self.label_form]}: "
                f"{', '.join(self.label_names[:SHOWN_CLASSES])}{more}"
            )
        facts = (
            (self.skipped, f"skipped; {self.path / 'skipped.csv'} has the reasons"),
            (self.left_out, "left out by the limit"),
            (self.upscaled, "smaller than the resolution, enlarged"),
            (self.animated, "animated, first frame used"),
            (self.ignored, "other files ignored"),
        )
        lines.extend(f"{count} {text}" for count, text in facts if count)
        said = [*self.notes, *self.facts, *(f"warning: {text}" for text in self.warnings)]
        lines.extend(spelled(text, training=self.training) for text in said)
        lines.append(f"packed set: {self.path}")
        return lines


def _counted(manifest: Manifest) -> list[str]:
    """Say in how many pictures something was done."""
    words = {
        "background": manifest.asked.get("background", "white"),
        "with_alpha": 2 if manifest.channels == 1 else 4,
    }
    return [
        f"{manifest.counts[name]} {text.format(**words, example=manifest.examples.get(name, ''))}"
        for name, text in COUNTED.items()
        if manifest.counts.get(name) and not (name == LAID and _warned_of_ground(manifest))
    ]


def _warned_of_ground(manifest: Manifest) -> bool:
    return any(text.startswith("transparency") for text in manifest.warnings)


def _of_one_shade(manifest: Manifest) -> list[str]:
    """Warn of a set that uses at most a sixteenth of the values that it could."""
    white = 255 if manifest.dtype == "uint8" else 65535
    if manifest.pixel_values is None:
        return []
    low, high = manifest.pixel_values
    if (high - low) * FEW > white:
        return []
    kinds = manifest.ranges.values()
    black, span = next(((a, b - a) for a, b in kinds), (0.0, 255.0))
    stretched = f"{black + span * low / white:.6g}:{black + span * max(high, low + 1) / white:.6g}"
    return [
        f"all stored values are from {low} to {high} of {white}, so the pictures are nearly of one shade: "
        f"--range {stretched} makes these black and white"
    ]

"""What preparing a packed set did, for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from progan.config import LabelForm, format_resolution
from progan.data.packed import PackedSet

SHOWN_CLASSES = 12


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
        channels: 1, 2, 3 or 4.
        label_form: What a label is: a class, several classes, or a vector.
        label_names: Names of the classes in the order of their numbers, or of the entries of a vector.
        notes: What was decided about the source or left out of it, a sentence each.
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
    notes: tuple[str, ...]

    @classmethod
    def of(cls, packed: PackedSet) -> PrepareReport:
        """Return the report of a set that exists."""
        manifest = packed.manifest
        return cls(
            path=packed.path,
            found=manifest.found,
            used=manifest.count,
            skipped=manifest.skipped_files,
            left_out=manifest.found - manifest.count - manifest.skipped_files,
            ignored=manifest.ignored,
            upscaled=manifest.upscaled,
            animated=manifest.animated,
            resolution=manifest.resolution(manifest.max_level),
            channels=manifest.channels,
            label_form=packed.label_form,
            label_names=manifest.label_names,
            notes=manifest.notes,
        )

    def lines(self) -> list[str]:
        """Return the summary, a line a fact."""
        kind = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGBA"}[self.channels]
        lines = [f"{self.used} of {self.found} pictures, {format_resolution(self.resolution)}, {kind}"]
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
        lines.extend(self.notes)
        lines.append(f"packed set: {self.path}")
        return lines

"""What a packed set will be, decided from listing, headers and options before anything is decoded."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from progan.config import LabelForm, PictureOptions, level_resolution, parse_resolution, split_resolution
from progan.data.names import Names
from progan.data.packed import Labels
from progan.errors import DataError
from progan.preparation.decisions import Pixels, decide_pixels, needed_extras, unusual_sizes
from progan.preparation.decoding import Header, Rules
from progan.preparation.fitting import Fit, needs_upscaling
from progan.preparation.labels.folder_labels import apply_limit
from progan.preparation.labels.labelling import find_labels
from progan.preparation.packed_writer import PLANNED_LABELS, PLANNED_NAMES, Layout, save_array, write_list
from progan.preparation.picture.cropping import Cropping, parse_crop, read_boxes
from progan.preparation.pictures import SHOWN, Listing, Pictures, describe_ignored
from progan.system.files import parse_json, write_text
from progan.system.npy_files import load_array

REACHING_SHARE = 0.9
"""A chosen resolution is one that at least this share of the pictures has without being enlarged."""
DEFAULT_BASE = (4, 4)


class Plan(BaseModel):
    """Everything that was decided: the same plan makes the same set.

    `names` are those of the pictures, `labels` theirs, as `PackedSet` stores them; both are saved beside the
    rest. `animated` are the places of pictures with several frames.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    key: str
    layout: Layout
    fit: Fit
    found: int
    names: Names = Field(default_factory=Names)
    labels: Labels | None = None
    label_kind: str
    label_form: LabelForm
    label_names: list[str]
    animated: list[int]
    notes: list[str] = []
    skipped: list[tuple[str, str]]
    pixels: Pixels | None = None
    cropping: Cropping = Cropping()

    def rules(self, options: PictureOptions) -> Rules:
        """Return the rules by which each picture is decoded."""
        decided = self.pixels or Pixels(channels=self.layout.channels)
        return decided.rules(options)

    def save(self, folder: Path) -> None:
        """Write the plan into the folder of an unfinished set."""
        if self.labels is not None:
            save_array(folder / PLANNED_LABELS, self.labels)
        write_list(folder / PLANNED_NAMES, self.names)
        # Not by pydantic's own JSON writer (and reader): they know no file names that are not valid Unicode.
        text = json.dumps(self.model_dump(mode="json", exclude={"labels", "names"}))
        write_text(folder / "plan.json", text)

    @classmethod
    def load(cls, folder: Path) -> Plan | None:
        """Read the plan of an unfinished set; None if there is none that can be read."""
        try:
            plan = cls.model_validate(parse_json((folder / "plan.json").read_bytes()))
            plan.names.extend(parse_json((folder / PLANNED_NAMES).read_bytes()))
            if not plan.label_names:
                return plan
            labels = load_array(folder / PLANNED_LABELS)
        except (OSError, ValueError):
            return None
        return plan.model_copy(update={"labels": labels}) if len(labels) == len(plan.names) else None


def make_plan(
    pictures: Pictures,
    listing: Listing,
    headers: Sequence[Header | str],
    options: PictureOptions,
    base_shape: tuple[int, int] | None,
    key: str,
) -> Plan:
    """Decide what the set will be.

    Args:
        pictures: The source.
        listing: What it holds.
        headers: For each candidate of the listing its header, or why it cannot be used.
        options: The user's choices.
        base_shape: (height, width) of level 0, if given.
        key: Identifies source and options.

    Raises:
        DataError: if no picture is usable, or the labels are wrong.
        ConfigError: if the resolution does not belong to the base shape.
    """
    candidates = listing.candidates.names
    refused = ((i, one) for i, one in enumerate(headers) if isinstance(one, str))
    skipped = [*listing.skipped, *((candidates[i], reason) for i, reason in refused)]
    usable = _Usable.of(candidates, headers)
    if not usable.headers:
        raise no_pictures(pictures.path, listing, skipped)
    labels = find_labels(pictures, listing, usable.names, options)
    if labels is not None:
        rows = np.array([labels.rows.get(name, -1) for name in usable.names], np.int64)
        skipped.extend((name, "no label") for name in usable.names.take(np.flatnonzero(rows < 0)))
        usable, rows = usable.take(np.flatnonzero(rows >= 0)), rows[rows >= 0]
        if not usable.headers:
            raise DataError(f"label file {options.labels}: labels no picture that can be used")
    cropping = cropping_of(pictures, options)
    cut = [_cut_out(header, name, cropping, options) for name, header in usable.pairs()]
    skipped.extend((usable.names[i], one) for i, one in enumerate(cut) if isinstance(one, str))
    kept = _kept(usable.names, cut, options.limit)
    if not len(kept):
        raise no_pictures(pictures.path, listing, skipped)
    usable, chosen = usable.take(kept), [one for i in kept if isinstance(one := cut[i], Header)]
    shape, max_level = choose_resolution(chosen, options, base_shape)
    cropping = cropping._replace(target=level_resolution(shape, max_level))
    pixels = decide_pixels(usable.names, usable.headers, options)
    pixels.warnings.extend(needed_extras(skipped))
    if not cropping.several:
        pixels.warnings.extend(unusual_sizes(chosen, options, shape, max_level))
    names, origins = Names(), array("q")
    for i, (name, header) in enumerate(usable.pairs()):
        items = cropping.items(name, _size(header))
        names.extend(items)
        origins.extend([i] * len(items))
    return Plan(
        key=key,
        layout=Layout(
            base_shape=shape,
            max_level=max_level,
            channels=pixels.channels,
            dtype="uint8" if pixels.depth == 8 else "uint16",
        ),
        fit=options.fit,
        found=len(listing.candidates) + len(listing.skipped),
        names=names,
        labels=None if labels is None else labels.values[rows[kept][np.asarray(origins)]],
        label_kind="none" if labels is None else labels.kind,
        label_form="class" if labels is None else labels.form,
        label_names=[] if labels is None else list(labels.names),
        animated=[i for i, origin in enumerate(origins) if usable.headers[origin].animated],
        notes=listing.notes,
        skipped=skipped,
        pixels=pixels,
        cropping=cropping,
    )


class _Usable(NamedTuple):
    """Pictures that can be used: what they are called, and what is known of each."""

    names: Names
    headers: list[Header]

    @classmethod
    def of(cls, names: Names, headers: Sequence[Header | str]) -> _Usable:
        """Return those of which there is a header."""
        good = [one for one in headers if isinstance(one, Header)]
        if len(good) == len(headers):
            return cls(names, good)
        return cls(names.take(i for i, one in enumerate(headers) if isinstance(one, Header)), good)

    def take(self, places: NDArray[np.int64]) -> _Usable:
        """Return those at some places in their order."""
        if len(places) == len(self.headers):
            return self
        return _Usable(self.names.take(places), [self.headers[i] for i in places])

    def pairs(self) -> Iterator[tuple[str, Header]]:
        """Yield name and header of each."""
        return zip(self.names, self.headers, strict=True)


def _kept(names: Names, cut: Sequence[Header | str], limit: int | None) -> NDArray[np.int64]:
    """Return the places of the pictures of which something is cut out, and that a limit keeps."""
    good = np.array([isinstance(one, Header) for one in cut], np.bool_)
    if limit is not None:
        chosen = frozenset(apply_limit(names.take(np.flatnonzero(good)), limit))
        good &= np.array([name in chosen for name in names], np.bool_)
    return np.flatnonzero(good).astype(np.int64)


def cropping_of(pictures: Pictures, options: PictureOptions) -> Cropping:
    """Return what is cut out of each picture, but for the size of the set.

    Raises:
        DataError: if a file of boxes cannot be read.
    """
    if options.fit == "tile":
        return Cropping(tiles=True)
    if options.crop is None:
        return Cropping()
    count, square, file = parse_crop(options.crop)
    if file is None:
        return Cropping(parts=count, square=square)
    return Cropping(boxes=read_boxes(boxes_data(pictures, file), file))


def boxes_data(pictures: Pictures, file: str) -> bytes:
    """Return what a file of crop boxes holds, looked for from the current folder, then beside the pictures.

    Raises:
        DataError: if there is none.
    """
    try:
        return Path(file).read_bytes()
    except OSError:
        data = pictures.read_file(file)
    if data is None:
        raise DataError(
            f"crop {file!r}: no such file; give CX,CY,SIZE such as 89,121,128, random:K, or a CSV file of "
            f"boxes"
        )
    return data


def _cut_out(header: Header, name: str, cropping: Cropping, options: PictureOptions) -> Header | str:
    """Return the header with the size of what is cut out, or why the picture is left out."""
    size = _size(header)
    if cropping.boxes is not None and name not in cropping.boxes:
        return "no crop box"
    region = cropping.region(name, size)
    if region is None:
        return f"the crop {options.crop} is not inside {size[1]}x{size[0]} pixels"
    if options.min_size is not None and min(region) < options.min_size:
        return f"{region[1]}x{region[0]}: a side is below {options.min_size} (--min-size)"
    return header if region == size else header._replace(height=region[0], width=region[1])


def _size(header: Header) -> tuple[int, int]:
    return header.height, header.width


def no_pictures(path: Path, listing: Listing, skipped: Sequence[tuple[str, str]]) -> DataError:
    """Return the error for a source without a usable picture, with the first reasons."""
    if skipped:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped[:SHOWN])
        return DataError(f"{path}: none of its {len(skipped)} pictures can be used ({reasons})")
    if listing.ignored:
        return DataError(
            f"{path}: holds no pictures, only other files ({describe_ignored(listing.ignored)}); "
            "give a folder or .zip of JPEG, PNG, WebP, TIFF, ... files"
        )
    return DataError(f"{path}: is empty; give a folder or .zip of pictures")


def choose_resolution(
    headers: Sequence[Header], options: PictureOptions, base_shape: tuple[int, int] | None
) -> tuple[tuple[int, int], int]:
    """Return the base shape and the highest level.

    Without a given resolution: the largest that nine tenths of the pictures have without being enlarged,
    within `options.max_resolution`, but at least level 1.
    """
    if options.resolution is not None:
        return split_resolution(parse_resolution(options.resolution), base_shape)
    shape = base_shape or DEFAULT_BASE
    level = 1
    while max(level_resolution(shape, level + 1)) <= options.max_resolution:
        target = level_resolution(shape, level + 1)
        reaching = sum(
            not needs_upscaling((header.height, header.width), target, options.fit) for header in headers
        )
        if reaching < REACHING_SHARE * len(headers):
            break
        level += 1
    return shape, level

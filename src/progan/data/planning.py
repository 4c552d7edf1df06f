"""What a packed set will be, decided from listing, headers and options before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from progan.config import PictureOptions, level_resolution, parse_resolution, split_resolution
from progan.data.decoding import Header
from progan.data.fitting import Fit, needs_upscaling
from progan.data.labels import SHOWN, apply_limit, class_order, labels_from_file, labels_from_folders
from progan.data.sources import Listing, Source, ZipSource, describe_ignored
from progan.data.writing import Layout
from progan.errors import DataError

REACHING_SHARE = 0.9
"""A chosen resolution is one that at least this share of the pictures has without being enlarged."""
DEFAULT_BASE = (4, 4)


class Plan(BaseModel):
    """Everything that was decided: the same plan makes the same set."""

    key: str
    layout: Layout
    fit: Fit
    found: int
    names: list[str]
    labels: list[int] | None
    label_kind: str
    label_names: list[str]
    animated: list[str]
    skipped: list[tuple[str, str]]


def label_file_path(source: Source, options: PictureOptions) -> Path | None:
    """Return the label file, looked for from the current folder and in the source; None if there is none.

    Raises:
        DataError: if `options.labels` is neither 'none' nor 'folders' nor a file.
    """
    if options.labels in {"none", "folders"}:
        return None
    for path in (Path(options.labels), source.path / options.labels):
        if path.is_file():
            return path
    raise DataError(
        f"labels {options.labels!r}: no such file; give 'none', 'folders', or a CSV file of name,label"
    )


def make_plan(
    source: Source,
    listing: Listing,
    headers: Sequence[Header | str],
    options: PictureOptions,
    base_shape: tuple[int, int] | None,
    key: str,
) -> Plan:
    """Decide what the set will be.

    Args:
        source: The source.
        listing: What it holds.
        headers: For each candidate of the listing its header, or why it cannot be used.
        options: The user's choices.
        base_shape: (height, width) of level 0, if given.
        key: Identifies source and options.

    Raises:
        DataError: if no picture is usable, or the labels are wrong.
        ConfigError: if the resolution does not belong to the base shape.
    """
    usable: dict[str, Header] = {}
    skipped = list(listing.skipped)
    for candidate, header in zip(listing.candidates, headers, strict=True):
        if isinstance(header, str):
            skipped.append((candidate.name, header))
        else:
            usable[candidate.name] = header
    if not usable:
        raise no_pictures(source.path, listing, skipped)
    labels = _labels(source, listing, list(usable), options)
    if labels is not None:
        skipped.extend((name, "no label") for name in usable if name not in labels)
        usable = {name: header for name, header in usable.items() if name in labels}
        if not usable:
            raise DataError(f"label file {options.labels}: labels no picture that can be used")
    classes = class_order(labels[name] for name in usable) if labels is not None else ()
    names = apply_limit(list(usable), options.limit)
    chosen = [usable[name] for name in names]
    shape, max_level = choose_resolution(chosen, options, base_shape)
    number = {label: i for i, label in enumerate(classes)}
    return Plan(
        key=key,
        layout=Layout(
            base_shape=shape, max_level=max_level, channels=options.channels or choose_channels(chosen)
        ),
        fit=options.fit,
        found=len(listing.candidates) + len(listing.skipped),
        names=names,
        labels=[number[labels[name]] for name in names] if labels is not None else None,
        label_kind=options.labels if options.labels in {"none", "folders"} else "file",
        label_names=list(classes),
        animated=[name for name in names if usable[name].animated],
        skipped=skipped,
    )


def _labels(
    source: Source, listing: Listing, usable: Sequence[str], options: PictureOptions
) -> dict[str, str] | None:
    file = label_file_path(source, options)
    if file is not None:
        known = [item.name for item in listing.candidates] + [name for name, _ in listing.skipped]
        return labels_from_file(file, known)
    if options.labels == "folders":
        return labels_from_folders(usable, in_archive=isinstance(source, ZipSource))
    return None


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


def choose_channels(headers: Sequence[Header]) -> int:
    """Return 1, 2, 3 or 4: colour if any picture has it, alpha if every picture has it."""
    colour = any(header.colour for header in headers)
    alpha = all(header.alpha for header in headers)
    return (4 if alpha else 3) if colour else (2 if alpha else 1)


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

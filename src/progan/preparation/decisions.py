"""What is decided about the pixels of a set, over all its pictures, with what must be said of it.

Options are named as `progan prepare` spells them; `spelled` gives the names that `progan train` has for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel

from progan.config import (
    MIN_BASE,
    PictureOptions,
    format_resolution,
    growable_resolution,
    grown_from,
    level_resolution,
    parse_colour,
)
from progan.preparation.decoding import MAX_PIXELS, Header, Look, Rules
from progan.preparation.fitting import cut_away, needs_upscaling
from progan.preparation.picture.channels import MANY
from progan.preparation.picture.value_range import (
    MOST,
    NATIVE,
    Decided,
    Extent,
    Kind,
    ValueRange,
    dark,
    decide,
)

FEW_SHARE = 0.02
"""So small a share of the pictures (or one alone) that decides something for all is worth a warning."""
ENOUGH = 10
"""Of fewer pictures each one counts."""
MUCH_CUT = 0.25
"""A share of each picture, on average, that is much to cut away."""
LARGE_LEVELS = 2
"""Pictures that have so many levels more than are stored are large beside the others."""
LARGE_SHARE = 0.05

_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")

_INSTALL = re.compile(r"pip install \S+")


class Pixels(BaseModel):
    """What was decided about pixels.

    Attributes:
        channels: Channels of the set.
        depth: Bits of a stored value.
        ranges: Values of black and white, for each kind of file that is there.
        facts: What was done, in words.
        warnings: What is unusual, in words, with the options that change it.
    """

    channels: int
    depth: Literal[8, 16] = 8
    ranges: dict[Kind, tuple[float, float]] = {}
    facts: list[str] = []
    warnings: list[str] = []

    def rules(self, options: PictureOptions) -> Rules:
        """Return the rules by which each picture is decoded."""
        return Rules(
            self.channels,
            self.depth,
            {kind: ValueRange(*values) for kind, values in self.ranges.items()},
            parse_colour(options.background),
            options.max_pixels or MAX_PIXELS,
            options.draft,
        )


def what_to_look_at(options: PictureOptions) -> Look:
    """Return what of the pixels must be known before anything is decided."""
    kinds: tuple[Kind, ...] = ("integer", "float")
    if options.range is not None:
        kinds = get_args(Kind) if options.range == "auto" else ()
    return Look(options.channels is None, kinds, options.max_pixels or MAX_PIXELS, options.channels)


def decide_pixels(names: Sequence[str], headers: Sequence[Header], options: PictureOptions) -> Pixels:
    """Decide channels, ranges and depth of a set.

    Args:
        names: Those of its pictures; at least one.
        headers: What is known of each.
        options: The user's choices, which win.
    """
    made = Pixels(channels=options.channels or choose_channels(headers))
    if options.channels is None:
        _say_channels(made, names, headers, options)
    kinds = Counter(header.kind for header in headers)
    for kind in sorted(kinds):
        known = (i for i, one in enumerate(headers) if one.kind == kind and one.extent)
        extents = {names[i]: extent for i in known if (extent := headers[i].extent)}
        decided = decide(kind, extents, options.range)
        if decided.range != NATIVE[kind] or kind != "byte":
            made.ranges[kind] = decided.range
        _say_range(made, decided, list(extents.values()), len(headers))
    white = made.ranges.get("integer", NATIVE["integer"])[1]
    deep = kinds["integer"] == len(headers) and white > NATIVE["byte"].high
    made.depth = options.depth or (16 if deep else 8)
    if options.depth is None and deep:
        made.facts.append("stored with 16 bits, as all pictures have more than 8 (--depth 8 halves the set)")
    elif options.depth is None and kinds["integer"] and white > NATIVE["byte"].high:
        made.facts.append(
            f"{kinds['integer']} of {len(headers)} pictures have more than 8 bits and are stored with 8 "
            f"(--depth 16 keeps them)"
        )
    return made


def choose_channels(headers: Sequence[Header]) -> int:
    """Return 1, 2, 3 or 4: colour if any picture has it, alpha if every picture has it and any shows it.

    Of files with more channels: as many as most pictures have.
    """
    many = Counter(header.channels for header in headers).most_common(1)[0][0]
    if many:
        return many
    colour = any(header.colour for header in headers)
    alpha = all(header.alpha for header in headers) and any(header.transparent for header in headers)
    return (4 if alpha else 3) if colour else (2 if alpha else 1)


class _Some(NamedTuple):
    """So many pictures, and what the first of them is called."""

    number: int
    first: str

    @classmethod
    def of(cls, names: Sequence[str], chosen: Iterable[bool]) -> _Some:
        """Return those that are chosen."""
        places = [i for i, one in enumerate(chosen) if one]
        return cls(len(places), names[places[0]] if places else "")

    def have(self) -> str:
        """Write `1 picture (a.png) has`, or `3 pictures (a.png, ...) have`."""
        if self.number == 1:
            return f"1 picture ({self.first}) has"
        return f"{self.number} pictures ({self.first}, ...) have"


def _say_channels(
    made: Pixels, names: Sequence[str], headers: Sequence[Header], options: PictureOptions
) -> None:
    """Say what becomes of transparency, and whether a few pictures decide about the channels of all."""
    coloured = _Some.of(names, (header.colour for header in headers))
    transparent = _Some.of(names, (header.transparent for header in headers))
    without = _Some.of(names, (not header.alpha for header in headers))
    opaque = sum(header.opaque for header in headers)
    kept = made.channels in (2, 4)
    if opaque and not kept and made.channels < 5:
        made.facts.append(
            f"{opaque} pictures have an alpha channel that is opaque everywhere, which counts as none"
        )
    if not kept and 0 < without.number <= transparent.number:
        made.warnings.append(
            f"transparency of {transparent.number} of {len(headers)} pictures is laid on "
            f"{options.background}, as {without.have()} none: --channels {made.channels + 1} keeps it, "
            f"--background chooses the ground"
        )
    if made.channels >= 3 and is_few(coloured.number, len(headers)) and made.channels < 5:
        made.warnings.append(
            f"{coloured.have()} colour, so all are stored as {'RGBA' if kept else 'RGB'}: "
            f"--channels {2 if kept else 1} stores gray"
        )
    _say_bands(made, names, headers)
    if kept and is_few(transparent.number, len(headers)):
        made.warnings.append(
            f"{transparent.have()} transparency, so it is stored for all: --channels {made.channels - 1} "
            f"lays it on {options.background}"
        )


def _say_bands(made: Pixels, names: Sequence[str], headers: Sequence[Header]) -> None:
    """Say what becomes of channels besides the colours of which the files do not tell the meaning."""
    taken = _Some.of(names, (header.band == "alpha" and not header.opaque for header in headers))
    if taken.number and made.channels < MANY:
        made.warnings.append(
            f"{taken.have()} 2 or 4 channels, of which the last is taken as transparency; from five on "
            f"channels may mean anything and are kept as they are"
        )
    dropped = _Some.of(names, (header.band == "left_out" for header in headers))
    if dropped.number and made.channels < MANY:
        made.warnings.append(
            f"{dropped.have()} a channel besides the colours, which is not marked as transparency and is "
            f"left out: --channels {made.channels + 1} takes it as transparency"
        )


def needed_extras(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """Say how many pictures were skipped for want of each extra, with the command that installs it."""
    found = Counter(match[0] for _, reason in skipped if (match := _INSTALL.search(reason)))
    return [
        f"{count} {'picture is' if count == 1 else 'pictures are'} skipped that an extra reads: {command}"
        for command, count in found.most_common()
    ]


def _say_range(made: Pixels, decided: Decided, extents: Sequence[Extent], total: int) -> None:
    """Say how the range came about, and whether many pictures use hardly anything of it."""
    if decided.fact:
        made.facts.append(decided.fact)
    if decided.warning:
        made.warnings.append(decided.warning)
    black = dark(extents, decided.range)
    if black > (1 - MOST) * total and not decided.warning and black < total:
        made.warnings.append(
            f"{black} of {total} pictures use less than a sixteenth of the range {decided.range} and become "
            f"nearly black: --range LOW:HIGH decides otherwise"
        )


def is_few(count: int, total: int) -> bool:
    """Tell whether so few of all pictures should not decide something for the others unheard."""
    return total >= ENOUGH and 0 < count <= max(1, FEW_SHARE * total)


def unusual_sizes(
    headers: Sequence[Header], options: PictureOptions, base_shape: tuple[int, int], max_level: int
) -> list[str]:
    """Return warnings about what fitting does to the pictures: much cut away, large ones made small."""
    target = level_resolution(base_shape, max_level)
    sizes = Counter((header.height, header.width) for header in headers)
    warnings = []
    cut = sum(count * cut_away(size, target, options.fit) for size, count in sizes.items()) / len(headers)
    if cut >= MUCH_CUT:
        warnings.append(
            f"{cut:.0%} of each picture is cut away, on average: --fit pad keeps all of it, and "
            f"{_nearer_shape(sizes, target, options.max_resolution)} is nearer to its shape"
        )
    larger = level_resolution(base_shape, max_level + LARGE_LEVELS)
    if options.resolution is None and max(larger) <= options.max_resolution:
        large = sum(count for size, count in sizes.items() if not needs_upscaling(size, larger, options.fit))
        if large >= LARGE_SHARE * len(headers):
            warnings.append(
                f"the size is {format_resolution(target)}, which {MOST:.0%} of the pictures have, but "
                f"{large} of {len(headers)} have at least {format_resolution(larger)}: "
                f"--min-size {min(larger)} leaves the smaller ones out, --resolution "
                f"{_side(larger)} enlarges them"
            )
    return warnings


def _side(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else format_resolution(size)


def _nearer_shape(sizes: Counter[tuple[int, int]], target: tuple[int, int], most: int) -> str:
    """Return options for a size of the shape that most pictures have."""
    middle, shapes = sizes.total() // 2, sorted(sizes, key=lambda size: size[1] / size[0])
    ends = accumulate(sizes[size] for size in shapes)
    height, width = next(size for size, end in zip(shapes, ends, strict=True) if end > middle)
    resolution, base = (height, width), grown_from((height, width))
    if base is None or max(resolution) > most:
        resolution, base = growable_resolution(width / height, target[0] * target[1])
    text = f"--resolution {format_resolution(resolution)}"
    return text if min(base) >= MIN_BASE and max(base) <= 16 else f"{text} --base-shape {base[0]} {base[1]}"


def spelled(text: str, *, training: bool) -> str:
    """Return a sentence with its options as `progan train` spells them, or as `progan prepare` does."""
    if not training:
        return text

    def name(match: re.Match[str]) -> str:
        return f"--model.{match[1]}" if match[1] == "base-shape" else f"--data.{match[1]}"

    return _OPTION.sub(name, text)

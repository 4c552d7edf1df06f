"""From the bytes of a picture to its upright pixels in sRGB, of the channels and the depth of a set.

Everything that can be wrong with a picture file ends here as a reason in words, never as another exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from progan.preparation.picture import channels as arrays
from progan.preparation.picture.channels import WHITE, Background
from progan.preparation.picture.colour_profiles import deep_to_srgb, to_srgb
from progan.preparation.picture.deep import Band, DeepFile, DeepImage, open_deep, upright
from progan.preparation.picture.modes import (
    has_alpha,
    has_colour,
    is_animated,
    is_coloured_file,
    is_deep,
    is_shallow,
    orientation,
    refuse_deep_planes,
    to_8_bit,
    to_channels,
)
from progan.preparation.picture.opening import (
    JPEGS,
    MAX_PIXELS,
    UnusablePictureError,
    opened,
    reasons,
    refuse_endless_scans,
    require_size,
)
from progan.preparation.picture.value_range import (
    NATIVE,
    Extent,
    Kind,
    ValueRange,
    decide,
    extent_of,
    is_foreign,
    scale,
)
from progan.preparation.pictures import Pictures

__all__ = [
    "MAX_PIXELS",
    "Header",
    "Look",
    "Looking",
    "Rules",
    "UnusablePictureError",
    "decode",
    "develop",
    "look_at",
    "scan",
]

QUARTER_TURNS = frozenset({5, 6, 7, 8})
OPAQUE = 255

LAID = "laid"
REDUCED = "reduced"
SHALLOW = "shallow"

Size = tuple[int, int]
Pixels = Image.Image | NDArray[np.uint8 | np.uint16]
"""An image of mode L, LA, RGB or RGBA; or, of 16 bits or more than 4 channels, an array [H, W, C]."""


class Header(NamedTuple):
    """What is known of a picture before it is packed; width and height are those of the upright picture.

    Attributes:
        colour: Whether it is more than gray.
        alpha: Whether it has transparency, in any form.
        animated: Whether it has frames or pages besides the first.
        opaque: Whether all pixels were looked at, and none is transparent.
        channels: Of files that have more than 4, their number, else 0.
        kind: What its values are.
        extent: The smallest and largest of them, if that was looked at.
        frames: Frames or pages.
        band: What becomes of a channel besides the colours of which the file does not tell the meaning.
    """

    width: int
    height: int
    colour: bool
    alpha: bool
    animated: bool
    opaque: bool = False
    channels: int = 0
    kind: Kind = "byte"
    extent: Extent | None = None
    frames: int = 1
    band: Band = ""

    @property
    def transparent(self) -> bool:
        """Whether a pixel is not opaque, or may be."""
        return self.alpha and not self.opaque


class Look(NamedTuple):
    """What of the pixels is looked at before anything is decided.

    Attributes:
        alpha: Whether transparency is used.
        kinds: Kinds of files whose smallest and largest values matter.
        max_pixels: Largest picture that is decoded.
        channels: Channels of the set, if they were asked for.
    """

    alpha: bool = True
    kinds: tuple[Kind, ...] = ("integer", "float")
    max_pixels: int = MAX_PIXELS
    channels: int | None = None


class Rules(NamedTuple):
    """What was decided for all pictures of a set about the pixels of each.

    Attributes:
        channels: 1 gray, 2 gray with alpha, 3 RGB, 4 RGBA, or more of any meaning.
        depth: Bits of a stored value, 8 or 16.
        ranges: Values of black and white, for each kind of file; of a kind that is missing, its own.
        background: What alpha that is not kept is laid on.
        max_pixels: Largest picture that is decoded.
        draft: Decode a JPEG that is much larger than wanted at a reduced size.
    """

    channels: int
    depth: int = 8
    ranges: Mapping[Kind, ValueRange] = {}
    background: Background = WHITE
    max_pixels: int = MAX_PIXELS
    draft: bool = True


class Developed(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: Upright.
        size: (height, width) that it has in its file, upright.
        notes: What was done to it that is counted.
        reduction: The pixels are decoded at a half, quarter or eighth (2, 4, 8) of that size, rounded up.
    """

    pixels: Pixels
    size: Size
    notes: tuple[str, ...]
    reduction: int = 1


class Looking(NamedTuple):
    """What a worker needs to know to look at a picture."""

    source: Pictures
    look: Look


def look_at(task: Looking, name: str) -> Header | str:
    """Return `scan` of a picture."""
    return scan(task.source, name, task.look)


def scan(source: Pictures, name: str, look: Look = Look()) -> Header | str:  # noqa: B008 - a NamedTuple
    """Read the header of a picture, and of its pixels what `look` asks for; return the reason if it fails."""
    try:
        with reasons(), source.open(name) as stream:
            deep = open_deep(stream, name, look.channels)
            if deep is not None:
                return _scan_deep(deep, look)
            with opened(stream, name, look.max_pixels) as image:
                refuse_deep_planes(image)
                return _scan_image(image, look)
    except UnusablePictureError as error:
        return str(error)


def _scan_image(image: ImageFile.ImageFile, look: Look) -> Header:
    width, height = image.size
    if orientation(image) in QUARTER_TURNS:
        width, height = height, width
    alpha, animated, colour = has_alpha(image), is_animated(image), is_coloured_file(image)
    frames = getattr(image, "n_frames", 1) if animated else 1
    if is_deep(image):
        deep = _scan_deep(DeepImage(image), look)
        return deep._replace(width=width, height=height, animated=animated, frames=frames)
    measured = (alpha and look.alpha) or "byte" in look.kinds
    if measured:
        require_size(image.size, look.max_pixels)
        refuse_endless_scans(image)
        image.load()
    extent = _extent_of_image(image) if "byte" in look.kinds else None
    opaque = alpha and look.alpha and not _is_transparent(image)
    return Header(width, height, colour, alpha, animated, opaque, 0, "byte", extent, frames)


def _scan_deep(file: DeepFile, look: Look) -> Header:
    require_size((file.width, file.height), look.max_pixels)
    turned = file.orientation in QUARTER_TURNS
    width, height = (file.height, file.width) if turned else (file.width, file.height)
    extent, opaque = None, False
    if file.kind in look.kinds or (file.alpha and look.alpha):
        pixels = file.read()
        colours = pixels[..., :-1] if file.alpha else pixels
        extent = _require_finite(extent_of(colours))
        opaque = file.alpha and bool(pixels[..., -1].min() >= _opaque(pixels))
    many = file.channels if file.channels >= arrays.MANY else 0
    colour = file.channels - file.alpha >= 3
    animated = file.frames > 1
    return Header(
        width, height, colour, file.alpha, animated, opaque, many, file.kind, extent, file.frames, file.band
    )


def _require_finite(extent: Extent) -> Extent:
    if not (np.isfinite(extent.low) and np.isfinite(extent.high)):
        raise UnusablePictureError(
            f"values from {extent.low:g} to {extent.high:g}: the range of the pixels is unknown"
        )
    return extent


def _opaque(pixels: NDArray[Any]) -> float:
    """Return the alpha of what is opaque in an array of values as they are stored."""
    return 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)


def _extent_of_image(image: Image.Image) -> Extent:
    colours = image if image.mode in {"L", "RGB"} else image.convert("RGB" if has_colour(image) else "L")
    bands = np.asarray(colours.getextrema()).reshape(-1, 2)
    return Extent(float(bands[:, 0].min()), float(bands[:, 1].max()))


def _is_transparent(image: Image.Image) -> bool:
    alpha = image if image.mode in {"LA", "RGBA"} else image.convert("RGBA")
    low, _ = alpha.getchannel("A").getextrema()
    return bool(float(str(low)) < OPAQUE)


def decode(source: Pictures, name: str, channels: int) -> Image.Image:
    """Decode a picture by itself, the first frame if it has several.

    Args:
        source: Where the picture is.
        name: Its name there.
        channels: 1, 2, 3 or 4.

    Returns:
        An upright image of mode L, LA, RGB or RGBA. Alpha that the mode has no room for is laid on white.

    Raises:
        UnusablePictureError: with the reason.
    """
    pixels = develop(source, name, Rules(channels)).pixels
    assert isinstance(pixels, Image.Image)
    return pixels


def develop(
    source: Pictures, name: str, rules: Rules, enough: Callable[[Size], Size] | None = None
) -> Developed:
    """Decode a picture by the rules of a set, the first frame if it has several.

    Args:
        source: Where the picture is.
        name: Its name there.
        rules: What was decided for the set.
        enough: From the (height, width) of a picture, those that are enough of it; None: all is needed.

    Raises:
        UnusablePictureError: with the reason.
    """
    with reasons(), source.open(name) as stream:
        deep = open_deep(stream, name, rules.channels)
        if deep is not None:
            require_size((deep.width, deep.height), rules.max_pixels)
            return _developed_deep(deep, rules, deep.orientation)
        with opened(stream, name, rules.max_pixels) as image:
            refuse_deep_planes(image)
            if is_deep(image):
                return _developed_deep(DeepImage(image), rules, orientation(image))
            return _developed(image, rules, enough)
    raise AssertionError("`reasons` passes on every exception")


def _developed(image: ImageFile.ImageFile, rules: Rules, enough: Callable[[Size], Size] | None) -> Developed:
    """Decode a picture of 8 bits."""
    notes = [SHALLOW] if is_shallow(image) else []
    alpha, turned = has_alpha(image), orientation(image) in QUARTER_TURNS
    width, height = image.size
    size = (width, height) if turned else (height, width)
    reduction = 1
    if rules.draft and enough is not None and image.format in JPEGS:
        reduction = _reduce(image, size, enough(size))
        notes += [REDUCED] if reduction > 1 else []
    require_size(image.size, rules.max_pixels)
    refuse_endless_scans(image)
    # Loading before turning: some formats turn themselves when loaded.
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # a copy of the largest picture takes a third of a GiB
    converted, note = to_srgb(image)
    notes += [note] if note else []
    plain = to_8_bit(converted, alpha)
    if plain.mode in {"LA", "RGBA"} and rules.channels not in (2, 4):
        notes += [LAID] if _is_transparent(plain) else []
    byte = rules.ranges.get("byte", NATIVE["byte"])
    if byte != NATIVE["byte"]:
        plain = _in_range(plain, byte)
    return Developed(_stored(plain, rules), size, tuple(notes), reduction)


def _reduce(image: ImageFile.ImageFile, size: Size, needed: Size) -> int:
    """Have a JPEG decoded at a half, quarter or eighth of its size, if that is as much as is needed.

    Args:
        image: The picture, not yet decoded.
        size: Its (height, width), upright.
        needed: Those that are enough.

    Returns:
        1, 2, 4 or 8.
    """
    width, height = image.size
    # What is left over at the right and the bottom is at other edges once a picture is turned.
    whole = orientation(image) != 1
    for part in (8, 4, 2):
        if min(size[0] // needed[0], size[1] // needed[1]) < part:
            continue
        if whole and (width % part or height % part):
            continue
        image.draft(image.mode, (-(-width // part), -(-height // part)))
        return round(width / image.width)
    return 1


def _stored(image: Image.Image, rules: Rules) -> Pixels:
    """Bring an 8-bit image to the channels and the depth of a set."""
    if rules.channels >= arrays.MANY:
        raise UnusablePictureError(
            f"has {len(image.getbands())} channels, where the set has {rules.channels}"
        )
    image = to_channels(image, rules.channels, rules.background)
    if rules.depth == 8:
        return image
    pixels = np.asarray(image)
    return (pixels[..., None] if pixels.ndim == 2 else pixels).astype(np.uint16) * np.uint16(257)


def _in_range(image: Image.Image, decided: ValueRange) -> Image.Image:
    """Stretch the colours of an 8-bit image, not its alpha, to a range of values."""
    table = scale(np.arange(256, dtype=np.uint8), decided, OPAQUE).tolist()
    bands = image.getbands()
    return image.point([value for band in bands for value in (range(256) if band == "A" else table)])


def _developed_deep(file: DeepFile, rules: Rules, turned: int) -> Developed:
    """Decode a picture of more bits, or more channels, than Pillow's images have."""
    pixels = upright(file.read(), turned)
    size = pixels.shape[0], pixels.shape[1]
    colours = pixels[..., :-1] if file.alpha else pixels
    extent = _require_finite(extent_of(colours))
    decided = rules.ranges.get(file.kind) or decide(file.kind, {"": extent}, None).range
    if is_foreign(file.kind, extent, decided):
        raise UnusablePictureError(
            f"values from {extent.low:g} to {extent.high:g}, far beyond the {decided} of the set; "
            f"--range decides otherwise"
        )
    white = 255 if rules.depth == 8 else 65535
    made, note = _in_srgb(colours, file, decided, white)
    notes: tuple[str, ...] = (note,) if note else ()
    if file.alpha:
        cover = scale(pixels[..., -1:], ValueRange(0, _opaque(pixels)), white)
        made = np.concatenate([made, cover], axis=2)
        if rules.channels not in (2, 4) and cover.min() < white:
            notes += (LAID,)
    made = arrays.to_channels(made, file.alpha, rules.channels, rules.background)
    if rules.depth == 8 and rules.channels < arrays.MANY:
        return Developed(Image.fromarray(made[..., 0] if rules.channels == 1 else made), size, notes)
    return Developed(made, size, notes)


def _in_srgb(
    colours: NDArray[Any], file: DeepFile, decided: ValueRange, white: int
) -> tuple[NDArray[np.uint8 | np.uint16], str]:
    """Bring colours to whole numbers of a range and to sRGB, and tell what was done."""
    known = colours.shape[2] in (1, 3) and (file.profile is not None or file.gamma is not None)
    if not known and not file.inks:
        return scale(colours, decided, white), ""
    wide = scale(colours, decided, 65535).astype(np.uint16)
    made, note = deep_to_srgb(wide, file.profile, file.gamma, file.inks)
    if white == 65535:
        return made, note
    if made is wide:  # rounded once
        return scale(colours, decided, white), note
    return np.rint(made / 257).astype(np.uint8), note

"""Pictures that Pillow does not read in full: more than 8 bits a colour, more than 4 channels, camera RAW.

Each kind of file is a small class that knows its size before it is decoded. TIFF files are read by tifffile,
PNG files of 16 bits a colour by imagecodecs (both: the extra `deep`), HEIC files of 10 and 12 bits by
pillow-heif (the extra `heic`), RAW files by rawpy (the extra `raw`).
"""

from __future__ import annotations

import importlib
import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from progan.preparation.picture.opening import UnusablePictureError
from progan.preparation.picture.value_range import Kind
from progan.preparation.pictures import HEAD_BYTES, RAW_SUFFIXES, is_heif

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
_NPY = b"\x93NUMPY"
_ALPHA_SAMPLES = (1, 2)
"""Values of the TIFF tag ExtraSamples that mean alpha: premultiplied, and not."""
_SEPARATED, _INKS = 5, 4
"""A TIFF of inks, and how many of them are cyan, magenta, yellow and black."""
_SHALLOW = ("uint8", "bool")
_BY_PILLOW = (*_SHALLOW, "uint16", "int32", "float32")
"""Types of gray TIFF files that Pillow reads in full."""

Band = Literal["", "alpha", "left_out"]
"""A channel of unknown meaning is taken as alpha, or left out unless so many channels are asked for."""


class DeepFile(ABC):
    """A picture file whose pixels are read as an array.

    Attributes:
        width, height: As stored, before it is turned upright.
        channels: Channels, with alpha.
        alpha: Whether the last one is alpha.
        kind: What its values are.
        frames: Frames or pages.
        orientation: As EXIF tells it, 1 to 8.
        band: What becomes of a channel besides the colours of which the file does not tell the meaning.
        inks: Whether the pixels that are read are cyan, magenta, yellow and black, and become three channels.
        profile: The ICC profile of the colours.
        gamma: What the gAMA chunk of a PNG says, if nothing says that the colours are sRGB.
    """

    width: int
    height: int
    channels: int
    alpha: bool = False
    kind: Kind = "integer"
    frames: int = 1
    orientation: int = 1
    band: Band = ""
    inks: bool = False
    profile: bytes | None = None
    gamma: float | None = None

    @abstractmethod
    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, C], as they are stored."""

    def _take_colours(self, info: Mapping[Any, Any]) -> None:
        """Take what Pillow knows of the colours of a file."""
        profile, gamma = info.get("icc_profile"), info.get("gamma")
        self.profile = profile if isinstance(profile, bytes) and profile else None
        self.gamma = gamma if isinstance(gamma, float) and "srgb" not in info else None


class DeepImage(DeepFile):
    """A gray picture of 16 or 32 bits or floats that Pillow has opened."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.width, self.height = image.size
        self.channels = 1
        self.kind = "float" if image.mode == "F" else "integer"
        self.frames = getattr(image, "n_frames", 1)
        self._take_colours(image.info)

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, 1]."""
        self._image.load()
        pixels: NDArray[np.generic] = np.asarray(self._image)
        return pixels[..., None]


class DeepPng(DeepFile):
    """A PNG of 16 bits a colour (gray ones without alpha are read by Pillow)."""

    def __init__(self, data: bytes, codecs: Any) -> None:
        self._data = data
        self._codecs = codecs
        self.width, self.height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        self.channels = _PNG_CHANNELS[data[25]]
        self.alpha = self.channels in (2, 4)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            self._take_colours(image.info)

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, C] uint16."""
        pixels: NDArray[np.generic] = np.asarray(self._codecs.png_decode(self._data))
        return pixels.reshape(self.height, self.width, -1)[..., : self.channels]


class DeepTiff(DeepFile):
    """A TIFF of more than 8 bits, more than 4 channels, or, if asked for, of pages that are channels."""

    def __init__(self, file: Any, stack: int | None) -> None:
        pages, page = file.pages, file.pages.first
        self._file, self._page = file, page
        self.frames = len(pages)
        self._stack = stack == self.frames > 1 and page.samplesperpixel == 1
        self.width, self.height = page.imagewidth, page.imagelength
        self.channels = self.frames if self._stack else page.samplesperpixel
        extra = tuple(page.extrasamples or ())
        self.alpha = not self._stack and self.channels in (2, 4) and extra[-1:] in ((1,), (2,))
        self._premultiplied = self.alpha and extra[-1] == 1
        self.inks = not self._stack and page.photometric == _SEPARATED and self.channels == _INKS
        if self.inks:
            self.channels, self.alpha = 3, False
        if not self._stack and not self.alpha and self.channels in (2, 4):
            self.band = "left_out"
        self.kind = "float" if page.dtype.kind == "f" else "byte" if page.dtype.itemsize == 1 else "integer"
        tag = page.tags.get("Orientation")
        self.orientation = int(tag.value) if tag is not None else 1
        self.dtype = str(page.dtype)
        profile = page.tags.get("InterColorProfile")
        self.profile = profile.value if profile is not None and isinstance(profile.value, bytes) else None
        if self._stack:
            self.frames = 1

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, C]."""
        if self._stack:
            pages = [np.asarray(page.asarray()).squeeze() for page in self._file.pages]
            if any(page.shape != (self.height, self.width) for page in pages):
                raise UnusablePictureError("a TIFF whose pages differ in size; they cannot be channels")
            return np.stack(pages, axis=-1)
        pixels: NDArray[Any] = np.asarray(self._page.asarray())
        planes = self._page.axes.startswith("S") and pixels.ndim == 3
        pixels = pixels.transpose(1, 2, 0) if planes else pixels.reshape(self.height, self.width, -1)
        return _divided_by_alpha(pixels) if self._premultiplied else pixels


class DeepHeif(DeepFile):
    """A HEIC file of 10 or 12 bits a colour; pillow-heif turns it upright."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.width, self.height = file.size
        self.alpha = bool(file.has_alpha)
        self.channels = {"L": 1, "I": 1, "LA": 2, "RGB": 3}.get(file.mode.partition(";")[0], 4)
        self.frames = len(file)
        self._take_colours(file.info)

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, C] uint16, of which 65535 is white."""
        pixels: NDArray[np.uint16] = np.asarray(self._file)
        # What is decoded stands in the upper bits; the lower ones repeat them, so that white is white.
        pixels = pixels | pixels >> np.uint16(self._file.info["bit_depth"])
        return pixels.reshape(self.height, self.width, -1)


class RawPhoto(DeepFile):
    """What the sensor of a camera saw, developed with the camera's white balance to 16 bits of sRGB."""

    def __init__(self, stream: BinaryIO) -> None:
        rawpy = importlib.import_module("rawpy")
        self._raw = rawpy.imread(stream)
        sizes = self._raw.sizes
        turned = sizes.flip in (5, 6)
        self.width, self.height = (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)
        self.channels = 3

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, 3] uint16."""
        pixels: NDArray[np.generic] = self._raw.postprocess(use_camera_wb=True, output_bps=16)
        self.height, self.width = pixels.shape[:2]
        return pixels


class DeepArray(DeepFile):
    """An array [H, W] or [H, W, C], in the form of a `.npy` file."""

    def __init__(self, stream: BinaryIO) -> None:
        pixels = np.load(stream, allow_pickle=False)
        if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "uif":
            raise UnusablePictureError(
                f"an array of {pixels.dtype} of shape {list(pixels.shape)}; expected [H, W] or [H, W, C]"
            )
        self._pixels = pixels.reshape(*pixels.shape[:2], -1)
        self.height, self.width, self.channels = self._pixels.shape
        self.alpha = self.channels in (2, 4)
        self.band = "alpha" if self.alpha else ""
        self.kind = "float" if pixels.dtype.kind == "f" else "byte" if pixels.dtype == np.uint8 else "integer"

    def read(self) -> NDArray[np.generic]:
        """Return the pixels [H, W, C]."""
        made: NDArray[np.generic] = self._pixels
        return made


def open_deep(stream: BinaryIO, name: str, stack: int | None = None) -> DeepFile | None:
    """Open a file that Pillow does not read in full; None if it does, or what would read it is missing.

    Args:
        stream: The file; it is left at its beginning.
        name: Its name.
        stack: Take the pages of a TIFF as channels if there are so many.

    Raises:
        UnusablePictureError: for a RAW or HEIC file without the extra that reads it.
        Exception: of any kind for damaged files.
    """
    if PurePosixPath(name).suffix.lower() in RAW_SUFFIXES:
        return _raw(stream)
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if is_heif(head):
        return _heif(stream)
    if head.startswith(_NPY):
        return DeepArray(stream)
    if head.startswith(_PNG) and len(head) > 25 and head[24] == 16 and head[25] in _PNG_CHANNELS:
        codecs = _module("imagecodecs")
        return None if codecs is None else DeepPng(stream.read(), codecs)
    if head.startswith(_TIFF):
        return _tiff(stream, stack)
    return None


def _raw(stream: BinaryIO) -> DeepFile:
    if _module("rawpy") is None:
        raise UnusablePictureError("a camera RAW file; read by an extra: pip install 'progan[raw]'")
    return RawPhoto(stream)


def _heif(stream: BinaryIO) -> DeepFile | None:
    heif = _module("pillow_heif")
    if heif is None:
        raise UnusablePictureError("a HEIC file; read by an extra: pip install 'progan[heic]'")
    file = heif.open_heif(stream, convert_hdr_to_8bit=False)
    stream.seek(0)
    return DeepHeif(file) if file.info.get("bit_depth", 8) > 8 else None


def _tiff(stream: BinaryIO, stack: int | None) -> DeepFile | None:
    tifffile = _module("tifffile")
    if tifffile is None:
        return None
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs what is wrong with a file
    try:
        file = DeepTiff(tifffile.TiffFile(stream), stack)
    except Exception:  # Pillow says what is wrong, or reads what tifffile does not
        stream.seek(0)
        return None
    gray = file.channels == 1 and file.dtype in _BY_PILLOW
    shallow = file.channels <= 4 and file.dtype in _SHALLOW and not file.band
    stacked = stack is not None and stack == file.channels
    if (gray or shallow) and not (stacked and file.channels > 1 and file._stack):
        stream.seek(0)
        return None
    return file


def _module(name: str) -> Any | None:
    """Import an optional package; None if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _divided_by_alpha(pixels: NDArray[Any]) -> NDArray[np.generic]:
    """Return premultiplied colours [H, W, C] as they are without their alpha, of the same type."""
    white = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    wide = pixels.astype(np.float64)
    colours, alpha = wide[..., :-1] * white, wide[..., -1:]
    wide[..., :-1] = np.divide(colours, alpha, out=np.zeros_like(colours), where=alpha > 0)
    if pixels.dtype.kind != "f":
        wide = np.rint(wide.clip(0, white))
    return wide.astype(pixels.dtype)


def upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Turn pixels [H, W, C] upright by the EXIF orientation, 1 to 8."""
    turns = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }
    return np.ascontiguousarray(turns.get(orientation, pixels))

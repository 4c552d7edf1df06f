"""Files as telephones and cameras write them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from PIL import Image

BAYER = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))
"""Row, column and colour of the four cells of a sensor."""
WHITE = 60000


def heic(pixels: Any, **options: Any) -> bytes:
    """Return [H, W, 3 or 4] uint8, or [H, W, 3] uint16 (kept to 10 bits), as a HEIC file without loss."""
    height, width, channels = pixels.shape
    mode = ("RGB" if channels == 3 else "RGBA") + (";16" if pixels.dtype == np.uint16 else "")
    stream = io.BytesIO()
    file: Any = pillow_heif.from_bytes(mode, (width, height), pixels.tobytes())
    file.save(stream, quality=-1, chroma=444, **options)
    return stream.getvalue()


def write_dng(path: Path, colours: Any) -> Path:
    """Write what a sensor sees of [H, W, 3] light from 0 to 1, as DNG."""
    seen = np.zeros(colours.shape[:2], np.uint16)
    for row, column, colour in BAYER:
        seen[row::2, column::2] = np.rint(colours[row::2, column::2, colour] * WHITE)
    unit = tuple(part for value in np.eye(3).ravel() for part in (round(value * 10000), 10000))
    tifffile.imwrite(
        path,
        seen,
        photometric=32803,
        metadata=None,
        extratags=[
            (33421, "H", 2, (2, 2), True),  # of the repeated cells
            (33422, "B", 4, bytes(colour for *_, colour in BAYER), True),
            (50706, "B", 4, bytes([1, 4, 0, 0]), True),  # version
            (50708, "s", 0, "A test camera", True),
            (50717, "I", 1, WHITE, True),
            (50721, "2i", 9, unit, True),  # XYZ to the colours of the camera
            (50728, "2I", 3, (1, 1) * 3, True),  # neutral
            (50778, "H", 1, 21, True),  # light of D65
        ],
    )
    return path


def ramp(height: int, width: int) -> Any:
    """Return light [H, W, 3] that rises in red to the right and in green downwards."""
    down, right = np.mgrid[:height, :width]
    return np.stack([right / width, down / height, np.full((height, width), 0.5)], axis=-1)


def save_png(path: Path, pixels: Any) -> None:
    """Write [H, W, 3] uint8 as a picture that needs no extra."""
    Image.fromarray(pixels).save(path)

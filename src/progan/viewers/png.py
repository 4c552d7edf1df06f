"""PNG files of generated pictures."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray

from progan.data.pixels import to_image

END = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode one picture as PNG.

    Thousands of pictures a second leave no time to look for the best compression: of repetitions only runs of
    one byte are looked for, which takes less time than zlib's usual strategy does at its quickest
    (docs/performance.md). As Pillow filters each row first, files become smaller, not larger, for it.

    Args:
        image: [C, H, W], uint8, C of 1 (grey), 2 (grey with alpha), 3 (RGB) or 4 (RGBA).

    Returns:
        A whole file, the same for the same picture.
    """
    buffer = io.BytesIO()
    to_image(image).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()

"""PNG files that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def write_png(
    path: Path, pixels: NDArray[np.uint16], profile: bytes | None = None, gamma: float | None = None
) -> None:
    """Write [H, W, C] with 16 bits a channel; C is 1 to 4."""
    more = b"" if profile is None else _block(b"iCCP", b"x\0\0" + zlib.compress(profile))
    if gamma is not None:
        more += _block(b"gAMA", struct.pack(">I", round(gamma * 100000)))
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    _write(path, struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0), rows, more)


def write_bomb(path: Path, side: int) -> None:
    """Write a header that promises side x side pixels, and hardly any of them."""
    _write(path, struct.pack(">IIBBBBB", side, side, 8, COLOUR_TYPES[3], 0, 0, 0), bytes(1000))


def _write(path: Path, head: bytes, rows: bytes, more: bytes = b"") -> None:
    blocks = _block(b"IHDR", head) + more + _block(b"IDAT", zlib.compress(rows)) + _block(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + blocks)


def _block(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

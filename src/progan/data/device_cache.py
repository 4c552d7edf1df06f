"""A level's pictures on the device that trains on them: no batch has to be read and sent there."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from progan.data.packed import PackedSet
from progan.data.pixels import mirror
from progan.errors import DataError

SHARE = 1 / 8
"""Of a GPU's memory, how much pictures may take of themselves."""

CHUNK = 2**28
"""Bytes that are sent at a time."""


class ResidentLevel:
    """The pictures of one level, in the device's memory as they are stored.

    A torch.OutOfMemoryError tells that they have no room there.
    """

    def __init__(self, packed: PackedSet, level: int, device: torch.device) -> None:
        self.level = level
        height, width = packed.resolution(level)
        kind = torch.from_numpy(np.empty(0, packed.manifest.dtype)).dtype
        shape = (packed.count, packed.channels, height, width)
        self._pixels = torch.empty(shape, dtype=kind, device=device)
        step = max(1, CHUNK // packed.manifest.picture_bytes(level))
        for start in range(0, packed.count, step):
            rows = np.arange(start, min(start + step, packed.count))
            self._pixels[start : start + len(rows)].copy_(torch.from_numpy(packed.read(level, rows)))

    def take(self, rows: Tensor, flipped: Tensor | None) -> Tensor:
        """Return some pictures.

        Args:
            rows: [n], int64, on the device.
            flipped: [n], bool, on the device: which to flip left to right; None for none.

        Returns:
            [n, C, h, w], uint8 or uint16.
        """
        kind = self._pixels.dtype
        # PyTorch selects no rows of uint16; as int16 they are the same bits.
        plain = self._pixels.view(torch.int16) if kind == torch.uint16 else self._pixels
        chosen = plain[rows].view(kind)
        return chosen if flipped is None else mirror(chosen, flipped)


def resident_level(
    packed: PackedSet, level: int, device: torch.device, when: Literal["auto", "always", "never"]
) -> ResidentLevel | None:
    """Put a level on the device, if it should be there.

    Args:
        packed: The pictures.
        level: Which level.
        device: Where they are to be.
        when: `auto`: on a GPU, if they take at most an eighth of its memory and half of what is free.

    Raises:
        DataError: if they have no room there and `when` is `always`.
    """
    size = packed.count * packed.manifest.picture_bytes(level)
    if when == "never" or (when == "auto" and not _fits(size, device)):
        return None
    try:
        return ResidentLevel(packed, level, device)
    except torch.OutOfMemoryError:
        if when == "auto":
            return None
        raise DataError(
            f"{packed.path}: level {level} needs {size / 2**30:.2f} GiB of memory on {device}, more than is "
            f"free; leave data.on_device out"
        ) from None


def _fits(size: int, device: torch.device) -> bool:
    """Return whether there is room for so many bytes beside training; on a CPU nothing is gained."""
    if device.type != "cuda":
        return False
    torch.cuda.empty_cache()  # what was computed at the level before is free, but for PyTorch's keeping it
    free, total = torch.cuda.mem_get_info(device)
    return size <= total * SHARE and size <= free / 2

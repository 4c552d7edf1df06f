"""A packed set as PyTorch's own data loaders take it, for training loops of others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from progan.data.packed import PackedSet
from progan.data.pixels import to_float


class PictureDataset(Dataset[tuple[Tensor, Tensor]]):
    """The pictures of one level of a packed set, with their labels; it may be sent to worker processes.

    Args:
        packed: The set.
        level: The level; None for the last.
        part: `train`, `validation`, `test` or `all` of its split.

    Raises:
        ValueError: if there is no such level.
    """

    def __init__(self, packed: PackedSet, level: int | None = None, part: str = "train") -> None:
        self.level = packed.max_level if level is None else level
        if not 0 <= self.level <= packed.max_level:
            raise ValueError(f"level {level}: expected 0..{packed.max_level}")
        self.packed, self.indices = packed, packed.indices(part)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a picture, [C, H, W] in [-1, 1], and its label vector, [label_size]."""
        chosen = self.indices[[index]]
        pixels = to_float(self.packed.read(self.level, chosen))
        return pixels[0], torch.from_numpy(self.packed.label_vectors(chosen))[0]

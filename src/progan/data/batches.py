"""Which pictures, flips, latents, labels and mixing factors a step uses: pure functions of the clock.

Everything random about training is decided here, from (seed, purpose, clock) alone. So a resumed run needs
no generator state, and the number of devices or micro-batches changes nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.data.packed import PackedSet
from progan.data.pixels import fade_reals, to_float


def random_generator(seed: int, purpose: str, clock: int) -> np.random.Generator:
    """Return a generator that depends on nothing but its arguments.

    Args:
        seed: Seed of the run, at least 0.
        purpose: What the numbers are for; each purpose has its own stream.
        clock: Images seen, or another counter, at least 0.
    """
    key = [seed, zlib.crc32(purpose.encode()), clock]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = random_generator(seed, "order", epoch).permutation(count)
    order.setflags(write=False)
    return order


def sample_order(seed: int, start: int, n: int, count: int) -> NDArray[np.int64]:
    """Return the positions in a set of `count` pictures that are shown at clock start .. start + n - 1.

    Every picture is shown once in each run of `count`, in an order that differs from run to run.

    Returns:
        int64 [n], values in 0..count-1.
    """
    clock = np.arange(start, start + n)
    epochs = clock // count
    positions = np.empty(n, dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        positions[inside] = _permutation(seed, epoch, count)[clock[inside] % count]
    return positions


def micro_batches(n: int, group: int, largest: int | None) -> list[NDArray[np.int64]]:
    """Deal a batch into parts without splitting a minibatch-stddev group.

    In the whole batch sample i belongs to group i mod (n / group). Each part takes whole groups, in an
    order in which the same rule, applied to the part alone, finds the same groups again.

    Args:
        n: Samples in the batch.
        group: Samples in a stddev group (0 if there are none); min(group, n) divides n.
        largest: Most samples in a part; None for one part. A group is never split, so a part holds at
            least one group.

    Returns:
        Positions in the batch, one int64 array a part.
    """
    group = min(group, n) or 1
    columns = np.arange(n).reshape(group, -1)  # [G, n / G]: a column is a group
    width = columns.shape[1] if largest is None else max(1, largest // group)
    return [columns[:, i : i + width].reshape(-1) for i in range(0, columns.shape[1], width)]


class _Batch:
    """Tensors whose first dimension is the sample."""

    def take(self, positions: NDArray[np.int64]) -> Self:
        """Return the samples at `positions`, as a batch of the same kind."""
        if len(positions) == len(self):
            return self  # micro_batches keeps the order when there is one part
        tensors: list[Tensor] = list(vars(self).values())
        index = torch.from_numpy(positions).to(tensors[0].device)
        return type(self)(*(tensor[index] for tensor in tensors))

    def __len__(self) -> int:
        first: Tensor = next(iter(vars(self).values()))
        return len(first)


@dataclass(frozen=True)
class DiscriminatorBatch(_Batch):
    """What one update of D uses, on the device.

    Attributes:
        reals: [N, C, H, W] in [-1, 1], cross-faded with their half resolution.
        labels: [N, label_size], of the reals; the fakes are made with the same ones.
        latents: [N, latent_size], standard normal.
        mixing: [N], uniform in [0, 1): where between real and fake the penalty looks.
    """

    reals: Tensor
    labels: Tensor
    latents: Tensor
    mixing: Tensor


@dataclass(frozen=True)
class GeneratorBatch(_Batch):
    """What one update of G uses, on the device.

    Attributes:
        latents: [N, latent_size], standard normal.
        labels: [N, label_size], drawn from the labels of the set.
    """

    latents: Tensor
    labels: Tensor


class Batches:
    """Makes the batches of a run.

    Args:
        packed: The pictures.
        indices: Positions in `packed` that are trained on (a split).
        seed: Seed of the run.
        latent_size: Length of a latent.
        mirror: Flip each real image left to right with probability 1/2.
        device: Where the tensors go.
        dtype: Their type.
        channels_last: Memory format of the images.
    """

    def __init__(
        self,
        packed: PackedSet,
        indices: NDArray[np.int64],
        *,
        seed: int,
        latent_size: int,
        mirror: bool,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.packed = packed
        self.indices = indices
        self.seed = seed
        self.latent_size = latent_size
        self.mirror = mirror
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def discriminator(self, clock: int, n: int, level: int, alpha: Tensor | None) -> DiscriminatorBatch:
        """Return the batch of the D update at `clock` images seen.

        Args:
            clock: Images seen before this update.
            n: Images in the batch.
            level: Level of the images.
            alpha: 0-d tensor while a level fades in, None otherwise.
        """
        chosen = self.indices[sample_order(self.seed, clock, n, len(self.indices))]
        pixels = self.packed.read(level, chosen)
        if self.mirror:
            flipped = random_generator(self.seed, "flip", clock).random(n) < 0.5
            pixels[flipped] = pixels[flipped, ..., ::-1]
        reals = to_float(pixels, self.dtype, self.device).contiguous(memory_format=self.format)
        if alpha is not None:
            reals = fade_reals(reals, alpha)
        mixing = random_generator(self.seed, "mixing", clock).random(n, dtype=np.float32)
        return DiscriminatorBatch(
            reals=reals,
            labels=self._move(self.packed.one_hot(chosen)),
            latents=self._latents("latents D", clock, n),
            mixing=self._move(mixing),
        )

    def generator(self, clock: int, n: int) -> GeneratorBatch:
        """Return the batch of the G update that belongs to the iteration begun at `clock`."""
        drawn = random_generator(self.seed, "labels G", clock).integers(len(self.indices), size=n)
        return GeneratorBatch(
            latents=self._latents("latents G", clock, n),
            labels=self._move(self.packed.one_hot(self.indices[drawn])),
        )

    def _latents(self, purpose: str, clock: int, n: int) -> Tensor:
        rng = random_generator(self.seed, purpose, clock)
        return self._move(rng.standard_normal((n, self.latent_size), dtype=np.float32))

    def _move(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self.device, self.dtype)

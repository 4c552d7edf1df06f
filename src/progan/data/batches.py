"""Which pictures, flips, latents, labels, mixing factors and augmentations a step uses.

Everything random about training is decided here, as a pure function of (seed, purpose, clock, attempt). So a
resumed run needs no generator state, and the number of devices or micro-batches changes nothing. Each process
draws the numbers of the whole batch, and takes to its device those of its share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Config
from progan.data.device_cache import ResidentLevel, resident_level
from progan.data.packed import PackedSet
from progan.data.pixels import fade_reals, mirror, ready, send, to_float
from progan.system.background import Ahead
from progan.system.randomness import random_generator


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int, attempt: int) -> NDArray[np.int64]:
    order = random_generator(seed, "order", epoch, attempt).permutation(count)
    order.setflags(write=False)
    return order


def sample_order(
    seed: int, start: int, n: int, count: int, *, shuffle: bool = True, attempt: int = 0
) -> NDArray[np.int64]:
    """Return the positions in a set of `count` pictures that are shown at clock start .. start + n - 1.

    Every picture is shown once in each run of `count`, in an order that differs from run to run, or, without
    `shuffle`, in the order of the set. Each attempt has orders of its own.

    Returns:
        int64 [n], values in 0..count-1.
    """
    clock = np.arange(start, start + n)
    if not shuffle:
        return clock % count
    epochs = clock // count
    positions = np.empty(n, dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        positions[inside] = _permutation(seed, epoch, count, attempt)[clock[inside] % count]
    return positions


def _columns(n: int, group: int, contiguous: bool) -> NDArray[np.int64]:
    """Return the positions in a batch as [groups, samples of a group].

    Without `contiguous`, sample i belongs to group i mod (n / group), else to group i // group.
    """
    group = min(group, n) or 1
    positions = np.arange(n)
    return positions.reshape(-1, group) if contiguous else positions.reshape(group, -1).T


def _in_order(groups: NDArray[np.int64], contiguous: bool) -> NDArray[np.int64]:
    """Lay whole groups out so that the rule that found them, applied to them alone, finds them again."""
    return (groups if contiguous else groups.T).reshape(-1)


def deal(n: int, group: int, rank: int, ranks: int, *, contiguous: bool = False) -> NDArray[np.int64]:
    """Return the positions in a batch that one of several processes computes.

    As with `micro_batches`, no minibatch-stddev group is split, and the same rule applied to the share alone
    finds the same groups again. The shares differ by one group at most, the first ones being the larger.

    Args:
        n: Samples in the batch.
        group: Samples in a stddev group (0 if there are none); min(group, n) divides n.
        rank: Which process, 0..ranks-1.
        ranks: Processes.
        contiguous: Whether the samples of a group are neighbours.

    Returns:
        int64 [m]; all positions in order for one process, none if there are fewer groups than processes and
        the others have them all.
    """
    if ranks == 1:
        return np.arange(n)
    groups = _columns(n, group, contiguous)
    each, more = divmod(len(groups), ranks)
    first = rank * each + min(rank, more)
    return _in_order(groups[first : first + each + (rank < more)], contiguous)


def micro_batches(
    n: int, group: int, largest: int | None, *, contiguous: bool = False
) -> list[NDArray[np.int64]]:
    """Deal a batch into parts without splitting a minibatch-stddev group.

    In the whole batch sample i belongs to group i mod (n / group), or i // group of neighbours. Each part
    takes whole groups, in an order in which the same rule, applied to the part alone, finds the same groups
    again.

    Args:
        n: Samples in the batch, or in the share that was dealt of it; 0 for no parts.
        group: Samples in a stddev group (0 if there are none); min(group, n) divides n.
        largest: Most samples in a part; None for one part. A group is never split, so a part holds at
            least one group.
        contiguous: Whether the samples of a group are neighbours.

    Returns:
        Positions in the batch, one int64 array a part.
    """
    groups = _columns(n, group, contiguous)
    many = max(1, len(groups) if largest is None else largest // (min(group, n) or 1))
    return [_in_order(groups[i : i + many], contiguous) for i in range(0, len(groups), many)]


class _Batch:
    """Tensors whose first dimension is the sample; None for what is not used."""

    def take(self, positions: NDArray[np.int64]) -> Self:
        """Return the samples at `positions`, as a batch of the same kind."""
        if len(positions) == len(self):
            return self  # micro_batches keeps the order when there is one part
        tensors: list[Tensor | None] = list(vars(self).values())
        latents: Tensor = vars(self)["latents"]
        index = send(positions, latents.device)
        return type(self)(*(None if tensor is None else tensor[index] for tensor in tensors))

    def __len__(self) -> int:
        latents: Tensor = vars(self)["latents"]
        return len(latents)


@dataclass(frozen=True)
class DiscriminatorBatch(_Batch):
    """What one update of D uses, on the device.

    Attributes:
        reals: [N, C, H, W] in [-1, 1], cross-faded with their half resolution.
        labels: [N, label_size], of the reals; the fakes are made with the same ones.
        latents: [N, latent_size], standard normal.
        mixing: [N], uniform in [0, 1): where between real and fake the penalty looks.
        noise: [N, 2], added to the targets of reals and fakes (least squares), else None.
        augment_real, augment_fake: [N, draws], uniform in [0, 1), what their augmentations are; or None.
    """

    reals: Tensor
    labels: Tensor
    latents: Tensor
    mixing: Tensor
    noise: Tensor | None = None
    augment_real: Tensor | None = None
    augment_fake: Tensor | None = None


@dataclass(frozen=True)
class GeneratorBatch(_Batch):
    """What one update of G uses, on the device.

    Attributes:
        latents: [N, latent_size], standard normal.
        labels: [N, label_size], drawn from the labels of the set; those of `reals` if there are any.
        reals: [N, C, H, W], the partners of a relativistic loss, else None.
        augment_real, augment_fake: [N, draws], uniform in [0, 1), what their augmentations are; or None.
    """

    latents: Tensor
    labels: Tensor
    reals: Tensor | None = None
    augment_real: Tensor | None = None
    augment_fake: Tensor | None = None


@dataclass(frozen=True)
class _Shown:
    """What decides which pictures a batch shows."""

    clock: int
    n: int
    level: int
    attempt: int


Batch = DiscriminatorBatch | GeneratorBatch
"""What one update uses."""


class Batches:
    """Makes the batches of a run, or what a process computes of them.

    Args:
        packed: The pictures.
        config: The branches data, loss and run say which pictures and draws there are.
        latent_size: Length of a latent.
        draws: Numbers that the augmentation of one image needs; 0 for no augmentation.
        device: Where the tensors go.
        dtype: Their type.
        channels_last: Memory format of the images.
        rank, ranks: Which process this is, and how many share the batches (`deal`).

    Attributes:
        indices: Positions in `packed` that are trained on.
        attempt: How often training has gone back; another one gives other batches at the same clock.
    """

    def __init__(
        self,
        packed: PackedSet,
        config: Config,
        *,
        latent_size: int,
        draws: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.packed = packed
        self.indices = packed.indices(config.data.part)
        self.attempt = 0
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self._data, self._loss, self._seed = config.data, config.loss, config.run.seed
        self._latent_size = latent_size
        self._draws = draws
        self._stddev, self._rank, self._ranks = config.model.discriminator, rank, ranks
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._entered: int | None = None
        self._resident: ResidentLevel | None = None
        self._pixels: Ahead[_Shown, Tensor] = Ahead(self._read)

    def enter(self, level: int) -> None:
        """Get ready for a level: read it into memory, or send it to the device, as is configured."""
        if level == self._entered:
            return
        self.rest()
        if self._data.in_memory:
            self.packed.hold(level)
        self._resident = None  # its memory may be needed for the next
        self._resident = resident_level(self.packed, level, self.device, self._data.on_device)
        self._entered = level

    def rest(self) -> None:
        """Read nothing ahead until the next batch is asked for."""
        self._pixels.forget()

    def discriminator(self, clock: int, n: int, level: int, alpha: Tensor | None) -> DiscriminatorBatch:
        """Return this process's share of the batch of the D update at `clock` images seen.

        Args:
            clock: Images seen before this update.
            n: Images in the whole batch.
            level: Level of the images.
            alpha: 0-d tensor while a level fades in, None otherwise.
        """
        chosen, mine = self.chosen(clock, n), self._mine(n)
        noise = None
        if self._loss.target_noise > 0:
            rows = n if self._loss.target_noise_per == "sample" else 1
            drawn = self._rng("target noise", clock).standard_normal((rows, 2), dtype=np.float32)
            noise = self._move(np.repeat(drawn * self._loss.target_noise, n // rows, axis=0)[mine])
        return DiscriminatorBatch(
            reals=self._reals(_Shown(clock, n, level, self.attempt), alpha, go_on=True),
            labels=self._move(self.packed.label_vectors(chosen[mine])),
            latents=self._latents("latents D", clock, n, mine),
            mixing=self._move(self._rng("mixing", clock).random(n, dtype=np.float32)[mine]),
            noise=noise,
            augment_real=self._uniform("augment real D", clock, n, mine),
            augment_fake=self._uniform("augment fake D", clock, n, mine),
        )

    def generator(self, clock: int, n: int, level: int, alpha: Tensor | None) -> GeneratorBatch:
        """Return this process's share of the batch of the G update of the iteration begun at `clock`.

        The partners of a relativistic loss are the reals of that iteration's first D update.
        """
        reals, mine = None, self._mine(n)
        if self._loss.facts.paired:
            chosen = self.chosen(clock, n)
            reals = self._reals(_Shown(clock, n, level, self.attempt), alpha, go_on=False)
        else:
            chosen = self.indices[self._rng("labels G", clock).integers(len(self.indices), size=n)]
        return GeneratorBatch(
            latents=self._latents("latents G", clock, n, mine),
            labels=self._move(self.packed.label_vectors(chosen[mine])),
            reals=reals,
            augment_real=None if reals is None else self._uniform("augment real G", clock, n, mine),
            augment_fake=self._uniform("augment fake G", clock, n, mine),
        )

    def _rng(self, purpose: str, clock: int) -> np.random.Generator:
        return random_generator(self._seed, purpose, clock, self.attempt)

    def chosen(self, clock: int, n: int) -> NDArray[np.int64]:
        """Return the positions in the packed set of the `n` pictures that are shown from `clock` on: [n]."""
        shuffle, count = self._data.order == "shuffle", len(self.indices)
        order = sample_order(self._seed, clock, n, count, shuffle=shuffle, attempt=self.attempt)
        return self.indices[order]

    def _mine(self, n: int) -> NDArray[np.int64]:
        """Return the positions of this process's share of a batch."""
        contiguous = self._stddev.stddev_order == "contiguous"
        return deal(n, self._stddev.stddev_group, self._rank, self._ranks, contiguous=contiguous)

    def _shown(self, shown: _Shown) -> NDArray[np.int64]:
        """Return the positions in the packed set of the pictures of a share: [M]."""
        return self.chosen(shown.clock, shown.n)[self._mine(shown.n)]

    def _reals(self, shown: _Shown, alpha: Tensor | None, *, go_on: bool) -> Tensor:
        """Return the real images of a share, mirrored and cross-faded: [M, C, H, W] in [-1, 1].

        Alpha is None unless a level fades in; `go_on` says that those that follow are asked for next.
        """
        flipped = self._flipped(shown)
        mask = None if flipped is None else send(flipped, self.device)
        if self._resident is not None and self._resident.level == shown.level:
            pixels = self._resident.take(send(self._shown(shown), self.device), mask)
        else:
            following = replace(shown, clock=shown.clock + shown.n)
            read = self._pixels.get(shown, following) if go_on else self._read(shown)
            pixels = read.to(self.device, non_blocking=True)
            pixels = (
                pixels if mask is None else mirror(pixels, mask)
            )  # a CPU takes long to flip large pictures
        reals = to_float(pixels, self.dtype).contiguous(memory_format=self._format)
        return reals if alpha is None else fade_reals(reals, alpha)

    def _read(self, shown: _Shown) -> Tensor:
        """Return pictures of a share as they are stored: [M, C, H, W], ready to be sent."""
        return ready(self.packed.read(shown.level, self._shown(shown)), self.device)

    def _flipped(self, shown: _Shown) -> NDArray[np.bool_] | None:
        """Return which pictures of a share are mirrored, [M], or None if none ever is."""
        if not self._data.mirror:
            return None
        return self._rng("flip", shown.clock).random(shown.n)[self._mine(shown.n)] < 0.5

    def _uniform(self, purpose: str, clock: int, n: int, mine: NDArray[np.int64]) -> Tensor | None:
        """Return the draws of the augmentation of a share, [M, draws] in [0, 1), or None if there is none."""
        if not self._draws:
            return None
        return self._move(self._rng(purpose, clock).random((n, self._draws), dtype=np.float32)[mine])

    def _latents(self, purpose: str, clock: int, n: int, mine: NDArray[np.int64]) -> Tensor:
        drawn = self._rng(purpose, clock).standard_normal((n, self._latent_size), dtype=np.float32)
        return self._move(drawn[mine])

    def _move(self, array: NDArray[np.float32]) -> Tensor:
        return send(array, self.device).to(self.dtype)

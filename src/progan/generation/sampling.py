"""From a generator, a seed and an index to pictures: the same ones in any batch size and from any start."""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from progan.config import format_resolution, parse_resolution
from progan.data.pixels import quantize, send
from progan.errors import ConfigError, DataError
from progan.generation.label_arguments import Label, label_vector
from progan.metrics.exact_compute import exact_float32
from progan.models.generator import Generator

Rows = tuple[Tensor, Tensor | None]
"""Latents [n, latent_size] and labels [n, label_size], or None for a generator without labels."""

Make = Callable[..., Tensor]
"""What makes images as a `Generator` does when it is called: (z, labels, level=)."""

Stored = NDArray[Any]
"""Pictures [N, C, H, W]: uint8, 0 to 255, or uint16, 0 to 65535."""

_LATENTS, _LABELS = 0, 1
"""Keys that keep the two kinds of random numbers of one seed apart."""

_BATCH_BYTES = 64 * 2**20
_BATCH_BYTES_CPU = 4 * 2**20
"""About what the caches of a processor hold; larger batches were measured to take up to twice as long."""

_BATCH_MOST = 256


def latents(seed: int, start: int, count: int, size: int) -> Tensor:
    """Return the latents of samples `start` to `start + count - 1`.

    Row i is a pure function of (seed, start + i): neither the batch size nor the first sample changes it.

    Args:
        seed: At least 0.
        start: Index of the first sample, at least 0.
        count: Number of rows.
        size: Length of a latent.

    Returns:
        [count, size] float32, standard normal.

    Raises:
        ConfigError: if seed or start is negative.
    """
    rows = np.empty((count, size), dtype=np.float32)
    for row, key in zip(rows, _keys(seed, _LATENTS, start, count), strict=True):
        np.random.Generator(np.random.Philox(key)).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


def label_vectors(G: Generator, label: Label | None, seed: int, start: int, count: int) -> Tensor | None:
    """Return the label vectors of samples `start` to `start + count - 1`.

    Args:
        G: The generator.
        label: One for all samples. None draws one for each sample, uniformly and as a pure function of
            (seed, index): a class; or, of another form, one of `G.label_examples`.
        seed: At least 0.
        start: Index of the first sample, at least 0.
        count: Number of rows.

    Returns:
        [count, label_size] float32; None if the generator has no labels.

    Raises:
        ConfigError: if the label is none of the generator's, or seed or start is negative.
    """
    if label is not None:
        return label_vector(G, label).expand(count, -1)
    if G.label_size == 0:
        return None
    # Classes may be too many for a matrix of all of them.
    examples = None if G.label_form == "class" else G.label_examples.float().cpu()  # [64, label_size]
    most = G.label_size if examples is None else len(examples)
    draws = [int(key.generate_state(1, np.uint64)[0]) % most for key in _keys(seed, _LABELS, start, count)]
    chosen = torch.tensor(draws, dtype=torch.int64)
    return F.one_hot(chosen, G.label_size).float() if examples is None else examples[chosen]


def level_of(G: Generator, level: int | None = None, resolution: str | int | None = None) -> int:
    """Translate a level or a resolution into a level that the generator has been trained to.

    Args:
        G: The generator.
        level: A level, or None.
        resolution: `16` or `4x6` (HEIGHTxWIDTH), or None.

    Returns:
        The level; with neither given, the generator's own.

    Raises:
        ConfigError: if there is no such level, it has not been trained yet, or the two disagree.
    """
    sizes = [G.resolution(i) for i in range(G.max_level + 1)]
    choices = ", ".join(f"{format_resolution(sizes[i])} (level {i})" for i in range(G.level + 1))
    if resolution is not None:
        size = parse_resolution(resolution)
        if size not in sizes:
            raise ConfigError(f"no level makes images of {format_resolution(size)}; it can be {choices}")
        if level not in (None, sizes.index(size)):
            raise ConfigError(f"resolution {resolution} is level {sizes.index(size)}, not level {level}")
        level = sizes.index(size)
    if level is None:
        return G.level
    if not 0 <= level <= G.max_level:
        raise ConfigError(f"there is no level {level}; it can be {choices}")
    if level > G.level:
        raise ConfigError(
            f"level {level} ({format_resolution(sizes[level])}) has not been trained yet: this generator "
            f"has grown to level {G.level}; it can be {choices}"
        )
    return level


def batch_size_for(G: Generator, level: int) -> int:
    """Return how many images to make at once.

    A power of 2 from 1 to 256, so that the largest layer's output is at most 64 MB, or 4 MB if G is on the
    CPU (but for a single image that needs more). Of such sizes matrix products were measured to give an image
    the same bits wherever in the batch it is; of 5, 6 or 7 they do not.
    """
    largest = 0
    for i in range(level + 1):
        height, width = G.resolution(i)
        weight = cast(Tensor, G.to_rgb[i].weight)  # [channels, filters, 1, 1]
        largest = max(largest, weight.shape[1] * height * width * 4)
    budget = _BATCH_BYTES_CPU if next(G.parameters()).device.type == "cpu" else _BATCH_BYTES
    return 1 << (min(max(budget // largest, 1), _BATCH_MOST).bit_length() - 1)


def render(
    G: Generator,
    z: Tensor,
    labels: Tensor | None = None,
    *,
    level: int | None = None,
    batch: int = 0,
    make: Make | None = None,
    depth: int = 8,
) -> Stored:
    """Make the pictures of given latents, a batch at a time, on the device that the generator is on.

    Each batch is a whole one, so that a picture does not depend on how many are asked for.

    Args:
        G: The generator.
        z: [N, latent_size], standard normal.
        labels: [N, label_size], or None for a generator without labels.
        level: As `level_of` returns it; at the generator's own level its own alpha counts too.
        batch: Images made at once; 0 chooses by their size.
        make: What makes them with G; None for G itself.
        depth: Bits of a value, 8 or 16.

    Returns:
        [N, channels, *resolution(level)] uint8, or uint16.

    Raises:
        DataError: if the generator makes values that are not finite; as pixels they would be any colour.
    """
    chosen = G.level if level is None else level
    batch = batch or batch_size_for(G, chosen)
    parts = []
    for i in range(0, len(z), batch):
        own = None if labels is None else labels[i : i + batch]
        parts.append(_begin(G, (z[i : i + batch], own), chosen, make, depth, range(batch))())
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _begin(
    G: Generator, rows: Rows, level: int, make: Make | None, depth: int, batch: range
) -> Callable[[], Stored]:
    """Begin to make the pictures of some rows as `render` does; on a GPU it is at work when this returns.

    A device computes another number of rows in another order, and rounds otherwise. So as many are always
    computed as `batch.stop` says, with the rows asked for from `batch.start` on; the first and the last of
    them fill what is left.

    What is returned waits for the pictures, and for nothing that is begun later.
    """
    weight, count = next(G.parameters()), len(rows[0])
    filled = (torch.arange(batch.stop) - batch.start).clamp(0, count - 1)
    # Not around a yield: both would then leak into the code that takes the pictures. PyTorch's convolutions
    # compute in TF32 on CUDA if not told otherwise, and would make other pictures there than elsewhere.
    with exact_float32(weight.device), torch.inference_mode():
        given = [part.cpu()[filled].numpy() for part in rows if part is not None]
        sent = [send(part, weight.device).to(weight.dtype) for part in given]
        made = (make or G)(*sent, level=None if level == G.level else level)
        images = made[batch.start : batch.start + count]
        # From CUDA this goes to pinned memory, and nobody waits for it here.
        finite = torch.isfinite(images).all().to("cpu", non_blocking=weight.is_cuda)
        pixels = quantize(images, depth).to("cpu", non_blocking=weight.is_cuda)
    done = None
    if weight.is_cuda:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(weight.device))

    def pictures() -> Stored:
        if done is not None:
            done.synchronize()
        if not bool(finite):
            raise DataError(
                "the generator makes images with values that are not finite (NaN or infinite): its "
                "training has diverged, or its weights are damaged; use an earlier one"
            )
        stored: Stored = pixels.numpy()
        return stored

    return pictures


def generate(
    G: Generator,
    n: int,
    *,
    seed: int = 0,
    start: int = 0,
    label: Label | None = None,
    level: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    depth: int = 8,
) -> Iterator[Stored]:
    """Make `n` pictures, a batch at a time; no more than one batch is held, on a GPU two.

    Sample i is a function of (seed, i) alone, whatever `n` and `start`: it is computed in a batch of the same
    size, at the same place in it. Another `batch_size` may round otherwise, as may another device.

    Args:
        G: The generator.
        n: Number of pictures, at least 0.
        seed: At least 0.
        start: Index of the first sample: `generate(G, 10, start=90)` are the last of
            `generate(G, 100)`.
        label: One for all samples; None draws one for each.
        level: Level to make images at, up to the generator's own; None for its own.
        batch_size: Images in a batch (fewer in the first and the last); None chooses by their size.
        device: Moves the generator there first; None leaves it where it is.
        depth: Bits of a value, 8 or 16.

    Returns:
        An iterator of uint8 (or uint16) batches [b, channels, height, width].

    Raises:
        ConfigError: if a number is not whole or out of range, or there is no such label or level. All
            of them are raised by the call, before the first batch is asked for.
    """
    n, seed, start = whole("n", n), whole("seed", seed), whole("start", start)
    batch_size = None if batch_size is None else whole("batch_size", batch_size, least=1)
    if label is not None:
        label_vector(G, label)
    level = level_of(G, level)
    size = batch_size or batch_size_for(G, level)
    if device is not None:
        G.to(device)

    def rows(first: int, count: int) -> Rows:
        return latents(seed, first, count, G.latent_size), label_vectors(G, label, seed, first, count)

    return batches_of(G, rows, range(start, start + n), size, level, depth=depth)


def digest(G: Generator) -> str:
    """Return the SHA-256, in hexadecimal, of a generator's description and weights."""
    state = hashlib.sha256(json.dumps(G.config(), sort_keys=True).encode())
    for name, value in sorted(G.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()


def whole(name: str, number: SupportsIndex, least: int = 0) -> int:
    """Return a whole number (a NumPy one, too) of `least` or more as an int.

    Raises:
        ConfigError: with the name, if it is anything else.
    """
    try:
        value = operator.index(number)
    except TypeError:
        raise ConfigError(f"{name} {number!r}: expected a whole number") from None
    if value < least:
        raise ConfigError(f"{name} {value}: expected at least {least}")
    return value


def batches_of(
    G: Generator,
    rows: Callable[[int, int], Rows],
    indices: range,
    size: int,
    level: int,
    make: Make | None = None,
    depth: int = 8,
) -> Iterator[Stored]:
    """Yield the pictures of samples, at most `size` at a time, with a new batch at each multiple of it.

    So a sample has the same place in its batch wherever `indices` begin. A GPU makes the next ones while
    these are used; on a CPU that would only delay these.

    Args:
        G: The generator.
        rows: From (first index, number) to their latents and labels.
        indices: Which samples.
        size: Pictures in a batch, at least 1.
        level: As `level_of` returns it.
        make: What makes them with G; None for G itself.
        depth: Bits of a value, 8 or 16.
    """
    ahead = 1 if next(G.parameters()).is_cuda else 0
    begun: deque[Callable[[], Stored]] = deque()
    for part in in_batches(indices, size):
        batch = range(part.start % size, size)
        begun.append(_begin(G, rows(part.start, len(part)), level, make, depth, batch))
        if len(begun) > ahead:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def in_batches(indices: range, size: int) -> list[range]:
    """Return indices in parts of at most `size`, with a new one at each of its multiples."""
    if not indices:
        return []
    begins = [indices.start, *range((indices.start // size + 1) * size, indices.stop, size)]
    return [range(*ends) for ends in itertools.pairwise([*begins, indices.stop])]


def _keys(seed: int, purpose: int, start: int, count: int) -> Iterator[np.random.SeedSequence]:
    """Yield one seed sequence a sample, all independent of each other (O'Neill's hash, as NumPy has it)."""
    seed, start = whole("seed", seed), whole("start", start)
    for i in range(start, start + count):
        yield np.random.SeedSequence(seed, spawn_key=(purpose, i))

"""Which samples: the first of a seed, those of several seeds, or latents out of a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.errors import ConfigError, DataError
from progan.generation.image_files import save_npz
from progan.generation.label_arguments import Label, label_vector, written_label
from progan.generation.sampling import Rows, label_vectors, latents, whole
from progan.models.generator import Generator
from progan.system.files import atomic_path
from progan.system.npy_files import load_array, load_arrays

_MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Samples:
    """Samples of a generator, each a pure function of its index.

    Attributes:
        count: How many.
        rows: From (first, n) to their latents and labels.
        stem: From an index to a file name without ending.
        facts: From an index to what makes the sample again, for the picture's metadata.
        origin: What decides all of them but their number, for a folder's `samples.json`.
        named: Whether the file name of each says which it is, so that others may lie beside it.
    """

    count: int
    rows: Callable[[int, int], Rows]
    stem: Callable[[int], str]
    facts: Callable[[int], dict[str, Any]]
    origin: dict[str, Any]
    named: bool = False


def of_seed(G: Generator, n: int, seed: int = 0, labels: Sequence[Label] = (), repeat: int = 1) -> Samples:
    """Return the first `n` samples of a seed.

    Args:
        G: The generator.
        n: At least 0.
        seed: At least 0.
        labels: As `label_vector` takes them; none: one is drawn for each sample. Of several each holds for
            `repeat` samples, in turn.
        repeat: How many samples in a row have the same of several labels.

    Raises:
        ConfigError: if a number is not whole or out of range, or a label is none of the generator's.
    """
    n, seed = whole("n", n), whole("seed", seed)

    def rows(first: int, count: int) -> Rows:
        drawn = _label_rows(
            G, labels, repeat, first, count, lambda: label_vectors(G, None, seed, first, count)
        )
        return latents(seed, first, count, G.latent_size), drawn

    def facts(i: int) -> dict[str, Any]:
        return {"seed": seed, "sample": i}

    origin = {"label": _written(G, labels, repeat), "seed": seed}
    return Samples(n, rows, lambda i: f"{i:06d}", facts, origin)


def of_seeds(G: Generator, seeds: Sequence[int], labels: Sequence[Label] = (), repeat: int = 1) -> Samples:
    """Return the first sample of each of several seeds, which is also the first of `of_seed(G, n, seed)`.

    Args:
        G: The generator.
        seeds: Each at least 0.
        labels, repeat: As `of_seed` takes them.

    Raises:
        ConfigError: as `of_seed`.
    """
    numbers = [whole("seed", seed) for seed in seeds]

    def drawn(seed: int) -> Tensor | None:
        return label_vectors(G, None, seed, 0, 1)

    def rows(first: int, count: int) -> Rows:
        chosen = numbers[first : first + count]
        z = [latents(seed, 0, 1, G.latent_size) for seed in chosen]
        own = _label_rows(G, labels, repeat, first, count, lambda: _joined([drawn(seed) for seed in chosen]))
        return torch.cat(z) if z else torch.zeros(0, G.latent_size), own

    def facts(i: int) -> dict[str, Any]:
        return {"seed": numbers[i], "sample": 0}

    # A seed that is asked for twice has two files; labels in turn depend on the place in the list.
    named = len(set(numbers)) == len(numbers) and len(labels) <= 1
    origin = {
        "label": _written(G, labels, repeat),
        "seeds": "by file name" if named else _digest(np.array(numbers, np.uint64)),
    }

    def stem(i: int) -> str:
        return f"seed{numbers[i]:04d}" if named else f"{i:06d}-seed{numbers[i]:04d}"

    return Samples(len(numbers), rows, stem, facts, origin, named)


def of_latents(
    G: Generator, z: Tensor, own: Tensor | None = None, labels: Sequence[Label] = (), repeat: int = 1
) -> Samples:
    """Return the samples of given latents.

    Args:
        G: The generator.
        z: [N, latent_size].
        own: [N, label_size], the label of each; None if there are none, or `labels` decides.
        labels, repeat: As `of_seed` takes them; with neither these nor `own`, labels are those that
            `of_seed(G, N)` draws.

    Raises:
        ConfigError: as `of_seed`.
    """

    def rows(first: int, count: int) -> Rows:
        part = slice(first, first + count)
        kept = None if own is None else own[part]
        drawn = _label_rows(
            G,
            labels,
            repeat,
            first,
            count,
            lambda: label_vectors(G, None, 0, first, count) if kept is None else kept,
        )
        return z[part], drawn

    def facts(i: int) -> dict[str, Any]:
        return {"latents": _digest(z[i].numpy())}

    both = z if own is None else torch.cat([z, own], dim=1)
    origin = {"label": _written(G, labels, repeat), "latents": _digest(both.numpy())}
    return Samples(len(z), rows, lambda i: f"latent{i:04d}", facts, origin)


def choose(
    G: Generator,
    *,
    n: int | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    files: Sequence[Path] = (),
    labels: Sequence[Label] = (),
    repeat: int = 1,
) -> Samples:
    """Return the samples that a user asks for in one of three ways.

    Args:
        G: The generator.
        n: How many of the samples of `seed`; None for 64. With seeds or a file it must be their number.
        seed, labels, repeat: As `of_seed` takes them.
        seeds: The first sample of each of these instead.
        files: Those of the latents in files instead, as `read_latents` reads them.

    Raises:
        ConfigError: if two ways are asked for, or something cannot be used.
        DataError: if the file cannot be used.
    """
    if seeds is not None and files:
        raise ConfigError("seeds and latents both say which samples are made; give one of them")
    if files:
        parts = [read_latents(G, file) for file in files]
        own = [row for _, row in parts if row is not None]
        if len(own) not in (0, len(parts)):
            raise DataError(f"of {', '.join(map(str, files))} some hold labels and some do not")
        z = torch.cat([z for z, _ in parts])
        samples = of_latents(G, z, torch.cat(own) if own else None, labels, repeat)
    elif seeds is not None:
        samples = of_seeds(G, seeds, labels, repeat)
    else:
        return of_seed(G, 64 if n is None else n, seed, labels, repeat)
    if n not in (None, samples.count):
        raise ConfigError(f"n {n}: there are {samples.count} samples, as the seeds or latents say")
    return samples


def save_latents(samples: Samples, path: Path) -> None:
    """Write the latents of samples to a file that `read_latents` reads.

    Args:
        samples: Which.
        path: `.npy`: z [N, latent_size], float32. `.npz`: the same as `z`, and their labels as `labels`.

    Raises:
        ConfigError: if the ending is another.
        StorageError: if it cannot be written.
    """
    z, labels = samples.rows(0, samples.count)
    if path.suffix.lower() == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, z.numpy())
    elif path.suffix.lower() == ".npz":
        save_npz(path, {"z": z.numpy()} if labels is None else {"z": z.numpy(), "labels": labels.numpy()})
    else:
        raise ConfigError(f"{path}: latents are written to a .npy file, or with their labels to a .npz")


def parse_grid(text: str) -> tuple[int, int]:
    """Return the rows and columns of `3x6`; `3 6` and `3,6` are the same.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"\s*(\d{1,4})\s*[x, ]\s*(\d{1,4})\s*", text, re.ASCII | re.IGNORECASE)
    if match is None or not (int(match[1]) and int(match[2])):
        raise ConfigError(f"grid {text!r}: expected rows and columns, as 3x6")
    return int(match[1]), int(match[2])


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `0,1,4-6`: [0, 1, 4, 5, 6].

    Raises:
        ConfigError: if it is no such list, or of more than a million.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:\s*-\s*(\d{1,19}))?\s*", part, re.ASCII)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"seeds {text!r}: expected numbers and ranges with commas between, as 0,1,4-6")
        first, last = int(match[1]), int(match[2] or match[1])
        if len(seeds) + last - first >= _MOST_SEEDS:
            raise ConfigError(f"seeds {text!r}: more than {_MOST_SEEDS:,}; ask for --n with one --seed")
        seeds.extend(range(first, last + 1))
    return seeds


def read_latents(G: Generator, path: Path) -> tuple[Tensor, Tensor | None]:
    """Read latents out of a file, as `save_latents` and `progan project` write them.

    Args:
        G: The generator that they are for.
        path: `.npy`: [N, latent_size], or [latent_size] for one. `.npz`: the same as `z`, and optionally
            `labels` [N, label_size].

    Returns:
        z [N, latent_size] and labels or None, float32.

    Raises:
        DataError: if the file cannot be read or is of another generator.
    """
    try:
        is_archive = path.suffix.lower() == ".npz"
        arrays = load_arrays(path) if is_archive else {"z": load_array(path)}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no latents can be read from it ({error})") from None
    if "z" not in arrays:
        raise DataError(f"{path} holds no array named z, only {', '.join(sorted(arrays)) or 'nothing'}")
    z = _matrix(arrays["z"], G.latent_size, f"{path}: z")
    labels = arrays.get("labels")
    if labels is None or G.label_size == 0:
        return z, None
    own = _matrix(labels, G.label_size, f"{path}: labels")
    if len(own) != len(z):
        raise DataError(f"{path}: {len(own)} labels for {len(z)} latents")
    return z, own


def _matrix(array: NDArray[Any], columns: int, name: str) -> Tensor:
    """Return an array of numbers as [N, columns] float32.

    Raises:
        DataError: if it is none.
    """
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or array.shape[-1] != columns:
        raise DataError(
            f"{name} is {array.dtype} of shape {list(array.shape)}; "
            f"this generator takes numbers of shape [N, {columns}]"
        )
    matrix = torch.from_numpy(np.atleast_2d(array).astype(np.float32))
    if not bool(torch.isfinite(matrix).all()):
        raise DataError(f"{name} holds values that are not finite")
    if len(matrix) == 0:
        raise DataError(f"{name} holds no row")
    return matrix


def _label_rows(
    G: Generator,
    labels: Sequence[Label],
    repeat: int,
    first: int,
    count: int,
    draw: Callable[[], Tensor | None],
) -> Tensor | None:
    """Return the labels of samples: those given, in turn, or as drawn."""
    if not labels:
        return draw()
    vectors = torch.stack([label_vector(G, label) for label in labels])
    return vectors[torch.arange(first, first + count) // repeat % len(vectors)]


def _joined(rows: Sequence[Tensor | None]) -> Tensor | None:
    """Return rows of labels as one matrix; None if the generator has no labels."""
    kept = [row for row in rows if row is not None]
    return torch.cat(kept) if kept else None


def _written(G: Generator, labels: Sequence[Label], repeat: int) -> Any:
    """Return labels as a folder's `samples.json` holds them; checks them."""
    if not labels:
        return None
    written = [written_label(G, label) for label in labels]
    return written[0] if len(written) == 1 else {"in turn": written, "each for": repeat}


def _digest(array: NDArray[Any]) -> str:
    """Return the first 16 digits of an array's SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]

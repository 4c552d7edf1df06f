"""A generator as a set of images, and its samples on disk while they are measured."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from progan.config import format_resolution
from progan.data.pixels import Images
from progan.data.showing import Colour, laid_on
from progan.distributed.work_sharing import Deal, Work, alone, in_parts
from progan.evaluation.image_set import ArrayImages, ImageSet, has_alpha, laid_shape, named
from progan.generation.label_arguments import Label, label_vector, written_label
from progan.generation.sampling import batch_size_for, digest, label_vectors, latents, level_of, render, whole
from progan.models.generator import Generator
from progan.models.loading import load
from progan.models.weights import Own
from progan.system.files import file_lock, storage_errors
from progan.system.progress import Progress, reported, unheard

KEPT_MOST = 32 * 2**30
"""Bytes of samples that are kept on disk while they are measured; more are made again for each metric."""


class GeneratedImages(ImageSet):
    """The samples of a generator, by the rules of `progan.generate`: sample i is a function of (seed, i).

    Args:
        G: The generator, on the device that is to make them.
        seed: At least 0.
        label: Of all samples; None draws one for each.
        level: Up to the generator's own; None for that.
        weights: What identifies the weights; None: `digest`.
        about: What is good to know besides, such as where the weights lie; ready for JSON.
        deal: Who makes the samples of `batches` and `kept`, and the paths of `measure_path`; none of them
            depends on it.
        ground: What images with transparency are laid on; None keeps it.

    Samples are made in float32 proper: TF32 would make other pictures on one device than on another.

    Raises:
        ConfigError: if seed, label or level cannot be used.
    """

    def __init__(
        self,
        G: Generator,
        *,
        seed: int = 0,
        label: Label | None = None,
        level: int | None = None,
        weights: str | None = None,
        about: dict[str, Any] | None = None,
        deal: Deal = alone,
        ground: Colour | None = None,
    ) -> None:
        self.G, self.ground = G, ground
        self.seed = whole("seed", seed)
        self.level = level_of(G, level)
        self.label = label
        self.deal = deal
        if label is not None:
            label_vector(G, label)
        identity = {
            "kind": "generator",
            "weights": weights or digest(G),
            "resolution": format_resolution(G.resolution(self.level)),
            "label": None if label is None else written_label(G, label),
            "seed": self.seed,
        }
        about = about or {}
        shape = (G.channels, *G.resolution(self.level))
        if ground is not None and has_alpha(shape):
            shape = laid_shape(shape, ground)
            identity["background"] = named(ground)
        self._weights = str(identity["weights"])
        super().__init__(str(about.get("path", "the generator")), shape, None, identity, about)

    def on(self, ground: Colour) -> GeneratedImages:
        """Return the samples as they look on a ground; they still know their generator."""
        if not has_alpha(self.shape):
            return self
        return GeneratedImages(
            self.G, seed=self.seed, label=self.label, level=self.level, weights=self._weights,
            about=self.about, deal=self.deal, ground=ground,
        )  # fmt: skip

    @property
    def work(self) -> Work:
        """The making of samples; wherever the same ones are meant it has the same name."""
        return Work(f"making images: {self.fingerprint}", self.read, self.shape, np.uint8)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: torch.device | None = None,
        seed: int = 0,
        label: Label | None = None,
        size: tuple[int, int] | None = None,
        own: Own = (),
    ) -> GeneratedImages:
        """Load the generator of a run folder or weight file.

        Args:
            path: The folder or file.
            device: Where to make samples; None for the CPU.
            seed: Of the samples, at least 0.
            label: Of all samples; None draws one for each.
            size: (height, width) of the level; None for the highest that was trained.
            own: Networks of one's own, one of which it may be.

        Raises:
            CheckpointError: if it cannot be loaded.
            ConfigError: as above.
        """
        G = load(path, device or torch.device("cpu"), own=own)
        level = level_of(G, None, None if size is None else format_resolution(size))
        # Known by what was read, not by the file, which a training may have replaced since.
        return cls(G, seed=seed, label=label, level=level, about={"path": str(path)})

    def read(self, indices: NDArray[np.int64]) -> Images:
        """Return the samples of these numbers: [n, C, H, W]."""
        G, size = self.G, self.G.latent_size
        z = torch.cat([latents(self.seed, int(i), 1, size) for i in indices])
        rows = [label_vectors(G, self.label, self.seed, int(i), 1) for i in indices]
        labels = torch.cat([row for row in rows if row is not None]) if G.label_size else None
        made: Images = np.ascontiguousarray(render(G, z, labels, level=self.level))
        laid = self.ground is not None and made.shape[1] in (2, 4)
        return laid_on(made, self.ground) if laid and self.ground is not None else made

    def batches(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """Yield the samples of these numbers, in this order, in batches."""
        # Dealt in the parts that `read` makes at once: the same bits, and something for everybody.
        size = batch_size_for(self.G, self.level)
        batches = [in_parts(batch, size) for batch in in_parts(indices, self.batch_size)]
        made = self.deal(self.work, list(chain.from_iterable(batches)))
        for batch in batches:
            yield np.concatenate(list(islice(made, len(batch))))

    @contextmanager
    def kept(self, n: int, folder: Path | None, progress: Progress = unheard) -> Iterator[ImageSet]:
        """Make the samples 0 to n - 1 once and give them from disk within the block.

        If the block ends in an exception (or the process is killed), what was made stays in `folder`, and the
        next call goes on with it; unless samples could not be made or written. Where another process keeps
        the same samples just now, a file of its own is used; where there is no room, the samples are made
        anew whenever they are read.

        Args:
            n: How many.
            folder: Where the file `.samples-<fingerprint>.u8` goes; None for a temporary one.
            progress: Told how many are made.
        """
        need = n * int(np.prod(self.shape))
        with contextlib.ExitStack() as stack:
            if folder is not None:
                with storage_errors(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                lock = folder / f".samples-{self.fingerprint[:16]}.lock"
                if not stack.enter_context(file_lock(lock, wait=False, remove=True)):
                    folder = None
            place = folder or Path(stack.enter_context(TemporaryDirectory(prefix="progan-")))
            file = place / f".samples-{self.fingerprint[:16]}.u8"
            there = file.stat().st_size if file.exists() else 0
            if need > KEPT_MOST or need - there > shutil.disk_usage(place).free // 2:
                yield self
                return
            try:
                self._fill(file, n, progress)
            except Exception:
                file.unlink(missing_ok=True)
                raise
            samples = np.memmap(file, np.uint8, "r", shape=(n, *self.shape))
            yield ArrayImages(samples, self.name, self.identity)
            file.unlink()

    def _fill(self, file: Path, n: int, progress: Progress) -> None:
        """Append to a file of samples until it holds n."""
        each, size = int(np.prod(self.shape)), batch_size_for(self.G, self.level)
        with storage_errors(file):
            had = file.stat().st_size if file.exists() else 0
            # Whole batches only, so that what is made is the same in its last bit as without a break.
            done = n if had >= n * each else had // each // size * size
            with file.open("ab") as stream:
                stream.truncate(done * each)
                made = self.deal(self.work, in_parts(np.arange(done, n), size))
                for batch in reported(made, progress, "generating", n, done=done):
                    stream.write(np.ascontiguousarray(batch).data)

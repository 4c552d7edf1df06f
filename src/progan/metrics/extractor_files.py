"""Feature extractors from files: the published Inception network of 2015, and networks of one's own.

A TorchScript or `torch.export` file is a program. PyTorch runs what is in it with few restrictions, and
evaluates expressions of an exported one, so open only files from people you trust. Python's pickle, which
would let a file do anything at all while it is read, is not used: TorchScript has a reader of its own, and
from a `torch.export` file nothing but tensors is unpickled.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import pickle
import re
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from progan.errors import CheckpointError, DataError
from progan.metrics.extractor import Extractor, Network
from progan.system.files import atomic_path, cache_folder
from progan.system.progress import Progress, unheard

CHUNK = 2**20
"""Bytes read at a time."""

TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that others have published: its name, in the cache too, and its checksum (hexadecimal)."""

    name: str
    url: str
    sha256: str


INCEPTION = PublishedFile(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
"""The network that FID was defined with, as TorchScript; StyleGAN2-ADA, StyleGAN3 and EDM use this file."""


class Inception(NamedTuple):
    """The two outputs of the Inception network that metrics use.

    Attributes:
        features: [n, 2048], before the last layer: for FID, KID, precision and recall.
        probabilities: [n, 1008] of the classes, without the last layer's bias: for the Inception score.
    """

    features: Extractor
    probabilities: Extractor


def inception(
    path: Path | None = None,
    *,
    download: bool = False,
    device: torch.device | None = None,
    batch: int = 64,
    progress: Progress = unheard,
) -> Inception:
    """Load the Inception network of 2015; it resizes (to 299, bilinear) and scales images itself.

    It is called as `metric_utils.py` of StyleGAN2-ADA does.

    Args:
        path: The file; None to look in the cache.
        download: Fetch it to the cache if it is not there.
        device: Where to compute; None for the CPU.
        batch: Images that are computed together.
        progress: Told how far the download is.

    Raises:
        CheckpointError: as `find_published`.
        StorageError: likewise.
    """
    module = _read_torchscript(find_published(INCEPTION, path, download=download, progress=progress))

    module.to(device or torch.device("cpu")).eval()
    name, sha256 = Path(INCEPTION.name).stem, INCEPTION.sha256
    outputs = partial(module, return_features=True), partial(module, no_output_bias=True)
    return Inception(*(Extractor(each, name, device=device, batch=batch, sha256=sha256) for each in outputs))


def find_published(
    published: PublishedFile,
    path: Path | None = None,
    *,
    download: bool = False,
    progress: Progress = unheard,
) -> Path:
    """Return where a published file is, its checksum verified.

    Args:
        published: Which file.
        path: The file, or a folder that has it; None to look in `cache_folder`.
        download: Fetch it to the cache if it is not there; ignored if `path` is given.
        progress: Told how far the download is.

    Raises:
        CheckpointError: if it is not there, cannot be fetched, or is another or a damaged file.
        StorageError: if the cache cannot be written.
    """
    given = path / published.name if path is not None and path.is_dir() else path
    place = cache_folder() / published.name if given is None else given
    if given is None and download and not place.is_file():
        _download(published, place, progress)
    elif not place.is_file():
        looked = (
            f"it was looked for in the cache, {place}, as no path was given"
            if given is None
            else f"it was looked for at {place}, the path that was given, and not in the cache"
        )
        raise CheckpointError(
            f"{published.name} is not there: {looked}. Give its path (--extractor FILE, in training "
            f"--monitor.extractor), have progan evaluate fetch it (--download), or get it from "
            f"{published.url} and put it into {cache_folder()}"
        )
    else:
        _check_sum(file_sha256(place), published, f"{place} is damaged or another file")
    return place


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read the extractor {path}: {error.strerror}") from error


def extractor_from_file(
    path: Path,
    *,
    name: str | None = None,
    resize: str = "none",
    normalisation: str = "0..255",
    device: torch.device | None = None,
    batch: int = 64,
) -> Extractor:
    """Load a network of one's own: what `torch.jit.save` or `torch.export.save` wrote.

    Args:
        path: The file. An exported network must have been exported with a dynamic batch dimension.
        name: What to call it; None for the file's stem and the first 8 digits of its SHA-256.
        resize, normalisation: Rules of `Extractor`.
        device: Where to compute; None for the CPU.
        batch: Images that are computed together.

    Raises:
        CheckpointError: if there is no such file, or it is damaged or none of those.
        ConfigError: if an option cannot be used.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no extractor {path}; give a TorchScript or torch.export file")
    sha256 = file_sha256(path)
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)
    module = _read_torchscript(path) if _kind(path) == "torchscript" else _read_exported(path)
    module.to(device or torch.device("cpu"))
    return Extractor(
        _in_words(module, path),
        name if name is not None else f"{stem}-{sha256[:8]}",
        resize=resize,
        normalisation=normalisation,
        device=device,
        batch=batch,
        sha256=sha256,
    )


def _in_words(module: nn.Module, path: Path) -> Network:
    """Return a function that calls a module of a file and says in one line why it failed, if it does."""

    def call(images: Tensor) -> Tensor:
        try:
            result: Tensor = module(images)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise DataError(
                    f"there is not enough memory on {images.device} to compute the extractor {path} on "
                    f"images {list(images.shape)}: choose another device, or a smaller batch or resize rule"
                ) from error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise CheckpointError(
                f"the extractor {path} failed on images {list(images.shape)}: {reason}. It must take any "
                f"number of images [n, 3, h, w]; a resize rule gives it those of the size it needs."
            ) from error
        return result

    return call


def _kind(path: Path) -> Literal["torchscript", "exported"]:
    """Tell the two kinds of files apart by what is in the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"the extractor {path} is damaged, or neither a TorchScript nor a torch.export file"
        ) from error
    if any(re.search(r"(^|/)constants\.pkl$", name) for name in names):
        return "torchscript"
    if any(re.search(r"(^|/)(models/.*|serialized_exported_program)\.json$", name) for name in names):
        return "exported"
    raise CheckpointError(
        f"the extractor {path} holds no network that can be run (perhaps only its weights, or a pickled "
        f"module); write one with torch.jit.save or torch.export.save"
    )


def _read_torchscript(path: Path) -> nn.Module:
    """Load a TorchScript file on the CPU, in evaluation mode."""
    try:
        with warnings.catch_warnings():
            # PyTorch prefers torch.export, but the published network is TorchScript.
            warnings.simplefilter("ignore", DeprecationWarning)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the extractor {path} is damaged: PyTorch cannot read it") from error
    return module.eval()


def _read_exported(path: Path) -> nn.Module:
    """Load what `torch.export.save` wrote, without unpickling anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        objects = [name for name in archive.namelist() if re.search(r"(opaque|custom)_obj", name)]
    if objects:
        raise CheckpointError(
            f"the extractor {path} has pickled objects in it, which are not loaded: {objects[0]}"
        )
    try:
        with _only_tensors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of older forms of the file
            return torch.export.load(str(path)).module()
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the extractor {path} has pickled objects in it, which are not loaded; export only tensors"
        ) from error
    # A foreign or newer file fails in any way: missing keys, other versions.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the extractor {path} is damaged, or not for PyTorch {torch.__version__}: {reason}"
        ) from error


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Let `torch.load`, which `torch.export.load` calls without restriction, unpickle nothing but tensors."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # the only way in that reaches those calls
    before = os.environ.get(variable)
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.export.pt2_archive._package")]
    disabled = [logger.disabled for logger in loggers]
    os.environ[variable] = "1"
    for logger in loggers:
        logger.disabled = True  # they print tracebacks of errors that are raised as well
    try:
        yield
    finally:
        for logger, was in zip(loggers, disabled, strict=True):
            logger.disabled = was
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def _download(published: PublishedFile, place: Path, progress: Progress) -> None:
    """Fetch a published file; it appears at `place` only whole and verified."""
    digest = hashlib.sha256()
    with atomic_path(place) as temporary, temporary.open("wb") as file:
        for chunk in _chunks(published, place, progress):
            digest.update(chunk)
            file.write(chunk)
        _check_sum(digest.hexdigest(), published, f"What {published.url} gave is damaged or another file")


def _chunks(published: PublishedFile, place: Path, progress: Progress) -> Iterator[bytes]:
    """Yield the contents of a published file as they come."""
    try:
        with urllib.request.urlopen(published.url, timeout=TIMEOUT) as response:
            total, done = int(response.headers.get("Content-Length") or 0), 0
            while chunk := response.read(CHUNK):
                yield chunk
                done += len(chunk)
                progress("downloading the extractor", done, total)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"cannot download {published.url}: {reason}. Try again, or get the file in another way and put "
            f"it at {place}."
        ) from error


def _check_sum(found: str, published: PublishedFile, words: str) -> None:
    if found != published.sha256:
        raise CheckpointError(
            f"{words}: its SHA-256 is {found}, but that of the published {published.name} is "
            f"{published.sha256}. Delete it and download it again."
        )

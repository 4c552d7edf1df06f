"""What a file of others is, told by its contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from progan.errors import ConfigError, listed, shown
from progan.interop.keras_files import MAGIC as KERAS_MAGIC
from progan.interop.keras_files import KerasFile, read_keras
from progan.interop.systems import (
    flax,
    gan_zoo,
    genforce,
    matt_roz,
    mmagic,
    original,
    own,
    pro_gan_pytorch,
    rosinality,
    tensorflow,
    theano,
    varabei,
)
from progan.interop.systems.layers import Foreign
from progan.interop.torch_files import MAGIC, read_legacy_torch, read_torch
from progan.system.numpy_pickle import NAMES, NUMPY
from progan.system.safe_pickle import Instance, Machine, Refused

SLACK = 2**16
"""Bytes that the numbers of a file may have beyond its own: those that a pickle writes one by one."""
SYSTEMS = (flax, gan_zoo, pro_gan_pytorch, genforce, mmagic, rosinality, matt_roz)
KNOWN = (
    "the original code's (TensorFlow, Theano), pytorch_GAN_zoo's, pro_gan_pytorch's, rosinality's, "
    "genforce's, MMagic's, progan-flax's, matt-roz's, varabei's and progan's own are read"
)
STARTS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x93NUMPY": "an array of NumPy",
    b"%PDF": "a PDF document",
    b"<": "a web page or XML: whoever downloaded it was given that instead of the file",
    b"version https://git-lfs": "a pointer of Git LFS, and not the file that it points to",
}
"""What files begin with -> what they are."""


def recognise(path: Path, like: Path | None = None) -> Foreign:
    """Return what a file of others is; nothing that it names is imported or run.

    Args:
        path: The file; of varabei's code, a folder.
        like: What a bare state dict of progan's own is of, or the configuration of varabei's training.

    Raises:
        Refused: saying what it is instead of weights, or what in it is not read.
        ConfigError: if `like` is needed and missing, or given and not needed.
        OSError: if it cannot be opened.
    """
    if path.is_dir():
        return varabei.Checkpoint(path, like)
    budget = path.stat().st_size + SLACK
    found = _contents(path, budget)
    if own.matches(found):
        return own.Checkpoint(found, budget, path, like)
    if like is not None:
        raise ConfigError(f"{path} is no bare state dict of progan, which alone needs --like: leave it out")
    if original.matches(found):
        return original.Checkpoint(found, budget)
    for system in SYSTEMS:
        if system.matches(found):
            made: Foreign = system.Checkpoint(found, budget)
            return made
    raise Refused(f"it holds {_named(found)}, and no network of a known system ({KNOWN})")


def _contents(path: Path, budget: int) -> Any:
    """Read what is in a file, if it is of a form that is read."""
    with path.open("rb") as stream:
        start = stream.read(512)
    if start.startswith(b"PK\x03\x04"):
        return read_torch(path)
    if start[1:].startswith(MAGIC):
        return read_legacy_torch(path)
    if start[:1] == b"\x80":
        classes = frozenset({tensorflow.CLASS, theano.CLASS})
        return Machine(path.read_bytes(), NUMPY, names=NAMES, instances=classes).run()
    if start.startswith(KERAS_MAGIC):
        return read_keras(path, budget)
    if flax.starts(start):
        return flax.read(path)
    raise Refused(f"it is {_form(start)}")


def _form(start: bytes) -> str:
    """Say what a file is that begins like this."""
    if not start:
        return "empty"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "a safetensors file; `progan generate` and `progan info` read those of progan"
    if start[257:262] == b"ustar":
        return "a tar archive, such as PyTorch wrote before 0.2: load it there and save it again"
    for begin, what in STARTS.items():
        if start.startswith(begin):
            return what
    if start[:1] in (b"(", b"c", b"]", b"}"):
        return "no pickle of protocol 2 or newer (perhaps one of an older protocol)"
    text = start.decode("utf-8", errors="ignore")  # the last character may be cut
    if len(text.encode()) > len(start) - 4 and all(
        letter.isprintable() or letter.isspace() for letter in text
    ):
        return f"a text that begins with {shown(text.split(chr(10))[0], 60)}"
    return f"of an unknown form; it begins with the bytes {start[:8].hex(' ')}"


def _named(found: object) -> str:
    """Say what an object is; never its contents whole, which may be endless."""
    if isinstance(found, dict):
        return f"a dict with the entries {listed(list(found))}" if found else "an empty dict"
    if isinstance(found, KerasFile):
        return f"weights of Keras ({listed(list(found.weights)) or 'none as Keras 2 has them'})"
    if isinstance(found, list | tuple):
        kinds = [_named(one) for one in found[:3] if not isinstance(one, list | tuple | dict)]
        return f"a {type(found).__name__} of {len(found):,}" + (f" ({', '.join(kinds)})" if kinds else "")
    return f"an object of {found.name}" if isinstance(found, Instance) else f"a {type(found).__name__}"

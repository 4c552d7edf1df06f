"""Which device a name means here, and how exactly it multiplies float32 numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from progan.errors import ConfigError

DEVICES = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str, own: int = 0) -> torch.device:
    """Return the device that `auto` (CUDA, then MPS, then CPU) or a PyTorch name means.

    Args:
        name: Which.
        own: Number of the GPU that this process has, of several on a machine; `cuda` is tried on it.

    Raises:
        ConfigError: if there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        tried = device
        if device == torch.device("cuda"):  # processes that tried the first one would all hold memory of it
            tried = torch.device("cuda", min(own, max(0, torch.cuda.device_count() - 1)))
        torch.empty(1, device=tried)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device {name!r} cannot be used here: {reason}") from None
    if device.type not in DEVICES:
        raise ConfigError(f"run.device {name!r}: progan computes on {', '.join(DEVICES)}")
    return device


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Have products and convolutions of float32 rounded to TF32, or computed exactly, while the block runs.

    PyTorch has two interfaces for this, and refuses to read the older one where a program has used the newer
    (from 2.9 on): so the one is used that can be read, and what was set by it is put back.

    Args:
        tf32: Whether CUDA may round them.
    """
    try:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        with _float32_products_by_library(tf32=tf32):
            yield
        return
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def _float32_products_by_library(*, tf32: bool) -> Iterator[None]:
    """Do what `float32_products` does by the newer interface, which has a setting for each library."""
    backends: Any = torch.backends
    cuda = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    before = [place.fp32_precision for place in (*cuda, *cpu)]
    try:
        for place in (*cuda, *cpu):
            place.fp32_precision = "tf32" if tf32 and place in cuda else "ieee"
        yield
    finally:
        for place, held in zip((*cuda, *cpu), before, strict=True):
            # "none" takes the common setting, as before.
            place.fp32_precision = "none" if held == backends.fp32_precision else held

"""Which device a name means here."""

from __future__ import annotations

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

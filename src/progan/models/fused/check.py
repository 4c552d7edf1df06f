"""Whether a device computes the operation, and computes it right: it is tried before it is used."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch
from torch import Tensor

from progan.models.fused.operators import bias_leaky_, bias_leaky_backward

SHAPES = ((2, 5, 3, 7), (3, 16, 40, 40), (2, 512, 4, 4))
"""Of features that are tried: sides that no tile divides, more pixels than a tile has, many channels."""

LARGEST_ERROR = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
"""Of a result, as a share of its norm: twice the rounding of its type, or of float32 sums."""


@lru_cache
def missing(device: torch.device) -> str | None:
    """Return why a device does not compute the operation; None if it does.

    On CUDA Triton's kernels are compiled for it and compared with plain operations on the CPU, once.
    """
    if device.type != "cuda":
        return "it is made for CUDA"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is missing"
    try:
        return wrong(device)
    except Exception as error:  # compilers raise anything
        reason = str(error).strip().split("\n")[0]
        return f"{type(error).__name__}: {reason}"


def wrong(device: torch.device) -> str | None:
    """Compute the operation on a device and on the CPU; returns how far a result is off, None if none is."""
    for shape in SHAPES:
        for kind, allowed in LARGEST_ERROR.items():
            for eps in (None, 1e-8):
                for name, one, other in zip(
                    ("result", "gradient", "gradient of the bias"),
                    _computed(shape, kind, eps, device),
                    _computed(shape, kind, eps, torch.device("cpu")),
                    strict=True,
                ):
                    error = float((one - other).norm() / other.norm().clamp_min(1e-30))
                    if not error < allowed:
                        return f"its {name} is off by {error:.2g} of its norm in {kind}"
    return None


def _computed(
    shape: tuple[int, ...], kind: torch.dtype, eps: float | None, device: torch.device
) -> list[Tensor]:
    """Return a result and its gradients, in float64 on the CPU, of numbers that are always the same."""
    drawn = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=drawn).to(kind) for _ in range(2))
    bias = torch.randn(shape[1], generator=drawn)
    x, dy = (part.to(device=device, memory_format=torch.channels_last) for part in (x, dy))
    y, factors = bias_leaky_(x, bias.to(device), 0.2, eps)
    dx, to_bias = bias_leaky_backward(dy, y, None if eps is None else factors, 0.2, sums=True)
    assert to_bias is not None
    return [tensor.cpu().double() for tensor in (y, dx, to_bias)]

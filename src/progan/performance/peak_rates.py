"""What a machine can do at most, measured: a large matrix product, a large convolution, a large copy."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from progan.config import RunOptions
from progan.performance.iteration_cost import Ceiling
from progan.training.precision import SMALL_TYPES, settings
from progan.version import __version__

MEASURED_FOR = 0.3
"""Seconds that each measurement takes, at least; of its repetitions the fastest counts."""


@dataclass(frozen=True)
class Rates:
    """What a machine was measured to do.

    Floating-point operations a second, of a square matrix product and of a 3x3 convolution in channels_last,
    and bytes a second, read and written, of a copy in memory.
    """

    matrix_product: float
    convolution: float
    copy: float

    @property
    def ceiling(self) -> Ceiling:
        """The faster of the two products (on a CPU, that may be the convolution), and the copy."""
        return Ceiling(max(self.matrix_product, self.convolution), self.copy)

    @property
    def faster(self) -> str:
        """Which of the two products is the ceiling."""
        return "matrix product" if self.matrix_product >= self.convolution else "convolution"


@dataclass(frozen=True)
class Sizes:
    """Side of the matrices; images, channels and side of the convolution; elements of the copy."""

    matrix: int
    images: int
    channels: int
    side: int
    elements: int


SIZES = {"cuda": Sizes(8192, 32, 512, 64, 2**28)}
USUAL = Sizes(1024, 16, 128, 32, 2**25)
"""Too large for caches, and yet done within a fraction of a second on one CPU core."""


def measure_products(
    options: RunOptions, device: torch.device, sizes: Sizes | None = None
) -> tuple[float, float]:
    """Measure products in the precision of a run, with its number of threads.

    Args:
        options: Precision and threads.
        device: What to measure.
        sizes: How large the operands are; default: by the kind of device.

    Returns:
        Floating-point operations a second of a matrix product and of a convolution.
    """
    sizes = sizes or SIZES.get(device.type, USUAL)
    dtype = SMALL_TYPES.get(options.precision, torch.float32)
    matrix, channels, side = sizes.matrix, sizes.channels, sizes.side
    with settings(options, device), torch.inference_mode():
        a = torch.ones(matrix, matrix, device=device, dtype=dtype)
        product = 2 * matrix**3 / _fastest(lambda: a @ a, device)
        x = torch.ones(sizes.images, channels, side, side, device=device, dtype=dtype)
        weight = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
        if device.type != "mps":
            x = x.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        work = 2 * sizes.images * channels**2 * 9 * side**2
        return product, work / _fastest(lambda: F.conv2d(x, weight, padding=1), device)


def measure_copy(options: RunOptions, device: torch.device, sizes: Sizes | None = None) -> float:
    """Measure a copy, with the number of threads of a run: bytes a second, read and written."""
    elements = (sizes or SIZES.get(device.type, USUAL)).elements
    with settings(options, device), torch.inference_mode():
        source = torch.ones(elements, device=device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was asked to do; a CPU has."""
    if device.type == "mps":  # there is one, and its function takes none
        torch.mps.synchronize()
    elif device.type in ("cuda", "xpu"):
        getattr(torch, device.type).synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long a piece of work takes, alone on its device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def describe(device: torch.device) -> dict[str, Any]:
    """Return names and versions of what measurements were made with."""
    facts = {
        "progan": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "name": _cpu_name(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest of some repetitions, after one that does not count."""
    work()
    end, best, count = time.perf_counter() + MEASURED_FOR, math.inf, 0
    while count < 3 or time.perf_counter() < end:
        best, count = min(best, seconds(work, device)), count + 1
    return best


def _cpu_name() -> str:
    """Return the name of the processor as Linux gives it, else what Python knows."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

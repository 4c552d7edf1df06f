"""The types that products are computed in, and what else is set on a device for the length of a run.

Weights, moments and averages are float32 whatever the precision; which operations compute in the smaller
type is PyTorch's automatic mixed precision's business (convolutions and dense layers do, sums do not).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from progan.config import Config, Precision, RunOptions
from progan.errors import ConfigError
from progan.models.autograd import autocast
from progan.system.device import float32_products

SMALL_TYPES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions whose products are computed in a smaller type than the weights have."""

BFLOAT16_PROCESSORS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""What tells, in `torch.cpu`, that products of bfloat16 are made in hardware."""

TENSOR_CORES = (7, 0)
"""Compute capability from which on CUDA devices multiply float16 several times as fast as float32."""


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """Return what a precision means on a device.

    `auto` is bfloat16 where its products are fast: on GPUs from Ampere on, and on processors with AVX512-BF16
    or AMX; elsewhere they are emulated, which is slow. It is float16, with the loss scaled, on older GPUs
    whose tensor cores multiply nothing else (Volta and Turing, such as V100 and T4), and else tf32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES else "tf32"
    # Newer versions of PyTorch know what the processor can do.
    known = (getattr(torch.cpu, name, None) for name in BFLOAT16_PROCESSORS)
    fast = device.type == "cpu" and any(ask() for ask in known if ask is not None)
    return "bfloat16" if fast else "tf32"


def needs_loss_scaling(precision: Precision) -> bool:
    """Return whether small gradients must be scaled to be in range, as those of float16."""
    return precision == "float16"


def check_settings(options: RunOptions, device: torch.device) -> None:
    """Check that a device can do what `settings` and `autocast` would ask of it.

    Raises:
        ConfigError: if not.
    """
    if options.memory_fraction is not None and device.type != "cuda":
        raise ConfigError(
            f"run.memory_fraction {options.memory_fraction:g} limits the memory of a CUDA device, and this "
            f"run computes on {device}; leave it out"
        )
    with settings(options, device):
        check_precision(options.precision, device)
        if options.compile == "always":
            check_compiler(device)


def check_compiler(device: torch.device) -> None:
    """Compile a product and its gradient, as a run with `run.compile` does with whole updates.

    Raises:
        ConfigError: if that does not work here, most often because there is no C++ compiler or no Triton.
    """

    def square(x: torch.Tensor) -> torch.Tensor:
        slope: torch.Tensor = torch.func.grad(lambda y: (y * y).sum())(x)
        return slope

    try:
        torch.compile(square, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # the kinds of the compiler's errors are its own, and change
        raise ConfigError(
            f"run.compile cannot be used on {device}: {reason_of(error)}; install a C++ compiler (on CUDA "
            f"also Triton), or leave it out"
        ) from None


def reason_of(error: Exception) -> str:
    """Return what an error says, in a line: of the compiler's, what was raised within it, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith("raised:")), type(error).__name__)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Try a convolution, the gradient of its gradient, and the loss scale, in the type of a precision.

    Raises:
        ConfigError: if the device or this build of PyTorch cannot do it.
    """
    if precision not in SMALL_TYPES:
        return
    try:
        with warnings.catch_warnings():
            # Where a type is missing, autocast warns and goes on without it; the outcome's type tells.
            warnings.simplefilter("ignore")
            used = _try_precision(precision, device)
        reason = "" if used == SMALL_TYPES[precision] else f"PyTorch computes in {used} instead"
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = reason_of(error)
    if reason:
        raise ConfigError(
            f"run.precision {precision} cannot be used on {device}: {reason}; use float32, or tf32 on CUDA"
        )


def _try_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that a convolution computed in, after one whole update with a gradient penalty."""
    images = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
    weight = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=needs_loss_scaling(precision))
    with autocast(SMALL_TYPES.get(precision), device):
        scores = F.conv2d(images, weight, padding=1)
        (slope,) = torch.autograd.grad(scores.float().square().sum(), images, create_graph=True)
        penalty = slope.float().square().mean()
    torch.autograd.backward(scaler.scale(penalty))
    scaler.step(optimizer)
    scaler.update()
    return scores.dtype


@contextmanager
def settings(options: RunOptions, device: torch.device) -> Iterator[None]:
    """Set the process and the device as a run asks for, and put it back at the end.

    TF32 is on with tf32 on CUDA, and off otherwise. Deterministic mode has PyTorch refuse operations whose
    result may differ from run to run; if it is off, what the process has chosen stays. The limit of the
    memory and the number of threads are set if given.
    """
    before = (
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
    )
    benchmark, deterministic, warn_only, threads = before
    tf32 = options.precision == "tf32" and device.type == "cuda"
    try:
        if options.deterministic:
            # cuBLAS reads it once, at its first product, so it stays. Two sizes make cuBLAS deterministic.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            _set_deterministic(True, warn_only=False)
        # Which kernel is the fastest differs from run to run.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        if options.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(options.memory_fraction, device.index)
        with float32_products(tf32=tf32):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        _set_deterministic(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)
        if options.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(1.0, device.index)


def _set_deterministic(mode: bool, *, warn_only: bool) -> None:
    """Switch deterministic algorithms where that changes anything: PyTorch loads its compiler for it."""
    now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if now != (mode, warn_only):
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)


def settle(config: Config, device: torch.device) -> Config:
    """Return the configuration with what the device decides; the run keeps it wherever it goes on."""
    precision = choose_precision(config.run.precision, device)
    return config.model_copy(update={"run": config.run.model_copy(update={"precision": precision})})

"""How gradients are computed: whether ours may stand in for those of PyTorch, and in which types."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_plain_autograd() -> bool:
    """Return whether operations are followed by nothing but autograd, backward, as in training.

    The compiler, traces, the transforms of `torch.func` (vmap, jvp, ...) and forward mode need more than a
    `torch.autograd.Function` tells them: they are given PyTorch's own operations.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def outside_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return the context in which gradients of what comes from `x` are computed: in the types that are there.

    They have the types of the forward pass. Within autocast, the thread that computes gradients on a GPU does
    not know the type that was asked for, and takes float16 (github.com/pytorch/pytorch/issues/125186).
    """
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def with_squares(
    judge: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor, scale: Tensor | float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge images, and measure how steeply the scores change with them.

    Args:
        judge: Maps images [N, C, H, W] to scores [N] and anything else.
        images: [N, C, H, W].
        scale: The gradient is computed of `scale` times the scores and divided by it again, so that it
            neither vanishes nor overflows in float16.

    Returns:
        What `judge` returns, and the squared norm of each image's gradient [N], all differentiable with
        respect to the parameters of `judge`, and to the images if they are. There is no epsilon, as in the
        original.
    """
    if torch.compiler.is_compiling():
        # Compilation follows the functional form only; eager, it costs a call more for every operation.
        def total(images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            scores, rest = judge(images)
            return (scores * scale).sum(), (scores, rest)

        gradient, (scores, rest) = torch.func.grad(total, has_aux=True)(images)
    else:
        images = images if images.requires_grad else images.detach().requires_grad_(True)
        scores, rest = judge(images)
        with outside_autocast(images):
            (gradient,) = torch.autograd.grad((scores * scale).sum(), images, create_graph=True)
    return scores, rest, (at_least_float32(gradient) / scale).square().sum(dim=(1, 2, 3))


def autocast(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """Return the context in which networks and losses are computed forward in a small type.

    Args:
        dtype: Of the products and convolutions; None: nothing is cast, float32 stays float32 and float64
            stays float64.
        device: Where they are computed.
    """
    # The cache keeps small copies of leaves only, which equalized weights are not; and in older versions of
    # PyTorch a copy first made under `no_grad` took the weight's gradient away for the rest of the context.
    return torch.autocast(
        device.type,
        dtype=dtype,
        enabled=dtype is not None,
        cache_enabled=False,
    )


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is if it is float32 or wider."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

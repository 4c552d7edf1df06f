"""How gradients are computed: whether ours may stand in for those of PyTorch, and in which types."""

from __future__ import annotations

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

"""Counts what a computation asks of a machine: operations, bytes, operators, memory.

Nothing has to be computed for it: tensors of the device `meta`, or fake ones, go the same way without
numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ALLOCATIONS = frozenset(
    {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
     "aten::_unsafe_view", "aten::detach_"}
)  # fmt: skip
"""Operators that compute nothing, besides those that PyTorch declares as views."""


@dataclass(frozen=True)
class OpCounts:
    """What a computation asks of a machine.

    Attributes:
        operations: Floating-point operations; a multiplication with its addition counts as two.
        least_bytes: What must be moved at least: every convolution and matrix product, forward or backward,
            reads its inputs and writes its result once; everything else is done on the way.
        bytes: What is moved operator by operator: each reads its inputs and writes its results. A convolution
            adds its bias afterwards; of its backward pass, each result is an operator of its own.
        operators: Operators called, counted in that way. On a GPU each is at least one launch of a kernel.
    """

    operations: float = 0.0
    least_bytes: float = 0.0
    bytes: float = 0.0
    operators: float = 0.0

    def __add__(self, other: OpCounts) -> OpCounts:
        return OpCounts(*(a + b for a, b in self._pairs(other)))

    def __sub__(self, other: OpCounts) -> OpCounts:
        return OpCounts(*(a - b for a, b in self._pairs(other)))

    def __mul__(self, factor: float) -> OpCounts:
        return OpCounts(*(value * factor for value in vars(self).values()))

    def _pairs(self, other: OpCounts) -> Iterator[tuple[float, float]]:
        return zip(vars(self).values(), vars(other).values(), strict=True)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the work of what is computed while it is active, and the most memory that was in use at once.

    PyTorch's own FlopCounterMode follows modules with hooks that `autograd.grad` does not allow; its formulas
    are used here. Convolutions and matrix products count as operations, what is computed pixel by pixel does
    not.

    Attributes:
        work: What was counted.
        peak: Bytes of all tensors made meanwhile that were alive at once, at most. What a kernel needs for
            itself, and what the allocator loses, is not in it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = OpCounts()
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._in_use = 0

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not results or func.is_view:
            return out
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._hold(read, results)
        if func._schema.name not in ALLOCATIONS:
            self._count(func, args, kwargs, out, read, results)
        return out

    def _count(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any,
        read: list[Tensor], results: list[Tensor],
    ) -> None:  # fmt: skip
        formula = flop_registry.get(func._overloadpacket)
        operations = 0 if formula is None else formula(*args, **kwargs, out_val=out)
        if func._overloadpacket is torch.ops.aten.convolution_backward:
            # Each gradient is a convolution of its own, of two of the three: gradient, input and weight.
            gradient, x, weight = read[:3]
            sources = ([gradient, weight], [gradient, x])
            asked = zip(out[:2], sources, strict=True)
            least = sum(_bytes([made, *used]) for made, used in asked if made is not None)
            sums = _bytes([gradient, out[2]]) if out[2] is not None else 0
            self.work += OpCounts(operations, least, least + sums, len(results))
            return
        moved, calls = _bytes(read) + _bytes(results), 1
        least = 0 if formula is None else moved
        if func._overloadpacket is torch.ops.aten.convolution and args[2] is not None:
            moved, calls = moved + 2 * _bytes(results), 2
        self.work += OpCounts(operations, least, moved, calls)

    def _hold(self, read: list[Tensor], results: list[Tensor]) -> None:
        """Take note of new memory, and of when it is given back."""
        old = {tensor.untyped_storage()._cdata for tensor in read}
        for tensor in results:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in old or key in self._alive:
                continue
            self._alive[key] = size
            self._in_use += size
            self.peak = max(self.peak, self._in_use)
            weakref.finalize(storage, self._release, key).atexit = False

    def _release(self, key: int) -> None:
        self._in_use -= self._alive.pop(key)


def _bytes(tensors: list[Tensor]) -> int:
    """Return the bytes that reading or writing tensors moves; what is repeated by a stride of 0 once."""
    total = 0
    for tensor in tensors:
        elements = 1
        for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
            elements *= length if stride else min(length, 1)
        total += elements * tensor.element_size()
    return total

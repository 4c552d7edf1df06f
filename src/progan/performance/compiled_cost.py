"""What compiled updates move: the compiler is asked how it would fuse their graphs, and nothing is compiled.

PyTorch's compiler follows an update, takes its gradients, applies the project's pass and decides which
operators become one kernel. Then it is stopped. The tensors have no numbers, so no memory is needed either.
The fusion is that of Triton's kernels for GPUs, whatever there is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph
from torch.utils.flop_counter import flop_registry

from progan.config import Config
from progan.errors import ConfigError
from progan.performance.iteration_cost import IterationCost, batch_and_part, empty_batch, empty_conditions
from progan.performance.op_counter import OpCounts
from progan.training.compiled_gradients import CompiledGradients
from progan.training.precision import reason_of
from progan.training.spec import ImageSpec
from progan.training.state import build_networks
from progan.training.step import Networks, Update, updates_of

PRODUCTS = frozenset(packet.__name__ for packet in flop_registry)
"""Names of convolutions and matrix products, which libraries compute, so that no kernels are made of them."""


class _HasAnsweredError(Exception):
    """The compiler has told what was asked of it."""


@dataclass(frozen=True)
class Kernels:
    """The kernels of a compiled function.

    Attributes:
        count: How many there are: fused ones, convolutions (of a backward pass one for each gradient) and
            products.
        bytes: What those read and write that are neither convolutions nor products: each tensor once that
            one of them reads, and each that another needs.
    """

    count: float = 0
    bytes: float = 0

    def __add__(self, other: Kernels) -> Kernels:
        return Kernels(self.count + other.count, self.bytes + other.bytes)

    def __mul__(self, factor: float) -> Kernels:
        return Kernels(self.count * factor, self.bytes * factor)


def kernels_of(call: Callable[[], object]) -> Kernels:
    """Return the kernels of a function that is compiled when it is called for the first time.

    Args:
        call: Calls it, with tensors on the CPU that may be fake. The compiler is stopped when it has decided
            what to fuse, so that the call does not come to its end.

    Raises:
        ConfigError: if this version of PyTorch's compiler cannot be asked.
    """
    from torch._functorch import config as functions  # they take seconds to import
    from torch._inductor import config as settings

    found: list[Kernels] = []

    def note(nodes: list[Any]) -> list[Any]:
        found.append(_added(nodes))
        raise _HasAnsweredError

    asked = {
        "cpu_backend": "triton",
        "fx_graph_cache": False,
        # How a sum is divided depends on the processor, and hardly changes what is moved.
        "split_reductions": False,
        "post_grad_custom_post_pass": _sum_bias_gradients_apart,
        "_post_fusion_custom_pass": note,
    }
    try:
        with settings.patch(asked), functions.patch(enable_autograd_cache=False):
            call()
    except Exception as error:  # those of the compiler, which hold ours, are of many kinds
        if not found:
            raise ConfigError(
                f"--compiled asks the compiler of PyTorch {torch.__version__}, which does not answer "
                f"({reason_of(error)}); leave it out"
            ) from None
    return sum(found, Kernels())


def _added(nodes: Iterable[Any]) -> Kernels:
    """Add up the kernels of a graph, given the nodes of the compiler's schedule."""
    from torch._inductor import ir, scheduler

    total = Kernels()
    for node in nodes:
        made: Any = node.node if isinstance(node, scheduler.ExternKernelSchedulerNode) else None
        if isinstance(node, scheduler.NopKernelSchedulerNode):
            continue
        if isinstance(made, ir.MultiOutput):  # a result of a kernel that has several
            written = math.prod(map(int, made.get_size())) * made.get_dtype().itemsize
            total += Kernels(1, 0 if _is_product(made.inputs[0]) else written)
            continue
        one = made is None or not isinstance(made.layout, ir.MultiOutputLayout)
        moved = 0 if made is not None and _is_product(made) else node.get_read_write_buffers_sizes()
        total += Kernels(int(one), moved)
    return total


def _is_product(kernel: Any) -> bool:
    """Return whether a kernel of a library is a convolution or a matrix product."""
    called = getattr(kernel, "op_overload", None)
    name = str(called) if called is not None else str(getattr(kernel, "python_kernel_name", ""))
    return any(part in PRODUCTS for part in name.split("."))


def _sum_bias_gradients_apart(graph: Graph) -> None:
    """Do as the compiler does for GPUs: the gradient of a convolution's bias is a sum of its own."""
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.convolution_backward.default or not node.args[-1][2]:
            continue
        gradient = node.args[0]
        for user in list(node.users):
            if user.args[1] == 2:
                with graph.inserting_before(user):
                    axes = [0, *range(2, gradient.meta["val"].dim())]
                    total = graph.call_function(aten.sum.dim_IntList, (gradient, axes))
                    total.meta["val"] = user.meta["val"]
                user.replace_all_uses_with(total)
                graph.erase_node(user)
        node.args = (*node.args[:-1], [*node.args[-1][:2], False])


class CompiledCosts:
    """Counts the kernels of compiled updates of a configuration; nothing is allocated on any device."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        self._config = config
        with torch.device("meta"):
            G, D = build_networks(config, image)
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        for network in (G, D):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with self._fake:
                network.to_empty(device="cpu")
        self._networks: Networks = (G, D)
        self._kernels = lru_cache(maxsize=None)(self._ask)

    def iteration(self, cost: IterationCost) -> OpCounts:
        """Return what a compiled iteration asks for.

        Args:
            cost: What it asks for operator by operator. Its operations, and what convolutions, products and
                the optimizer move, are the same.
        """
        level, fading, loss = cost.level, cost.fading, self._config.loss
        first, *rest = dict.fromkeys(updates_of(self._config))
        due, plain = (self._update(first, level, fading, penalize=due) for due in (True, False))
        share = 1 / loss.penalty_interval
        whole = (due * share + plain * (1 - share)) * loss.d_steps
        for update in rest:
            whole += self._update(update, level, fading, penalize=False)
        updates = cost.d + cost.penalty + cost.g
        return replace(
            cost.work,
            bytes=updates.least_bytes + whole.bytes + cost.optimizer.bytes,
            operators=whole.count + cost.optimizer.operators,
        )

    def _update(self, kind: Update, level: int, fading: bool, *, penalize: bool) -> Kernels:
        if kind != "G" and not penalize and self._config.loss.penalty_interval == 1:
            return Kernels()  # it never comes
        D = self._networks[1]
        n, part = batch_and_part(self._config, D.stddev_group, level)
        return self._kernels(kind, level, fading, penalize, part) * (n / part)

    def _ask(self, kind: Update, level: int, fading: bool, penalize: bool, n: int) -> Kernels:
        """Ask for the kernels of an update of n images."""
        G, D = self._networks
        D.requires_grad_(kind != "G")
        with self._fake, torch.device("cpu"):
            at = empty_conditions(self._config, level, fading=fading, penalize=penalize)
            batch = _channels_last(empty_batch(kind, G, self._config, n, level))
            compiled = CompiledGradients(self._networks, kind, self._config)
            return kernels_of(lambda: list(compiled(batch, at, n)))


def _channels_last(batch: Any) -> Any:
    """Return a batch with its pictures laid out as in training."""
    if batch.reals is None:
        return batch
    return replace(batch, reals=batch.reals.contiguous(memory_format=torch.channels_last))

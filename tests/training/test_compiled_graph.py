"""The graph of a compiled update of D: its convolutions, and its gradients beside the eager ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import GraphModule, Node

from progan.data.packed import PackedSet
from progan.models.conv2d_graph_pass import LARGEST_KERNEL, ask_for_weight_gradients
from progan.training.compiled_gradients import CompiledGradients, relative_error, summed
from progan.training.losses import Conditions
from progan.training.step import EagerGradients
from small_updates import run

Kernels = list[tuple[int, ...]]
"""Sides of the kernels of convolutions, forward and backward."""


def kernels(graph: GraphModule) -> Kernels:
    """Return the sides of what stands in the kernel's place in each convolution of a graph."""
    aten = torch.ops.aten
    places = {aten.convolution.default: 1, aten.convolution_backward.default: 2}
    found: Kernels = []
    for node in graph.graph.nodes:
        if node.target in places:
            weight = node.args[places[node.target]]
            assert isinstance(weight, Node)
            found.append(tuple(weight.meta["val"].shape[2:]))
    return found


class Compiler:
    """Runs the graphs that it is given as they are, after the pass; keeps what their kernels were and are."""

    def __init__(self) -> None:
        self.before: list[Kernels] = []
        self.after: list[Kernels] = []
        self.replaced = 0

    def backend(self) -> Any:
        from torch._dynamo.backends.common import aot_autograd
        from torch._functorch._aot_autograd.utils import make_boxed_func

        def compile_graph(graph: GraphModule, _: Any) -> Any:
            self.before.append(kernels(graph))
            self.replaced += ask_for_weight_gradients(graph.graph)
            graph.graph.lint()
            graph.recompile()
            self.after.append(kernels(graph))
            return make_boxed_func(graph.forward)

        return aot_autograd(fw_compiler=compile_graph)


def compiled_update(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, **branches: Any
) -> tuple[Compiler, float]:
    """Compile D's update at 16x16, while it fades in; returns what it consisted of, and how far it is off."""
    made = run(blobs, 0, **branches)
    networks, config = (made.state.G, made.state.D), made.spec.config
    at = Conditions(level=2, alpha=torch.tensor(0.3))
    batch = made.batches.discriminator(0, 8, 2, at.alpha)
    expected, _ = summed(EagerGradients(networks, "D", config)(batch, at, 8))
    compiler, compile_ = Compiler(), torch.compile

    def in_its_way(function: Any, **options: Any) -> Any:
        return compile_(function, **options, backend=compiler.backend())

    monkeypatch.setattr(torch, "compile", in_its_way)
    [(found, _)] = CompiledGradients(networks, "D", config)(batch, at, 8)
    return compiler, relative_error(found, expected)


@pytest.mark.parametrize(
    "downscale",
    [
        "fused",
        pytest.param("separate", marks=pytest.mark.slow),
        pytest.param("strided", marks=pytest.mark.slow),
    ],
)
def test_no_kernel_of_a_compiled_update_is_an_image(
    blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, downscale: str
) -> None:
    compiler, error = compiled_update(blobs, monkeypatch, model={"discriminator": {"downscale": downscale}})
    [before], [after] = compiler.before, compiler.after
    assert max(map(max, before)) == 16, "what the pass is for"
    assert max(map(max, after)) <= LARGEST_KERNEL
    assert compiler.replaced == sum(max(sides) > LARGEST_KERNEL for sides in before)
    assert error < 1e-5

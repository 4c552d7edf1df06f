"""Compiled gradients of a convolution's gradient at the price of a convolution.

PyTorch's own rule convolves two images with each other, one of them in the place of the kernel, which no
library is made for (github.com/pytorch/pytorch/issues/22577). A `torch.autograd.Function` is no way around it
within a compiled function. But what such a convolution computes is the gradient of another's weight, which
libraries are made for; so that is asked for in the compiler's graph, where both are single operators.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import Graph, Node

LARGEST_KERNEL = 5
"""Side of a kernel that is left as it is; the networks have 4 at most, unless configured otherwise."""

SWAPPED = [1, 0, 2, 3]
"""Axes of a kernel [O, I, k, k] that lies among images as [N, C, H, W], and back."""


def ask_for_weight_gradients(graph: Graph) -> int:
    """Replace the convolutions of a graph whose kernels are images.

    With x: [I, N, H, W] and w: [O, N, h, w], convolving x with w in steps of `dilation` is
    out[i, o, a, b] = sum over n, y, z of x[i, n, a + y s, b + z s] w[o, n, y, z], s = dilation: the gradient
    of the weight [O, I, k, k] of a convolution of stride s that maps images [N, I, H, W] to [N, O, h, w],
    where w is the gradient of its result.

    Args:
        graph: Of ATen operators, whose nodes have fake tensors as `meta["val"]`; changed in place.

    Returns:
        How many convolutions were replaced.
    """
    found = [node for node in graph.nodes if _has_image_as_kernel(node)]
    for node in found:
        with graph.inserting_before(node):
            result = _weight_gradient(graph, node)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    return len(found)


def _has_image_as_kernel(node: Node) -> bool:
    """Return whether a node is a convolution with a kernel that is large, and larger than its result."""
    if node.target is not torch.ops.aten.convolution.default:
        return False
    _, weight, bias, stride, _, _, transposed, _, groups = node.args
    shape, result = _value(weight).shape, _value(node).shape
    plain = bias is None and not transposed and groups == 1 and len(shape) == 4 and list(stride) == [1, 1]  # type: ignore[arg-type]
    return bool(plain and max(shape[2:]) > LARGEST_KERNEL and max(shape[2:]) > max(result[2:]))


def _weight_gradient(graph: Graph, node: Node) -> Node:
    """Add the operators that compute a convolution whose kernel is an image; returns the last of them."""
    aten = torch.ops.aten
    x, weight, _, _, padding, dilation, *_ = node.args
    inputs, _, *kernel = _value(node).transpose(0, 1).shape
    images, slope = _swapped(graph, x), _swapped(graph, weight)
    # Of the weight itself nothing but the shape is needed.
    shape = [inputs, _value(node).shape[0], *kernel]
    unread = _call(graph, aten.new_empty.default, images, shape)
    both = [False, True, False]
    gradients = _call(
        graph, aten.convolution_backward.default, slope, images, unread, None, dilation, padding, [1, 1],
        False, [0, 0], 1, both,
    )  # fmt: skip
    return _swapped(graph, _call(graph, operator.getitem, gradients, 1))


def _swapped(graph: Graph, node: Any) -> Node:
    """Return a node with its first two axes swapped: one that is there already, if it comes from one."""
    source = node.args[0] if node.target is torch.ops.aten.permute.default else None
    if source is not None and list(node.args[1]) == SWAPPED:
        before: Node = source
        return before
    return _call(graph, torch.ops.aten.permute.default, node, SWAPPED)


def _call(graph: Graph, function: Any, *arguments: Any) -> Node:
    """Add a call to a graph, with its fake result."""
    node = graph.call_function(function, arguments)
    values = [_value(one) if isinstance(one, Node) else one for one in arguments]
    node.meta["val"] = function(*values)
    return node


def _value(node: Any) -> Any:
    return node.meta["val"]


@contextmanager
def weight_gradients_asked_for() -> Iterator[None]:
    """Have what is compiled within the block computed with the graph pass of this module."""
    # They take seconds to import.
    from torch._inductor import config as settings
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Pass(CustomGraphPass):
        """The pass with a name for the compiler's cache of finished graphs."""

        def __call__(self, graph: Graph) -> None:
            ask_for_weight_gradients(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__,))

    with settings.patch(post_grad_custom_pre_pass=Pass()):
        yield

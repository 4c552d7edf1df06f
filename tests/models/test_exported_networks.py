"""PyTorch's own ways out (trace, export, ONNX) give a generator's images, for any batch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from progan import Generator
from small_generators import KINDS, inputs, trained

TYPES = {"float32": 2e-5, "float16": 2**-8, "bfloat16": 2**-5}
"""How far a trace or an exported program may be from the module: two roundings of numbers from 1 to 4."""
every_kind = pytest.mark.parametrize("kind", KINDS)
some_kinds = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in ("fused", "other options", "level 0") else [])
        for kind in KINDS
    ],
)


def any_batch(G: Generator) -> dict[str, dict[int, Any]]:
    """Return the dynamic shapes of its arguments."""
    n = torch.export.Dim("n", min=1)
    return {name: {0: n} for name in ("z", "labels")[: len(inputs(G, 1))]}


def require_same(made: Callable[..., Tensor], G: Generator, tolerance: float) -> None:
    for n in (4, 1, 7):
        given = inputs(G, n)
        torch.testing.assert_close(made(*given), G(*given), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@every_kind
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_traced(kind: str, dtype: str) -> None:
    """A warning of the tracer, that something was kept as it was for this batch, would be an error here."""
    G = trained(kind, dtype)
    require_same(torch.jit.trace(G, inputs(G, 4), check_trace=False), G, TYPES[dtype])  # type: ignore[no-untyped-call]


@every_kind
def test_exported(kind: str) -> None:
    G = trained(kind)
    program = torch.export.export(G, inputs(G, 4), dynamic_shapes=any_batch(G))
    require_same(program.module(), G, TYPES["float32"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_exported_in_16_bits(dtype: str) -> None:
    G = trained("fading", dtype)
    require_same(torch.export.export(G, inputs(G, 4), dynamic_shapes=any_batch(G)).module(), G, TYPES[dtype])


@some_kinds
def test_onnx(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    G, file = trained(kind), tmp_path / "g.onnx"
    names = list(any_batch(G))
    with quiet():
        torch.onnx.export(G, inputs(G, 4), file, input_names=names, output_names=["image"], dynamo=True,
                          dynamic_shapes=any_batch(G))  # fmt: skip
    session = onnxruntime.InferenceSession(file)

    def run(*given: Tensor) -> Tensor:
        feed = dict(zip(names, [value.numpy() for value in given], strict=True))
        made: np.ndarray[Any, Any] = session.run(None, feed)[0]
        return torch.from_numpy(made)

    require_same(run, G, TYPES["float32"])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what PyTorch's exporter says of its own workings."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

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

KINDS: dict[str, dict[str, Any]] = {
    "fused": {},
    "separate": {"upscale": "separate"},
    "strided": {"upscale": "strided"},
    "labels": {"label_size": 3},
    "fading": {"alpha": 0.3},
    "morphing": {"alpha": 0.3, "growth": "morph"},
    "level 0": {"level": 0},
    "other options": {"activation": "gelu", "pixel_norm": False, "kernel_size": 5, "normalize_latents": False,
                      "output_activation": "tanh", "equalized_lr": False, "base_shape": (3, 4)},
    "of other systems": {"label_size": 2, "label_norm": "both", "pixel_norm_form": "root",
                         "latent_norm_eps": 1e-6, "pixel_norm_place": "before",
                         "dense_norm": "units", "dense_bias": "unit", "fmaps": (6, 5)},
    "strided, 1x1": {"upscale": "strided", "kernel_size": 1, "label_size": 2, "label_form": "vector"},
}  # fmt: skip
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


def trained(kind: str, dtype: str = "float32") -> Generator:
    """Return a generator as training leaves them: its biases are not zero, which would hide lost factors."""
    torch.manual_seed(0)
    G = Generator(**{"max_level": 2, "fmap_base": 64, "fmap_max": 16, "latent_size": 16, **KINDS[kind]})
    for name, value in G.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1)
    return G.eval().requires_grad_(False).to(getattr(torch, dtype))


def inputs(G: Generator, n: int) -> tuple[Tensor, ...]:
    """Return arguments of a call: latents, and labels if it has them."""
    dtype = next(G.parameters()).dtype
    z = torch.randn(n, G.latent_size, generator=torch.Generator().manual_seed(n)).to(dtype)
    labels = torch.eye(G.label_size, dtype=dtype)[torch.arange(n) % G.label_size] if G.label_size else None
    return (z,) if labels is None else (z, labels)


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

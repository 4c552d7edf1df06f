"""One level of a generator as an ONNX file, which a page runs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from progan.errors import CheckpointError, DependencyError
from progan.generation.samples import of_seed
from progan.models.generator import Generator
from progan.system.files import atomic_path

_OPSET = 18
_CHECKED = 4
"""Images that a file is compared by."""

_TOLERANCE = 1e-4
"""Largest difference, of values from -1 to 1, at which a file is kept."""


class _Level(nn.Module):
    """A generator at one level, with the alpha that it has grown to if that is its own."""

    def __init__(self, G: Generator, level: int) -> None:
        super().__init__()
        self.G, self.level = G, None if level == G.level else level

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        image: Tensor = self.G(z, labels, level=self.level)
        return image


def write_level(G: Generator, path: Path, level: int) -> None:
    """Write a level, which takes any batch of `z` and, if there are any, `labels`, and compare its images.

    Args:
        G: The generator, on the CPU.
        path: The file.
        level: Up to that to which it has grown.

    Raises:
        DependencyError: if a package of the extra `onnx` is missing.
        CheckpointError: if ONNX Runtime's images are more than 1e-4 from PyTorch's; there is no file then.
        StorageError: if it cannot be written.
    """
    onnx, runtime = _require("onnx"), _require("onnxruntime")
    _require("onnxscript")
    module = _Level(G, level).eval()
    inputs = tuple(rows for rows in of_seed(G, _CHECKED).rows(0, _CHECKED) if rows is not None)
    names = ["z", "labels"][: len(inputs)]
    batch = torch.export.Dim("N", min=1)
    with _quiet():
        program = torch.onnx.export(
            module, inputs, input_names=names, output_names=["image"], dynamo=True, opset_version=_OPSET,
            dynamic_shapes={name: {0: batch} for name in names}, external_data=False, optimize=True,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, model.graph, model):
        del part.metadata_props[:]  # where in this machine's files each operation comes from
    for node in model.graph.node:
        node.doc_string = ""
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        feed = {name: rows.numpy() for name, rows in zip(names, inputs, strict=True)}
        with torch.inference_mode():
            far = float((torch.from_numpy(session.run(["image"], feed)[0]) - module(*inputs)).abs().max())
        if not far <= _TOLERANCE:  # NaN is not, either
            raise CheckpointError(
                f"{path} is not written: its images are up to {far:.2g} from PyTorch's, which is no "
                f"rounding; please report it"
            )


def _require(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"a page needs the package {package} ({error}): pip install 'progan[onnx]'"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter tells of its own workings; what it makes is checked."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

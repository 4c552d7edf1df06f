"""The forms that a generator is exported in: how a file is written, and how it is opened to be checked."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from progan.errors import DependencyError
from progan.interop.exported_module import KEY, ExportedGenerator, Output
from progan.models import weights
from progan.models.generator import Generator
from progan.models.loading import load_network
from progan.system import tensor_file

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Form = Literal["onnx", "pt2", "torchscript", "safetensors"]
Inputs = tuple[Tensor, ...]
OPSET = 18
"""Of ONNX: what PyTorch's exporter is written for, and what runtimes of the last years know."""


@dataclass(frozen=True)
class Contents:
    """What goes into a file.

    Attributes:
        G: The generator, on the CPU and in float32.
        output: What its images are given as.
        half: Whether weights are stored in 16 bits.
        facts: The description.
        inputs: Arguments of a call.
        folded: Whether ONNX holds the results of what depends on no input.
    """

    G: Generator
    output: Output
    half: bool
    facts: dict[str, str]
    inputs: Inputs
    folded: bool = False

    def module(self) -> ExportedGenerator:
        """Return what is traced."""
        return ExportedGenerator(self.G, self.output, self.half)

    def program(self) -> ExportedProgram:
        """Return it as `torch.export` traces it, without the paths of this machine's files."""
        with _quiet():
            program = torch.export.export(self.module(), self.inputs, dynamic_shapes=_any_batch(self.inputs))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        return program


class Format(NamedTuple):
    """How a form is written to a file, and how that is opened as what makes images."""

    suffix: str
    write: Callable[[Path, Contents], None]
    open: Callable[[Path, type[Generator]], Callable[..., Tensor]]


def _write_onnx(file: Path, made: Contents) -> None:
    onnx = require("onnx")
    require("onnxscript")
    with _quiet():
        program = torch.onnx.export(
            made.module(), made.inputs, input_names=_names(made.inputs), output_names=["image"], dynamo=True,
            opset_version=OPSET, dynamic_shapes=_any_batch(made.inputs), external_data=False, optimize=False,
        )  # fmt: skip
    assert program is not None
    model, facts = program.model_proto, made.facts
    for part in (*model.graph.node, *model.graph.value_info, model.graph, model):
        del part.metadata_props[:]  # where in this machine's files each operation comes from
    for node in model.graph.node:
        node.doc_string = ""
    onnx.helper.set_model_props(model, facts)
    model.doc_string = f"progan generator of {facts['resolution']} images; license: {facts['license']}"
    onnx.save(model, str(file))
    if made.folded:
        _fold(file)


def _fold(file: Path) -> None:
    """Replace an ONNX file by the same with constants folded, by ONNX Runtime's basic optimisations.

    They use operations of ONNX alone, so that any runtime takes the file.
    """
    runtime = require("onnxruntime")
    options, folded = runtime.SessionOptions(), file.with_name(f"{file.name}.folded")
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    folded.replace(file)


def _open_onnx(file: Path, _network: type[Generator]) -> Callable[..., Tensor]:
    runtime = require("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(_names(inputs), inputs, strict=True)}
        return torch.from_numpy(session.run(["image"], feed)[0])

    return run


def _write_pt2(file: Path, made: Contents) -> None:
    program = made.program()
    with _quiet():
        torch.export.save(program, file, extra_files={KEY: json.dumps(made.facts)})


def _open_pt2(file: Path, _network: type[Generator]) -> Callable[..., Tensor]:
    with _quiet():
        return torch.export.load(file).module()


def _write_torchscript(file: Path, made: Contents) -> None:
    with _quiet():
        traced = torch.jit.trace(made.module(), made.inputs, check_trace=False)  # type: ignore[no-untyped-call]
        whole = io.BytesIO()
        torch.jit.save(traced, whole, _extra_files={KEY: json.dumps(made.facts)})
    whole.seek(0)
    reader, writer = torch._C.PyTorchFileReader(whole), torch._C.PyTorchFileWriter(str(file))
    for name in reader.get_all_records():
        # Left out: where in this machine's files each operation comes from; and what the writer adds itself.
        if not name.endswith(".debug_pkl") and name not in ("version", ".data/serialization_id"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def _open_torchscript(file: Path, _network: type[Generator]) -> Callable[..., Tensor]:
    with _quiet():
        opened: Callable[..., Tensor] = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
        return opened


def _write_safetensors(file: Path, made: Contents) -> None:
    state = made.G.state_dict()
    tensors = {name: value.half() for name, value in state.items()} if made.half else state
    tensor_file.write(file, weights.FORMAT, {**weights.describe(made.G), "about": made.facts}, tensors)


def _open_safetensors(file: Path, network: type[Generator]) -> Callable[..., Tensor]:
    return load_network(file, own=[network])


FORMATS: dict[Form, Format] = {
    "onnx": Format(".onnx", _write_onnx, _open_onnx),
    "pt2": Format(".pt2", _write_pt2, _open_pt2),
    "torchscript": Format(".ts", _write_torchscript, _open_torchscript),
    "safetensors": Format(".safetensors", _write_safetensors, _open_safetensors),
}


def require(package: str) -> Any:
    """Import a package of the extra `onnx`.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"ONNX files need the package {package} ({error}): pip install 'progan[onnx]'; "
            f"--to pt2, torchscript and safetensors need nothing more"
        ) from None


def _names(inputs: Inputs) -> list[str]:
    return ["z", "labels"][: len(inputs)]


def _any_batch(inputs: Inputs) -> dict[str, dict[int, Any]]:
    """Return which sizes of the arguments are free: that of the batch, which is one for all."""
    n = torch.export.Dim("N", min=1)
    return {name: {0: n} for name in _names(inputs)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters tell of their own workings and future; what they make is checked."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

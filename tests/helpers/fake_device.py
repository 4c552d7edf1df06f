"""Whole iterations on a GPU that is not there, in a process of its own.

Fake tensors say that they are on it, and have shapes, types and layouts, but no numbers. A library that is
compiled from `fake_device_guard.cpp` has autograd follow them; FAKE_DEVICE in the environment says which kind
of device there is: cuda, xpu or mps. What is written to stdout, in JSON, is what
each case did between log points that it should not.

    python fake_device.py LIBRARY PACKED_SET < cases.json
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":  # before PyTorch is imported, which asks once which devices there are
    FOUND = importlib.util.find_spec("torch")
    assert FOUND is not None
    assert FOUND.origin is not None
    LIBRARIES = Path(FOUND.origin).parent / "lib"
    for library in [
        *sorted(LIBRARIES.glob("libgomp*")),
        LIBRARIES / "libc10.so",
        LIBRARIES / "libtorch_cpu.so",
    ]:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(Path(sys.argv[1]).resolve()), ctypes.RTLD_GLOBAL)

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from progan.config import make_config
from progan.data.packed import PackedSet
from progan.models.network import Network
from progan.runs.resolve import restrict
from progan.runs.sample_grid import SampleGrid
from progan.training import acceleration, losses
from progan.training.iteration import Iteration
from progan.training.optimizer import Optimizer
from progan.training.schedule import Point
from progan.training.spec import ImageSpec, Spec, make_spec
from progan.training.step import Step
from progan.training.terms.shipped import Drift

WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
"""Operators whose outcome the program needs before it can go on."""

PICTURES = "pinned"
"""Attribute of tensors in memory that a device reads by itself."""


@dataclass
class Findings:
    """What was done that should not be done between log points, by place and number of times.

    Attributes:
        waits: The program waits for the device.
        copies: Between devices, and not begun and left alone.
        mixed: Operators with tensors of two devices: a recording would keep the value of that on the CPU.
        gradients: Not of the type or in the layout of their parameter.
        updates: How many updates were looked at.
        operators: How many operators the device was asked for.
    """

    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)
    gradients: Counter[str] = field(default_factory=Counter)
    updates: int = 0
    operators: int = 0


def place() -> str:
    """Return the two innermost lines of progan that are being carried out."""
    frames = [f for f in traceback.extract_stack() if "/progan/" in f.filename]
    lines = [f"{f.filename.rsplit('/progan/', 1)[1]}:{f.lineno}" for f in reversed(frames[-2:])]
    return " < ".join(lines) or "a thread of autograd"


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operator, and answers in place of the device where a number is needed."""

    def __init__(self, device: torch.device, findings: Findings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._type, self._found = device.type, findings

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.startswith("prim::"):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode, operators come whole that consist of others
                return func.decompose(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [tensor for tensor in read if tensor.device.type == self._type]
        masked = name.startswith("index") and any(t.dtype == torch.bool for t in read[1:])
        if on_device and (name in WAITS or masked):
            self._found.waits[f"{name} @ {place()}"] += 1
        if name == "_local_scalar_dense":
            return read[0].dtype == torch.bool or 1
        if name == "_to_copy" and read[0].device.type == "cpu":  # what has numbers would be copied in earnest
            args = (torch.empty(read[0].shape, dtype=read[0].dtype), *args[1:])
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not (on_device or any(t.device.type == self._type for t in made)):
            return out
        self._found.operators += not func.is_view
        if name in ("_to_copy", "copy_"):
            return self._copied(name, args, kwargs, read, out)
        if len(on_device) < len(read):
            self._found.mixed[f"{name} @ {place()}"] += 1
        return out

    def _copied(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], read: list[Tensor], out: Tensor
    ) -> Tensor:
        """Look at a copy; what comes to the CPU has numbers again, all of them zero."""
        source = read[-1]
        if source.device.type == out.device.type:
            return out
        begun = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
        left_alone = begun and (source.device.type != "cpu" or hasattr(source, PICTURES))
        if not left_alone:
            way = f"{source.device.type} -> {out.device.type}"
            self._found.copies[f"{way} of {list(source.shape)} @ {place()}"] += 1
        if name == "_to_copy" and out.device.type == "cpu":
            with torch._C._DisableTorchDispatch():
                return torch.zeros(out.shape, dtype=out.dtype)
        return out


def placed(network: Any, device: torch.device) -> Any:
    """Do as `Network.place`: the parameters of a module cannot be exchanged for fake ones by `to`."""
    layout = torch.preserve_format if device.type == "mps" else torch.channels_last
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                moved = value.detach().to(
                    device, memory_format=layout if value.dim() == 4 else torch.preserve_format
                )
                held[name] = torch.nn.Parameter(moved) if isinstance(value, torch.nn.Parameter) else moved
    return network


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, marked."""
    setattr(tensor, PICTURES, True)
    return tensor


class Properties:
    """Of a large GPU."""

    major, minor, total_memory, multi_processor_count, name = 9, 0, 80 * 2**30, 132, "fake"


ANSWERS: dict[str, Any] = {
    "is_available": lambda: True,
    "is_bf16_supported": lambda *_, **__: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
    "mem_get_info": lambda *_: (70 * 2**30, 80 * 2**30),
    "get_device_properties": lambda *_: Properties,
    "get_device_capability": lambda *_: (9, 0),
    "_lazy_init": lambda: None,
}
"""What `torch.cuda` would ask a driver for."""


@contextmanager
def pretended(device: torch.device) -> Iterator[None]:
    """Have PyTorch believe in a device, and tensors be fake, while the block runs."""
    tensor = torch.tensor

    def made(data: Any, *, dtype: Any = None, device: Any = None, **rest: Any) -> Tensor:
        """Return an empty tensor for what is copied from numbers, which would be tried in earnest."""
        like = tensor(data, dtype=dtype, **rest)
        if device is None or torch.device(device).type == "cpu":
            return like
        return torch.empty(like.shape, dtype=like.dtype, device=device)

    with ExitStack() as stack:
        patch = mock.patch.object
        module = getattr(torch, device.type)
        for name, answer in ANSWERS.items():
            if hasattr(module, name):
                stack.enter_context(patch(module, name, answer))
        stack.enter_context(patch(torch, "tensor", made))
        stack.enter_context(patch(torch.Tensor, "pin_memory", pinned))
        stack.enter_context(patch(Network, "place", placed))
        stack.enter_context(patch(acceleration, "missing", lambda _: None))  # kernels have no numbers to show
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


@contextmanager
def gradients_watched(findings: Findings) -> Iterator[None]:
    """Look at the gradients that the optimizers are given."""
    add, step = Optimizer.add, Optimizer.step

    def watched(self: Optimizer, gradients: dict[str, Tensor]) -> None:
        for name, value in gradients.items():
            parameter = self._parameters[name]
            if value.dtype != parameter.dtype or value.device != parameter.device:
                findings.gradients[f"{name}: {value.dtype} on {value.device}"] += 1
            elif value.stride() != parameter.stride():
                findings.gradients[f"{name}: {list(value.shape)} laid out {value.stride()}"] += 1
        add(self, gradients)

    def counted(self: Optimizer, lr: float) -> bool:
        findings.updates += 1
        return step(self, lr)

    with mock.patch.object(Optimizer, "add", watched), mock.patch.object(Optimizer, "step", counted):
        yield


def alpha_on_the_cpu() -> Any:
    conditions = Iteration.conditions

    def planted(self: Iteration, point: Point) -> losses.Conditions:
        at = conditions(self, point)
        return replace(at, alpha=None if at.alpha is None else torch.full((), point.alpha))

    return mock.patch.object(Iteration, "conditions", planted)


def another_drift(term: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Replace the drift term by one that is computed from the scores of reals in another way."""
    return mock.patch.object(Drift, "discriminator", lambda _self, seen: term(seen.real.scores))


def number_in_a_loss() -> Any:
    return another_drift(lambda scores: scores.square() * max(1.0, float(scores.sum())))


def cpu_tensor_in_a_loss() -> Any:
    return another_drift(lambda scores: scores.square() + torch.zeros(scores.shape))


def terms_copied() -> Any:
    call = Step.__call__

    def planted(self: Step, *arguments: Any) -> losses.Terms:
        return {name: value.cpu() for name, value in call(self, *arguments).items()}

    return mock.patch.object(Step, "__call__", planted)


FAULTS: dict[str, Callable[[], Any]] = {
    one.__name__: one for one in (alpha_on_the_cpu, number_in_a_loss, cpu_tensor_in_a_loss, terms_copied)
}


def iterate(spec: Spec, packed: PackedSet, device: torch.device, findings: Findings) -> list[str]:
    """Make two iterations of each kind of phase and look at the second; then a sample grid.

    Returns:
        The names of the phases.
    """
    made = Iteration(spec, packed, device, lambda _: None)
    kinds = {(phase.level, phase.kind): phase for phase in reversed(spec.schedule.phases)}
    phases = sorted(kinds.values(), key=lambda phase: phase.start)
    for phase in phases:
        made.state.images_seen = spec.schedule.entry(phase)
        with Watch(device, Findings()):  # grows, makes moments, and begins to read ahead
            made(spec.schedule.at(made.state.images_seen))
        with Watch(device, findings), gradients_watched(findings):
            for _ in range(spec.config.loss.penalty_interval):
                point = spec.schedule.at(made.state.images_seen)
                made.state.interval.add(
                    made.state.images_seen, {k: v for one in made(point) for k, v in one.items()}
                )
    with Watch(device, Findings()):
        grid = SampleGrid(2, 4, seed=1, G=made.state.G)
        assert grid.draw(made.state.G_ema).shape[0] == 8
        assert grid.variation(made.state.G_ema).device.type == device.type
        assert set(made.state.interval.means()) >= {"D/loss", "G/loss"}
    return [phase.name for phase in phases]


def examine(case: dict[str, Any], packed: PackedSet) -> dict[str, Any]:
    """Carry a case out: options, a device, and perhaps a fault; returns what it did."""
    findings, device = Findings(), torch.device(case.get("device", "cuda"), 0)
    fault = FAULTS[case["fault"]]() if "fault" in case else ExitStack()
    phases, raised = [], ""
    try:
        with fault, pretended(device):
            config = make_config(case["options"])
            used = restrict(packed, config)
            image = ImageSpec(used.channels, used.base_shape, used.max_level, used.label_names)
            phases = iterate(make_spec(config, image, used.count), used, device, findings)
    except Exception as error:  # it is the outcome: what reads it knows what it may be
        frames = traceback.extract_tb(error.__traceback__)
        where = [f for f in frames if "/progan/" in f.filename or f.filename == __file__][-6:]
        raised = f"{type(error).__name__}: {str(error)[:300]} @ " + " < ".join(
            f"{f.filename}:{f.lineno}" for f in reversed(where)
        )
    return {**vars(findings), "phases": phases, "raised": raised}


def main() -> None:
    """Read cases by name, and write what they did."""
    torch.set_num_threads(1)
    torch._C._set_only_lift_cpu_tensors(True)
    packed = PackedSet.open(Path(sys.argv[2]))
    found = {name: examine(case, packed) for name, case in json.load(sys.stdin).items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

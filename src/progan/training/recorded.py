"""Gradients that are recorded once as a CUDA graph and replayed, so that starting operations costs nothing.

At low levels the GPU would wait for the program most of the time: an update is hundreds of small operations.
A recording is trusted after it has given the gradients that the operations themselves give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from progan.training.gradients import Batch, Found, Function
from progan.training.objective import Conditions
from progan.training.step import is_out_of_memory

T = TypeVar("T")
Capture = Callable[[Callable[[], Found]], tuple[Found, Callable[[], None]]]
"""Records a function: returns the tensors that it fills, and what fills them again."""

LARGEST_ERROR = 0.05
"""Of a recording's gradients, relative to those of the operations: far above rounding, in any precision."""


class CudaCapture:
    """Records functions as CUDA graphs, which share their memory: they are replayed one after the other."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        """Record a function after running it once, for libraries to choose their algorithms."""
        present, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            function()
        present.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()
        return result, graph.replay


@dataclass(frozen=True)
class _Recording(Generic[Batch]):
    """A recorded function with the tensors that it reads and fills."""

    batch: Batch
    at: Conditions
    found: Found
    replay: Callable[[], None]


class RecordedGradients(Generic[Batch]):
    """Records a function for each kind of update it meets, and replays it.

    Only the recordings of the present phase are kept.

    Args:
        function: Computes the gradients of a part of a batch.
        capture: Records it.
        say: Told if recording fails; from then on the function is called.
    """

    def __init__(self, function: Function[Batch], capture: Capture, say: Callable[[str], None]) -> None:
        self._function: Function[Batch] = function
        self._capture, self._say = capture, say
        self._phase: tuple[object, ...] = ()
        self._recordings: dict[tuple[object, ...], _Recording[Batch]] = {}
        self._failed = False

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Found:
        """Return gradients and terms as the function does; they hold until the next call."""
        if self._failed:
            return self._function(batch, at, n)
        phase = (at.level, at.alpha is None)
        if phase != self._phase:
            self._recordings.clear()
            self._phase = phase
        key = (at.penalize, at.probability is None, len(batch), n)
        recording = self._recordings.get(key)
        if recording is None:
            return self._record(key, batch, at, n)
        _copy_tensors(batch, recording.batch)
        _copy_tensors(at, recording.at)
        recording.replay()
        return recording.found

    def _record(self, key: tuple[object, ...], batch: Batch, at: Conditions, n: int) -> Found:
        """Compute gradients operation by operation, and record the same for the next time."""
        expected = self._function(batch, at, n)
        if not all(bool(torch.isfinite(value).all()) for value in expected[0].values()):
            return expected  # nothing to compare with: float16 may overflow at first
        kept_batch, kept_at = _clone_tensors(batch), _clone_tensors(at)
        try:
            found, replay = self._capture(lambda: self._function(kept_batch, kept_at, n))
            replay()
            error = _relative_error(found[0], expected[0])
        except RuntimeError as failure:
            if is_out_of_memory(failure):
                raise
            return self._give_up(str(failure).strip().split("\n")[0], expected)
        if not error < LARGEST_ERROR:
            return self._give_up(f"its gradients differ by {error:.2g} of their norm", expected)
        self._recordings[key] = _Recording(kept_batch, kept_at, found, replay)
        return expected

    def _give_up(self, reason: str, expected: Found) -> Found:
        self._failed = True
        self._recordings.clear()
        self._say(
            f"an update cannot be recorded as a CUDA graph ({reason}); going on without, which is slower at "
            f"low levels (run.cuda_graphs false leaves the attempt out)"
        )
        return expected


def _clone_tensors(value: T) -> T:
    """Return a dataclass with copies of its tensors, in memory of their own."""
    copies = {name: held.clone() for name, held in vars(value).items() if isinstance(held, Tensor)}
    result: T = replace(value, **copies)  # type: ignore[type-var]
    return result


def _copy_tensors(source: Any, target: Any) -> None:
    """Copy the tensors of a dataclass into those of another of its kind."""
    for name, held in vars(target).items():
        if isinstance(held, Tensor):
            held.copy_(vars(source)[name], non_blocking=True)


def _relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the difference of all gradients together, relative to theirs."""
    pairs = [(found[name].double(), value.double()) for name, value in expected.items()]
    off = torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
    norm = torch.stack([b.square().sum() for _, b in pairs]).sum()
    return float((off / norm.clamp_min(torch.finfo(torch.float64).tiny)).sqrt())

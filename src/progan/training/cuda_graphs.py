"""Gradients that are recorded once as a CUDA graph and replayed, so that starting operations costs nothing.

At low levels the GPU would wait for the program most of the time: an update is hundreds of small operations.
A recording is trusted after it has given the gradients that the operations themselves give. For that the
update is computed both ways, at a time when no other is held in memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from progan.data.batches import Batch
from progan.training.compiled_gradients import LARGEST_ERROR, relative_error, summed
from progan.training.losses import Conditions
from progan.training.step import Found, GradientFunction, is_out_of_memory

T = TypeVar("T")
Capture = Callable[[Callable[[], Found], bool], tuple[Found, Callable[[], None]]]
"""Records a function, given whether the same was recorded before: returns the tensors that it fills, and what
fills them again."""


class CudaCapture:
    """Records functions as CUDA graphs, which share their memory: they are replayed one after the other.

    Their device need not be PyTorch's current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One for all, so that what the libraries keep for a stream is made outside of any graph's memory.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def __call__(self, function: Callable[[], Found], again: bool) -> tuple[Found, Callable[[], None]]:
        """Record a function; for the first time after running it once, for libraries to choose algorithms."""
        # Streams and graphs are those of the current device. And if a recording fails, PyTorch leaves its own
        # stream the current one: this context puts the present one back.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream()):
            if not again:
                present = torch.cuda.current_stream()
                self._stream.wait_stream(present)
                with torch.cuda.stream(self._stream):
                    function()
                present.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Memory whose last graph is gone must not be given to another: then it is memory of its own.
            pool = next((living.pool() for living in self._graphs), None)
            # Not "global": another thread may reserve host memory meanwhile, to read pictures ahead.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        self._graphs.add(graph)
        return result, graph.replay


@dataclass(frozen=True)
class _Recording:
    """A recorded function with the tensors that it reads and fills."""

    batch: Batch
    at: Conditions
    found: Found
    replay: Callable[[], None]


class Shelf:
    """The recordings of the present phase, by function and kind of update; of others all are let go together.

    Those are trusted that have been tried: what was recorded gave the right gradients. It is full if memory
    does not hold the recordings of this phase.
    """

    def __init__(self) -> None:
        self.recordings: dict[tuple[object, ...], _Recording] = {}
        self.tried: set[tuple[object, ...]] = set()
        self.full = False
        self._phase: tuple[object, ...] = ()

    def enter(self, phase: tuple[object, ...]) -> None:
        """Let go of what was recorded in another phase."""
        if phase != self._phase:
            self.recordings.clear()
            self.tried.clear()
            self._phase, self.full = phase, False


class RecordedGradients:
    """Records a function that finds gradients for each kind of update it meets, and replays it.

    If recording fails, that is said, and from then on the function is called. Recordings are kept on the
    shelf, for all functions that share memory.
    """

    def __init__(
        self, function: GradientFunction, capture: Capture, say: Callable[[str], None], shelf: Shelf
    ) -> None:
        self._function: GradientFunction = function
        self._capture, self._say, self._shelf = capture, say, shelf
        self._failed = False

    def __call__(self, batch: Batch, at: Conditions, n: int) -> Iterator[Found]:
        """Yield gradients and terms of the whole loss; they hold until the next call for a whole batch."""
        shelf = self._shelf
        shelf.enter((at.level, at.alpha is None))
        if self._failed or shelf.full:
            yield self._plainly(batch, at, n)
            return
        key = (id(self), at.penalize, at.probability is None, len(batch), n)
        if key not in shelf.tried:
            yield self._try(key, batch, at, n)
            return
        recording = shelf.recordings.get(key) or self._record(key, batch, at, n)
        if recording is None:
            yield self._plainly(batch, at, n)
            return
        _copy_tensors(batch, recording.batch)
        _copy_tensors(at, recording.at)
        recording.replay()
        gradients, terms = recording.found
        if len(batch) < n:  # the next part is computed before these gradients have been used
            gradients = {name: value.clone() for name, value in gradients.items()}
        yield gradients, terms

    def _plainly(self, batch: Batch, at: Conditions, n: int) -> Found:
        """Call the function; where memory runs out, once more without what the recordings hold of it."""
        try:
            return summed(self._function(batch, at, n))
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._shelf.recordings:
                raise
        # Outside the handler: while it runs, the error keeps the failed attempt's tensors alive.
        self._make_room(at.level)
        return summed(self._function(batch, at, n))

    def _try(self, key: tuple[object, ...], batch: Batch, at: Conditions, n: int) -> Found:
        """Compute gradients operation by operation, and see whether a recording gives the same.

        It is let go again, as the others are before: what they hold is as large as what an update needs, and
        the two networks are recorded one after the other. Who has been tried is recorded when it comes next,
        in memory that all share then, and nothing is computed beside.
        """
        self._shelf.recordings.clear()
        expected = self._plainly(batch, at, n)
        if self._shelf.full or not all(bool(torch.isfinite(value).all()) for value in expected[0].values()):
            return expected  # not finite, so nothing to compare with: float16 may overflow at first
        found = self._captured(batch, at, n, again=False)
        if found is None:
            return expected
        for value in found.found[0].values():
            value.fill_(torch.nan)  # what recorded nothing must not pass
        found.replay()
        error = relative_error(found.found[0], expected[0])
        if error < LARGEST_ERROR:
            self._shelf.tried.add(key)
        else:
            self._give_up(f"its gradients differ by {error:.2g} of their norm")
        return expected

    def _record(self, key: tuple[object, ...], batch: Batch, at: Conditions, n: int) -> _Recording | None:
        """Record what has been tried, for this time and the next; None if that is not possible any more."""
        made = self._captured(batch, at, n, again=True)
        if made is not None:
            self._shelf.recordings[key] = made
        return made

    def _captured(self, batch: Batch, at: Conditions, n: int, *, again: bool) -> _Recording | None:
        """Record the function with tensors of its own; where that fails, say so and go on without."""
        kept_batch, kept_at = _clone_tensors(batch), _clone_tensors(at)
        try:
            found, replay = self._capture(lambda: summed(self._function(kept_batch, kept_at, n)), again)
            return _Recording(kept_batch, kept_at, found, replay)
        except RuntimeError as failure:
            memory, reason = is_out_of_memory(failure), str(failure).strip().split("\n")[0]
        if memory:
            self._make_room(at.level)
        else:
            self._give_up(reason)
        return None

    def _make_room(self, level: int) -> None:
        """Go on in this phase without recordings, whose memory is needed: that of the batch counts more."""
        self._shelf.recordings.clear()
        self._shelf.full = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._say(f"level {level}: memory does not hold CUDA graphs of the updates, so they are left out")

    def _give_up(self, reason: str) -> None:
        self._failed = True
        for key in [key for key in self._shelf.recordings if key[0] == id(self)]:
            del self._shelf.recordings[key]
        self._say(
            f"an update cannot be recorded as a CUDA graph ({reason}); going on without, which is slower at "
            f"low levels (run.cuda_graphs false leaves the attempt out)"
        )


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

"""Doing one function for many items in worker processes, in order, with bounded memory.

The workers are plain child processes that speak pickle over their pipes, not `multiprocessing`: that would
run the caller's main script again in each worker (PyTorch and all, or endlessly in a script without a main
guard), and would end the whole work when a damaged picture crashes a decoder. Here such a picture is found
and answered for, and a worker ends by itself when its parent is gone, however that happened.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from progan.errors import ProganError

C = TypeVar("C")
R = TypeVar("R")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_chunks(
    function: Callable[[C, str], R | str],
    context: C,
    chunks: Iterable[Sequence[str]],
    workers: int,
    crashed: str,
) -> Generator[list[R | str], None, None]:
    """Yield, chunk by chunk and in order, the results of `function(context, item)` for every item.

    Args:
        function: A function of a module (workers import it); it must not raise for bad items.
        context: Sent along; must be picklable.
        chunks: Groups of items; a group is one message to a worker.
        workers: Number of processes; with 1, everything happens in this process.
        crashed: The result (text, as for other failures) for an item that ends its worker process.

    Closing the generator ends the workers at once.
    """
    if workers <= 1:
        for chunk in chunks:
            yield [function(context, item) for item in chunk]
        return
    pool: _Pool[C, R] = _Pool(function, context, crashed, workers)
    pending: deque[Future[list[R | str]]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(chunk))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.close()


class _Pool(Generic[C, R]):
    """Worker processes, each driven by a thread that waits for it."""

    def __init__(self, function: Callable[[C, str], R | str], context: C, crashed: str, workers: int) -> None:
        self._setup = pickle.dumps((function, context))
        self._crashed = crashed
        self._closed = False
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(self._setup) for _ in range(workers)]
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, chunk: Sequence[str]) -> Future[list[R | str]]:
        return self._threads.submit(self._run, chunk)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.process.kill()  # whoever waits for its answer meets the end of the pipe
        self._threads.shutdown(wait=True)
        for worker in self._all:
            worker.close()

    def _run(self, chunk: Sequence[str]) -> list[R | str]:
        worker = self._idle.get()
        try:
            try:
                return worker.run(chunk)
            except _WorkerDiedError:
                if self._closed:
                    raise
                # A failed import, after which Python exits with 1; a decoder that crashes ends by a signal.
                if worker.process.wait() == 1:
                    raise ProganError(
                        "a worker process could not start; check that this Python can import progan, "
                        "or prepare the pictures with one worker"
                    ) from None
                worker.restart()
            if len(chunk) == 1:
                return [self._crashed]
        finally:
            self._idle.put(worker)
        # One of the items ends its process: find out which, and do the others.
        return [result for item in chunk for result in self._run([item])]


class _WorkerDiedError(Exception):
    """The process of a worker ended before it answered."""


class _Worker:
    """One child process."""

    def __init__(self, setup: bytes) -> None:
        self._setup = setup
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        process = subprocess.Popen(
            # -P: a file in the current folder must not shadow a module.
            [sys.executable, "-P", "-c", "from progan.system.worker_pool import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoding libraries write warnings of their own there
            env=environment,
        )
        assert process.stdin is not None
        # A process that dies at once is noticed when its first answer is missing.
        with contextlib.suppress(OSError):
            process.stdin.write(self._setup)
            process.stdin.flush()
        return process

    def run(self, chunk: Sequence[str]) -> list[Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(list(chunk), self.process.stdin)
            self.process.stdin.flush()
            ok, answer = pickle.load(self.process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise _WorkerDiedError from None
        if not ok:
            raise ProganError(f"a worker process failed: {answer}")
        results: list[Any] = answer
        return results

    def restart(self) -> None:
        self.close()
        self.process = self._start()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()


def serve() -> None:
    """Be a worker: read the function and its context, then chunks, from stdin; answer on stdout."""
    # The terminal sends Ctrl-C to every process; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    function, context = pickle.load(requests)
    while True:
        try:
            chunk = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: tuple[bool, object] = (True, [function(context, item) for item in chunk])
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers)
        answers.flush()

"""How metrics compute on images: exactly, whatever training has set for speed, and on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from progan.system.device import float32_products

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Works on many things at once, if there is a pool of threads for it, else on one after the other."""

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return the results in order; the first exception is raised."""
        return list((self._pool.map if self._pool else map)(function, items))


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute without gradients and in float32 proper (no TF32, no autocast), whatever training has set."""
    # Inference mode is of the calling thread only; its tensors could not be written to by workers.
    autocast = torch.autocast(device.type, enabled=False)
    with float32_products(tf32=False), torch.inference_mode(False), torch.no_grad(), autocast:
        yield


@contextmanager
def computing(device: torch.device) -> Iterator[Workers]:
    """Compute as `exact_float32` does, on all threads that PyTorch may use.

    On a CPU each worker has work of its own and one thread for it. PyTorch's own threads share the work of
    every single operation, so where another program keeps a core busy, all of them wait for that core
    thousands of times. On other devices there is one worker.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    with exact_float32(device):
        if threads == 1:
            yield Workers()
            return
        torch.set_num_threads(1)  # also of new threads
        try:
            with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
                yield Workers(pool)
        finally:
            torch.set_num_threads(threads)

"""How the processes of a run find each other, in the store that torchrun has for them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from progan.distributed.watchdog import PATIENCE, Watch
from progan.errors import ConfigError, RankError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""
BACKSTOP = timedelta(days=7)
"""When PyTorch gives up waiting. `Watch` does so earlier, and can say where each process is."""
JOIN_SECONDS = 300.0
"""How long processes wait for each other at the start."""
POLL = 0.05
"""Seconds between two looks into the store."""


def alone(environment: Mapping[str, str]) -> bool:
    """Whether the environment of a process names no others that it trains with.

    Raises:
        ConfigError: if the environment is incomplete, or what must be a number is none.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return True
    for name in VARIABLES:
        if name != "MASTER_ADDR" and not environment.get(name, "0").isdecimal():
            raise ConfigError(
                f"{name} is {environment[name]!r}, which is no number: start the processes with torchrun, or "
                f"unset RANK and WORLD_SIZE to train with one"
            )
    missing = [name for name in VARIABLES if name not in environment]
    if missing and environment["WORLD_SIZE"] != "1":
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, and {', '.join(missing)} are not: start the processes with "
            f"torchrun, or unset them to train with one"
        )
    return environment["WORLD_SIZE"] == "1"


def connect(rank: int, size: int) -> tuple[Store, Watch]:
    """Connect with the other processes: begin to watch them, and make the process group.

    The store of an elastic run outlives its processes, so each start has names of its own in it.

    Args:
        rank: Which process this is.
        size: How many there are.

    Returns:
        The store, and what watches the others; it has begun.

    Raises:
        RankError: if processes do not come, or cannot be reached.
    """
    watch: Watch | None = None
    try:
        with ended_if_late(rank, 2 * JOIN_SECONDS):
            store, watched = _open_store(rank, size), _open_store(rank, size)
            name = uuid.uuid4().hex if rank == 0 else _ask_name(store, rank)
            watch = Watch(PrefixStore(name, watched), rank, size)
            watch.start()
            _arrive(store, name, rank, size, watch)
        store = PrefixStore(name, store)
        _make_group(store, rank, size, watch)
    except BaseException as error:
        if isinstance(error, RuntimeError):
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            error = RankError(f"rank {rank} cannot reach the other processes of the run ({reason})")
        if watch is not None:
            watch.end(str(error) or type(error).__name__, 1)
        raise error from None
    return store, watch


@contextlib.contextmanager
def ended_if_late(rank: int, seconds: float, out: Callable[[int], object] = os._exit) -> Iterator[None]:
    """End this process, in words, if the block takes longer than some seconds.

    For what nothing watches over yet: PyTorch waits without end for a store that has stopped answering.

    Args:
        rank: Which process this is.
        seconds: How long the block may take.
        out: Ends the process with a code.
    """

    def end() -> None:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        sys.stderr.write(
            f"error: rank {rank} has not met the other processes within {seconds:.0f} s: the store of "
            f"torchrun at {place} does not answer\n"
        )
        sys.stderr.flush()
        out(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _make_group(store: Store, rank: int, size: int, watch: Watch) -> None:
    """Connect all processes with each other, which must not take longer than meeting them."""
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    # NCCL's own watchdogs would tear this process down, at an error of a connection or when nobody moves for
    # minutes, before ours has said which process was lost and where.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    os.environ.setdefault("TORCH_NCCL_ENABLE_MONITORING", "0")
    watch.timeout = JOIN_SECONDS
    watch.at("connecting with the other processes")
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=BACKSTOP)
    watch.at("the checks of a start")
    watch.timeout = PATIENCE


def _open_store(rank: int, size: int) -> Store:
    """Return a connection to the store of the run; threads cannot share one."""
    store, _, _ = next(rendezvous("env://", rank, size, timeout=timedelta(seconds=JOIN_SECONDS)))
    return cast(Store, store)


def _ask_name(store: Store, rank: int) -> str:
    """Return the name that the first process has given to this start; a RankError if there is no answer.

    Asked under a number that nobody had before, so that the answer is of this start, not of one that failed.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + JOIN_SECONDS
    store.set(f"ask/{rank}", own)
    while not store.check([f"answer/{own}"]):
        if time.monotonic() > deadline:
            raise RankError(f"rank {rank} waited {JOIN_SECONDS:.0f} s in vain for rank 0")
        time.sleep(POLL)
    return bytes(store.get(f"answer/{own}")).decode()


def _arrive(store: Store, name: str, rank: int, size: int, watch: Watch) -> None:
    """Say that this process is there; the first answers who asks, and waits until all are.

    A RankError tells of processes that do not come, or of one that has come and is lost.
    """
    store.set(f"there/{name}/{rank}", "")
    deadline = time.monotonic() + JOIN_SECONDS
    absent = list(range(1, size)) if rank == 0 else []
    while absent:
        for other in tuple(absent):
            if store.check([f"there/{name}/{other}"]):
                watch.follow(other)
                absent.remove(other)
            elif store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
        watch.require_well()
        if absent and time.monotonic() > deadline:
            raise RankError(f"ranks {', '.join(map(str, absent))} did not come within {JOIN_SECONDS:.0f} s")
        time.sleep(POLL)

"""How the processes of a run find each other, in the store that torchrun has for them."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from progan.errors import RankError
from progan.training.watch import Watch

BACKSTOP = timedelta(days=7)
"""When PyTorch gives up waiting. `Watch` does so earlier, and can say where each process is."""
JOIN_SECONDS = 300.0
"""How long processes wait for each other at the start."""
POLL = 0.05
"""Seconds between two looks into the store."""


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
    try:
        store, watched = _open_store(rank, size), _open_store(rank, size)
        name = uuid.uuid4().hex if rank == 0 else _ask_name(store, rank)
        watch = Watch(PrefixStore(name, watched), rank, size)
        _arrive(store, name, rank, size)
        watch.start()
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        store, backend = PrefixStore(name, store), "cpu:gloo,cuda:nccl" if nccl else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=BACKSTOP)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RankError(f"rank {rank} cannot reach the other processes of the run ({reason})") from None
    return store, watch


def _open_store(rank: int, size: int) -> Store:
    """Return a connection to the store of the run; threads cannot share one."""
    store, _, _ = next(rendezvous("env://", rank, size, timeout=timedelta(seconds=JOIN_SECONDS)))
    return cast(Store, store)


def _ask_name(store: Store, rank: int) -> str:
    """Return the name that the first process has given to this start.

    Asked under a number that nobody had before, so that the answer is of this start, not of one that failed.

    Raises:
        RankError: if there is no answer.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + JOIN_SECONDS
    store.set(f"ask/{rank}", own)
    while not store.check([f"answer/{own}"]):
        if time.monotonic() > deadline:
            raise RankError(f"rank {rank} waited {JOIN_SECONDS:.0f} s in vain for rank 0")
        time.sleep(POLL)
    return bytes(store.get(f"answer/{own}")).decode()


def _arrive(store: Store, name: str, rank: int, size: int) -> None:
    """Say that this process is there; the first answers who asks, and waits until all are.

    Raises:
        RankError: if processes do not come.
    """
    store.set(f"there/{name}/{rank}", "")
    deadline = time.monotonic() + JOIN_SECONDS
    others = range(1, size) if rank == 0 else range(0)
    while absent := [other for other in others if not store.check([f"there/{name}/{other}"])]:
        for other in absent:
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
        if time.monotonic() > deadline:
            raise RankError(f"ranks {', '.join(map(str, absent))} did not come within {JOIN_SECONDS:.0f} s")
        time.sleep(POLL)

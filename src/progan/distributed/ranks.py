"""The processes of a run, as torchrun starts them; `torch.distributed` is used here and in `rendezvous`.

Each process holds the whole state and makes the same updates; what is shared is the work of the batch. So
they add up gradients (`Ranks.all_reduce`), agree on what depends on time and signals (`Ranks.vote`), and take
the state from the first (`Ranks.broadcast`). Files, messages and measurements are the first's: what it alone
does is given to `Ranks.first_only`, and what all come to the end with is told by it (`join`). One process
alone is the same class, and waits for nobody.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from progan.distributed.rendezvous import POLL, alone, connect
from progan.distributed.watchdog import Watch, limit_exit
from progan.errors import (
    ConfigError,
    DataError,
    DivergenceError,
    Interrupted,
    ProganError,
    RankError,
    ToldElsewhere,
    memory_reason,
)
from progan.system.device import choose_device

T = TypeVar("T")

TELL_SECONDS = 15.0
"""How long a process that has failed waits for the first to tell the same."""
SIGNAL_SECONDS = 5.0
"""How long a process that stops because another was asked to waits until torchrun asks it, too."""


@dataclass
class _Link:
    """What connects a process with the others."""

    store: Store
    watch: Watch
    votes: tuple[Tensor, dist.Work] | None = None
    pending: list[tuple[str, list[Tensor], dist.Work]] = field(default_factory=list)


class Ranks:
    """The processes that share a run, seen from one of them.

    Whatever exchanges something with the others, or waits for them, raises RankError if one is lost, and
    ToldElsewhere if one has failed and tells why. The first, 0, writes and reports; the local rank is that on
    the machine; there is no link for one process alone.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, link: _Link | None = None) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._link = link

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def first_only(self, work: Callable[[], T]) -> T | None:
        """Do some work on the first process alone, for which nobody waits; returns None on the others."""
        return work() if self.first else None

    def of_first(self, work: Callable[[], T]) -> T:
        """Do some work on the first process, and return there and on the others what it returns.

        Args:
            work: Returns what JSON has; not called on the others, which wait for it.
        """
        return self.broadcast(cast(T, self.first_only(work)))

    def first_takes(self, items: Iterable[T], take: Callable[[Iterable[T]], None]) -> None:
        """Give the first process what all make together; the others take part in the making.

        Args:
            items: On the first process what is made, on the others nothing to be had by iterating it.
            take: Told all items on the first process.
        """
        if self.first:
            take(items)
        else:
            deque(items, maxlen=0)

    def device(self, name: str) -> torch.device:
        """Return the device of a name; of processes on one machine, each has the GPU of its number.

        Args:
            name: `auto`, or a name of PyTorch's.

        Raises:
            ConfigError: if there is no such device, or fewer GPUs than processes, or one was named that all
                would use.
        """
        chosen = choose_device(name, self.local_rank)
        if self._link is None or chosen.type != "cuda":
            return chosen
        if ":" in str(chosen):
            raise ConfigError(
                f"run.device {chosen} is one GPU, and {self.size} processes use one each: set run.device to "
                f"cuda"
            )
        visible = torch.cuda.device_count()
        # Clusters may show each process its own GPU alone, which is then number 0 to all of them.
        device = torch.device("cuda", 0 if visible == 1 else self.local_rank)
        if device.index >= visible or not self._is_own_gpu(device):
            raise ConfigError(
                f"this machine has {visible} GPUs, and local rank {self.local_rank} would use another one: "
                f"start at most one process a GPU (--nproc-per-node)"
            )
        torch.cuda.set_device(device)
        return device

    def _is_own_gpu(self, device: torch.device) -> bool:
        """Whether no other process of the run has claimed this GPU, which is claimed by that."""
        assert self._link is not None
        gpu = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        if gpu is None:  # not told before PyTorch 2.5
            return device.index == self.local_rank
        return int(self._link.store.add(f"gpu/{gpu}", 1)) == 1

    def at(self, what: str | Callable[[], str], clock: int | None = None, phase: str = "") -> None:
        """Note what this process is about to do, for the message that says where each is when one is lost.

        Args:
            what: In words; or what returns them, with clock and phase, and is asked when they are told.
            clock: Images seen.
            phase: Name of the phase.
        """
        if self._link is None:
            return
        when = "" if clock is None else f" at {clock:,} images"
        self._link.watch.at(
            f"{what}{when}{f' ({phase})' if phase else ''}" if isinstance(what, str) else what
        )

    def progress(self, what: str, done: int, total: int, /) -> None:
        """Note how far this process is with some work."""
        self.at(f"{what}, {done:,} of {total:,}")

    def limit(self, minutes: float) -> None:
        """Set the time after which it is an error that no process moves."""
        if self._link is not None:
            self._link.watch.timeout = 60 * minutes

    def all_reduce(
        self, gradients: Sequence[Tensor], means: Mapping[str, Tensor], names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Add up gradients, in place, and means over the processes, in one flat buffer.

        One reduction for each update, after all of its backward passes, whatever they were: the penalty's
        double backward and micro-batches need no special treatment, and nobody is asked while they run.
        Every process gets the same bits.

        Args:
            gradients: Of one type and device, the same parameters on every process.
            means: 0-d, by name: this process's share of each; none if it had no samples.
            names: All names there can be, the same on every process.

        Returns:
            The sums of the means, those that any process has.
        """
        if self._link is None:
            return dict(means)
        like = gradients[0]
        zero, one = like.new_zeros(()), like.new_ones(())
        given = [means[name].to(like.dtype) if name in means else zero for name in names]
        present = [one if name in means else zero for name in names]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), torch.stack([*given, *present])])
        # Memory is taken before the others get their share of this: an update that they have made cannot be
        # begun again in smaller parts.
        kept = flat.new_empty(len(names))
        with self._connected():
            dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        *parts, sums, counts = torch.split(flat, [*sizes, len(names), len(names)])
        views = [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(list(gradients), views)
        kept.copy_(sums)
        # Only who has no samples, and so nothing to do, waits for the device to know the names.
        there = [name in means for name in names] if means else [count > 0 for count in counts.tolist()]
        return {name: kept[i] for i, name in enumerate(names) if there[i]}

    def vote(self, *votes: int) -> list[int]:
        """Return the largest of all processes' votes, at the same call on each of them.

        Nobody waits: with several processes these are the votes of the call before, and at the first, zeros.
        """
        if self._link is None:
            return list(votes)
        before = self._link.votes
        with self._connected():
            mine = torch.tensor(votes, dtype=torch.int64)
            self._link.votes = mine, dist.all_reduce(mine, dist.ReduceOp.MAX, async_op=True)
            if before is None:
                return [0] * len(votes)
            before[1].wait()
        return [int(vote) for vote in before[0].tolist()]

    def broadcast(self, value: T) -> T:
        """Return the first process's value, which is made of what JSON has; all wait for it."""
        if self._link is None:
            return value
        text = json.dumps(value).encode() if self.first else b""
        with self._connected():
            length = torch.tensor(len(text))
            dist.broadcast(length, 0)
            data = torch.frombuffer(bytearray(text or bytes(int(length))), dtype=torch.uint8)
            dist.broadcast(data, 0)
        received: T = json.loads(bytes(data.numpy()))
        return received

    def broadcast_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the first process's tensors, on the CPU; all wait for them."""
        if self._link is None:
            return tensors
        kinds = {name: (list(value.shape), str(value.dtype)[6:]) for name, value in tensors.items()}
        received = {}
        for name, (shape, dtype) in self.broadcast(kinds).items():
            value = tensors[name] if self.first else torch.empty(shape, dtype=getattr(torch, dtype))
            received[name] = value.cpu().contiguous()
            with self._connected():
                dist.broadcast(received[name], 0)
        return received

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return all processes' tensors, of one shape and on the CPU, on the first; none on the others."""
        if self._link is None:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)] if self.first else []
        with self._connected():
            dist.gather(tensor, gathered or None, 0)
        return gathered

    def compare(self, what: str, digest: Callable[[], int]) -> None:
        """Compare a number over all processes. The first waits for the others, which learn of it later.

        Args:
            what: What it stands for, in words.
            digest: Returns a number of 64 bits; not asked where there is nobody to compare with.

        Raises:
            RankError: naming those whose number is not that of the first; the others, at their next call.
        """
        if self._link is None:
            return
        with self._connected():
            gathered = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
            work = dist.all_gather(gathered, torch.tensor(digest()), async_op=True)
        self._link.pending.append((what, gathered, work))
        self._settle(0 if self.first else 1)

    def _settle(self, most: int) -> None:
        """Look at what was compared, until at most so many comparisons are left."""
        assert self._link is not None
        while len(self._link.pending) > most:
            about, numbers, work = self._link.pending.pop(0)
            with self._connected():
                work.wait()
            differing = [rank for rank, number in enumerate(numbers) if int(number) != int(numbers[0])]
            if differing:
                raise RankError(
                    f"{about} of ranks {', '.join(map(str, differing))} differ from those of rank 0: they no "
                    f"longer train the same network (other hardware or software, or a fault of it). "
                    f"What was saved is whole: leave those machines out, and give the same command again"
                )

    def barrier(self, what: str) -> None:
        """Wait until all processes have come here, and have agreed about what they were asked before."""
        if self._link is None:
            return
        self.at(what)
        self._settle(0)
        with self._connected():
            if self._link.votes is not None:
                self._link.votes[1].wait()
                self._link.votes = None
            all_here = dist.all_reduce(torch.zeros(()), async_op=True)
            # Who has failed may be slow to go, and its connections stay until then.
            while not all_here.is_completed():
                self._link.watch.require_well()
                time.sleep(POLL)
            all_here.wait()

    def _let_all_through(self) -> None:
        """Wait until all processes have come through the last barrier.

        Connections are closed next, and who has not read yet what this process sent would find them broken.
        """
        assert self._link is not None
        store = self._link.store
        with suppress(RuntimeError):  # the process that holds the store leaves when all are through
            store.add("through", 1)
            while int(store.add("through", 0)) < self.size:
                self._link.watch.require_well()
                time.sleep(POLL)

    def leave(self, asked: Callable[[], bool]) -> None:
        """Leave the others, after a barrier, but stay a moment until torchrun has asked this process to stop.

        When a machine joins, each torchrun asks the processes of its own machine, one after the other. To one
        whose processes had ended before it asks them, that is a failure, for which it has a limit
        (`--max-restarts`).

        Args:
            asked: Whether it has.
        """
        if self._link is None:
            return
        self._link.watch.end()
        until = time.monotonic() + SIGNAL_SECONDS
        while not asked() and time.monotonic() < until:
            time.sleep(POLL)

    def in_turn(self, work: Callable[[], T], facts_of: Callable[[T], dict[str, str]]) -> T:
        """Do some work first on the first process, then on the first of each machine, then on the others.

        So what one of them prepares, the others of its machine find. Who waits looks into the store, where
        no time runs out while somebody moves.

        Args:
            work: What to do.
            facts_of: What all must agree about, in words by name, given what `work` returned.

        Raises:
            ProganError: of the work, on the process where it failed if that is the first.
            ConfigError: on the first process, if another one failed or the facts differ.
            ToldElsewhere: on all others.
        """
        if self._link is None:
            return work()
        if not self.first:
            begun = self._await("outcome/0")
            if begun["error"]:
                raise ToldElsewhere(begun["error"], begun["code"])
            if self.local_rank != 0:
                self._await(f"outcome/{self.rank - self.local_rank}")
        outcome: dict[str, Any] = {"code": 0, "error": "", "facts": {}}
        result: T | None = None
        try:
            result = work()
            outcome["facts"] = facts_of(result)
        except ProganError as error:
            outcome |= {"code": error.exit_code, "error": str(error)}
            if self.first:
                self._link.store.set("outcome/0", json.dumps(outcome))
                raise
        self._link.store.set(f"outcome/{self.rank}", json.dumps(outcome))
        self._conclude(outcome)
        assert result is not None
        return result

    def _conclude(self, own: dict[str, Any]) -> None:
        """Let the first process compare what all have found, and all end if it finds fault."""
        assert self._link is not None
        if self.first:
            outcomes = [own, *(self._await(f"outcome/{rank}") for rank in range(1, self.size))]
            verdict = _verdict(outcomes)
            self._link.store.set("outcome", json.dumps(verdict))
            if verdict["error"]:
                error = ConfigError(verdict["error"])
                error.exit_code = verdict["code"]
                raise error
        else:
            verdict = self._await("outcome")
            if verdict["error"]:
                raise ToldElsewhere(verdict["error"], verdict["code"])

    def _await(self, key: str) -> dict[str, Any]:
        """Wait until a value is in the store."""
        assert self._link is not None
        self._link.watch.at("waiting for the checks of another process")
        while not self._link.store.check([key]):
            self._link.watch.require_well()
            time.sleep(POLL)
        value: dict[str, Any] = json.loads(self._link.store.get(key))
        return value

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn errors of connections into those that say which process was lost."""
        assert self._link is not None
        try:
            yield
        except torch.OutOfMemoryError as error:
            # Not to be tried again in smaller parts: the others may have their share of it already.
            raise RankError(
                f"rank {self.rank} stops: memory does not hold what processes exchange "
                f"({memory_reason(error)}); compute fewer images at once with --run.micro-batch"
            ) from error
        except RuntimeError as error:
            raise self._link.watch.broken(error) from error


ALONE = Ranks()
"""One process that trains by itself."""


def _verdict(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the error of processes that failed, or whose facts are not those of the first, if any."""
    failed = {rank: outcome for rank, outcome in enumerate(outcomes) if outcome["error"]}
    if failed:
        first: dict[str, int] = {}
        for rank, outcome in failed.items():
            first.setdefault(outcome["error"], rank)
        text = "\n".join(f"rank {rank}: {error}" for error, rank in first.items())
        return {"code": next(iter(failed.values()))["code"], "error": text}
    lines: list[str] = []
    for name, value in outcomes[0]["facts"].items():
        for rank, outcome in enumerate(outcomes):
            if outcome["facts"].get(name) != value:
                lines.append(f"  {name}: {value} on rank 0, {outcome['facts'].get(name)} on rank {rank}")
    if not lines:
        return {"code": 0, "error": ""}
    shown = "\n".join(lines[:16])
    return {
        "code": 2,
        "error": f"the processes of a run must be the same, and differ:\n{shown}\nGive each machine the same "
        f"command, pictures and software",
    }


@contextmanager
def join() -> Iterator[Ranks]:
    """Meet the other processes that torchrun has started, and leave them at the end of the block.

    What all of them end with is told by the first: the others raise ToldElsewhere then.

    Raises:
        ConfigError: if the environment is incomplete, or this process has a process group already.
        RankError: if processes do not come.
    """
    if alone(os.environ):
        yield ALONE
        return
    if dist.is_initialized():
        raise ConfigError("torch.distributed is in use in this process already: end that first")
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    atexit.register(limit_exit)
    link = _Link(*connect(rank, size))
    ranks = Ranks(rank, size, local_rank, link)
    try:
        with nullcontext() if ranks.first else _told_by_first(link.watch):
            yield ranks
            ranks.barrier("the end")
            ranks._let_all_through()
            dist.destroy_process_group()
    except ToldElsewhere as error:
        link.watch.end(None, error.exit_code)
        raise
    except BaseException as error:
        code = error.exit_code if isinstance(error, ProganError) else 1
        link.watch.end(str(error) or type(error).__name__, code)
        raise
    link.watch.end()
    atexit.unregister(limit_exit)


@contextmanager
def _told_by_first(watch: Watch) -> Iterator[None]:
    """Leave it to the first process to tell of what it meets, too.

    All come to the end of a run together. Another mistake, such as a disk that is gone, the first may have
    met at the same time: it has a moment to save and to tell it, before this process does.

    Raises:
        ToldElsewhere: if the first tells it.
    """
    try:
        yield
    except (DivergenceError, Interrupted) as error:
        raise ToldElsewhere(str(error), error.exit_code) from None
    except (ConfigError, DataError):
        until = time.monotonic() + TELL_SECONDS
        while time.monotonic() < until:
            watch.require_well()
            time.sleep(POLL)
        raise

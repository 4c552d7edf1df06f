"""Runs of the command as real processes that are killed at chosen or random instants, or whose disk fails.

Importing PyTorch takes seconds, so processes are forked from one that has imported it. Each is a process of
its own, with its own locks and signals, and dies as any other does. Hooks, placed in the forked process only,
tell when it comes to what the kills are aimed at.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from ports import free_port
from progan.__main__ import main
from progan.data.batches import Batches
from progan.runs import logs
from progan.runs.checkpointing import Saver
from progan.runs.loop import Trainer
from progan.system import files, tensor_file
from progan.system.background import BackgroundWriter
from progan.training.iteration import Iteration
from progan.training.step import Step
from rank_process import variables
from stop_requests import tell_stop_requests

CLOCKS = struct.Struct("qqq")
STILL = 300.0
"""Seconds without any event after which a process stands still, and is killed."""
ROOM = 2**29
"""Bytes that a process at its limit of memory still may take: enough for a checkpoint, not for the update."""
CAPABILITIES = 0x20080522
"""Version of the kernel's structure (linux/capability.h)."""


EVENTS = ("checkpoint", "growth", "end", "log", "tensors", "signal", "wait", "middle")
"""What a process comes to: both ends of each step of writing a checkpoint, of a log point, of the end, and of
waiting for what is being written; a new phase; the writing of a checkpoint or generator alone; a signal that
asks it to stop; the update of G, when D's is done. Their first letters differ, as they are told by them.
"""


@dataclass(frozen=True)
class Fault:
    """What happens to a process.

    Attributes:
        kind: 'kill', or what the disk does from there on: 'ENOSPC', 'EDQUOT', 'EFBIG', 'EACCES', or 'hang',
            which is a write (or what else the event is) that takes forever, or 'wait', until a signal has
            asked the process to stop; 'clock', which is set back an hour; 'freeze' (SIGSTOP), until somebody
            sends SIGCONT; 'memory', of which the system gives no more for an update; 'EIO', as pictures are
            read.
        event: At which kind of event: one of `EVENTS`.
        occurrence: At which of them in this process, from 0.
        delay: Seconds after it, from outside; None: at once, at that very instruction.
        rank: Of the process, where several train together.
    """

    kind: str = "kill"
    event: str = ""
    occurrence: int = 0
    delay: float | None = None
    rank: int = 0


@dataclass
class Outcome:
    """How a process ended; of several that train together, the first.

    Attributes:
        code: Exit code, negative for a signal.
        text: What it printed.
        clock: Images seen when it ended, as far as it came.
        submitted: Clocks of the newest checkpoint that it began to write, and of the one before; or -1.
        events: Kinds of events in their order.
        seconds: How long it ran.
        others: Exit codes of the others that trained together with it.
    """

    code: int
    text: str
    clock: int
    submitted: tuple[int, int]
    seconds: float
    events: list[str] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


class _Hooks:
    """Tells the parent what the process comes to, and lets the fault happen."""

    def __init__(self, fault: Fault | None, run: Path, pipe: int, clocks: mmap.mmap) -> None:
        self._fault, self._run, self._pipe, self._clocks = fault, run, pipe, clocks
        self._counts: dict[str, int] = {}
        self._now = self._last = self._before = -1
        self.errno, self._asked = 0, False

    def reach(self, event: str) -> None:
        """An event comes."""
        count = self._counts.get(event, 0)
        self._counts[event] = count + 1
        fault = self._fault
        now = fault is not None and (fault.event, fault.occurrence) == (event, count)
        if now and fault is not None:
            if fault.kind == "kill" and fault.delay is None:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(self._pipe, b"!")
            self._happen(fault.kind)
        os.write(self._pipe, event[:1].encode())

    def ask(self) -> None:
        """A signal asks the process to stop."""
        self._asked = True
        os.write(self._pipe, b"s")

    def _happen(self, kind: str) -> None:
        if kind == "EACCES":
            for path in [self._run, *self._run.glob("checkpoints")]:
                path.chmod(0o555)
            bind_root()
        elif kind == "EFBIG":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        elif kind == "hang":
            time.sleep(600)
        elif kind == "wait":
            while not self._asked:
                time.sleep(0.01)
        elif kind == "clock":
            now = time.time
            time.time = lambda: now() - 3600
        elif kind == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == "memory":
            _limit_memory()
            Step._gather = _gather_too_much  # type: ignore[assignment,method-assign]
        elif kind == "EIO":
            os.preadv = _fails(errno.EIO)
        elif kind != "kill":
            self.errno = getattr(errno, kind)

    def tell(self, clock: int) -> None:
        """An iteration is done."""
        self._now = clock
        self._clocks[: CLOCKS.size] = CLOCKS.pack(self._now, self._last, self._before)

    def submit(self, clock: int) -> None:
        """A checkpoint is about to be written."""
        self._before, self._last = self._last, clock
        self.tell(clock)


def _limit_memory() -> None:
    """Let this process have `ROOM` more of memory than it has, as its system counts it.

    (A limit that leaves no memory at all hangs Python's threads. One that kills, as that of a group of
    processes does, is a kill.)
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _gather_too_much(*_arguments: object) -> Any:
    """Ask PyTorch's allocator for more than the limit leaves, as an update of large networks does."""
    torch.empty(2 * ROOM, dtype=torch.uint8)
    raise AssertionError(f"{2 * ROOM} bytes were there")


def _fails(number: int) -> Callable[..., Any]:
    """Return a function of the system that fails."""

    def fails(*_arguments: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


def without_locks_and_flushing() -> None:
    """Let all file systems be such as have no locks and do not flush, in this process."""
    fcntl.flock = _fails(errno.ENOLCK)
    os.fsync = _fails(errno.EINVAL)


def bind_root() -> None:
    """Let permissions bind this process even if it is root's, by giving up the capabilities against them."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable sets: low words, then high words
    if libc.capget(header, data) == 0:
        data[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        libc.capset(header, data)


def _before_and_after(owner: Any, name: str, reach: Callable[[], None]) -> None:
    """Let a function tell of both its ends."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        reach()
        result = original(*arguments, **options)
        reach()
        return result

    setattr(owner, name, wrapped)


def _install(hooks: _Hooks) -> None:
    """Place the hooks in this process."""
    library: Any = tensor_file  # where save_file is found by its user
    save_file, enter, save, iterate = library.save_file, Iteration._enter, Saver.save, Trainer._iterate

    def write(tensors: Any, path: Any, metadata: Any = None) -> None:
        hooks.reach("tensors")
        hooks.reach("checkpoint")
        if hooks.errno:
            Path(path).write_bytes(b"half of it")
            raise OSError(hooks.errno, os.strerror(hooks.errno))
        save_file(tensors, path, metadata=metadata)

    def grow(self: Iteration, point: Any) -> None:
        if point.level > self.state.G.level or point.phase.name != self.state.phase:
            hooks.reach("growth")
        enter(self, point)

    def begin(self: Saver, state: Any, attempt: int) -> None:
        hooks.submit(state.images_seen)
        save(self, state, attempt)

    def count(self: Trainer, point: Any) -> None:
        iterate(self, point)
        hooks.tell(self.state.images_seen)

    library.save_file = write
    Iteration._enter = grow  # type: ignore[method-assign]
    Saver.save = begin  # type: ignore[method-assign]
    Trainer._iterate = count  # type: ignore[method-assign]
    of_generator = Batches.generator

    def begin_update(self: Batches, *arguments: Any) -> Any:
        hooks.reach("middle")
        return of_generator(self, *arguments)

    Batches.generator = begin_update  # type: ignore[assignment,method-assign]
    _before_and_after(files, "_sync", lambda: hooks.reach("checkpoint"))
    _before_and_after(Path, "replace", lambda: hooks.reach("checkpoint"))
    _before_and_after(Path, "unlink", lambda: hooks.reach("checkpoint"))
    _before_and_after(logs.Logs, "write", lambda: hooks.reach("log"))
    _before_and_after(Trainer, "_finish", lambda: hooks.reach("end"))
    _before_and_after(BackgroundWriter, "wait", lambda: hooks.reach("wait"))
    tell_stop_requests(hooks.ask)


def _child(
    words: list[str],
    fault: Fault | None,
    log: Path,
    pipe: int,
    clocks: mmap.mmap,
    world: Callable[[], None],
    variables: dict[str, str],
) -> None:
    """Be the command, and never return."""
    code = 70
    try:
        os.environ.update(variables)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        place = "--out" if "--out" in words else "--resume"
        run = words[words.index(place) + 1] if place in words else "."
        _install(_Hooks(fault, Path(run), pipe, clocks))
        world()
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Process:
    """One run of the command.

    Args:
        words: Its arguments.
        log: Where what it prints goes.
        fault: What happens to it; None for nothing.
        world: Called in it first, to make it another world.
        size: How many processes it is, which train together.
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        fault: Fault | None = None,
        world: Callable[[], None] = lambda: None,
        size: int = 1,
    ) -> None:
        self._fault = fault
        self._clocks = mmap.mmap(-1, CLOCKS.size)
        self._clocks[:] = CLOCKS.pack(-1, -1, -1)
        self._read, write = os.pipe()
        self._begun = time.monotonic()
        self._logs = [log, *(log.with_suffix(f".{rank}.log") for rank in range(1, size))]
        port = free_port() if size > 1 else 0
        self.pids: list[int] = []
        # The process with the fault tells of its events, or else the first, whose clocks count.
        telling = 0 if fault is None else fault.rank
        for rank in range(size):
            pid = os.fork()
            if pid == 0:
                pipe = write if rank == telling else os.open(os.devnull, os.O_WRONLY)
                if rank != telling:
                    os.close(write)
                clocks = self._clocks if rank == 0 else mmap.mmap(-1, CLOCKS.size)
                own = fault if rank == telling else None
                _child(
                    words,
                    own,
                    self._logs[rank],
                    pipe,
                    clocks,
                    world,
                    variables(rank, size, port) if size > 1 else {},
                )
            self.pids.append(pid)
        os.close(write)
        self.pid = self.pids[telling]
        self._events: list[str] = []

    def reach(self, event: str = "") -> None:
        """Wait until an event of a kind comes (any if none is named), the fault, or the end."""
        names = {name[0]: name for name in EVENTS}
        while True:
            if not select.select([self._read], [], [], STILL)[0]:
                _give_up(self.pids)
            letters = os.read(self._read, 1).decode()
            if letters in ("", "!"):
                return
            self._events.append(names[letters])
            if event in ("", names[letters]):
                return

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def interrupt(self) -> Outcome:
        """Press Ctrl-C, and once more when it waits for what is being written, which hangs."""
        self.send(signal.SIGINT)
        self.reach("signal")
        while self._events.count("wait") % 2 == 0:
            self.reach("wait")
        self.send(signal.SIGINT)
        return self.end()

    def end(self, after: float | None = None, *, together: bool = False) -> Outcome:
        """Let the fault happen and wait for the end.

        Args:
            after: Kill it after so many seconds; None: when the fault says.
            together: As soon as one has ended all are killed, as when their machine loses its power.
        """
        if after is not None:
            select.select([], [], [], after)
            self.send(signal.SIGKILL)
        elif self._fault is not None and self._fault.delay is not None:
            self.reach("fault")
            time.sleep(self._fault.delay)
            self.send(signal.SIGKILL)
        self.reach("the end")
        os.close(self._read)
        # Who has not met the others yet waits for them for minutes: whatever started them ends it.
        if together or not self._events:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)
        codes = _codes(self.pids)
        clock, last, before = CLOCKS.unpack(self._clocks[:])
        text = "".join(log.read_text(errors="replace") for log in self._logs if log.exists())
        seconds = time.monotonic() - self._begun
        return Outcome(codes[0], text, clock, (last, before), seconds, self._events, codes[1:])


def _codes(pids: list[int]) -> list[int]:
    """Return how processes end, which they must within minutes."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + STILL
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        if time.monotonic() > deadline:
            _give_up(pids)
        time.sleep(0.002)
    return [codes[pid] for pid in pids]


def _give_up(pids: list[int]) -> NoReturn:
    """Kill processes, none of which does anything."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"processes {pids} have done nothing for {STILL:g} s")


def random_fault(dice: random.Random, events: list[str], left: float, size: int = 1) -> Fault:
    """Choose where to kill: mostly where files change, networks grow, or the run ends.

    Args:
        dice: What chooses.
        events: Those of a whole run, in its first process.
        left: Share of the run that is to come.
        size: How many processes it is; any of them may be killed, the others within their updates.
    """
    rank = dice.randrange(size)
    aims = (
        ("checkpoint", "checkpoint", "growth", "end", "log", "middle") if rank == 0 else ("growth", "middle")
    )
    event = dice.choice([aim for aim in aims if aim in events])
    there = max(1, round(left * events.count(event)))
    delay = None if dice.random() < 0.5 else dice.expovariate(1 / 0.003)
    return Fault("kill", event, dice.randrange(there), delay, rank)

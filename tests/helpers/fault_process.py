"""Runs of the command as real processes that are killed at chosen or random instants, or whose disk fails.

Importing PyTorch takes seconds, so processes are forked from one that has imported it. Each is a process of
its own, with its own locks and signals, and dies as any other does. Hooks, placed in the forked process only,
tell when it comes to what the kills are aimed at.
"""

from __future__ import annotations

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
from typing import Any

from progan.__main__ import main
from progan.data.batches import Batches
from progan.runs import logs
from progan.runs.checkpointing import Saver
from progan.runs.loop import Trainer
from progan.system import files, tensor_file
from progan.system.background import BackgroundWriter
from progan.training.iteration import Iteration
from progan.training.step import Step
from stop_requests import tell_stop_requests

CLOCKS = struct.Struct("qqq")
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
            sends SIGCONT; 'memory', of which there is no more; 'EIO', as pictures are read.
        event: At which kind of event: one of `EVENTS`.
        occurrence: At which of them in this process, from 0.
        delay: Seconds after it, from outside; None: at once, at that very instruction.
    """

    kind: str = "kill"
    event: str = ""
    occurrence: int = 0
    delay: float | None = None


@dataclass
class Outcome:
    """How a process ended.

    Attributes:
        code: Exit code, negative for a signal.
        text: What it printed.
        clock: Images seen when it ended, as far as it came.
        submitted: Clocks of the newest checkpoint that it began to write, and of the one before; or -1.
        events: Kinds of events in their order.
        seconds: How long it ran.
    """

    code: int
    text: str
    clock: int
    submitted: tuple[int, int]
    seconds: float
    events: list[str] = field(default_factory=list)


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
            Step._gather = _no_memory  # type: ignore[assignment,method-assign]
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


def _no_memory(*_arguments: object) -> Any:
    """Say what PyTorch says on a processor. (A limit that leaves no memory at all hangs Python's threads.)"""
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 37016 bytes. Error code 12 (Cannot allocate memory)"
    )


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
) -> None:
    """Be the command, and never return."""
    code = 70
    try:
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
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        fault: Fault | None = None,
        world: Callable[[], None] = lambda: None,
    ) -> None:
        self._log, self._fault = log, fault
        self._clocks = mmap.mmap(-1, CLOCKS.size)
        self._clocks[:] = CLOCKS.pack(-1, -1, -1)
        self._read, write = os.pipe()
        self._begun = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _child(words, fault, log, write, self._clocks, world)
        os.close(write)
        self._events: list[str] = []

    def reach(self, event: str = "") -> None:
        """Wait until an event of a kind comes (any if none is named), the fault, or the end."""
        names = {name[0]: name for name in EVENTS}
        while True:
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

    def end(self, after: float | None = None) -> Outcome:
        """Let the fault happen and wait for the end.

        Args:
            after: Kill it after so many seconds; None: when the fault says.
        """
        if after is not None:
            select.select([], [], [], after)
            self.send(signal.SIGKILL)
        elif self._fault is not None and self._fault.delay is not None:
            self.reach("fault")
            time.sleep(self._fault.delay)
            self.send(signal.SIGKILL)
        self.reach("the end")
        _, status = os.waitpid(self.pid, 0)
        os.close(self._read)
        clock, last, before = CLOCKS.unpack(self._clocks[:])
        code = os.waitstatus_to_exitcode(status)
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        seconds = time.monotonic() - self._begun
        return Outcome(code, text, clock, (last, before), seconds, self._events)


def random_fault(dice: random.Random, events: list[str], left: float) -> Fault:
    """Choose where to kill: mostly where files change, networks grow, or the run ends.

    Args:
        dice: What chooses.
        events: Those of a whole run.
        left: Share of the run that is to come.
    """
    event = dice.choice(("checkpoint", "checkpoint", "growth", "end", "log"))
    there = max(1, round(left * events.count(event)))
    delay = None if dice.random() < 0.5 else dice.expovariate(1 / 0.003)
    return Fault("kill", event, dice.randrange(there), delay)

"""Where each process of a run is, told to the others all the time; and the end of all when one is lost.

A process that waits for another inside PyTorch sees nothing itself, so threads see for it. Each process
writes its place into the store that torchrun has for the run. The first reads all places and the others read
that of the first, so that the traffic grows with their number, not with its square. When one is silent, has
failed, or none of them moves any more, each says so in words and ends.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from progan.errors import RankError, ToldElsewhere
from progan.system.files import parse_json

PERIOD = 0.25
"""Seconds between two signs of life."""
SILENT = 3.0
"""Seconds without a sign after which a process counts as lost, once a connection to one has broken."""
LOST = 10.0
"""Seconds without a sign after which a process counts as lost."""
GRACE, LAST = 3.0, 8.0
"""Seconds that a process has to notice an end by itself, and then to put things in order, before it is ended.
"""
EXIT_SECONDS = 5
"""Seconds that the exit of Python may take after all that."""
PATIENCE = 3600.0
"""Seconds without a move of any process that are an error where `run.timeout_minutes` says nothing else."""
SHOWN = 16
"""Processes that a message lists."""

TOLD = ("sign", "read_first", "moves", "where", "ended", "error", "code")
"""What processes tell each other of `Seen`."""


class Store(Protocol):
    """What is used of PyTorch's key-value stores."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Read values that are there."""


@dataclass
class Seen:
    """What is known of a process.

    It counts its signs of life and its moves; `heard` and `moved` are when they were noticed, and
    `read_first` is the sign of the first process that it has read last. `there` is whether it has come, as
    far as this process is to know; `where` is its place, in words. Of one that has ended, the error says why
    (None if it is done).
    """

    there: bool = False
    sign: int = -1
    read_first: int = -1
    heard: float = 0.0
    moves: int = -1
    moved: float = 0.0
    where: str = "the start"
    ended: bool = False
    error: str | None = None
    code: int = 0

    def read(self, text: bytes, now: float) -> None:
        """Take in what the process has written."""
        held: dict[str, Any] = parse_json(text)
        if held["sign"] != self.sign:
            self.sign, self.heard = held["sign"], now
        if held["moves"] != self.moves:
            self.moves, self.moved = held["moves"], now
        self.where, self.read_first = held["where"], held["read_first"]
        # In this order, as another thread looks at `ended`, then at `error`, then at `code`.
        self.code, self.error, self.ended = held["code"], held["error"], held["ended"]


class Watch:
    """Tells where this process is, and watches over the others.

    Places are written into the store, which no other thread uses. `out` ends the process with a code when its
    main thread does not.

    Attributes:
        timeout: Seconds after which it is an error that no process has moved.
    """

    def __init__(self, store: Store, rank: int, size: int, out: Callable[[int], object] = os._exit) -> None:
        self._store, self._rank, self._size, self._out = store, rank, size, out
        self.timeout = PATIENCE
        now = time.monotonic()
        self._seen = [Seen(heard=now, moved=now) for _ in range(size)]
        self._own = Seen()
        self._place: str | Callable[[], str] = self._own.where
        self._exchanged = now
        self.follow(0)
        self._verdict: RankError | ToldElsewhere | None = None
        self._taken = threading.Event()
        self._over = threading.Event()
        self._write()
        self._threads = [
            threading.Thread(target=loop, name="watch", daemon=True) for loop in (self._exchange, self._judge)
        ]

    def start(self) -> None:
        """Begin to give signs of life, and to look for those of the processes that are followed."""
        for thread in self._threads:
            thread.start()

    def follow(self, *ranks: int) -> None:
        """Watch over these processes from now on; they have written their places."""
        for rank in ranks:
            self._seen[rank].heard, self._seen[rank].there = time.monotonic(), True

    def at(self, where: str | Callable[[], str]) -> None:
        """Note where this process is.

        Args:
            where: In words; or what returns them, asked by another thread when they are told.

        Raises:
            RankError, ToldElsewhere: if another one is known to be lost or to have failed.
        """
        self._place = where
        self._own.moves += 1
        self.require_well()

    def _where(self) -> str:
        """Return where this process is now."""
        return self._place if isinstance(self._place, str) else self._place()

    def require_well(self) -> None:
        """Raise as `at` does, without having moved."""
        if self._verdict is not None:
            self._taken.set()
            raise self._verdict

    def broken(self, error: Exception) -> RankError | ToldElsewhere:
        """Return the error for a connection that broke, when it is known whose end it was; takes seconds."""
        begun = time.monotonic()
        self.follow(*(rank for rank, seen in enumerate(self._seen) if not seen.there))
        while self._verdict is None:
            self._verdict = self._failed() or self._silent(SILENT)
            if self._verdict is None and self._are_all_heard(begun + SILENT):
                break
            time.sleep(PERIOD / 2)
        self._taken.set()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return self._verdict or RankError(
            self._message(f"the connection to another process broke ({reason})")
        )

    def _are_all_heard(self, since: float) -> bool:
        """Whether every other process has given a sign of life since then, or has left."""
        others = (seen for rank, seen in enumerate(self._seen) if rank != self._rank)
        return all(seen.ended or seen.heard > since for seen in others)

    def end(self, error: str | None = None, code: int = 0) -> None:
        """Tell the others that this process leaves, and why, and stop watching.

        The first stays until the others have left, too, or have taken too long.

        Args:
            error: Why, if the others cannot go on; None if they need not care.
            code: Its exit code.
        """
        if self._over.is_set():
            return
        self._own.error, self._own.code, self._own.ended = error, code, True
        self._over.set()
        # A thread that comes out of PyTorch while Python exits aborts the process, so both must have ended.
        # All they need is an answer of the store. On a busy machine it may be slow, and it may never come;
        # who has failed does not wait to find out.
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2 * LOST if error is None else 2 * GRACE)

    def _write(self) -> None:
        own = self._own
        own.sign, own.read_first, own.where = own.sign + 1, self._seen[0].sign, self._where()
        state = {name: getattr(own, name) for name in TOLD}
        self._store.set(f"place/{self._rank}", json.dumps(state))

    def _read(self) -> None:
        followed = [rank for rank, seen in enumerate(self._seen) if seen.there]
        texts = self._store.multi_get([f"place/{rank}" for rank in followed])
        self._exchanged = time.monotonic()
        for rank, text in zip(followed, texts, strict=True):
            self._seen[rank].read(text, self._exchanged)

    def _exchange(self) -> None:
        """Write and read places until the end; nothing here ends the process, as the store may not answer."""
        try:
            while not self._over.wait(PERIOD):
                self._write()
                self._read()
                if self._rank != 0 and self._seen[0].ended and self._seen[0].error is not None:
                    self._write()  # that this was read; the store may be gone from then on
                    return
            self._write()
            if self._rank == 0:
                self._stay()
        except RuntimeError:  # the store has gone, and at the end with it those who would read this
            self._exchanged = -math.inf

    def _stay(self) -> None:
        """Wait until the others have left, or read why this one does: the store may be in the first."""
        until = time.monotonic() + (LOST if self._own.error is None else GRACE)
        while time.monotonic() < until and any(map(self._needs_first, self._seen[1:])):
            time.sleep(PERIOD / 10)
            self._read()

    def _needs_first(self, seen: Seen) -> bool:
        """Whether a process has still to read how the first ends, or (that being no error) to end itself."""
        if not seen.there or seen.ended or time.monotonic() - seen.heard > SILENT:
            return False
        return self._own.error is None or seen.read_first < self._own.sign

    def _judge(self) -> None:
        """Look whether all are well; if not, end this process, unless its main thread does so in time."""
        while not self._over.wait(PERIOD):
            self._verdict = self._verdict or self._failed() or self._silent(LOST) or self._stuck()
            if self._verdict is not None:
                break
        if self._over.wait(GRACE) or (self._taken.is_set() and self._over.wait(LAST)):
            return
        code = 1 if self._verdict is None else self._verdict.exit_code
        if isinstance(self._verdict, RankError):
            sys.stderr.write(f"error: {self._verdict}\n")
            sys.stderr.flush()
            self._own.error, self._own.code, self._own.ended = str(self._verdict), code, True
            if self._over.wait(2 * PERIOD):  # the other thread tells it; else they would see a silence only
                return
        self._out(code)

    def _failed(self) -> RankError | ToldElsewhere | None:
        """Return the error of a process that told why it leaves; the first repeats what others have told."""
        for rank, seen in enumerate(self._seen):
            if rank == self._rank or not seen.ended or seen.error is None:
                continue
            if self._rank != 0:
                return ToldElsewhere(f"rank {rank}: {seen.error}", seen.code)
            return RankError(self._message(f"rank {rank} failed in {seen.where} ({seen.error})"), seen.code)
        return None

    def _silent(self, seconds: float) -> RankError | None:
        """Return the error for processes without a sign of life."""
        now = time.monotonic()
        if now - self._exchanged > seconds:
            # The store is with the launcher (torchrun) of the first machine, or in rank 0.
            lost = "the launcher" if self._rank == 0 else "rank 0, or the launcher on its machine,"
            return RankError(self._message(f"{lost} cannot be reached"))
        silent = [
            rank
            for rank, seen in enumerate(self._seen)
            if rank != self._rank and seen.there and not seen.ended and now - seen.heard > seconds
        ]
        if not silent:
            return None
        places = "; ".join(f"rank {rank} was in {self._seen[rank].where}" for rank in silent[:SHOWN])
        return RankError(self._message(f"{_ranks(silent)} lost ({places})"))

    def _stuck(self) -> RankError | None:
        """Return the error for processes none of which has moved for too long; the first decides."""
        if self._rank != 0:
            return None
        still, limit = time.monotonic() - max(seen.moved for seen in self._seen), self.timeout
        if still <= limit:
            return None
        return RankError(
            self._message(
                f"no process has moved for {still / 60:.3g} minutes (in training, run.timeout_minutes)"
            )
        )

    def _message(self, what: str) -> str:
        self._seen[self._rank].where = self._where()
        shown = [rank for rank, seen in enumerate(self._seen) if seen.there or rank == self._rank]
        places = "; ".join(f"rank {rank}: {self._seen[rank].where}" for rank in shown[:SHOWN])
        more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        return (
            f"rank {self._rank} stops: {what}. Where each was last: {places}{more}. What was saved is whole: "
            f"the same command goes on from there"
        )


def _ranks(ranks: list[int]) -> str:
    """Return `rank 1 was` or `ranks 1, 2 were`."""
    names = ", ".join(map(str, ranks[:SHOWN]))
    return f"rank {names} was" if len(ranks) == 1 else f"ranks {names} were"


def limit_exit() -> None:
    """Have the system end this process if its exit takes too long; for `atexit`.

    PyTorch waits without end for what is under way in a process group that was not taken down, such as a vote
    that a process which stands still has no part in. No thread of Python could end that wait.
    """
    if hasattr(signal, "SIGALRM"):  # not on every system
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(EXIT_SECONDS)

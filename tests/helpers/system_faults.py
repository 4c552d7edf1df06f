"""Faults of the system around a run: its clock, memory, power, disks, and a process that stands still.

The second part of `make faults`; prints what was done, and exits with 1 if a promise of docs/reliability.md
was broken. The test suite runs it with `--short`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import progan
from fault_process import Fault, Outcome, without_locks_and_flushing
from faults import Matrix, require, require_same_run
from power_loss import recorder, restore, states
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder

NEW_MOUNTS = 0x00020000
"""CLONE_NEWNS of linux/sched.h."""


class SystemFaults:
    """All of them, in one folder.

    Args:
        matrix: Starts runs, and knows the one that is left alone.
        short: Do less of what can be done often.
    """

    def __init__(self, matrix: Matrix, *, short: bool) -> None:
        self._matrix, self._short, self._folder = matrix, short, matrix.folder

    def clock_set_back(self) -> str:
        """An hour back, amid a run: nothing comes of it."""
        for event in ("log", "growth") if self._short else ("log", "growth", "checkpoint", "end"):
            self._ends_alike(Fault("clock", event, 1), "clock")
        return "clock set back an hour: the same run"

    def stands_still(self, seconds: float) -> str:
        """Stopped as by SIGSTOP (a laptop that sleeps) and continued."""
        for event in ("middle", "checkpoint"):
            run = self._folder / f"frozen-{event}"
            process = self._matrix.start(self._matrix.words(0, run), Fault("freeze", event, 6))
            process.reach("the fault")
            time.sleep(seconds)
            process.send(signal.SIGCONT)
            require_done(process.end())
            self._same(run)
        return f"stopped for {seconds:g} s and continued: the same run"

    def no_locks_no_flushing(self) -> str:
        """A file system without locks, whose files cannot be flushed: it is said, and the run is the same."""
        run = self._folder / "bare"
        world = without_locks_and_flushing
        outcome = self._matrix.start(self._matrix.words(0, run), Fault("kill", "growth", 1), world).end()
        require(outcome.code == -signal.SIGKILL, outcome.text)
        outcome = require_done(self._matrix.start(self._matrix.words(0, run), None, world).end())
        for said in ("has no locks", "does not flush"):
            require(said in outcome.text, outcome.text)
        self._same(run)
        return "no locks and no flushing: said, killed, resumed, the same run"

    def disk_cannot_be_read(self) -> str:
        """Pictures cannot be read any more: it ends in words, with a checkpoint, and goes on."""
        for event, occurrence in (("middle", 4), ("log", 3)):
            run = self._folder / f"unread-{event}"
            outcome = self._matrix.start(self._matrix.words(0, run), Fault("EIO", event, occurrence)).end()
            self._ends_in_words(outcome, 2, "cannot be read (the disk does not read or write any more)")
            self._goes_on(run)
        return "pictures that cannot be read (EIO): told, and the same run afterwards"

    def memory_ends(self) -> str:
        """A limit of memory is reached amid an iteration or between two: told, with options; it goes on."""
        for event, occurrence in (("middle", 5), ("growth", 1), ("log", 3)):
            run = self._folder / f"memory-{event}"
            outcome = self._matrix.start(self._matrix.words(0, run), Fault("memory", event, occurrence)).end()
            self._ends_in_words(outcome, 2, "memory does not hold")
            for said in ("can't allocate memory: you tried", "--schedule.batch-size", "to go on"):
                require(said in outcome.text, outcome.text)
            for path in checkpoint.paths(run / "checkpoints"):
                checkpoint.load(path)
            self._goes_on(run)
        return "no memory for an update: told, and the same run afterwards"

    def generate_meanwhile(self) -> str:
        """Pictures are made again and again while training writes: each time of a whole generator."""
        run, made, waited = self._folder / "meanwhile", 0, 0
        training = self._matrix.start(self._matrix.words(0, run))
        while os.waitid(os.P_PID, training.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            words = ["generate", str(run), "--n", "4", "--out", str(self._folder / "meanwhile.npy")]
            outcome = self._matrix.start(words).end()
            require(outcome.code in (0, 2) and "Traceback" not in outcome.text, outcome.text)
            if outcome.code == 2:
                require(not (run / "generator.safetensors").exists() or made == 0, outcome.text)
                waited += 1
            made += outcome.code == 0
        require_done(training.end())
        require(made > 0, f"{made} made, {waited} too early")
        self._same(run)
        return f"generate while training writes: {made} times whole, {waited} times nothing there yet"

    def no_inodes(self) -> str:
        """A file system that has room, but no place for another file."""
        place = self._folder / "mounted"
        place.mkdir()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(NEW_MOUNTS) or libc.mount(None, b"/", None, 0x44000, None):  # MS_REC | MS_PRIVATE
            return "full table of inodes: not tried, as mounting is not permitted"
        options = b"size=64m,nr_inodes=18"
        if libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, options):
            return f"full table of inodes: not tried ({os.strerror(ctypes.get_errno())})"
        run = place / "run"
        outcome = self._matrix.start(self._matrix.words(0, run)).end()
        self._ends_in_words(outcome, 2, "no space left on the device")
        require(bool(checkpoint.paths(run / "checkpoints")), "there was room for a checkpoint")
        require(libc.mount(b"none", os.fsencode(place), b"tmpfs", 32, b"nr_inodes=900") == 0, "MS_REMOUNT")
        self._goes_on(run)
        require(libc.umount2(os.fsencode(place), 2) == 0, "unmounted")
        return "full table of inodes: told, and the same run once there is room"

    def power_fails(self) -> str:
        """Whatever a disk has kept when the power fails, the last confirmed checkpoint is there."""
        root, log = self._folder / "power", self._folder / "power-log"
        root.mkdir()
        log.mkdir()
        words = self._matrix.words(0, root / "runs" / "run")
        require_done(self._matrix.start(words, None, recorder(root, log)).end())
        found = list(states(log))
        dice, resumed = random.Random(0), 0
        chosen = set(dice.sample(range(len(found)), 1 if self._short else 12))
        for number, (state, confirmed, loss) in enumerate(found):
            place = self._folder / "after"
            restore(state, log, place)
            run = place / "runs" / "run"
            newest, passed_over = checkpoint.newest(run / "checkpoints")
            clock = 0 if newest is None else newest[0].images_seen
            require(clock >= confirmed, f"{clock} of {confirmed}, {loss}: {sorted(state)}")
            require(passed_over == [], f"{passed_over}, {loss}")
            if clock:
                RunFolder(run).config()
            if (run / "generator.safetensors").exists():
                progan.load(run)
            if number in chosen:
                self._goes_on(run, remove=False)
                resumed += 1
            shutil.rmtree(place, ignore_errors=True)
        require(len(found) > 50, f"only {len(found)} states")
        return (
            f"power failures: {len(found)} states of the disk, none without the last confirmed checkpoint; "
            f"{resumed} of them trained to the same end"
        )

    def _ends_alike(self, fault: Fault, name: str) -> None:
        run = self._folder / name
        outcome = require_done(self._matrix.start(self._matrix.words(0, run), fault).end())
        require("-" not in outcome.text.split("takes about")[-1][:20], outcome.text)
        self._same(run)

    def _ends_in_words(self, outcome: Outcome, code: int, words: str) -> None:
        require(outcome.code == code and words in outcome.text, f"{outcome.code}: {outcome.text}")
        require("Traceback" not in outcome.text, outcome.text)

    def _goes_on(self, run: Path, *, remove: bool = True) -> None:
        require_done(self._matrix.start(self._matrix.words(0, run)).end())
        self._same(run, remove=remove)

    def _same(self, run: Path, *, remove: bool = True) -> None:
        require_same_run(run, self._matrix.undisturbed(0)[0])
        if remove:
            shutil.rmtree(run)


def require_done(outcome: Outcome) -> Outcome:
    """Require that a process has done its work, and in silence about itself."""
    require(outcome.code == 0 and "Traceback" not in outcome.text, f"{outcome.code}: {outcome.text}")
    return outcome


def main() -> int:
    """Do all, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="less of each")
    parser.add_argument("names", nargs="*", help="which; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401 - so that no process has to

    folder = Path(tempfile.mkdtemp(prefix="system-faults-")).resolve()
    matrix = Matrix(folder, 0)
    synthetic(matrix.packed, count=48, resolution=16, labelled=True)
    faults = SystemFaults(matrix, short=arguments.short)
    everything: dict[str, Callable[[], str]] = {
        "clock": faults.clock_set_back,
        "freeze": lambda: faults.stands_still(0.5 if arguments.short else 60),
        "bare": faults.no_locks_no_flushing,
        "EIO": faults.disk_cannot_be_read,
        "memory": faults.memory_ends,
        "generate": faults.generate_meanwhile,
        "power": faults.power_fails,
        "inodes": faults.no_inodes,
    }
    failed = 0
    for name in arguments.names or everything:
        begun = time.monotonic()
        try:
            print(f"{everything[name]()} ({time.monotonic() - begun:.0f} s)", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"FAILED: {name}; what is left is in {folder}", flush=True)
            failed = 1
    if not failed:
        shutil.rmtree(folder)
    return failed


if __name__ == "__main__":
    sys.exit(main())

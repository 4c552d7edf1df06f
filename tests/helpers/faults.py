"""The crash matrix: runs are killed and their disks fail, again and again, and none loses anything.

`make faults` is its long form (200 kills), the test suite runs a short one. Prints what was done, and exits
with 1, naming the seed, if any promise of docs/reliability.md was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import progan
from fault_process import Fault, Outcome, Process, bind_root, random_fault
from fault_variants import INTERVAL, VARIANTS
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.logs import read_stats
from tiny import last_tensors, require_equal


@dataclass
class Figures:
    """What was done, and what it showed."""

    kills: int = 0
    runs: int = 0
    repeated: list[int] = field(default_factory=list)
    leftovers: int = 0
    signals: int = 0
    written: int = 0
    where: Counter[str] = field(default_factory=Counter)
    processes: Counter[int] = field(default_factory=Counter)
    disk: Counter[str] = field(default_factory=Counter)


class Matrix:
    """All of it, in one folder.

    Args:
        folder: For packed set and runs.
        seed: Of what is done when.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.dice = folder, random.Random(seed)
        self.packed = folder / "blobs"
        self.figures = Figures()
        self._whole: dict[int, tuple[Path, Outcome]] = {}
        self._count = 0

    def words(self, variant: int, run: Path) -> list[str]:
        """Return the arguments of a run."""
        return VARIANTS[variant].words(self.packed, run)

    def start(
        self,
        arguments: list[str],
        fault: Fault | None = None,
        world: Callable[[], None] = lambda: None,
        processes: int = 1,
    ) -> Process:
        """Start the command, in so many processes."""
        self._count += 1
        return Process(arguments, self.folder / f"{self._count}.log", fault, world, processes)

    def undisturbed(self, variant: int) -> tuple[Path, Outcome]:
        """Return the run that is left alone, made once."""
        if variant not in self._whole:
            run = self.folder / f"undisturbed-{variant}"
            outcome = self.start(self.words(variant, run), processes=VARIANTS[variant].processes).end()
            require(outcome.code == 0, outcome.text)
            self._whole[variant] = run, outcome
        return self._whole[variant]

    def crash(self, kills: int, variant: int) -> None:
        """Kill one run so many times, resuming it each time, and compare where it ends."""
        (whole, model), size = self.undisturbed(variant), VARIANTS[variant].processes
        run = self.folder / f"killed-{self._count}"
        outcome, expected = None, 0
        for _ in range(kills):
            left = 1 - expected / model.clock
            fault: Fault | None = random_fault(self.dice, model.events, left, size)
            after = None
            if self.dice.random() < 0.25:
                fault, after = None, self.dice.uniform(0, model.seconds * left)
            process = self.start(self.words(variant, run), fault, processes=size)
            outcome = process.end(after, together=self.dice.random() < 0.5)
            self._check_end(outcome)
            self._check_beginning(outcome, expected)
            killed = -signal.SIGKILL in (outcome.code, *outcome.others)
            self.figures.kills += killed
            self.figures.processes[size] += killed
            if outcome.code == 0:
                break
            self.figures.where[fault.event if fault else "any time"] += 1
            expected = self._check_what_is_there(run, outcome, variant, expected)
        outcome = self.start(self.words(variant, run), processes=size).end()
        require(outcome.code == 0, outcome.text)
        self._check_beginning(outcome, expected)
        require_same_run(run, whole)
        self.figures.runs += 1
        shutil.rmtree(run)

    def _check_end(self, outcome: Outcome) -> None:
        """It was killed or had ended; who was left alone has said so and ended."""
        for code in (outcome.code, *outcome.others):
            told = code == 1 and "stops: " in outcome.text and "Where each was last" in outcome.text
            require(
                code in (-signal.SIGKILL, 0) or (bool(outcome.others) and told), f"{code}: {outcome.text}"
            )

    def _check_beginning(self, outcome: Outcome, expected: int) -> None:
        """It went on from the newest checkpoint, and passed over none."""
        if expected and outcome.clock >= 0:
            require(f"going on from {expected:,} images" in outcome.text, outcome.text)
        require("using the one before" not in outcome.text, outcome.text)
        require("Traceback" not in outcome.text, outcome.text)

    def _check_what_is_there(self, run: Path, outcome: Outcome, variant: int, begun: int) -> int:
        """Every file under a final name is whole, and little is lost; returns the newest clock.

        `begun` is where the process had gone on from.
        """
        found = checkpoint.paths(run / "checkpoints")
        records = [checkpoint.load(path)[0] for path in found]
        require(len(found) <= VARIANTS[variant].kept + 1, f"{found}")
        if (run / "generator.safetensors").exists():
            progan.load(run)
        read_stats(run / "stats.jsonl")
        names = [path.name for path in run.rglob(".*") if path.name != ".lock"]
        self.figures.leftovers += len(names)
        newest = records[-1].images_seen if records else 0
        last, before = outcome.submitted
        last, before = max(last, begun), max(before, begun)
        if outcome.clock > 0:
            # Either the last checkpoint is there, or it was just being written and the one before is.
            # (A checkpoint that is due shortly before a phase ends gives way to the one at its end.)
            longest = VARIANTS[variant].longest
            require(newest in (last, before), f"{newest}, begun at {begun}: {outcome}")
            require(outcome.clock - last <= longest and last - newest <= longest, f"{newest}: {outcome}")
            self.figures.repeated.append(outcome.clock - newest)
            self.figures.written += newest == last
        return newest

    def disk_fails(self, kind: str) -> None:
        """The disk fails at some write of a checkpoint; when it is mended the run goes on."""
        whole, model = self.undisturbed(0)
        run = self.folder / f"disk-{kind}"
        for _ in range(20):
            occurrence = self.dice.randrange(5, model.events.count("checkpoint") - 5)
            outcome = self.start(self.words(0, run), Fault(kind, "checkpoint", occurrence)).end()
            if kind != "EACCES" or outcome.code != 0:
                break
            # Root's rights are given up by one thread, and another one may have written all there was.
            require_same_run(run, whole)
            shutil.rmtree(run)
        require(outcome.code == 2 and "cannot write" in outcome.text, outcome.text)
        require("Traceback" not in outcome.text, outcome.text)
        for path in [run, *run.glob("checkpoints")]:
            path.chmod(0o755)
        for path in checkpoint.paths(run / "checkpoints"):
            checkpoint.load(path)
        require(self.start(self.words(0, run)).end().code == 0, "it goes on")
        require_same_run(run, whole)
        self.figures.disk[kind] += 1
        shutil.rmtree(run)

    def read_only(self) -> None:
        """A folder that cannot be written is refused before anything is done."""
        run = Path(shutil.copytree(self.undisturbed(0)[0], self.folder / "read-only"))
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        for path in (run, *(p for p in run.rglob("*") if p.is_dir())):
            path.chmod(0o555)
        pid = os.fork()
        if pid == 0:
            bind_root()
            code = 0
            try:
                progan.resume(run)
            except progan.errors.StorageError:
                code = 2
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        require(os.waitstatus_to_exitcode(status) == 2, "a read-only folder is a StorageError")
        require(all(path.read_bytes() == content for path, content in before.items()), "nothing changed")
        for path in (run, *(p for p in run.rglob("*") if p.is_dir())):
            path.chmod(0o755)
        self.figures.disk["read-only folder"] += 1
        shutil.rmtree(run)

    def damage(self, name: str, change: Callable[[Path], object]) -> None:
        """Change each file of a run in turn: it ends in the same bits, or is refused in words."""
        whole, _ = self.undisturbed(0)
        for file in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
            if file.name == ".lock" or file.parts[0] == "samples" or "tfevents" in file.name:
                continue
            run = Path(shutil.copytree(whole, self.folder / f"damaged-{self._count}"))
            change(run / file)
            outcome = self.start(["train", "--resume", str(run)]).end()
            require("Traceback" not in outcome.text, f"{file}: {outcome.text}")
            require(outcome.code in (0, 2), f"{file}: {outcome.text}")
            newest = checkpoint.paths(whole / "checkpoints")[-1].name
            if file.name == newest and name == "flipped byte":
                require("using the one before" in outcome.text, outcome.text)
            if outcome.code == 0:
                ours, expected = last_tensors(run), last_tensors(whole)
                require_equal(ours[1], expected[1])
                require((run / "generator.safetensors").exists(), str(file))
            else:
                require(str(run) in outcome.text, f"{file}: {outcome.text}")
            self.figures.disk[name] += 1
            shutil.rmtree(run)

    def signals(self) -> None:
        """Each signal that asks to stop leads to a checkpoint at the end of the step."""
        run = self.folder / "signals"
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
            process = self.start(
                self.words(0, run), Fault("wait", "log", 2)
            )  # it begins its second log point
            process.reach("the fault")
            process.send(number)
            outcome = process.end()
            record = last_tensors(run)[0]
            require(outcome.code == 128 + number, f"{number}: {outcome}")
            require("Traceback" not in outcome.text, outcome.text)
            said = f"stopped at {record.images_seen:,} images, checkpoint written; to go on"
            require(said in outcome.text, outcome.text)
            require(record.images_seen == outcome.clock, f"{outcome}")
            require(read_stats(run / "stats.jsonl")[-1]["images_seen"] == record.images_seen, "logged too")
            self.figures.signals += 1
        require(self.start(self.words(0, run)).end().code == 0, "it goes on")
        require_same_run(run, self.undisturbed(0)[0])
        shutil.rmtree(run)

    def second_interrupt(self) -> None:
        """A second Ctrl-C ends a process at once that waits for a disk that does not answer."""
        run = self.folder / "interrupts"
        process = self.start(self.words(0, run), Fault("hang", "tensors", 2))
        process.reach("the fault")
        outcome = process.interrupt()
        require(outcome.code == 130, f"{outcome}")
        require("Traceback" not in outcome.text and "interrupted" in outcome.text, outcome.text)
        for path in checkpoint.paths(run / "checkpoints"):
            checkpoint.load(path)
        require(self.start(self.words(0, run)).end().code == 0, "it goes on")
        require_same_run(run, self.undisturbed(0)[0])
        self.figures.signals += 1
        shutil.rmtree(run)

    def two_at_once(self) -> None:
        """The second process is refused; the lock dies with the first."""
        run = self.folder / "two"
        first = self.start(self.words(0, run), Fault("hang", "growth", 1))
        first.reach("the fault")
        second = self.start(self.words(0, run)).end()
        require(second.code == 2 and "another process is training" in second.text, second.text)
        first.send(signal.SIGKILL)
        require(first.end().code == -signal.SIGKILL, "the first was training")
        require(self.start(self.words(0, run)).end().code == 0, "its lock died with it")
        require_same_run(run, self.undisturbed(0)[0])
        shutil.rmtree(run)

    def flip(self, path: Path) -> None:
        """Change one bit of a file."""
        content = bytearray(path.read_bytes())
        if content:
            content[self.dice.randrange(len(content))] ^= 1 << self.dice.randrange(8)
        path.write_bytes(content)


def require(condition: bool, what: str) -> None:
    """Fail with what was found."""
    if not condition:
        raise AssertionError(what)


def require_same_run(run: Path, undisturbed: Path) -> None:
    """Compare what two runs left: weights bit by bit, configuration, log points, pictures; no leftovers."""
    ours, expected = last_tensors(run), last_tensors(undisturbed)
    require(ours[0] == expected[0], f"{ours[0]}")
    require_equal(ours[1], expected[1])
    for name in ("generator.safetensors", "config.yaml"):
        require((run / name).read_bytes() == (undisturbed / name).read_bytes(), name)
    require([path.name for path in run.rglob(".*")] == [".lock"], f"{list(run.rglob('.*'))}")
    clocks = [int(line["images_seen"]) for line in read_stats(run / "stats.jsonl")]
    require(clocks == sorted(set(clocks)), f"{clocks}")
    # Each log point of the undisturbed run is there, with the same picture of the same latents.
    wanted = {int(line["images_seen"]) for line in read_stats(undisturbed / "stats.jsonl")}
    require(wanted <= set(clocks), f"{clocks}")
    ours_logged, expected_logged = log_points(run), log_points(undisturbed)
    for clock in wanted:
        require(ours_logged[clock] == expected_logged[clock], f"{ours_logged[clock]}")
    for path in (undisturbed / "samples").iterdir():
        require((run / "samples" / path.name).read_bytes() == path.read_bytes(), path.name)


def log_points(run: Path) -> dict[int, dict[str, Any]]:
    """Return the log points of a run by their clocks, without what depends on time."""
    lines = read_stats(run / "stats.jsonl")
    return {int(line["images_seen"]): {**line, "images_per_second": 0} for line in lines}


def run_all(matrix: Matrix, kills: int, disk: bool) -> None:
    """Do everything."""
    synthetic(matrix.packed, count=48, resolution=16, labelled=True)
    matrix.two_at_once()
    matrix.signals()
    matrix.second_interrupt()
    if disk:
        for kind in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES"):
            matrix.disk_fails(kind)
        matrix.read_only()
        matrix.damage("flipped byte", matrix.flip)
        matrix.damage("missing file", Path.unlink)
    variant = 0
    while matrix.figures.kills < kills:
        which = variant % len(VARIANTS)
        try:
            matrix.crash(min(4, kills - matrix.figures.kills), which)
        except Exception as error:
            error.add_note(f"a run of variant {which}: {VARIANTS[which].name}")
            raise
        variant += 1
        print(f"{matrix.figures.kills} kills in {matrix.figures.runs} runs, last {VARIANTS[which].name}: "
              f"nothing was lost", flush=True)  # fmt: skip


def main() -> int:
    """Run the matrix as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200, help="how many processes are killed")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of what is done when")
    parser.add_argument("--no-disk", action="store_true", help="leave out the faults of disks and files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # What training imports late is imported here, so that no process has to.
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    torch.use_deterministic_algorithms(False)

    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    matrix = Matrix(folder, arguments.seed)
    try:
        run_all(matrix, arguments.kills, not arguments.no_disk)
    except Exception:
        traceback.print_exc()
        print(f"FAILED with --seed {arguments.seed}; what is left is in {folder}")
        return 1
    figures = matrix.figures
    repeated = figures.repeated or [0]
    print(f"kills: {figures.kills} in {figures.runs} runs, aimed at {dict(figures.where)}")
    print(f"runs of each of {min(figures.runs, len(VARIANTS))} kinds; kills by the number of processes that "
          f"trained together: {dict(figures.processes)}")  # fmt: skip
    print("every run ended in the bits of the undisturbed one; no file under a final name was ever partial")
    print(f"work repeated after a kill: {sum(repeated) / len(repeated):.0f} images on average, at most "
          f"{max(repeated)}, with a checkpoint every {INTERVAL}; the last one begun had been written "
          f"{figures.written} times of {len(repeated)}")  # fmt: skip
    print(f"temporary files left by kills and removed: {figures.leftovers}")
    print(f"signals that stopped a run: {figures.signals}")
    print(f"faults of disks and files: {dict(figures.disk)}")
    print(f"{time.monotonic() - begun:.0f} s, --seed {arguments.seed}")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

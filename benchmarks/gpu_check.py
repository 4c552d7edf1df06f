"""Everything that can be asked of one GPU in eight minutes: tests, speed, memory, a killed run, generation.

    python benchmarks/gpu_check.py [--device cuda] [--minutes 8] [--out gpu-check]

Each part is a process of its own with a limit of time, so that none keeps the others from being done; what
failed, or was not finished, is said. Writes OUT.json, with everything, and OUT.md, a table of each part. On a
device other than CUDA, such as `--device cpu`, smaller networks are measured: that tries the command itself.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from progan.performance.peak_rates import describe
from progan.system.files import write_text

ROOT = Path(__file__).parents[1]
PAPER = ("--recipe", "paper-celebahq-1024-v2-8gpus", "--resolution", "1024")
SMALL = ("--config", str(ROOT / "benchmarks" / "light-32.yaml"))
TINY = (
    "--recipe", "quickstart", "--data.resolution", "16", "--schedule.batch-size", "16",
    "--schedule.stabilise-kimg", "0.64", "--schedule.fade-kimg", "0.64", "--schedule.total-kimg", "3.2",
    "--run.checkpoint-kimg", "0.8", "--run.log-kimg", "0.32", "--monitor.interval-kimg", "1000",
    "--monitor.num-images", "64",
)  # fmt: skip
IMAGES = 3200
"""Of a run of 200 iterations of 16, through growth to 8x8 and to 16x16."""


@dataclass
class Part:
    """One part of the check: what it found, in numbers and as a table, and what was in its way."""

    name: str
    rows: list[list[str]] = field(default_factory=list)
    found: Any = None
    problem: str = ""
    seconds: float = 0.0


class Check:
    """Carries parts out on a device until the time is used up."""

    def __init__(self, device: torch.device, minutes: float, folder: Path) -> None:
        self.device, self.folder = device, folder
        self._seconds = 60 * minutes
        self._end = time.monotonic() + self._seconds
        self.on_cuda = device.type == "cuda"

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def part(self, name: str, work: Callable[[Part], None]) -> Part:
        """Carry a part out; what goes wrong in it is what it found."""
        begun, part = time.monotonic(), Part(name)
        print(f"{name} ...", flush=True)
        try:
            work(part)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            part.problem = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        part.seconds = time.monotonic() - begun
        print(f"{name}: {part.seconds:.0f} s{': ' + part.problem if part.problem else ''}", flush=True)
        return part

    def run(self, words: Sequence[str], share: float) -> str:
        """Run Python with `words`, and return what it says; no longer than a share of the whole time.

        Raises:
            RuntimeError: if it fails, with the end of what it said, or there is no time.
        """
        limit = min(share * self._seconds, self.left())
        if limit < 5:
            raise RuntimeError("not begun: the time was used up (--minutes gives more)")
        try:
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not finished within {limit:.0f} s") from None
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip() or f"ended with {done.returncode}")
        return done.stdout

    def tests(self, part: Part) -> None:
        """Run the tests that need the device."""
        files = (
            "tests/training/test_acceleration.py",
            "tests/cli/test_generate.py",
            "tests/system/test_background.py",
        )
        chosen = "cuda or recording or reserve or device"
        words = ("-m", "pytest", "-vv", "-p", "no:cacheprovider", "-k", chosen)
        said = self.run((*words, *files), 0.25)
        outcomes = re.findall(r"^(tests/\S+) (PASSED|SKIPPED|FAILED|ERROR)", said, re.MULTILINE)
        part.found = dict(outcomes)
        counts = {kind: sum(one == kind for _, one in outcomes) for kind in ("PASSED", "SKIPPED", "FAILED")}
        part.rows = [["passed", "skipped", "failed"], [str(count) for count in counts.values()]]
        if not outcomes:
            raise RuntimeError("no test was run")

    def bench(self, levels: Iterable[int], variants: Sequence[str], share: float) -> Callable[[Part], None]:
        """Return what measures iterations of levels."""

        def measure(part: Part) -> None:
            file = self.folder / f"{part.name.replace(' ', '_')}.json"
            recipe = PAPER if self.on_cuda else SMALL
            words = (
                "-m",
                "progan",
                "bench",
                *recipe,
                "--device",
                str(self.device),
                "--rounds",
                "3",
                "--json",
                str(file),
            )
            self.run((*words, "--levels", *map(str, levels), "--variants", *variants), share)
            part.found = json.loads(file.read_text(encoding="utf-8"))
            part.rows = bench_rows(part.found)

        return measure

    def killed(self, part: Part) -> None:
        """Train 200 iterations through growth, kill the process amid them, and go on."""
        out = self.folder / "run"
        words = [
            "-m",
            "progan",
            "train",
            "builtin:synthetic",
            *TINY,
            "--out",
            str(out),
            "--device",
            str(self.device),
        ]
        with subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as begun:
            states = out / "checkpoints"
            while begun.poll() is None and not (states.is_dir() and any(states.iterdir())):
                if self.left() < 60:
                    begun.kill()
                    raise RuntimeError("not finished: no checkpoint was written in time")
                time.sleep(0.05)
            if begun.poll() is None:
                begun.send_signal(signal.SIGKILL)
            said = begun.communicate()[1].decode(errors="replace")
            if begun.returncode != -signal.SIGKILL:
                raise RuntimeError(said.strip() or "the run was over before it could be killed")
        resumed = self.run(["-m", "progan", "train", "--resume", str(out)], 0.25)
        lines = [json.loads(line) for line in (out / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
        last = lines[-1]
        part.found = {"last": last, "said": resumed.splitlines()[-5:]}
        part.rows = [
            ["images seen", "of", "level"],
            [str(last["images_seen"]), str(IMAGES), str(last["level"])],
        ]
        if last["images_seen"] != IMAGES:
            raise RuntimeError(f"the run went on to {last['images_seen']:,} images instead of {IMAGES:,}")

    def generation(self, part: Part) -> None:
        """Measure how fast pictures are made and written."""
        size = ("--n", "2048", "--width", "8192", "512") if self.on_cuda else ("--n", "64")
        said = self.run(("benchmarks/generate.py", *size, "--rounds", "2", "--device", str(self.device)), 0.2)
        part.found = said.splitlines()
        part.rows = [["what", "said"], *(line.split(": ", 1) for line in part.found if ": " in line)]


def bench_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return a table of a bench: seconds beside their floors, memory beside what was counted."""
    head = ["level", "phase", "variant", "images/s", "ms", "floor, ms", "x floor", "GiB", "counted, GiB"]
    rows = [head]
    for one in report["measurements"]:
        numbers = ["-"] * 4
        floor, counted = one["floor_seconds"], one["cost"]["memory"]
        if one["seconds"] is not None:
            taken = one["seconds"]
            numbers = [
                f"{one['images_per_second']:,.0f}",
                f"{1e3 * taken:.3g}",
                f"{1e3 * floor:.3g}",
                f"{taken / floor:.1f}",
            ]
        peak = "-" if one["peak_memory"] is None else f"{one['peak_memory'] / 2**30:.2f}"
        place = [str(one["level"]), one["phase"], one["variant"]]
        rows.append([*place, *numbers, peak, f"{counted / 2**30:.2f}"])
    return rows


def driver() -> str:
    """Return the version of NVIDIA's driver, or "" where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return said.stdout.strip().splitlines()[0] if said.returncode == 0 and said.stdout.strip() else ""


def as_text(machine: dict[str, Any], parts: Sequence[Part]) -> str:
    """Return everything that was found as Markdown."""
    lines = [
        "# What was measured",
        "",
        ", ".join(f"{name} {value}" for name, value in machine.items() if value),
        "",
    ]
    for part in parts:
        lines += [f"## {part.name} ({part.seconds:.0f} s)", ""]
        if part.problem:
            lines += [f"**{part.problem}**", ""]
        for i, row in enumerate(part.rows):
            lines.append(f"| {' | '.join(row)} |")
            if i == 0:
                lines.append(f"|{' --- |' * len(row)}")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--out", default="gpu-check", help="OUT.json and OUT.md are written")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --device cpu tries the command itself")
    with tempfile.TemporaryDirectory() as name:
        check = Check(device, given.minutes, Path(name))
        paper = check.on_cuda
        parts = [
            check.part("tests", check.tests),
            check.part("eager and recorded", check.bench((0, 3, 6, 7, 8) if paper else (0, 3),
                                                         ("eager", "graphs") if paper else ("eager",), 0.3)),
            check.part("a run, killed and resumed", check.killed),
            check.part("generation", check.generation),
            check.part("compiled", check.bench((3,) if paper else (0,), ("eager", "compile"), 0.3)),
            check.part("compiled, largest", check.bench((8,) if paper else (1,), ("eager", "compile"), 0.4)),
        ]  # fmt: skip
        machine = {**describe(device), "driver": driver()}
    out = Path(given.out)
    found = {"machine": machine, "parts": [asdict(part) for part in parts]}
    write_text(out.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    write_text(out.with_suffix(".md"), as_text(machine, parts))
    print(as_text(machine, parts))
    failed = [part.name for part in parts if part.problem]
    sys.exit(f"not as it should be, or not finished: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

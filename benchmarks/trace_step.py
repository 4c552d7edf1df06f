"""Files and functions that one update of D runs through, from `progan train` to its optimizer's step.

python benchmarks/trace_step.py [--json]

A run of 96 images is made by the command line, with two updates of D an iteration (`--loss.d-steps 2`).
Of the second one is told:

- the frames: calls of ours that are open at the moment when PyTorch's optimizer is called. The body of
  `__main__.py` is no call, and a comprehension is none since Python 3.12: both are left out in all versions;
- the modules: those of the frames, with `__main__.py`, and of everything that is called between the two
  steps of D: the batch, both networks, the loss and its gradients, the sum over processes, the average of G.

`models/`, `data/` and `config/` are looked at from outside: what they call in turn counts as theirs. Only the
command line and PyTorch's hook are used, so that any version can be measured: PYTHONPATH=OTHER/src.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import runpy
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

INSIDE = ("models", "data", "config")
"""Rooms that are looked at from outside."""

NO_CALLS = ("<module>", "<listcomp>", "<dictcomp>", "<setcomp>")

WORDS = [
    *("--data.resolution", "8", "--schedule.stabilise-kimg", "0.032", "--schedule.fade-kimg", "0.032"),
    *("--schedule.batch-size", "8", "--model.generator.fmap-max", "8", "--model.discriminator.fmap-max", "8"),
    *("--loss.d-steps", "2", "--run.device", "cpu", "--run.threads", "1"),
]

Place = tuple[str, str]
"""A file, as named from the folder of the package, and a function in it."""


class Trace:
    """Notes what is called between two steps of one optimizer, and what is open at the second.

    Attributes:
        frames: What is open, from the outermost on; of the update that runs through most modules.
        called: What is called; of the same update.
    """

    def __init__(self, package: Path) -> None:
        self._package = f"{package}{os.sep}"
        self._before: object = None
        self._now: set[Place] = set()
        self.frames: list[Place] = []
        self.called: set[Place] = set()

    def step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Take note of a step that is about to be made. G is updated once an iteration: twice is D."""
        sys.setprofile(None)
        if optimizer is self._before and _modules(self._now) > _modules(self.called):
            stack = [self._place(frame.f_code) for frame in _outwards(sys._getframe(1))]
            frames = [place for place in reversed(stack) if place is not None]
            # Not of iterations that are made before training to tell how long it is going to take.
            if any(name == "Trainer._train" for _, name in frames):
                self.frames, self.called = frames, self._now
        self._before, self._now = optimizer, set()
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or (place := self._place(frame.f_code)) is None:
            return
        callers = (self._place(above.f_code) for above in _outwards(frame.f_back))
        if not any(caller is not None and _is_inside(caller[0]) for caller in callers):
            self._now.add(place)

    def _place(self, code: CodeType) -> Place | None:
        """Return where code of ours is, or None if it is not ours."""
        if not code.co_filename.startswith(self._package):
            return None
        return Path(code.co_filename.removeprefix(self._package)).as_posix(), code.co_qualname


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _modules(places: set[Place]) -> int:
    return len({module for module, _ in places})


def _is_inside(module: str) -> bool:
    return module.split("/")[0] in INSIDE


def train(trace: Trace) -> None:
    """Make the run, as `python -m progan train` does."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        rng = np.random.default_rng(0)
        for i in range(16):
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
        os.environ["XDG_CACHE_HOME"] = folder
        sys.argv = ["progan", "train", str(pictures), "--out", str(Path(folder, "run")), *WORDS]
        handle = register_optimizer_step_pre_hook(trace.step)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                runpy.run_module("progan", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                sys.exit(f"{said.getvalue()}\nthe run failed: {end.code}")
        finally:
            sys.setprofile(None)
            handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the frames and the modules as JSON")
    arguments = parser.parse_args()
    spec = find_spec("progan")
    assert spec is not None
    assert spec.origin is not None
    trace = Trace(Path(spec.origin).parent)
    train(trace)
    frames = [place for place in trace.frames if place[1].split(".")[-1] not in NO_CALLS]
    modules = sorted({module for module, _ in [*trace.frames, *trace.called]})
    inside = [module for module in modules if _is_inside(module)]
    outside = [module for module in modules if not _is_inside(module)]
    if arguments.json:
        print(json.dumps({"frames": frames, "outside": outside, "inside": inside}, indent=2))
        return
    print(f"one update of D in {Path(spec.origin).parent}")
    print(f"\n{len(frames)} frames at the step of the optimizer")
    for number, (module, name) in enumerate(frames, 1):
        print(f"{number:>4}  {module:<28}{name}")
    rooms = ", ".join(f"{room}/" for room in INSIDE)
    print(f"\n{len(outside)} modules outside {rooms}: on the stack (*), or called for the update")
    for module in outside:
        mark = "*" if any(module == found for found, _ in trace.frames) else " "
        names = sorted(name for found, name in trace.called if found == module and "<" not in name)
        print(f"   {mark}  {module:<28}{textwrap.shorten(', '.join(names), 70, placeholder=' ...')}".rstrip())
    print(f"\n{len(inside)} modules in {rooms} that are called from outside")
    print("".join(f"      {module}\n" for module in inside), end="")


if __name__ == "__main__":
    main()

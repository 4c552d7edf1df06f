"""What a disk holds when the power fails: a run's operations on files are recorded, and replayed in part.

Contents are on the disk once the file was flushed, names once their folder was; until then a disk may hold
the old or the new. So of every beginning of the record there are several states (`LOSSES`), as worked out in
Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014). Each is made as a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from progan.runs import checkpoint
from progan.system import files

LOSSES = ("names lost", "names kept", "only removals kept")
"""What became of the changes of names that were not flushed; contents that were not are always lost."""

State = dict[str, str]
"""Names of contents (hashes) by path; of folders they are empty."""


def recorder(root: Path, log: Path) -> Callable[[], None]:
    """Return what begins to record, in the process that calls it, all that happens to files below `root`.

    Args:
        root: The folder; it is there, and durable.
        log: An empty folder, for the record and for contents.
    """

    def begin() -> None:
        stream = os.open(log / "operations.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def note(kind: str, *what: object) -> None:
            os.write(stream, (json.dumps([kind, *map(str, what)]) + "\n").encode())

        def inside(path: Path) -> str | None:
            place = Path.cwd() / path
            return str(place.relative_to(root)) if place.is_relative_to(root) else None

        _watch(Path, "mkdir", inside, lambda name, *_: note("make", name), unless_there=True)
        _watch(Path, "touch", inside, lambda name, *_: note("create", name), unless_there=True)
        _watch(Path, "unlink", inside, lambda name, *_: note("remove", name))
        _watch(Path, "replace", inside, lambda name, to: note("rename", name, inside(Path(to))))

        def flushed(name: str) -> None:
            if (root / name).is_dir():
                note("flush names", name)
                return
            content = (root / name).read_bytes()
            key = hashlib.sha256(content).hexdigest()
            (log / key).write_bytes(content)
            note("flush", name, key)

        _watch(files, "_sync", inside, flushed)
        library: Any = checkpoint
        save = library.save

        def confirmed(*arguments: Any) -> Path:
            path: Path = save(*arguments)
            note("confirmed", checkpoint.clock_of(path))
            return path

        library.save = confirmed

    return begin


def _watch(
    owner: Any,
    name: str,
    inside: Callable[[Path], str | None],
    tell: Callable[..., None],
    *,
    unless_there: bool = False,
) -> None:
    """Have a function tell what it has done to a path of the folder."""
    original = getattr(owner, name)

    def watched(path: Path, *arguments: Any, **options: Any) -> Any:
        place = inside(path)
        there = unless_there and path.exists()
        # A file that is not there is not removed; what comes of it is not for the record.
        gone = name == "unlink" and not path.exists()
        result = original(path, *arguments, **options)
        if place is not None and not there and not gone:
            tell(place, *arguments)
        return result

    setattr(owner, name, watched)


class Disk:
    """What is on a disk for certain, and what may be."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.contents: dict[int, str] = {}
        self._count = 0

    def apply(self, kind: str, *what: str) -> None:
        """Let one operation happen."""
        if kind in ("make", "create"):
            self._count += 1
            self.now[what[0]] = self._count
            self.contents[self._count] = "" if kind == "make" else "empty"
        elif kind == "remove":
            self.now.pop(what[0], None)
        elif kind == "rename":
            self.now[what[1]] = self.now.pop(what[0])
        elif kind == "flush":
            if what[0] not in self.now:  # a library made it
                self.apply("create", what[0])
            self.contents[self.now[what[0]]] = what[1]
        elif kind == "flush names":
            folder = what[0]
            for names in (set(self.now), set(self.durable)):
                for name in names:
                    if str(Path(name).parent) == folder:
                        self._flush_name(name)

    def _flush_name(self, name: str) -> None:
        if name in self.now:
            self.durable[name] = self.now[name]
        else:
            self.durable.pop(name, None)

    def after(self, loss: str) -> State:
        """Return what is found when the power is back."""
        if loss == "names kept":
            names = self.now
        elif loss == "names lost":
            names = self.durable
        else:
            names = {name: file for name, file in self.durable.items() if name in self.now}
        return {
            name: self.contents[file]
            for name, file in names.items()
            if all(str(above) in names for above in Path(name).parents if str(above) != ".")
        }


def states(log: Path) -> Iterator[tuple[State, int, str]]:
    """Yield what may be on the disk at each instant, the last confirmed checkpoint, and what was lost.

    The same comes once.

    Args:
        log: As `recorder` filled it.
    """
    disk, confirmed, seen = Disk(), 0, set[str]()
    for line in (log / "operations.jsonl").read_text().splitlines():
        kind, *what = json.loads(line)
        if kind == "confirmed":
            confirmed = int(what[0])
        else:
            disk.apply(kind, *what)
        for loss in LOSSES:
            state = disk.after(loss)
            key = json.dumps([state, confirmed], sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield state, confirmed, loss


def restore(state: State, log: Path, folder: Path) -> None:
    """Make a state in an empty folder."""
    for name, content in sorted(state.items()):
        path = folder / name
        if content == "":
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if content == "empty" else (log / content).read_bytes())

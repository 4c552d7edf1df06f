"""Writing a packed set: beside its destination, resumable at any moment, renamed when it is complete."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from progan.config import LabelForm
from progan.data.packed import Labels, Manifest, PackedSet, format_version, partial_path
from progan.errors import DataError, StorageError
from progan.preparation.labels.folder_labels import split_of
from progan.system.files import atomic_path, file_lock, flush, remove_leftovers, storage_errors, write_text

DIGEST_BYTES = 16
SYNC_SECONDS = 2.0
"""A power cut loses at most this much work; syncing after every chunk would be slow on hard disks."""

POLL_SECONDS = 0.2
"""How often who waits for another process looks whether that is done."""

PLANNED_LABELS = "planned_labels.npy"
"""Labels of all pictures of a plan, also of those that turn out to have no pixels."""

PLANNED_NAMES = "planned_names.json"
"""Their names."""

AT_ONCE = 4096
"""So many values of a list are written as JSON at once."""

OWN_FILES = (
    PLANNED_NAMES,
    "plan.json",
    "progress.json",
    "digests.bin",
    "manifest.json",
    "names.json",
    "skipped.csv",
)


class Layout(BaseModel):
    """The shape of a set that is being written."""

    model_config = ConfigDict(frozen=True)

    base_shape: tuple[int, int]
    max_level: int
    channels: int
    dtype: Literal["uint8", "uint16"] = "uint8"

    def identity(self) -> str:
        """Return what a fingerprint takes of it: of 8 bits what it was before there were others."""
        return self.model_dump_json(exclude={"dtype"} if self.dtype == "uint8" else None)

    def manifest(self, **values: Any) -> Manifest:
        """Return a manifest of this shape."""
        return Manifest(**self.model_dump(), **values)


class Writer:
    """The level files of a set that is being written, in a folder called `<destination>.partial`.

    Of an earlier, interrupted writing the first `keep` pictures stay; what follows them is cut off.
    """

    def __init__(self, destination: Path, layout: Layout, keep: int = 0) -> None:
        self.destination = destination
        self.folder = partial_path(destination)
        self.layout = layout
        self.count = keep
        self._synced = time.monotonic()
        self._sizes: list[int] = []
        self._files: list[BinaryIO] = []
        shape = layout.manifest(count=1, fingerprint="")
        try:
            for level in range(layout.max_level + 1):
                self._open(shape.level_file(level), shape.picture_bytes(level))
            self._open("digests.bin", DIGEST_BYTES)
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, picture_bytes: int) -> None:
        path = self.folder / name
        # Unbuffered: a full disk must show at the write, not when the file is closed.
        stream = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._files.append(stream)
        self._sizes.append(picture_bytes)
        if stream.seek(0, os.SEEK_END) < self.count * picture_bytes:
            raise DataError(f"{path}: is shorter than recorded; delete {self.folder} and run again")
        stream.truncate(self.count * picture_bytes)
        stream.seek(0, os.SEEK_END)

    def append(self, levels: Sequence[NDArray[np.uint8 | np.uint16]], digests: Sequence[bytes]) -> None:
        """Add pictures.

        Args:
            levels: For every level, [n, C, h, w], of the type of the layout.
            digests: Their n digests.
        """
        for stream, pixels in zip(self._files, levels, strict=False):
            stored = np.ascontiguousarray(pixels, np.dtype(self.layout.dtype).newbyteorder("<"))
            _write_all(stream, stored.data.cast("B"))
        _write_all(self._files[-1], memoryview(b"".join(digests)))
        self.count += len(digests)

    def stored(self) -> Iterator[NDArray[np.uint8 | np.uint16]]:
        """Yield the pictures that are kept or were added, at the highest level: [C, H, W]."""
        shape = self.layout.manifest(count=1, fingerprint="")
        level, kind = self.layout.max_level, np.dtype(self.layout.dtype).newbyteorder("<")
        sides = (self.layout.channels, *shape.resolution(level))
        with (self.folder / shape.level_file(level)).open("rb") as file:
            for _ in range(self.count):
                data = file.read(shape.picture_bytes(level))
                yield np.frombuffer(data, kind).reshape(sides).astype(self.layout.dtype)

    def sync_due(self) -> bool:
        """Tell whether the last `sync` is long enough ago."""
        return time.monotonic() - self._synced >= SYNC_SECONDS

    def sync(self) -> None:
        """Wait until everything that was added is on the disk."""
        for stream in self._files:
            flush(stream.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the files; what was written stays."""
        for stream in self._files:
            stream.close()

    def finish(
        self,
        names: Sequence[str],
        labels: Labels | Sequence[int] | None,
        shares: tuple[float, float, float],
        skipped: Sequence[tuple[str, str]],
        *,
        parts: NDArray[np.uint8] | None = None,
        **manifest: Any,
    ) -> PackedSet:
        """Write everything but the pixels, and give the set its name.

        Args:
            names: One name a picture.
            labels: One class number a picture; or [count, label_size] numbers, if the manifest's `label_form`
                is another than 'class'; or None.
            shares: Shares of train, validation and test, into which the pictures are dealt by name.
            skipped: (name, reason) of what was left out.
            parts: The part of each by its number, if they are dealt already.
            manifest: The other values of `Manifest`.
        """
        self.sync()
        self.close()
        split = parts_of(names, shares) if parts is None else parts
        form = manifest.get("label_form", "class")
        stored = None if labels is None else _as_stored(labels, form)
        if stored is not None:
            save_array(self.folder / "labels.npy", stored)
        label_names = list(manifest.get("label_names", ()))
        content = hashlib.sha256(self.layout.identity().encode())
        with (self.folder / "digests.bin").open("rb") as digests:
            while block := digests.read(AT_ONCE * DIGEST_BYTES):
                content.update(block)
        for text in _told([names, _summary(stored, form), split, label_names]):
            content.update(text.encode())
        done = self.layout.manifest(
            version=format_version(form),
            count=self.count,
            split=shares,
            fingerprint=content.hexdigest()[:32],
            **manifest,
        )
        save_array(self.folder / "split.npy", split)
        write_list(self.folder / "names.json", names)
        write_text(self.folder / "skipped.csv", _skipped_table(skipped))
        write_text(self.folder / "manifest.json", json.dumps(done.model_dump(mode="json"), indent=2))
        remove_leftovers(self.folder)
        if self.destination.exists():
            self.destination.rmdir()  # an empty folder, as `check_destination` made sure
        self.folder.rename(self.destination)
        flush(self.destination.parent)
        # Only now: without them, work that is interrupted here would begin again.
        for name in ("plan.json", "progress.json", "digests.bin", PLANNED_LABELS, PLANNED_NAMES):
            (self.destination / name).unlink(missing_ok=True)
        return PackedSet.open(self.destination)


def _write_all(stream: BinaryIO, data: memoryview) -> None:
    while len(data):
        data = data[stream.write(data) :]


def _as_stored(labels: Labels | Sequence[int], form: LabelForm) -> Labels:
    return np.asarray(labels, np.int64) if form == "class" else np.asarray(labels, np.float32)


def _summary(labels: Labels | None, form: LabelForm) -> Labels | list[Any] | None:
    """Return what a fingerprint takes of labels: class numbers themselves, of tables the form and a hash."""
    if labels is None:
        return None
    if form == "class":
        return labels
    return [form, hashlib.sha256(np.ascontiguousarray(labels, dtype="<f4").tobytes()).hexdigest()]


def _told(values: Sequence[Any]) -> Iterator[str]:
    """Yield the parts of a list of lists, arrays and nothing as `json.dumps` writes it."""
    for i, value in enumerate(values):
        yield ", " if i else "["
        yield from ["null"] if value is None else _parts_of_list(value)
    yield "]"


def _parts_of_list(values: Sequence[Any] | NDArray[Any]) -> Iterator[str]:
    """Yield the parts of a list or an array as `json.dumps` writes it, which would take all at once."""
    for start in range(0, len(values), AT_ONCE):
        block = values[start : start + AT_ONCE]
        plain = block.tolist() if isinstance(block, np.ndarray) else list(block)
        yield (", " if start else "[") + json.dumps(plain)[1:-1]
    yield "]" if len(values) else "[]"


def write_list(path: Path, values: Sequence[str]) -> None:
    """Write texts as a list in JSON; the file appears whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as stream:
        stream.writelines(_parts_of_list(values))


def parts_of(names: Iterable[str], shares: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Deal pictures into train (0), validation (1) and test (2), by their names."""
    return np.fromiter((split_of(name, shares) for name in names), np.uint8)


def save_array(path: Path, values: NDArray[np.generic]) -> None:
    """Write an array as .npy; it appears whole or not at all."""
    with atomic_path(path) as temporary:
        np.save(temporary, values)


def _skipped_table(skipped: Sequence[tuple[str, str]]) -> str:
    """Return a CSV table; names that are not valid Unicode are written with escapes."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([("file", "reason"), *skipped])
    return stream.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")


def check_destination(destination: Path) -> None:
    """Make sure that a set may be written to `destination`: nothing is there, or an empty folder.

    Raises:
        DataError: if there is something else.
    """
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists():
        raise DataError(
            f"{destination}: exists and is no packed set; nothing was changed; "
            "delete it or choose another destination"
        )


def clear_partial(folder: Path) -> None:
    """Delete what an earlier writing left in a partial folder, and nothing else."""
    remove_leftovers(folder)
    for path in folder.iterdir():
        if path.name in OWN_FILES or path.suffix in {".u8", ".u16", ".npy"}:
            path.unlink()


def check_space(folder: Path, layout: Layout, pictures: int) -> None:
    """Make sure that the disk has room for `pictures` more pictures.

    Raises:
        StorageError: saying how much is needed.
    """
    shape = layout.manifest(count=1, fingerprint="")
    needed = pictures * sum(shape.picture_bytes(level) for level in range(layout.max_level + 1))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{folder.parent}: {pictures} pictures need {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB "
            "are free; free some space, choose another place, a smaller resolution or a limit"
        )


@contextmanager
def partial_folder(
    destination: Path,
    say: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Path]:
    """Make `<destination>.partial` and hold it for this process alone, until the process ends at the latest.

    If another process holds it, that is said, and waited for; it may have finished the set meanwhile.

    Args:
        destination: Where the set will be.
        say: Takes the sentence about waiting.
        stop: Asked while waiting; if it returns True, KeyboardInterrupt is raised.

    Raises:
        StorageError: if the folder cannot be made.
    """
    folder = partial_path(destination)
    with ExitStack() as stack:
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _hold(stack, destination, say or (lambda _text: None), stop or (lambda: False))
            folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            with suppress(OSError):
                folder.rmdir()  # if it is empty


def _hold(stack: ExitStack, destination: Path, say: Callable[[str], None], stop: Callable[[], bool]) -> None:
    """Take the lock of a set that is written, and say so if that takes time."""
    folder = partial_path(destination)
    lock, said = folder.with_name(folder.name + ".lock"), False
    unlocked = partial(
        say, f"warning: the file system of {folder.parent} has no locks: see that no other process prepares "
        f"the same pictures there",
    )  # fmt: skip
    while not stack.enter_context(file_lock(lock, wait=False, remove=True, unlocked=unlocked)):
        if not said:
            say(f"another process is preparing {destination}: waiting for it")
        said = True
        if stop():
            raise KeyboardInterrupt
        time.sleep(POLL_SECONDS)

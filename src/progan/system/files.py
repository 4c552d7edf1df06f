"""Writing files so that a reader finds the old one or the new one, never a part of either; reading JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from progan.errors import StorageError

_WHY = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "the folder has disappeared",
    errno.EFBIG: "the file would be larger than allowed there",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EEXIST: "a file is where a folder should be",
    errno.EISDIR: "a folder is where a file should be",
    errno.EIO: "the disk does not read or write any more",
    errno.ESTALE: "the network file system has lost it",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the errors of the operating system into `StorageError`, naming `path`.

    Errors that are already `StorageError`, and all others, pass through.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise StorageError(
            f"cannot write {path}: it has, or would hold, a name that is no UTF-8; choose or give it another"
        ) from error
    except OSError as error:
        if error.errno is None:  # raised by Python or a library, not by the system
            raise
        why = _WHY.get(error.errno) or os.strerror(error.errno)
        raise StorageError(
            f"cannot write {path}: {why}. What was there before is unharmed; "
            f"make room or permit writing, then give the same command again."
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving, flush it to disk and rename it over `path`.

    The temporary file is removed if anything fails. Its name ends like that of `path`, so that writers
    which choose a format by ending (Pillow, imageio) choose the right one.

    Raises:
        StorageError: if there is no space or no permission; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            # Some writers (safetensors) put a file in place that only its owner can read.
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
            with _unless_unsupported():
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def is_utf8(name: str) -> bool:
    """Tell whether a name, as the system gives it, is text; old archives have others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_leftover(path: Path) -> bool:
    """Tell whether a file is the temporary one of a writer that was killed (ours, or of safetensors)."""
    return re.fullmatch(r"\..+\.\d+\.tmp(\..+)?|\.tmp[A-Za-z0-9]{6}", path.name) is not None


def cache_folder() -> Path:
    """Return the user's cache folder for packed sets and for files that others have published."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "progan"


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool, remove: bool = False) -> Iterator[bool]:
    """Hold a lock that the system gives back when the process ends, however it ends.

    Args:
        path: The file that is locked; its folder must be there.
        wait: Wait for another process that holds it.
        remove: Delete the file in the end.

    Yields:
        Whether it is held; if not, another process holds it, and nobody has waited.

    Raises:
        OSError: if the file cannot be made.
    """
    from filelock import FileLock, Timeout  # not for every command

    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if remove:  # before it is given back, so that a waiting process sees it is gone
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process may have left in a folder.

    Raises:
        StorageError: if they cannot be deleted.
    """
    for path in folder.glob(".*"):
        if is_leftover(path):
            with storage_errors(path):
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the contents of a text file (UTF-8) atomically.

    Raises:
        StorageError: if there is no space or no permission; the file is then as it was.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """Return what a text of JSON says.

    Raises:
        ValueError: if it is none, or nested too deeply, for which `json` has another error.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextlib.contextmanager
def _unless_unsupported() -> Iterator[None]:
    """Go on where a file system (some of networks and of users' processes) knows no such thing."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync(path: Path) -> None:
    """Make a file's contents, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

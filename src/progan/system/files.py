"""Writing files so that a reader finds the old one or the new one, never a part of either; reading JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator
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


_NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
"""What a file system answers that has no locks, or does not flush when it is told to."""


def why(number: int | None) -> str:
    """Return an error of the operating system in words."""
    return "it does not work" if number is None else _WHY.get(number) or os.strerror(number)


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
        raise StorageError(
            f"cannot write {path}: {why(error.errno)}. What was there before is unharmed; "
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
            make_folder(path.parent)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            # Some writers (safetensors) put a file in place that only its owner can read.
            temporary.chmod(mode)
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, so that they survive a power failure.

    Raises:
        OSError: if it cannot be made.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        flush(place.parent)


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
    """Return the user's cache folder for packed sets and for files that others have published.

    Raises:
        StorageError: if the user has no home folder, as in a container that runs under any user id.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "progan"
    except RuntimeError:
        raise StorageError(
            f"there is no home folder to keep a cache in (HOME is not set, and there is no entry for user id "
            f"{os.getuid()}): set XDG_CACHE_HOME to a folder, or for packed sets give --data.cache"
        ) from None


@contextlib.contextmanager
def file_lock(
    path: Path, *, wait: bool, remove: bool = False, unlocked: Callable[[], None] = lambda: None
) -> Iterator[bool]:
    """Hold a lock that the system gives back when the process ends, however it ends.

    Args:
        path: The file that is locked; its folder must be there.
        wait: Wait for another process that holds it.
        remove: Delete the file in the end.
        unlocked: Called where the file system has no locks; then nobody is kept out.

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
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
        unlocked()
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


def flush(what: Path | int) -> bool:
    """Make the contents of a file (which may be open), or the entries of a folder, durable.

    Returns:
        Whether the file system can do so; some of networks and of users' processes cannot.

    Raises:
        OSError: if the disk fails.
    """
    try:
        if isinstance(what, Path):
            _sync(what)
        else:
            os.fsync(what)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
        return False
    return True


def _sync(path: Path) -> None:
    """Make a file's contents, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

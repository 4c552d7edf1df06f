"""Tensors with a description, in one checksummed safetensors file: the form of weights and checkpoints.

The header of the file has one entry, `progan`: a JSON object with `format` (what kind of file, and which
version of it), `record` (the description) and `sha256` over record and tensors. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from progan.errors import CheckpointError
from progan.system.files import atomic_path, parse_json

KEY = "progan"
FOREIGN_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth"})
Record = dict[str, Any]


class NewerVersionError(CheckpointError):
    """A file that a later version of progan has written; there is nothing wrong with it."""


def write(path: Path, form: str, record: Record, tensors: dict[str, Tensor]) -> None:
    """Write a file atomically; the same contents give the same bytes.

    Args:
        path: The file; its folder is made if missing.
        form: Kind and version, such as `weights-1`.
        record: The description; plain data that JSON can hold.
        tensors: By name, on any device.

    Raises:
        StorageError: if there is no space or no permission; an older file is then unharmed.
    """
    host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"format": form, "record": record, "sha256": digest(record, host)}
    with atomic_path(path) as temporary:
        try:
            save_file(host, temporary, metadata={KEY: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:
            # It tells the operating system's errors, such as a full disk, in words.
            number = re.search(r"os error (\d+)", str(error))
            raise (error if number is None else OSError(int(number[1]), str(error))) from None


def is_tensor_file(path: Path) -> bool:
    """Tell whether a path is a file in the form of safetensors: the length of a header, then the header."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def read_header(path: Path) -> dict[str, Any]:
    """Return the header object of a file, or an empty one if it is another program's safetensors file.

    Raises:
        CheckpointError: if the file is no readable safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        hint = "; `progan import` reads weights of others" if path.suffix in FOREIGN_SUFFIXES else ""
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}){hint}") from None
    return header if isinstance(header, dict) else {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: if the file is no readable safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def read(path: Path, form: str) -> tuple[Record, dict[str, Tensor]]:
    """Read and verify a file written by `write`; the tensors are on the CPU.

    Raises:
        NewerVersionError: if a newer progan wrote it.
        CheckpointError: if it is damaged, foreign, or of another kind.
    """
    header = read_header(path)
    require_format(path, header, form)
    record, tensors = header.get("record"), read_tensors(path)
    try:
        whole = digest(record, tensors) == header.get("sha256")
    except RecursionError:  # JSON that is nested nearly too deeply to be read is too deep to be written
        whole = False
    if not isinstance(record, dict) or not whole:
        raise CheckpointError(f"{path} is damaged: its contents do not match its checksum")
    return record, tensors


def require_format(path: Path, header: dict[str, Any], form: str) -> None:
    """Refuse a file of another kind or version than `form`, such as `weights-1`.

    Raises:
        NewerVersionError: if it is of that kind, but of a later version.
        CheckpointError: if it is anything else.
    """
    found = header.get("format")
    found = found[:80] if isinstance(found, str) else None
    kind, _, version = form.rpartition("-")
    later = re.fullmatch(rf"{re.escape(kind)}-(\d{{1,9}})", found or "")
    if later is not None and int(later[1]) > int(version):
        raise NewerVersionError(
            f"{path} was written by a newer progan (format {found}, this one reads {form}); update progan"
        )
    if found != form:
        raise CheckpointError(f"{path} has the format {found!r}, not {form!r}")


def digest(record: Record | None, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of a record and of all tensors with their names and shapes."""
    hasher = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()

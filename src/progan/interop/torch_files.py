"""Tensors that `torch.save` wrote (since PyTorch 1.6): an archive of a pickle and of one file a storage.

`torch.load(weights_only=True)` runs no foreign code either, but allows calls that take any amount of memory
(`bytearray(10**12)`, storages without a file), so the few names that tensors need are read here instead.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.interop.numpy_pickle import ordered_dict, plain_shape
from progan.interop.safe_pickle import Builder, Machine, Name, Refused

STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
"""Types of the storages that weights have."""
MAX_ENTRIES = 100_000


def is_torch_file(path: Path) -> bool:
    """Tell whether a file is an archive (of which kind, only `read_torch` finds out)."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote: tensors in lists, tuples and dicts with text as keys.

    It may contain itself, and one part many times: never walk it as a tree.

    Raises:
        Refused: if the file is damaged, or holds anything else.
        OSError: if it cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).read()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, ArithmeticError, struct.error) as error:
        raise Refused(f"it is a damaged archive ({error})") from None


class _Archive:
    """The entries of an archive of `size` bytes, and the storages read so far.

    No more than its size is taken into memory, whatever the entries say.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        infos = archive.infolist()
        if len(infos) > MAX_ENTRIES:
            raise Refused(f"it has more than {MAX_ENTRIES:,} entries")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise Refused("its entries are compressed, which torch.save never does")
        if sum(info.file_size for info in infos) > size:
            raise Refused("its entries claim to be larger than the file")
        self._archive = archive
        self._size = size
        self._infos = {info.filename: info for info in infos}
        self._storages: dict[str, Tensor] = {}
        found = [name for name in self._infos if name.split("/")[1:] == ["data.pkl"]]
        if len(found) != 1:
            raise Refused("it is an archive, but none that torch.save wrote (it holds no data.pkl)")
        self._prefix = found[0].removesuffix("data.pkl")

    def read(self) -> Any:
        """Return the object of `data.pkl`."""
        if self._prefix + "byteorder" in self._infos and self._entry("byteorder") != b"little":
            raise Refused("its numbers are big-endian; save it again on a common machine")
        machine = Machine(
            self._entry("data.pkl"),
            _TENSORS,
            names=frozenset(STORAGES),
            persistent=self._storage,
            budget=self._size,
        )
        return machine.run()

    def _entry(self, name: str) -> bytes:
        info = self._infos.get(self._prefix + name)
        if info is None:
            raise Refused(f"it lacks the entry {name!r}")
        try:
            with self._archive.open(info) as stream:
                return stream.read()
        except Exception as error:  # of damaged or encrypted entries zipfile raises anything
            raise Refused(f"its entry {name!r} cannot be read ({error})") from None

    def _storage(self, told: Any) -> Tensor:
        """Return a storage, [n], as `('storage', type, key, device, n)` names it."""
        if not isinstance(told, tuple) or len(told) != 5 or told[0] != "storage":
            raise Refused("it refers to something else than a tensor's numbers")
        _, kind, key, _, count = told
        if not isinstance(kind, Name) or not isinstance(key, str) or type(count) is not int:
            raise Refused("it refers to a tensor's numbers in an unknown form")
        if key not in self._storages:
            data, dtype = bytearray(self._entry(f"data/{key}")), STORAGES[kind.text]
            if len(data) != count * dtype.itemsize:
                raise Refused(f"it has {len(data)} bytes for {count} numbers")
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _tensor(machine: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`: a copy of its numbers."""
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], Tensor):
        raise Refused("it makes a tensor of something else than numbers")
    storage, offset = arguments[:2]
    size, stride = plain_shape(arguments[2]), plain_shape(arguments[3])
    count = math.prod(size)
    machine.spend(count * storage.dtype.itemsize)
    last = sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if type(offset) is not int or offset < 0 or (count and offset + last >= storage.numel()):
        raise Refused("it has a tensor that reaches beyond its numbers")
    if not count:
        return torch.empty(size, dtype=storage.dtype)
    view: Tensor = storage.as_strided(size, stride, offset)
    return view.clone(memory_format=torch.contiguous_format)


def _parameter(_: Machine, arguments: tuple[Any, ...]) -> Tensor:
    """`_rebuild_parameter(tensor, requires_grad, hooks)`."""
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise Refused("it makes a parameter of something else than a tensor")
    return arguments[0]


_TENSORS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": ordered_dict,
}

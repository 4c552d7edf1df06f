"""Tensors that `torch.save` wrote: an archive of a pickle and a file a storage; before 1.6, a single file.

`torch.load(weights_only=True)` runs no foreign code either, but allows calls that take any amount of memory
(`bytearray(10**12)`, storages without a file), so the few names that tensors need are read here instead.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.errors import listed, shown
from progan.system.numpy_pickle import NAMES, NUMPY, plain_shape
from progan.system.safe_pickle import Builder, Machine, Name, Refused

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
MAGIC = b"\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of before PyTorch 1.6 begins, after the first byte: a pickle of a number."""
OBJECTS = frozenset(
    {"models.utils.config.BaseConfig", "mmengine.logging.history_buffer.HistoryBuffer", "argparse.Namespace"}
)
"""Classes of other systems that stand beside weights; their contents are read as plain data."""


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
            held = listed(sorted(self._infos), 4) if self._infos else "nothing"
            raise Refused(f"it is a zip archive that holds {held}, and not one data.pkl as torch.save writes")
        self._prefix = found[0].removesuffix("data.pkl")

    def read(self) -> Any:
        """Return the object of `data.pkl`."""
        if self._prefix + "byteorder" in self._infos and self._entry("byteorder") != b"little":
            raise Refused("its numbers are big-endian; save it again on a common machine")
        machine = Machine(
            self._entry("data.pkl"),
            {**NUMPY, **_TENSORS},
            names=NAMES | STORAGES.keys(),
            instances=OBJECTS,
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
        dtype, key, count = _told(told, 5)
        if key not in self._storages:
            data = bytearray(self._entry(f"data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise Refused(f"it has {len(data)} bytes for {count} numbers")
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _told(told: Any, length: int) -> tuple[torch.dtype, str, int]:
    """Return type, key and length of a storage, named as `('storage', type, key, device, n, ...)`."""
    if not isinstance(told, tuple) or len(told) != length or told[0] != "storage":
        raise Refused("it refers to something else than a tensor's numbers")
    _, kind, key, _, count = told[:5]
    known = isinstance(kind, Name) and kind.text in STORAGES
    if not known or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**40:
        raise Refused("it refers to a tensor's numbers in an unknown form")
    return STORAGES[kind.text], key, count


def read_legacy_torch(path: Path) -> Any:
    """Return what `torch.save` wrote before PyTorch 1.6, in the form of `read_torch`.

    The file is five pickles (a magic number, a version, a description of the machine, the object, and the
    storages' keys) and the storages themselves, each after its length.

    Raises:
        Refused: if the file is damaged, or holds anything else.
        OSError: if it cannot be opened.
    """
    return _Legacy(path.read_bytes()).read()


class _Legacy:
    """A file of before PyTorch 1.6.

    Args:
        data: Its bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._specs: dict[str, tuple[torch.dtype, int]] = {}
        self._storages: dict[str, Tensor] = {}

    def read(self) -> Any:
        """Return the object. Its pickle is read twice, as it stands before the storages that it refers to."""
        place = 0
        header = []
        for _ in range(3):
            machine = Machine(self._data, {}, start=place)
            header.append(machine.run())
            place = machine.place
        machine_facts = header[2]
        if not isinstance(machine_facts, dict) or machine_facts.get("little_endian") is not True:
            raise Refused("its numbers are big-endian; save it again on a common machine")
        first = self._machine(place, {name: lambda *_: None for name in _TENSORS}, self._spec)
        first.run()
        keys_machine = Machine(self._data, {}, start=first.place)
        keys = keys_machine.run()
        self._read_storages(keys, keys_machine.place)
        return self._machine(place, _TENSORS, self._storage).run()

    def _machine(self, start: int, tensors: dict[str, Builder], persistent: Callable[[Any], Any]) -> Machine:
        builders = {**NUMPY, **tensors}
        names = NAMES | STORAGES.keys()
        return Machine(
            self._data,
            builders,
            names=names,
            instances=OBJECTS,
            persistent=persistent,
            budget=len(self._data),
            start=start,
        )

    def _spec(self, told: Any) -> None:
        """Note type and length of a storage; it may be a part of another (`view`), which no network needs."""
        dtype, key, count = _told(told, 6)
        if told[5] is not None:
            raise Refused("it has a storage that is a part of another; save it again with a newer PyTorch")
        if self._specs.setdefault(key, (dtype, count)) != (dtype, count):
            raise Refused(f"it describes its storage {shown(key)} in two ways")

    def _read_storages(self, keys: Any, place: int) -> None:
        if not isinstance(keys, list) or len(keys) > MAX_ENTRIES:
            raise Refused("it lists its storages in an unknown form")
        for key in keys:
            dtype, count = self._specs.get(key, (None, -1)) if isinstance(key, str) else (None, -1)
            told = int.from_bytes(self._data[place : place + 8], "little")
            if dtype is None or told != count or key in self._storages:
                raise Refused("its storages are others than its object refers to")
            end = place + 8 + count * dtype.itemsize
            if end > len(self._data):
                raise Refused("it is cut short")
            part = bytearray(self._data[place + 8 : end])
            self._storages[key] = torch.frombuffer(part, dtype=dtype) if part else torch.empty(0, dtype=dtype)
            place = end

    def _storage(self, told: Any) -> Tensor:
        key = told[2]
        if key not in self._storages:
            raise Refused(f"it lacks its storage {shown(key)}")
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
}

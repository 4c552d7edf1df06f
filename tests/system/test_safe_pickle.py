"""Hostile pickles: none of them runs anything, all of them end in an error in words."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from progan import import_weights
from progan.errors import CheckpointError
from progan.interop.torch_files import read_torch
from progan.system.numpy_pickle import NAMES, NUMPY, array_of
from progan.system.safe_pickle import MAX_OPERATIONS, Machine, Refused

P = b"\x80\x04"


class Marker:
    """Something that leaves a trace when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


class Calls:
    """Pickles to a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def text(value: str) -> bytes:
    """The operation that pushes a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def read(data: bytes) -> Any:
    return Machine(data, NUMPY, names=NAMES, instances=frozenset({"tfutil.Network"})).run()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "nest",
    [
        lambda x: x,
        lambda x: [1, (2, {"a": [x]})],
        lambda x: {"state_dict": {"w": x}, "config": {}},
        lambda x: (x, x, x),
        lambda x: {x.path.name: 1, "b": x},
    ],
)
def test_a_call_anywhere_is_refused(tmp_path: Path, nest: Callable[[Any], Any], protocol: int) -> None:
    trace = tmp_path / "trace"
    data = pickle.dumps(nest(Marker(trace)), protocol)
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.pkl is not imported"):
        import_weights(path)
    archive = tmp_path / "x.pt"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("x/data.pkl", data)
    with pytest.raises(CheckpointError, match=r"x\.pt is not imported"):
        import_weights(archive)
    assert not trace.exists()
    pickle.loads(data)  # that it would have run
    assert trace.exists()


DANGEROUS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "apply"),
    ("__builtin__", "eval"),
    ("builtins", "bytearray"),
    ("importlib", "import_module"),
    ("pickle", "loads"),
    ("_pickle", "Unpickler"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("copyreg", "__newobj__"),
    ("copyreg", "_reconstructor"),
    ("types", "FunctionType"),
    ("ctypes", "CDLL"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.core.multiarray", "_reconstruct.__globals__"),
    ("numpy.core", "multiarray._reconstruct.__self__"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("progan.system.files", "write_text"),
    ("collections", "OrderedDict.__reduce__"),
    ("", ""),
    ("tfutil", "Network.__init__.__globals__"),
]


@pytest.mark.parametrize(("module", "name"), DANGEROUS)
@pytest.mark.parametrize("write", [named, stack_global])
def test_names_are_not_looked_up(
    module: str, name: str, write: Callable[[str, str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was imported")

    data = P + write(module, name) + b")R."
    monkeypatch.setattr("builtins.__import__", forbidden)
    with pytest.raises(Refused) as caught:
        read(data)
    assert f"{module}.{name}" in str(caught.value)


DTYPE = (
    named("numpy", "dtype") + text("f4") + b"\x89\x88\x87R" + b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xff"
)
DTYPE += b"J\xff\xff\xff\xffK\x00tb"
EMPTY = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
SYSTEM = named("os", "system")


def array(shape: bytes = b"K\x01\x85", kind: bytes = DTYPE, data: bytes = b"C\x04abcd") -> bytes:
    return EMPTY + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"


def long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def test_what_these_are_made_of_is_read() -> None:
    value = array_of(read(P + array() + b"."))
    assert value is not None
    assert value.tobytes() == b"abcd"
    assert not value.flags.writeable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Allowed names with arguments that are not.
        (named("numpy", "dtype") + text("O") + b"\x85R", "plain numbers"),
        (named("numpy", "dtype") + text("O8") + b"\x89\x88\x87R", "plain numbers"),
        (named("numpy", "dtype") + text("V8") + b"\x89\x88\x87R", "plain numbers"),
        (named("numpy", "dtype") + text("f4,O") + b"\x85R", "plain numbers"),
        (named("numpy", "dtype") + text("os.system") + b"\x85R", "plain numbers"),
        (named("numpy", "dtype") + b"]" + text("a") + text("f4") + b"\x86a\x85R", "plain numbers"),
        (named("numpy", "dtype") + b")R", "plain numbers"),
        (named("numpy", "dtype") + text("f4") + b"R", "calls numpy.dtype"),
        (DTYPE.replace(b"NNN", text("f4") + b"NN"), "plain numbers"),
        (DTYPE.replace(b"NNN", b"N}N"), "plain numbers"),
        (DTYPE.replace(text("<"), text("=")), "unknown form"),
        (DTYPE + b"K\x01b", "gives a state"),
        (
            EMPTY.replace(named("numpy", "ndarray"), text("numpy.ndarray")),
            "something else than numpy.ndarray",
        ),
        (EMPTY.replace(named("numpy", "ndarray"), named("tfutil", "Network")), "something else than numpy"),
        (array(kind=b"N"), "without a type"),
        (array(kind=named("numpy", "ndarray")), "without a type"),
        (array(shape=b"K\x02\x85"), "4 bytes for an array of 8"),
        (array(shape=long(2**40) + b"\x85"), "more numbers than the file has"),
        (array(shape=long(10**70) + b"K\x00\x86", data=b"C\x00"), "else than plain numbers"),
        (array(shape=long(2**40) + b"K\x00\x86"), "4 bytes for an array of 0"),
        (array(shape=b"J\xff\xff\xff\xff\x85"), "else than plain numbers"),
        (array(shape=b"\x88\x85"), "else than plain numbers"),
        (array(shape=b"(" + b"K\x01" * 40 + b"t"), "without a shape"),
        (array(shape=b"N"), "without a shape"),
        (array(data=b"]"), "without bytes"),
        (array(data=text("ж")), "array of text"),
        (array() + b"K\x01b", "gives a state"),
        (EMPTY + b"}b", "unknown form"),
        (named("collections", "OrderedDict") + b"]\x85R", "unknown form"),
        (named("_codecs", "encode") + text("import os") + text("hex") + b"\x86R", "unknown way"),
        (named("_codecs", "encode") + text("a") + text("rot13") + b"\x86R", "unknown way"),
        (named("numpy.core.multiarray", "scalar") + DTYPE + b"\x85R", "unknown form"),
        (named("numpy.core.multiarray", "scalar") + DTYPE + b"C\x03abc\x86R", "3 bytes"),
        # Calls of what is no function, or not allowed to be one.
        (named("numpy", "ndarray") + b"K\x05\x85\x85R", "calls numpy.ndarray"),
        (named("tfutil", "Network") + b")R", "calls tfutil.Network"),
        (text("os.system") + text("true") + b"\x85R", "calls a str"),
        (b"N)R", "calls a NoneType"),
        (EMPTY + b")R", "calls a Delayed"),
        (named("tfutil", "Network") + text("x") + b"\x85\x81", "object of tfutil.Network"),
        (named("numpy", "dtype") + b")\x81", "object of numpy.dtype"),
        # A state for what has none, or a second one.
        (b"]}b", "gives a state to a list"),
        (named("tfutil", "Network") + b"}b", "gives a state to tfutil.Network"),
        (named("tfutil", "Network") + b")\x81}b}b", "gives a state to a Instance"),
        # Operations that are not read.
        (b"Pos\n", r"operation \w+ \(0x50\)"),
        (text("os") + b"Q", "outside of itself"),
        (b"\x82\x01", r"operation \w+ \(0x82\)"),
        (b"\x83\x01\x00", r"operation \w+ \(0x83\)"),
        (b"\x84\x01\x00\x00\x00", r"operation \w+ \(0x84\)"),
        (b"(" + text("true") + b"ios\nsystem\n", r"operation \w+ \(0x69\)"),
        (b"(" + named("numpy", "dtype") + b"o", r"operation \w+ \(0x6f\)"),
        (b"\x8f", r"operation \w+ \(0x8f\)"),
        (named("tfutil", "Network") + b")}\x92", r"operation \w+ \(0x92\)"),
        (b"S'a'\n", r"operation \w+ \(0x53\)"),
        (b"\x97", r"operation \w+ \(0x97\)"),
        # Keys and memo.
        (b"}(G" + bytes(8) + b"K\x02u", "as a key"),
        (b"})K\x02s", "as a key"),
        (b"}(" + text("a") + b"u", "without a value"),
        (b"]" + text("a") + b"K\x01s", "sets items of a list"),
        (b"}K\x01a", "appends to a dict"),
        (b"h\x05", "damaged"),
        (b"j\xff\xff\xff\xff", "damaged"),
        (b"q\x00", "damaged"),
        (b"R", "more than there is"),
        (b"(R", "more than there is"),
        (b"\x85", "more than there is"),
        (b"u", "damaged"),
        (b"", "cut short"),
        (b"B\xff\xff\xff\xff", "cut short"),
        (b"\x8e" + b"\xff" * 8, "cut short"),
        (b"\x96" + b"\xff" * 8, "cut short"),
        (b"\x8d" + b"\xff" * 8, "cut short"),
        (b"\x95" + b"\xff" * 7, "cut short"),
        (b"cos", "damaged"),
        (b"c" + b"a" * 10**6 + b"\nb\n", "damaged"),
        (text("\ud800".encode("utf-8", "surrogatepass").decode("latin-1")) + b"K\x01\x93", "else than text"),
        (b"X\x03\x00\x00\x00\xed\xa0\x80", "damaged"),
        (b"\x80\x06", "protocol 6"),
    ],
)
def test_crafted_operations(data: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        read(P + data + (b"." if data else b""))


def test_the_memo_has_no_size_of_its_own() -> None:
    # Python's own unpickler makes a table of as many entries as the largest number it is given.
    assert read(P + b"K\x07r\xff\xff\xff\xff" + b"j\xff\xff\xff\xff.") == 7


def test_names_can_be_hidden_in_the_memo() -> None:
    data = P + text("os") + b"\x94" + text("system") + b"\x94]h\x00h\x01\x93" + text("true") + b"\x85R."
    with pytest.raises(Refused, match=r"asks for 'os\.system'"):
        read(data)


def test_a_registered_extension_is_not_used() -> None:
    data = P + b"\x82\xc9)R."
    copyreg.add_extension("math", "hypot", 201)
    try:
        assert pickle.loads(data) == 0
        with pytest.raises(Refused, match=r"operation \w+ \(0x82\)"):
            read(data)
    finally:
        copyreg.remove_extension("math", "hypot", 201)


def test_deep_nesting_needs_no_stack() -> None:
    depth = 100_000
    made = read(P + b"]" * depth + b"a" * (depth - 1) + b".")
    assert len(made) == 1
    with pytest.raises(Refused, match="damaged"):
        read(P + b"(" * depth + b"t" * (depth + 1) + b".")
    tuples = read(P + b")" + b"\x85" * depth + b".")
    assert len(tuples) == 1


def test_what_contains_itself_is_never_walked(tmp_path: Path) -> None:
    laughs = (
        b"(]"
        + b"".join(b"\x94]" + b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(100))
        + b"t"
    )
    cycle = b"]\x94h\x00a"
    for value in (laughs, cycle, b"}" + text("variables") + cycle + b"s"):
        path = tmp_path / "x"
        path.write_bytes(P + value + b".")
        with pytest.raises(CheckpointError):
            import_weights(path)
    network = named("tfutil", "Network") + b")\x81}" + text("build_func_name") + laughs + b"sb."
    path.write_bytes(P + network)
    with pytest.raises(CheckpointError, match="was built by the function"):
        import_weights(path)


def test_more_operations_than_weights_need() -> None:
    with pytest.raises(Refused, match="more than 1,000,000 operations"):
        read(P + b"N" * (MAX_OPERATIONS + 10) + b".")


def test_one_array_cannot_be_many() -> None:
    # Each view of the same bytes would become a tensor of its own.
    bytes_of = b"B" + struct.pack("<I", 4_000_000) + bytes(4_000_000) + b"\x94"
    kind = DTYPE + b"\x94"
    again = EMPTY + b"(K\x01J" + struct.pack("<i", 1_000_000) + b"\x85h\x01\x89h\x00tb"
    with pytest.raises(Refused, match="more numbers than the file has"):
        read(P + bytes_of + kind + again * 10 + b".")


STORAGE = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"


def tensor(
    size: bytes = b"K\x04\x85",
    stride: bytes = b"K\x01\x85",
    offset: bytes = b"K\x00",
    storage: bytes = STORAGE,
) -> bytes:
    hooks = named("collections", "OrderedDict") + b")R"
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + offset
        + size
        + stride
        + b"\x89"
        + hooks
        + b"tR"
    )


def write_tensor(path: Path, *tensors: bytes) -> Path:
    items = b"".join(text(str(i)) + value for i, value in enumerate(tensors))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}(" + items + b"u.")
        archive.writestr("x/version", "3")
        archive.writestr("x/data/0", np.arange(4, dtype="<f4").tobytes())
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tensor(size=b"K\x05\x85"), "beyond its numbers"),
        (tensor(offset=b"K\x01"), "beyond its numbers"),
        (tensor(offset=b"J\xff\xff\xff\xff"), "beyond its numbers"),
        (tensor(offset=b"\x89"), "beyond its numbers"),
        (tensor(stride=b"K\x02\x85"), "beyond its numbers"),
        (tensor(stride=b"J\xff\xff\xff\xff\x85"), "else than plain numbers"),
        (tensor(size=long(2**40) + b"\x85", stride=b"K\x00\x85"), "more numbers than the file has"),
        (tensor(size=long(10**40) + b"K\x00\x86", stride=b"K\x00K\x00\x86"), "else than plain numbers"),
        (tensor(stride=b")"), "damaged"),
        (tensor(storage=b"N"), "something else than numbers"),
        (tensor(storage=STORAGE.replace(b"K\x04tQ", b"J\xff\xff\xff\x7ftQ")), "16 bytes for 2147483647"),
        (tensor(storage=STORAGE.replace(text("0"), text("../../0"))), "lacks the entry 'data/../../0'"),
        (tensor(storage=STORAGE.replace(text("0"), b"K\x00")), "unknown form"),
        (tensor(storage=STORAGE.replace(named("torch", "FloatStorage"), text("x"))), "unknown form"),
        (tensor(storage=STORAGE.replace(text("storage"), text("file"))), "something else than a tensor"),
        (named("torch", "FloatStorage") + long(10**12) + b"\x85R", "calls torch.FloatStorage"),
        (named("builtins", "bytearray") + long(10**12) + b"\x85R", "builtins.bytearray"),
        (named("torch._utils", "_rebuild_parameter") + b"N\x88N\x87R", "something else than a tensor"),
    ],
)
def test_crafted_tensors(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_weights(write_tensor(tmp_path / "x.pt", data))


def test_a_tensor_is_as_torch_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    shapes = [{}, {"size": b"K\x02K\x02\x86", "stride": b"K\x01K\x02\x86"}, {"size": b")", "stride": b")"}]
    write_tensor(path, *(tensor(**shape) for shape in shapes))
    ours, theirs = read_torch(path), torch.load(path, weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_small_storage_cannot_be_many_tensors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more numbers than the file has"):
        import_weights(write_tensor(tmp_path / "x.pt", tensor(size=b"M\xff\xff\x85", stride=b"K\x00\x85")))


def test_a_class_of_that_name_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    module = types.ModuleType("tfutil")
    module.Network = lambda *_: made.append(1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tfutil", module)
    assert read(P + named("tfutil", "Network") + b")\x81}" + text("a") + b"K\x01sb.").state == {"a": 1}
    assert made == []

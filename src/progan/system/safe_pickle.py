"""A reader of pickles that runs nothing: it knows the opcodes for data, and names instead of functions.

Python's own unpickler imports what a file names and calls it with what the file gives; a list of forbidden
names cannot make that safe. Here a name stays a name. What a file may do with it is one of a few functions
that its caller hands in, each of which checks its arguments. Whatever else a file asks for is refused: other
names, the extension registry, sets, instances, and the text opcodes of protocols 0 and 1.

The memory and time that a file takes are bounded by its size and by `MAX_OPERATIONS`.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_OPERATIONS = 1_000_000
"""The largest of the published files takes about 10,000; a million small objects are about 100 MB."""

MAX_NAME = 200
"""Characters of a name, such as `numpy.core.multiarray._reconstruct`."""

Builder = Callable[["Machine", tuple[Any, ...]], Any]
"""Makes an object of the arguments that a file gives to a name; raises Refused if they are not right."""

Operation = Callable[["Machine"], None]


class Refused(Exception):  # noqa: N818 - it becomes an error when the file's name is added
    """Why a pickle is not read; the text says what it asked for."""


@dataclass(frozen=True)
class Name:
    """What a pickle calls a function or class; nothing is imported for it."""

    text: str


@dataclass
class Instance:
    """An object of a class that is known by name alone, and the state that the pickle gives it."""

    name: str
    state: Any = None


@dataclass
class Delayed:
    """An object that a pickle makes in two steps: empty, then, of the state, with its contents (`value`)."""

    finish: Callable[[Machine, Any], Any]
    value: Any = None


class Machine:
    """Reads one pickle.

    Args:
        data: The bytes.
        builders: What may be called, by `module.name`.
        names: What else may be named, as an argument: classes of which nothing is made.
        instances: Classes of which an `Instance` is kept.
        persistent: Resolves what the pickle has stored elsewhere; None if it has nothing elsewhere.
        budget: Bytes that all arrays together may have; None for what the pickle itself can hold.
        start: Where in the bytes the pickle begins.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        builders: Mapping[str, Builder],
        *,
        names: frozenset[str] = frozenset(),
        instances: frozenset[str] = frozenset(),
        persistent: Callable[[Any], Any] | None = None,
        budget: int | None = None,
        start: int = 0,
    ) -> None:
        self._data = memoryview(data)
        self._place = start
        self._builders = builders
        self._names = names
        self._instances = instances
        self._persistent = persistent
        # Twice, since bytes that are written as text are decoded first.
        self._budget = 2 * len(data) + MAX_OPERATIONS if budget is None else budget
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    @property
    def place(self) -> int:
        """The number of bytes that were read; after `run`, where the pickle ends."""
        return self._place

    def spend(self, count: int) -> None:
        """Count bytes of an array.

        Raises:
            Refused: if there are more in all arrays together than the file can hold.
        """
        if count < 0 or count > self._budget:
            raise Refused("it declares more numbers than the file has")
        self._budget -= count

    def run(self) -> Any:
        """Return the object that the pickle describes.

        It is made of numbers, text, memory views (of bytes), lists, tuples, dicts with text as keys, and what
        the builders return. It may contain itself, and one part many times: never walk it as a tree.

        Raises:
            Refused: if the pickle is damaged, or asks for anything else.
        """
        if bytes(self._data[self._place : self._place + 1]) != b"\x80":
            raise Refused("it is no pickle of protocol 2 or newer")
        for _ in range(MAX_OPERATIONS):
            try:
                code = self._number(1)
                if code == _STOP:
                    return self._pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise Refused(f"it uses the pickle operation {_operation_name(code)}, which is not read")
                operation(self)
            except (LookupError, ValueError, ArithmeticError, struct.error) as error:
                raise Refused(f"it is damaged near byte {self._place} ({error})") from None
        raise Refused(f"it has more than {MAX_OPERATIONS:,} operations")

    def _take(self, count: int) -> memoryview:
        end = self._place + count
        if end > len(self._data):
            raise Refused("it is cut short")
        part = self._data[self._place : end]
        self._place = end
        return part

    def _skip(self, count: int) -> None:
        self._take(count)

    def _number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _line(self) -> str:
        part = bytes(self._data[self._place : self._place + MAX_NAME])
        end = part.index(b"\n")
        self._place += end + 1
        return part[:end].decode("utf-8")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _top(self) -> Any:
        return self._stack[-1]

    def _pop_many(self, count: int) -> tuple[Any, ...]:
        if count > len(self._stack):
            raise Refused("it takes more than there is")
        return tuple([self._stack.pop() for _ in range(count)][::-1])

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        """Return what was put on the stack since the last mark."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _name(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) < MAX_NAME):
            raise Refused("it names a function by something else than text")
        text = f"{module}.{name}"
        if text not in self._builders and text not in self._names and text not in self._instances:
            raise Refused(f"it asks for {text!r}, which is code of another program; nothing of it was run")
        self._push(Name(text))

    def _call(self) -> None:
        function, arguments = self._pop_many(2)
        builder = self._builders.get(function.text) if isinstance(function, Name) else None
        if builder is None or not isinstance(arguments, tuple):
            raise Refused(f"it calls {_kind(function)}; nothing of it was run")
        self._push(builder(self, arguments))

    def _new(self) -> None:
        kind, arguments = self._pop_many(2)
        if not isinstance(kind, Name) or kind.text not in self._instances or arguments != ():
            raise Refused(f"it makes an object of {_kind(kind)}; nothing of it was run")
        self._push(Instance(kind.text))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Instance) and target.state is None:
            target.state = state
        elif isinstance(target, Delayed) and target.value is None:
            target.value = target.finish(self, state)
        elif not isinstance(target, dict):  # of a dict these are attributes, such as PyTorch's _metadata
            raise Refused(f"it gives a state to {_kind(target)}")

    def _set_items(self, items: Sequence[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict):
            raise Refused(f"it sets items of {_kind(target)}")
        target.update(pairs(items))

    def _append(self, items: Iterable[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise Refused(f"it appends to {_kind(target)}")
        target.extend(items)

    def _stored_elsewhere(self) -> None:
        if self._persistent is None:
            raise Refused("it refers to something outside of itself")
        self._push(self._persistent(self._pop()))

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _put(self, width: int) -> None:
        self._memo[self._number(width)] = self._top()

    def _get(self, width: int) -> None:
        self._push(self._memo[self._number(width)])

    def _require_version(self) -> None:
        version = self._number(1)
        if not 2 <= version <= 5:
            raise Refused(f"it is a pickle of protocol {version}; expected 2 to 5")


def pairs(items: Sequence[Any]) -> dict[str, Any]:
    """Return a dict of alternating keys and values.

    Only text is a key: to hash nested tuples, or crafted numbers, can take for ever. Whole numbers, by which
    optimizers call their parameters, become text.

    Raises:
        Refused: if a key is something else, or one is without a value.
    """
    if len(items) % 2:
        raise Refused("it has a key without a value")
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(value: object) -> str:
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str):
        raise Refused(f"it has {_kind(value)} as a key")
    return value


def _operation_name(code: int) -> str:
    found = next((known.name for known in pickletools.opcodes if ord(known.code) == code), None)
    return f"{code:#04x}" if found is None else f"{found} ({code:#04x})"


def _kind(value: object) -> str:
    """Return what to call a value; never its contents, which may be endless."""
    return value.text if isinstance(value, Name) else f"a {type(value).__name__}"


def _text(width: int, encoding: str = "utf-8") -> Operation:
    return lambda m: m._push(str(m._take(m._number(width)), encoding))


def _bytes(width: int) -> Operation:
    return lambda m: m._push(m._take(m._number(width)))


_STOP = ord(".")
_OPERATIONS: dict[int, Operation] = {
    0x80: lambda m: m._require_version(),
    0x95: lambda m: m._skip(8),  # the length of a frame
    ord("("): lambda m: m._mark(),
    # Constants and numbers.
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("K"): lambda m: m._push(m._number(1)),
    ord("M"): lambda m: m._push(m._number(2)),
    ord("J"): lambda m: m._push(m._number(4, signed=True)),
    0x8A: lambda m: m._push(m._number(m._number(1), signed=True)),
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    # Text and bytes; a string of Python 2 may be either.
    0x8C: _text(1),
    ord("X"): _text(4),
    0x8D: _text(8),
    ord("U"): _text(1, "latin-1"),
    ord("T"): _text(4, "latin-1"),
    ord("C"): _bytes(1),
    ord("B"): _bytes(4),
    0x8E: _bytes(8),
    0x96: _bytes(8),  # a bytearray
    # Containers.
    ord("]"): lambda m: m._push([]),
    ord("l"): lambda m: m._push(m._pop_mark()),
    ord("a"): lambda m: m._append(m._pop_many(1)),
    ord("e"): lambda m: m._append(m._pop_mark()),
    ord(")"): lambda m: m._push(()),
    ord("t"): lambda m: m._push(tuple(m._pop_mark())),
    0x85: lambda m: m._push(m._pop_many(1)),
    0x86: lambda m: m._push(m._pop_many(2)),
    0x87: lambda m: m._push(m._pop_many(3)),
    ord("}"): lambda m: m._push({}),
    ord("d"): lambda m: m._push(pairs(m._pop_mark())),
    ord("s"): lambda m: m._set_items(m._pop_many(2)),
    ord("u"): lambda m: m._set_items(m._pop_mark()),
    # What has been read before, by its number.
    0x94: lambda m: m._memoize(),
    ord("q"): lambda m: m._put(1),
    ord("r"): lambda m: m._put(4),
    ord("h"): lambda m: m._get(1),
    ord("j"): lambda m: m._get(4),
    # Names, and what is done with them.
    ord("c"): lambda m: m._name(m._line(), m._line()),
    0x93: lambda m: m._name(*m._pop_many(2)),
    ord("R"): lambda m: m._call(),
    0x81: lambda m: m._new(),
    ord("b"): lambda m: m._build(),
    ord("Q"): lambda m: m._stored_elsewhere(),
}
"""The operations of Python's `pickletools` that weights need, by their codes."""

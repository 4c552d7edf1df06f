"""NumPy arrays, types and numbers as pickles describe them, made without calling what the pickle names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progan.system.safe_pickle import Builder, Delayed, Machine, Name, Refused

TYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
"""Plain numbers; an array of objects would be a pickle of its own, and fields can hide objects."""
MAX_DIMENSIONS = 8
MAX_SIDE = 2**40
ARRAY_NAME = "numpy.ndarray"


def plain_shape(shape: object) -> tuple[int, ...]:
    """Return a shape that a file gives.

    Raises:
        Refused: if it is no tuple of up to `MAX_DIMENSIONS` numbers from 0 to `MAX_SIDE`.
    """
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise Refused("it describes an array without a shape")
    if not all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape):
        raise Refused("it describes an array with a shape of something else than plain numbers")
    return shape


def array_of(value: object) -> NDArray[Any] | None:
    """Return the array or number that a value of an unpickled object is; None if it is something else."""
    if isinstance(value, Delayed):
        value = value.value
    if isinstance(value, float | int):
        return np.array(value, dtype=np.float64)
    return value if isinstance(value, np.ndarray) else None


def _empty_array(_: Machine, arguments: tuple[Any, ...]) -> Delayed:
    """`_reconstruct(ndarray, (0,), b'b')`: an array that gets its contents later."""
    if len(arguments) != 3 or arguments[0] != Name(ARRAY_NAME):
        raise Refused("it makes an array of something else than numpy.ndarray")
    return Delayed(_fill_array)


def _fill_array(machine: Machine, state: Any) -> NDArray[Any]:
    """The state of an ndarray: (1, shape, dtype, whether it is in Fortran's order, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5 or type(state[3]) is not bool:
        raise Refused("it fills an array in an unknown form")
    return _array(machine, state[4], state[2], state[1], "F" if state[3] else "C")


def _from_buffer(machine: Machine, arguments: tuple[Any, ...]) -> NDArray[Any]:
    """`_frombuffer(bytes, dtype, shape, order)`, as protocol 5 has arrays."""
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise Refused("it fills an array in an unknown form")
    return _array(machine, *arguments)


def _array(machine: Machine, data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return a read-only view of bytes as an array."""
    dtype, sides = _dtype(kind), plain_shape(shape)
    count = math.prod(sides)
    machine.spend(count * dtype.itemsize)
    buffer = _as_bytes(data)
    if len(buffer) != count * dtype.itemsize:
        raise Refused(f"it has {len(buffer)} bytes for an array of {count * dtype.itemsize}")
    return np.ndarray(sides, dtype, buffer, order=order)


def _new_dtype(_: Machine, arguments: tuple[Any, ...]) -> Delayed:
    """`dtype('f4', False, True)`: a type that gets its byte order later."""
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in TYPES:
        raise Refused("it has an array of something else than plain numbers")
    return Delayed(lambda _, state: _ordered(code, state))


def _ordered(code: str, state: Any) -> np.dtype[Any]:
    """The state of a dtype: (3, '<', None, None, None, -1, -1, 0); the three are of structured types."""
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|"):
        raise Refused("it has a type of numbers in an unknown form")
    if any(part is not None for part in state[2:5]):
        raise Refused("it has an array of something else than plain numbers")
    return np.dtype(code).newbyteorder(state[1])


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, Delayed) or not isinstance(value.value, np.dtype):
        raise Refused("it has an array without a type")
    return value.value


def _scalar(machine: Machine, arguments: tuple[Any, ...]) -> float | int:
    """`scalar(dtype, bytes)`: one number."""
    if len(arguments) != 2:
        raise Refused("it has a number in an unknown form")
    number: float | int = _array(machine, arguments[1], arguments[0], (), "C").item()
    return number


def _as_bytes(data: Any) -> bytes | memoryview:
    """Return the bytes of an array; of Python 2 they are text."""
    if isinstance(data, str):
        try:
            return data.encode("latin-1")
        except UnicodeEncodeError:
            raise Refused("it has an array of text") from None
    if not isinstance(data, bytes | memoryview):
        raise Refused("it has an array without bytes")
    return data


def _encode(machine: Machine, arguments: tuple[Any, ...]) -> bytes:
    """`_codecs.encode(text, 'latin1')`, which is how Python 3 writes bytes for Python 2."""
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise Refused("it encodes something in an unknown way")
    machine.spend(len(arguments[0]))
    return bytes(_as_bytes(arguments[0]))


def ordered_dict(_: Machine, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """`OrderedDict()`; its items come later."""
    if arguments:
        raise Refused("it fills an OrderedDict in an unknown form")
    return {}


NUMPY: dict[str, Builder] = {
    "numpy.dtype": _new_dtype,
    "_codecs.encode": _encode,
    "collections.OrderedDict": ordered_dict,
    # NumPy 2 has renamed numpy.core.
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
"""What a pickle of NumPy arrays may call."""
NAMES = frozenset({ARRAY_NAME})

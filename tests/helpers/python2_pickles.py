"""Pickles as Python 2 wrote them, of text and arrays: what the batches of CIFAR are."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def python2_pickle(tree: dict[str, Any]) -> bytes:
    """Return a pickle of protocol 2 with strings of bytes."""
    return b"\x80\x02" + _item(tree) + b"."


def _item(value: Any) -> bytes:
    match value:
        case str() | bytes():
            data = value.encode() if isinstance(value, str) else value
            return b"T" + struct.pack("<i", len(data)) + data
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"]" + b"(" + b"".join(map(_item, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_item(key) + _item(each) for key, each in value.items()) + b"u"
        case np.ndarray():
            return _array(value)
    raise TypeError(value)


def _array(values: Any) -> bytes:
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + b"T\x01\x00\x00\x00b\x87R"
    dtype = b"cnumpy\ndtype\n" + _item(values.dtype.str[1:]) + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + _item(values.dtype.str[0]) + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    shape = b"(" + b"".join(_item(side) for side in values.shape) + b"t"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _item(values.tobytes()) + b"tb"

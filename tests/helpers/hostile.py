"""Files that are made to cost more than they weigh: endless values, one tensor under many names, escapes."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"
"""Sets a window's title, clears the screen, colours, turns the direction of writing, returns the cursor."""


def text(value: str) -> bytes:
    """Return the operation of pickle that pushes a text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def laughs(depth: int = 60) -> bytes:
    """Return operations that push lists, each of which holds the one before twice: 2^depth in all."""
    return b"(]\x94" + b"".join(b"(h%ch%cl\x94" % (i, i) for i in range(depth)) + b"t"


def cycle() -> bytes:
    """Return operations that push a list that contains itself."""
    return b"]\x94h\x00a"


def network(function: str, arguments: bytes, variables: bytes = b"]") -> bytes:
    """Return a pickle of a network of the original TensorFlow code.

    Args:
        function: Its build function.
        arguments: Operations that push static_kwargs.
        variables: Operations that push the variables.
    """
    state = b"}" + text("build_func_name") + text(function) + b"s"
    state += text("static_kwargs") + arguments + b"s" + text("variables") + variables + b"s"
    return b"\x80\x04ctfutil\nNetwork\n)\x81" + state + b"b."


def option(name: str, value: bytes) -> bytes:
    """Return operations that push a dict of one item."""
    return b"}" + text(name) + value + b"s"


def many_names(names: list[str], array: np.ndarray[Any, Any]) -> bytes:
    """Return a pickle of a list of pairs, each of a name and the same array."""
    return pickle.dumps([(name, array) for name in names], 4)


def aliased(names: list[str], size: int, **beside: Any) -> bytes:
    """Return what torch.save writes of a state dict in which every name is of one tensor."""
    tensor = torch.zeros(size)
    stream = io.BytesIO()
    torch.save({"state_dict": OrderedDict((name, tensor) for name in names), **beside}, stream)
    return stream.getvalue()

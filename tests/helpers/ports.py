"""Ports of this machine that are nobody else's."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

PORTS = range(20_000, 30_000)
"""Below those that Linux gives out by itself, so that nobody is given one of them by chance."""


def free_port() -> int:
    """Return a port that nobody listens on; other tests, also of other processes, get other ones."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in _taken() and _is_free(port):
            _taken().add(port)
            return port
    raise AssertionError("all ports are in use")


@cache
def _taken() -> set[int]:
    """Ports that this process has asked for."""
    return set()


@cache
def _locks() -> IO[bytes]:
    """A file with a byte for each port, which a process locks while it lives."""
    return Path(tempfile.gettempdir(), "progan-test-ports").open("ab")


def _is_free(port: int) -> bool:
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        with socket.socket() as found:
            found.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True

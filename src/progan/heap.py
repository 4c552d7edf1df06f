"""How the process's memory is kept between iterations."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""

KEPT = 2**30
"""Bytes of freed memory, at most, that are not given back to the system."""

LARGEST_KEPT = 32 * 2**20
"""Blocks above it are asked of the system one by one, and given back; glibc permits no more."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next iteration asks for the same again.

    By default it returns memory to the system and fetches it anew, thousands of pages an iteration, each of
    which the system fills with zeros. Whoever has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_
    decides instead; other libraries of C are left alone.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)

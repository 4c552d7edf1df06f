"""How the process's memory is kept between iterations."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""

KEPT = 2**30
"""Freed bytes at the end of the heap above which they are given back to the system."""

LARGEST_KEPT = 32 * 2**20
"""Blocks above it are asked of the system one by one, and given back; glibc permits no more."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next iteration asks for the same again.

    By default it returns memory to the system and fetches it anew, thousands of pages an iteration, each of
    which the system fills with zeros. Whoever has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_, or
    the same by GLIBC_TUNABLES, decides instead; other libraries of C are left alone.
    """
    if sys.platform != "linux" or _is_chosen(os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


def _is_chosen(environment: Mapping[str, str]) -> bool:
    """Return whether a user has told glibc what to keep."""
    names = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
    tunables = "glibc.malloc.trim_threshold", "glibc.malloc.mmap_threshold"
    given = environment.get("GLIBC_TUNABLES", "")
    return any(name in environment for name in names) or any(name in given for name in tunables)

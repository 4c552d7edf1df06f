"""Arrays of NumPy whose headers promise more than there is."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from progan.system.npy_files import map_array, parse_array


@pytest.mark.skipif(sys.platform != "linux", reason="tells memory in other units")
def test_a_header_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    file.write_bytes(b"\x93NUMPY\x03\0" + (2**32 - 1).to_bytes(4, "little") + b"{'descr': '|u1', ")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        with pytest.raises(ValueError, match="its header is damaged: too long"):
            map_array(file)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_an_array_must_be_as_long_as_its_header_says(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10))
    data = (tmp_path / "x.npy").read_bytes()
    np.testing.assert_array_equal(parse_array(data), np.arange(10))
    with pytest.raises(ValueError, match="does not fit what it holds"):
        parse_array(data[:-8])

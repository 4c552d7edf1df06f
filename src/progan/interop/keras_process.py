"""The process that opens HDF5 files of strangers: on damaged ones the library may hang or crash.

python -m progan.interop.keras_process FILE BUDGET OUT

writes an .npz file of the weights, and the description of the model as bytes under `config`. What the file is
instead is the last line on stderr, with exit code 3.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from progan.errors import shown

MAX_ITEMS = 20_000
LEAVES = ("kernel:0", "bias:0", "weight_scale:0")
REFUSED = 3


class _Other(Exception):  # noqa: N818 - it becomes a line
    """What the file is instead."""


def main(file: str, budget: str, out: str) -> None:
    """Read a model; nothing outside the file is followed, whatever links it has."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            root = opened.get("model_weights", opened)
            arrays, text = _weights(root, int(budget)), opened.attrs.get("model_config")
            if text is not None:
                data = text.encode() if isinstance(text, str) else bytes(text)
                arrays["config"] = np.frombuffer(data, np.uint8)
    except _Other as error:
        _refuse(str(error))
    except Exception as error:  # of the library's dozen
        _refuse(f"it is a damaged HDF5 file ({shown(str(error), 120)})")
    np.savez(out, **arrays)


def _refuse(reason: str) -> None:
    print(reason, file=sys.stderr)
    sys.exit(REFUSED)


def _weights(root: Any, budget: int) -> dict[str, Any]:
    """Return the weights in a group; hard links alone are followed, each object once."""
    import h5py

    found: dict[str, Any] = {}
    seen = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if seen > MAX_ITEMS:
            return True
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 2 and parts[-1] in LEAVES:
            found["/".join([*parts[:2], parts[-1].removesuffix(":0")])] = item
        return None

    if root.visititems(visit):
        raise _Other(f"it has more than {MAX_ITEMS:,} items")
    total = 0
    for name, item in found.items():
        if item.external or item.is_virtual:
            raise _Other(f"its {shown(name)} lies in another file")
        if item.dtype.kind != "f" or item.ndim > 4:
            raise _Other(f"its {shown(name)} is no tensor of floating-point numbers")
        total += math.prod(item.shape) * item.dtype.itemsize
    if total > budget:
        raise _Other("its weights have more numbers than the file has bytes for")
    return {name: _plain(np.asarray(item[()])) for name, item in found.items()}


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return values in the machine's byte order."""
    return values.astype(values.dtype.newbyteorder("="))


if __name__ == "__main__":
    main(*map(str, sys.argv[1:4]))

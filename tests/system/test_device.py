"""How exactly float32 is multiplied: set for a while, by either of PyTorch's interfaces, and put back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from progan.performance import peak_rates
from tiny import environment

NEWER = """
import torch
from progan.system.device import float32_products
parts = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul]
torch.backends.fp32_precision = "tf32"
with float32_products(tf32=False):
    assert [part.fp32_precision for part in parts] == ["ieee"] * 3
with float32_products(tf32=True):
    assert [part.fp32_precision for part in parts] == ["tf32", "tf32", "ieee"]
assert [part.fp32_precision for part in parts] == ["tf32"] * 3
torch.backends.fp32_precision = "ieee"
assert [part.fp32_precision for part in parts] == ["ieee"] * 3, "they follow the common setting, as before"
"""
OLDER = """
import torch
from progan.system.device import float32_products
for before in ("highest", "high", "medium"):
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = before != "highest"
    for tf32 in (False, True):
        with float32_products(tf32=tf32):
            assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
            assert torch.backends.cudnn.allow_tf32 == tf32
        assert torch.get_float32_matmul_precision() == before
        assert torch.backends.cudnn.allow_tf32 == (before != "highest")
"""


@pytest.mark.parametrize("code", [NEWER, OLDER], ids=["newer", "older"])
def test_float32_products_are_set_and_put_back(code: str) -> None:
    """In a process of its own: what the newer interface has set stays in the way of the older one."""
    if code is NEWER and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch has the older interface only")
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_device_that_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    peak_rates.synchronize(torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1)]

"""Machines that come and go during a run: several agents of torchrun on the loopback, with real processes."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

import progan
from ports import free_port
from progan.config import merge
from progan.data.packed import PackedSet
from tiny import OPTIONS, TOTAL, environment, last_tensors, words
from torchrun_runs import FAULTS, LOG, logged, torchrun

OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it, torchrun does not tell a machine that comes later where the store of the processes is."""

SECONDS = 600
"""How long a test waits for what other processes do."""
TREE = merge(OPTIONS, LOG)
Begin = Callable[[list[str], Path], "subprocess.Popen[str]"]


def agent(port: int, *command: object) -> list[str]:
    """Return the words of torchrun on one of at most two machines, for one process on each."""
    # A machine is awaited for five seconds, not half a minute (torchrun looks once a second who is there),
    # and one without a sign of life is missed after eight.
    patience = "last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=8"
    return torchrun(
        "--nnodes", "1:2", "--nproc-per-node", 1, "--max-restarts", 1, "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test", "--rdzv-conf", patience,
        "--local-addr", "127.0.0.1", *command,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started."""
    if process.poll() is None:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            one.kill()
        process.wait(SECONDS)


@pytest.fixture(name="begin")
def agents() -> Iterator[Begin]:
    """Start processes, each of which says what it says into a file; none is left over."""
    begun: list[subprocess.Popen[str]] = []

    def begin(words: list[str], said: Path) -> subprocess.Popen[str]:
        with said.open("w") as out:
            begun.append(
                subprocess.Popen(
                    words, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment() | OWN_STORE
                )
            )
        return begun[-1]

    yield begin
    for process in begun:
        kill(process)


def wait_until(true: Callable[[], object], *running: subprocess.Popen[str]) -> None:
    """Wait for something that needs these processes."""
    until = time.monotonic() + SECONDS
    while not true():
        assert all(process.poll() is None for process in running)
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_machine_joins_and_leaves(begin: Begin, blobs: PackedSet, tmp_path: Path) -> None:
    """Each time the run stops with a checkpoint and goes on; nothing is trained twice; the end is the same.

    That one joins is no failure, that one leaves is the one that `--max-restarts` allows.
    """
    run, port, said = tmp_path / "run", free_port(), tmp_path / "said"
    first, second = tmp_path / "stop-step-0-3", tmp_path / "stop-step-1-3"
    words_of_run = ["train", blobs.path, "--out", run, *words(TREE)]
    asked = agent(port, FAULTS, tmp_path, "stop:step:0:3", "stop:step:1:3", "--", *words_of_run)
    stays = begin(asked, said)
    wait_until(first.exists, stays)  # it trains alone, and goes on when it has to stop for the other
    joins = begin(asked, tmp_path / "other")
    wait_until(second.exists, stays, joins)  # they train together
    joins.terminate()
    for process in (joins, stays):
        process.wait(SECONDS)
    told = said.read_text() + (tmp_path / "other").read_text()
    assert stays.returncode == 0, told
    assert joins.returncode != 0
    stops = re.findall(r"stopped at (\d+) images, checkpoint written", told)
    assert len(stops) == 2, told
    assert re.findall(r"going on from (\d+) images", told) == stops
    assert "was lost" not in told
    alone = tmp_path / "alone"
    progan.train(blobs.path, alone, options=TREE)
    record, tensors = last_tensors(run)
    assert record.images_seen == TOTAL
    for name, value in last_tensors(alone)[1].items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
def test_two_machines_one_of_which_leaves(begin: Begin, blobs: PackedSet, tmp_path: Path) -> None:
    """Two agents on the loopback; one is killed with its process, and the other goes on alone."""
    run, port, said = tmp_path / "run", free_port(), tmp_path / "said"
    first, second = tmp_path / "stop-step-0-3", tmp_path / "sleep-step-1-3"
    words_of_run = ["train", blobs.path, "--out", run, *words(TREE)]
    asked = agent(port, FAULTS, tmp_path, "stop:step:0:3", "sleep:step:1:3", "--", *words_of_run)
    stays = begin(asked, said)
    wait_until(first.exists, stays)
    leaves = begin(asked, tmp_path / "other")
    wait_until(second.exists, stays, leaves)  # it would stand still for long, and the first waits for it
    kill(leaves)
    assert stays.wait(SECONDS) == 0, said.read_text()
    assert "was lost" in said.read_text()
    assert "going on from " in said.read_text()
    assert logged(run)[-1]["images_seen"] == TOTAL

"""Worker processes: order, bounded work in flight, crashes, and no traces left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from progan.errors import ProganError
from progan.system.worker_pool import run_chunks, usable_cores


def work(context: int, item: str) -> str:
    """What workers do in these tests: answer, die, or fail."""
    if item == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "bug":
        raise ValueError("a bug")
    print("noise on stdout")
    return f"{item}{context}"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers import this module, and see to it that none is left over."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    before = psutil.Process().children()
    yield
    assert set(psutil.Process().children()) <= set(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    chunks = [[str(i), str(i + 1)] for i in range(0, 20, 2)]
    results = [one for chunk in run_chunks(work, 7, chunks, workers, "dead") for one in chunk]
    assert results == [f"{i}7" for i in range(20)]


def test_a_crash_costs_one_item() -> None:
    chunks = [["a", "crash", "b"], ["c"], ["crash"]]
    assert list(run_chunks(work, 0, chunks, 2, "dead")) == [["a0", "dead", "b0"], ["c0"], ["dead"]]


def test_a_bug_is_raised_in_the_parent() -> None:
    with pytest.raises(ProganError, match="ValueError: a bug"):
        list(run_chunks(work, 0, [["bug"]], 2, "dead"))


def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(ProganError, match="could not start"):
        list(run_chunks(work, 0, [["a"]], 2, "dead"))


def test_chunks_in_flight_are_bounded() -> None:
    taken = []

    def chunks() -> Iterator[list[str]]:
        for i in range(50):
            taken.append(i)
            yield [str(i)]

    results = run_chunks(work, 0, chunks(), 2, "dead")
    next(results)
    assert len(taken) <= 4
    results.close()


def test_workers_end_with_their_parent() -> None:
    script = (
        "import sys; from progan.system.worker_pool import run_chunks; from test_worker_pool import work\n"
        "r = run_chunks(work, 0, ([str(i)] for i in range(10**9)), 2, 'dead'); next(r)\n"
        "print('ready', flush=True)\n"
        "for _ in r: pass"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        grandchildren = psutil.Process(child.pid).children()
        assert len(grandchildren) == 2
        child.kill()
        child.wait()
    _, alive = psutil.wait_procs(grandchildren, timeout=60)
    assert not alive


def test_cores_are_counted() -> None:
    assert usable_cores() >= 1


def test_workers_do_not_import_torch() -> None:
    code = (
        "import sys, progan.preparation.fitting, progan.system.worker_pool; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=_with_path(), check=False).returncode == 0


def _with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

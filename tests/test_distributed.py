"""Several processes make the updates of one: every loss and penalty, through a growth, in float64."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from progan.data.batches import deal, micro_batches
from progan.data.packed import PackedSet
from progan.errors import ConfigError, RankError
from progan.training import distributed
from progan.training.distributed import ALONE, VARIABLES, Ranks, _Link, _verdict, alone
from progan.training.launching import to_launch
from progan.training.objective import TERM_NAMES
from progan.training.saving import digest
from rank_process import CASES, free_port, run_all, train, variables
from tiny import require_equal


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int]:
    """Sizes of a batch and of a stddev group that divides it, or holds all of it, or is none."""
    group, columns = draw(st.integers(0, 6)), draw(st.integers(1, 40))
    larger = draw(st.integers(0, 3)) if columns == 1 else 0
    return max(group, 1) * columns, group + (larger if group else 0)


@given(batches(), st.integers(1, 9))
def test_whole_groups_are_dealt(sizes: tuple[int, int], ranks: int) -> None:
    n, group = sizes
    shares = [deal(n, group, rank, ranks) for rank in range(ranks)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    g = min(group, n) or 1
    assert max(map(len, shares)) - min(map(len, shares)) in (0, g)
    assert len(shares[0]) == max(map(len, shares)), "the first has some"
    whole = {frozenset(column) for column in np.arange(n).reshape(g, -1).T.tolist()}
    for share in shares:
        for part in micro_batches(len(share), group, None):
            columns = share[part].reshape(g, -1).T.tolist()
            assert {frozenset(column) for column in columns} <= whole


@given(batches())
def test_one_process_has_all_in_order(sizes: tuple[int, int]) -> None:
    assert deal(*sizes, 0, 1).tolist() == list(range(sizes[0]))


@pytest.fixture(scope="module", name="alone")
def one_process(blobs: PackedSet) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    return {f"{case}|{k}": v for case, choices in CASES.items() for k, v in train(blobs, choices).items()}


@pytest.mark.parametrize("size", [2, 4])
def test_processes_give_the_same_update(
    alone: dict[str, torch.Tensor], blobs: PackedSet, tmp_path: Path, size: int
) -> None:
    """With a group of the whole batch, all but the first have no samples."""
    assert {name.split()[-1] for name in alone if "|D " in name or "|G " in name} == set(TERM_NAMES)
    ends = run_all(blobs, tmp_path, size)
    for end in ends:
        require_equal(end, ends[0])
    assert ends[0].keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(ends[0][name], value, rtol=0, atol=1e-10, msg=name)


def outcome(error: str = "", code: int = 0, **facts: str) -> dict[str, object]:
    return {"error": error, "code": code, "facts": {"torch": "2.13", "pictures": "a", **facts}}


def test_what_processes_must_agree_about() -> None:
    assert _verdict([outcome(), outcome()])["error"] == ""
    verdict = _verdict([outcome(), outcome(), outcome(torch="2.9", pictures="b")])
    assert verdict["code"] == 2
    assert (
        "  torch: 2.13 on rank 0, 2.9 on rank 2\n  pictures: a on rank 0, b on rank 2\n" in verdict["error"]
    )


def test_errors_of_the_check_are_told_once_each() -> None:
    verdict = _verdict([outcome(), outcome("no set", 2), outcome("no room", 1), outcome("no set", 2)])
    assert (verdict["error"], verdict["code"]) == ("rank 1: no set\nrank 2: no room", 2)


def test_an_environment_that_is_incomplete_is_refused() -> None:
    assert alone({})
    assert alone({"RANK": "0", "WORLD_SIZE": "1"})
    assert not alone(dict.fromkeys(VARIABLES, "2"))
    with pytest.raises(ConfigError, match="LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not"):
        alone({"RANK": "0", "WORLD_SIZE": "2"})


def test_when_processes_are_to_be_started() -> None:
    assert to_launch(2, {})
    assert not to_launch(None, {})
    assert not to_launch(1, {})
    assert not to_launch(2, {"LOCAL_WORLD_SIZE": "2"}), "it is one of them"
    for devices, environment, message in (
        (0, {}, "at least 1"),
        (2, {"LOCAL_WORLD_SIZE": "4"}, "has started 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            to_launch(devices, environment)


def test_one_process_waits_for_nobody() -> None:
    means, gradients = {"loss": torch.tensor(2.0)}, [torch.ones(3)]
    assert ALONE.reduce(gradients, means, TERM_NAMES) == means
    assert ALONE.vote(15, 0) == [15, 0], "at once"
    assert ALONE.from_first({"a": [1]}) == {"a": [1]}
    assert ALONE.tensors_from_first(means) is means
    ALONE.meet("the end")
    ALONE.compare("the weights", 7)


@given(st.integers(0, 2**31 - 1), st.integers(0, 63))
def test_the_digest_of_a_state_sees_every_bit(seed: int, bit: int) -> None:
    """Also two changes that cancel in a sum."""
    drawn = np.random.default_rng(seed)
    tensors = {"a": torch.from_numpy(drawn.standard_normal((5, 3))), "b": torch.tensor(3)}
    whole = digest(tensors)
    assert 0 <= whole < 2**63
    words = tensors["a"].view(torch.int64)
    words[1, 1] ^= 1 << bit if bit < 63 else -(2**63)
    assert digest(tensors) != whole
    words[1, 1] ^= 1 << bit if bit < 63 else -(2**63)
    assert digest(tensors) == whole
    words[0, 0] += 1
    words[4, 2] -= 1
    assert digest(tensors) != whole


class NoMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets nothing be computed whose result needs memory of its own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tensors_of(args)}
        result = func(*args, **(kwargs or {}))
        if {t.untyped_storage().data_ptr() for t in tensors_of((result,))} - given:
            raise torch.OutOfMemoryError(f"{func} took memory")
        return result


def tensors_of(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


def test_a_reduction_takes_its_memory_before_the_others_get_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory that is missing after it would have this process alone repeat an update that all have made."""
    after = ExitStack()

    def all_reduce(flat: torch.Tensor) -> None:
        flat.mul_(2)
        after.enter_context(NoMemory())  # type: ignore[no-untyped-call]

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    ranks = Ranks(0, 2, 0, _Link(None, None))  # type: ignore[arg-type]
    gradients, means = [torch.ones(3, 2), torch.ones(4)], {"b": torch.tensor(3.0)}
    with after:
        sums = ranks.reduce(gradients, means, ("a", "b", "c"))
        with pytest.raises(torch.OutOfMemoryError):
            gradients[0].clone()
    assert {name: float(value) for name, value in sums.items()} == {"b": 6.0}
    assert [gradient.tolist() for gradient in gradients] == [[[2.0, 2.0]] * 3, [2.0] * 4]


def test_memory_that_is_missing_in_a_reduction_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the others have their share is not known, so it is not tried again."""

    def all_reduce(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    ranks = Ranks(1, 2, 1, _Link(None, None))  # type: ignore[arg-type]
    with pytest.raises(RankError, match=r"rank 1 stops: .* \(CUDA out of memory\)"):
        ranks.reduce([torch.ones(3)], {}, ("a",))


STANDS_STILL = """
import os, signal, time
from progan.training import distributed, watch
watch.LOST, watch.EXIT_SECONDS = 2.0, 1
with distributed.join() as ranks:
    ranks.meet("the beginning")
    if ranks.rank == 1:
        print("stands still", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    ranks.vote(0)
    while True:
        ranks.at("something else")
        time.sleep(0.05)
"""


def test_the_exit_waits_for_no_process_that_stands_still() -> None:
    """The first learns of it in Python; for its vote, which the other has no part in, PyTorch would wait."""
    port = free_port()
    first, other = (
        subprocess.Popen(
            [sys.executable, "-c", STANDS_STILL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=variables(rank, 2, port),
        )
        for rank in range(2)
    )  # fmt: skip
    try:
        said, _ = first.communicate(timeout=120)
    finally:
        other.kill()
        other.communicate()
    assert first.returncode == -signal.SIGALRM
    assert "rank 0 stops: rank 1 was lost (rank 1 was in " in said


def test_who_was_not_asked_to_stop_waits_a_moment_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its own torchrun, which asks it a moment later, does not take its end for a failure."""
    left: list[str] = []
    watch = type("Left", (), {"end": lambda _self: left.append("the others")})()
    ranks = Ranks(1, 2, 0, _Link(None, watch))  # type: ignore[arg-type]
    answers = iter([False, False, True])
    ranks.leave(lambda: next(answers))
    assert not list(answers), "it has waited until it was asked"
    monkeypatch.setattr(distributed, "SIGNAL_SECONDS", 0.1)
    ranks.leave(lambda: False)
    assert left == ["the others"] * 2
    ALONE.leave(lambda: pytest.fail("nobody asks it again"))

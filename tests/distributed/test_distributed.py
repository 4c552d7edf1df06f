"""Several processes, and micro-batches, make the updates of one: through a growth, in float64."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from ports import free_port
from progan.data.batches import deal, micro_batches
from progan.data.packed import PackedSet
from progan.distributed import ranks as distributed
from progan.distributed.launcher import to_launch
from progan.distributed.ranks import ALONE, Ranks, _Link, _verdict
from progan.distributed.rendezvous import VARIABLES, alone
from progan.errors import ConfigError, RankError
from progan.runs.checkpointing import digest
from progan.runs.logs import read_stats
from progan.training.losses import TERM_NAMES
from rank_process import CASES, NO_GROUPS, ONE_GROUP, PAIRS, PLAIN, ends, start, train, variables
from tiny import last_tensors, require_equal

SIZES = (2, 3, 4)


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int]:
    """Sizes of a batch and of a stddev group that divides it, or holds all of it, or is none."""
    group, columns = draw(st.integers(0, 6)), draw(st.integers(1, 40))
    larger = draw(st.integers(0, 3)) if columns == 1 else 0
    return max(group, 1) * columns, group + (larger if group else 0)


@given(batches(), st.integers(1, 9), st.booleans())
def test_whole_groups_are_dealt(sizes: tuple[int, int], ranks: int, contiguous: bool) -> None:
    n, group = sizes
    shares = [deal(n, group, rank, ranks, contiguous=contiguous) for rank in range(ranks)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    g = min(group, n) or 1
    assert max(map(len, shares)) - min(map(len, shares)) in (0, g)
    assert len(shares[0]) == max(map(len, shares)), "the first has some"

    def groups(positions: NDArray[np.int64]) -> set[frozenset[int]]:
        rows = positions.reshape(-1, g) if contiguous else positions.reshape(g, -1).T
        return {frozenset(row) for row in rows.tolist()}

    for share in shares:
        for part in micro_batches(len(share), group, None, contiguous=contiguous):
            assert groups(share[part]) <= groups(np.arange(n))


@given(batches())
def test_one_process_has_all_in_order(sizes: tuple[int, int]) -> None:
    assert deal(*sizes, 0, 1).tolist() == list(range(sizes[0]))


@dataclass(frozen=True)
class Trained:
    """What each case ends with, trained by one process, and where groups of several leave the same."""

    alone: dict[str, torch.Tensor]
    folder: Path


@pytest.fixture(scope="module", name="trained")
def all_cases(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("cases")
    others = start("cases", blobs, folder, SIZES)
    torch.set_num_threads(1)
    alone = {f"{case}|{k}": v for case in CASES for k, v in train(blobs, case).items()}
    assert others.wait(600) == 0
    return Trained(alone, folder)


def test_cases_have_every_term(trained: Trained) -> None:
    assert {name.split()[-1][2:] for name in trained.alone if " D/" in name or " G/" in name} == set(
        TERM_NAMES
    )
    moved = [v for name, v in trained.alone.items() if name.endswith("|augmenter/probability")]
    assert moved, "adaptive augmentation was on"
    assert all(float(probability) != 0.5 for probability in moved)


@pytest.mark.parametrize("size", SIZES)
def test_processes_give_the_same_update(trained: Trained, size: int) -> None:
    """Weights, average, moments and terms.

    With a group of the whole batch, all but the first have no samples; three have unequal shares; and of
    batches of 8 with groups of 4 the third and the fourth have none.
    """
    all_ends = ends(trained.folder, size)
    for end in all_ends:
        require_equal(end, all_ends[0])
    require_near(all_ends[0], trained.alone)


@pytest.mark.parametrize("case", [case for case in CASES if case != ONE_GROUP])
def test_micro_batches_give_the_same_update(trained: Trained, blobs: PackedSet, case: str) -> None:
    """In parts of 8, or whole where the case is in parts already."""
    parted = "run" in CASES[case]
    others = train(blobs, case, run={"micro_batch": None if parted else 8})
    require_near(others, {name: trained.alone[f"{case}|{name}"] for name in others})


@pytest.mark.parametrize(
    ("case", "size"), [(PLAIN, 4), (PLAIN, 12), (PLAIN, 64), (NO_GROUPS, 1), (NO_GROUPS, 5), (PAIRS, 6)]
)
def test_the_size_of_micro_batches_does_not_matter(
    trained: Trained, blobs: PackedSet, case: str, size: int
) -> None:
    others = train(blobs, case, run={"micro_batch": size})
    require_near(others, {name: trained.alone[f"{case}|{name}"] for name in others})


def test_the_group_matters(trained: Trained, blobs: PackedSet) -> None:
    """The comparison would notice a wrong grouping: other groups give other weights."""
    pairs = train(blobs, PLAIN, model={"discriminator": {"stddev_group": 2}})
    assert max(float((pairs[k] - trained.alone[f"{PLAIN}|{k}"]).abs().max()) for k in pairs) > 1e-6


def require_near(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare up to the rounding of float64."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-10, msg=name)


def test_a_run_goes_on_with_any_number_of_processes(blobs: PackedSet, tmp_path: Path) -> None:
    """Begun on four: the same samples and weights, in float64, as of one that was left alone.

    Through a growth; of the smaller batches that follow, four of eight processes have no share.
    """
    assert start("resume", blobs, tmp_path, (4, 1, 2, 8)).wait(600) == 0
    whole, expected = last_tensors(tmp_path / "whole")
    points = read_stats(tmp_path / "whole" / "stats.jsonl")
    begun, _ = last_tensors(tmp_path / "begun")
    assert all(value.dtype == torch.float64 for name, value in expected.items() if "optimizer" not in name)
    assert (begun.images_seen, begun.level, whole.images_seen, whole.level) == (32, 0, 160, 1)
    for size in (1, 2, 8):
        record, tensors = last_tensors(tmp_path / str(size))
        assert (record.images_seen, record.level) == (whole.images_seen, whole.level)
        require_near(tensors, expected)
        ours = read_stats(tmp_path / str(size) / "stats.jsonl")
        assert [point["images_seen"] for point in ours] == [point["images_seen"] for point in points]
        for one, other in zip(ours, points, strict=True):
            for name in ("D/real_score", "D/fake_score", "D/gp", "G/loss"):
                assert one[name] == pytest.approx(other[name], rel=0, abs=1e-9), name


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
    with pytest.raises(ConfigError, match=r"RANK is 'first', which is no number: .*unset RANK"):
        alone({"RANK": "first", "WORLD_SIZE": "2"})


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
    assert ALONE.all_reduce(gradients, means, TERM_NAMES) == means
    assert ALONE.vote(15, 0) == [15, 0], "at once"
    assert ALONE.broadcast({"a": [1]}) == {"a": [1]}
    assert ALONE.broadcast_tensors(means) is means
    ALONE.barrier("the end")
    ALONE.compare("the weights", lambda: pytest.fail("nobody to compare with"))


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
        sums = ranks.all_reduce(gradients, means, ("a", "b", "c"))
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
        ranks.all_reduce([torch.ones(3)], {}, ("a",))


STANDS_STILL = """
import os, signal, time
from progan.distributed import watchdog
from progan.distributed.ranks import join
watchdog.LOST, watchdog.EXIT_SECONDS = 5.0, 1
with join() as ranks:
    ranks.barrier("the beginning")
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
        said, _ = first.communicate(timeout=600)
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
    monkeypatch.setattr(distributed, "SIGNAL_SECONDS", 600.0)
    ranks.leave(lambda: next(answers))
    assert not list(answers), "it has waited until it was asked"
    monkeypatch.setattr(distributed, "SIGNAL_SECONDS", 0.1)
    ranks.leave(lambda: False)
    assert left == ["the others"] * 2
    ALONE.leave(lambda: pytest.fail("nobody asks it again"))


class Store:
    """Counts, as the store of a run does."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, key: str, value: int) -> int:
        self.counts[key] += value
        return self.counts[key]


def gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Play a process that sees GPUs of these identities."""
    monkeypatch.setattr("progan.distributed.ranks.choose_device", lambda name, _: torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=names[device.index])
    )


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbered by local rank; or the only one that a cluster shows a process, if it is that process's own."""
    store = Store()
    ranks = [Ranks(i, 4, i, _Link(store, None)) for i in range(4)]  # type: ignore[arg-type]
    gpus(monkeypatch, "a", "b")
    assert ranks[0].device("cuda") == torch.device("cuda", 0)
    assert ranks[1].device("cuda") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"has 2 GPUs, and local rank 2 would use another one"):
        ranks[2].device("cuda")
    gpus(monkeypatch, "c")
    assert ranks[3].device("cuda") == torch.device("cuda", 0)
    gpus(monkeypatch, "a")
    with pytest.raises(ConfigError, match=r"has 1 GPUs, and local rank 3 would use another one"):
        ranks[3].device("cuda")

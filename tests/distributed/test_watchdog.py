"""Who is lost, who failed, who stands still: told in words, and the end of a process that does not notice.

Time is virtual here, and in seconds of it the limits are those of real runs.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from progan.distributed import watchdog
from progan.distributed.rendezvous import ended_if_late
from progan.distributed.watchdog import Watch
from progan.errors import RankError, ToldElsewhere
from threads import no_thread_left
from tiny import environment
from virtual_time import VirtualTime


class Store(dict[str, str]):
    """A store that may be slow, or stop answering."""

    gone = False

    def __init__(self) -> None:
        super().__init__()
        self.delay: Callable[[], object] = lambda: None

    def set(self, key: str, value: str) -> None:
        if self.gone:
            raise RuntimeError("connection reset")
        self[key] = value

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.delay()
        if self.gone:
            raise RuntimeError("connection reset")
        return [self[key].encode() for key in keys]


class Group:
    """Some processes, as threads of this one; `silence` ends the signs of life of one."""

    def __init__(self, size: int, time: VirtualTime) -> None:
        self.store, self.time = Store(), time
        self.codes: list[int | None] = [None] * size
        self.out = [time.Event() for _ in range(size)]
        self.watches = [Watch(self.store, rank, size, self.leave(rank)) for rank in range(size)]
        self.watches[0].follow(*range(1, size))
        for one in self.watches:
            one.start()

    def leave(self, rank: int) -> Callable[[int], None]:
        def out(code: int) -> None:
            self.codes[rank] = code
            self.out[rank].set()

        return out

    def silence(self, rank: int) -> None:
        self.watches[rank]._over.set()

    def wait_until(self, true: Callable[[], bool]) -> None:
        for _ in range(1000):
            if true():
                return
            self.time.sleep(watchdog.PERIOD)
        pytest.fail("it does not come")


@pytest.fixture(name="time")
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    for module in ("time", "threading"):
        monkeypatch.setattr(watchdog, module, time)
    return time


@pytest.fixture(name="group")
def three_processes(time: VirtualTime) -> Iterator[Group]:
    group = Group(3, time)
    yield group
    group.store.gone = False
    for one in group.watches:
        one._over.set()
        for thread in one._threads:
            thread.join()


def test_all_end_when_one_is_silent(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them does anything: the first learns it from the silence, the other from the first."""
    group.watches[1].at("the update of D at 48 images (fade to level 1)")
    group.watches[0].at("the update of G at 48 images (fade to level 1)")
    group.wait_until(lambda: group.watches[0]._seen[1].where.startswith("the update of D"))
    group.silence(1)
    assert group.out[0].wait(60)
    said = capsys.readouterr().err
    assert (
        "rank 0 stops: rank 1 was lost (rank 1 was in the update of D at 48 images (fade to level 1))" in said
    )
    assert "rank 0: the update of G at 48 images" in said
    assert group.codes[0] == 1
    group.silence(0)
    assert group.out[2].wait(60)
    assert group.codes[2] == 1


def test_who_is_told_in_time_raises(group: Group) -> None:
    group.silence(2)
    group.wait_until(lambda: group.watches[0]._verdict is not None)
    with pytest.raises(RankError, match=r"rank 2 was lost \(rank 2 was in the start\)"):
        group.watches[0].at("a log point")
    assert not group.out[0].wait(watchdog.GRACE + watchdog.LAST / 2), "it may put things in order"
    group.watches[0].end("rank 2 was lost", 1)
    group.wait_until(lambda: group.watches[1]._verdict is not None)
    with pytest.raises(ToldElsewhere, match="rank 0: rank 2 was lost"):
        group.watches[1].require_well()


def test_a_broken_connection_names_who_it_was(group: Group) -> None:
    """One that is not the first has followed the first only, and looks at all then."""
    group.silence(2)
    error = group.watches[1].broken(RuntimeError("Connection closed by peer\nmore"))
    assert isinstance(error, RankError)
    assert "rank 2 was lost" in str(error)
    assert "rank 0 was" not in str(error)


def test_a_broken_connection_is_explained_on_a_busy_machine_too(group: Group) -> None:
    """The last sign of the lost one may be read long after it was given."""
    group.store.delay = lambda: group.time.sleep(2.0)
    group.silence(2)
    error = group.watches[1].broken(RuntimeError("Connection closed by peer"))
    assert "rank 2 was lost" in str(error)


def test_a_connection_that_breaks_while_all_are_well(group: Group) -> None:
    error = group.watches[1].broken(RuntimeError("Connection closed by peer\nmore"))
    assert "the connection to another process broke (Connection closed by peer)." in str(error)


def test_an_error_is_told_once(group: Group) -> None:
    """Who has it tells it, the first repeats it, and the others end with its exit code."""
    group.watches[2].at("a checkpoint at 64 images")
    group.watches[2].end("cannot write: no space", 2)
    group.wait_until(lambda: group.watches[0]._verdict is not None)
    with pytest.raises(
        RankError, match=r"rank 2 failed in a checkpoint at 64 images \(cannot write"
    ) as first:
        group.watches[0].require_well()
    assert first.value.exit_code == 2
    group.watches[0].end(str(first.value), first.value.exit_code)
    group.wait_until(lambda: group.watches[1]._verdict is not None)
    with pytest.raises(ToldElsewhere) as other:
        group.watches[1].require_well()
    assert other.value.exit_code == 2


def test_who_is_done_is_not_missed(group: Group) -> None:
    group.watches[1].end()
    assert not group.out[0].wait(3 * watchdog.LOST)
    group.watches[0].require_well()


def test_nobody_moves(group: Group) -> None:
    """As long as one moves, the others may wait for it."""
    group.watches[0].timeout = 60.0
    for _ in range(24):
        group.watches[1].at("preparing pictures")
        assert not group.out[0].wait(5)
    group.wait_until(lambda: group.watches[0]._verdict is not None)
    with pytest.raises(
        RankError, match=r"no process has moved for .* minutes \(in training, run.timeout_minutes\)"
    ) as error:
        group.watches[0].require_well()
    assert "rank 1: preparing pictures; rank 2: the start" in str(error.value)


def test_the_store_is_gone(group: Group) -> None:
    group.store.gone = True
    lost = ("rank 0 stops: the launcher", "rank 1 stops: rank 0, or the launcher on its machine,")
    for one, who in zip(group.watches, lost, strict=False):
        group.wait_until(lambda one=one: one._verdict is not None)  # type: ignore[misc]
        with pytest.raises(RankError, match=f"{who} cannot be reached"):
            one.require_well()
        one.end("lost", 1)


SLOW_STORE = """
import threading, time
from datetime import timedelta
from torch.distributed import TCPStore
from progan.distributed.watchdog import Watch

class Store:
    def __init__(self):
        self.true = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        self.is_read = threading.Event()
    def set(self, key, value):
        self.true.set(key, value)
    def multi_get(self, keys):
        self.is_read.set()
        self.true.wait(["never"], timedelta(seconds=1))  # raises a RuntimeError then

class Exit:
    def __del__(self, wait=time.sleep):
        wait(1.5)

exit_that_takes_its_time = Exit()
store = Store()
watch = Watch(store, 0, 1)
watch.start()
store.is_read.wait()
watch.end()
"""


def test_no_thread_is_in_the_store_while_python_exits() -> None:
    """One that comes out of PyTorch then would abort a process that has done all of its work."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW_STORE], capture_output=True, text=True, env=environment(), timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_all_learn_why_a_process_was_ended(group: Group) -> None:
    """Its main thread does nothing, as inside a library: the others are told, and do not find it silent."""
    group.silence(1)
    assert group.out[0].wait(60)
    group.wait_until(lambda: group.watches[2]._verdict is not None)
    with pytest.raises(ToldElsewhere, match=r"rank 0: rank 0 stops: rank 1 was lost"):
        group.watches[2].require_well()


def test_who_has_not_come_is_not_missed(time: VirtualTime) -> None:
    """The first looks at those only that have come; it does not wait for the place of another."""
    store = Store()
    first = Watch(store, 0, 3, lambda _: None)
    store["place/1"] = store["place/0"]
    first.follow(1)
    first.start()
    first.require_well()
    time.sleep(2 * watchdog.PERIOD)
    assert (first._seen[1].sign, first._seen[2].sign) == (0, -1)
    first.end("it fails", 1)


def test_the_first_stays_until_its_error_was_read(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the others are; not for one that is lost."""
    monkeypatch.setattr(watchdog, "GRACE", 600.0)
    group.silence(1)
    group.time.sleep(watchdog.SILENT + watchdog.PERIOD)
    before = group.time.now
    group.watches[0].end("the disk is full", 2)
    assert group.watches[2]._seen[0].error == "the disk is full"
    assert group.time.now - before < watchdog.SILENT
    with pytest.raises(ToldElsewhere, match="rank 0: the disk is full"):
        group.wait_until(lambda: group.watches[2].require_well() is not None)  # type: ignore[func-returns-value]


def test_an_error_is_waited_for_until_it_is_told_whole(group: Group) -> None:
    """The thread that writes places may do so while the main thread notes why it leaves."""
    group.watches[0]._own.error = "the disk is full"
    group.wait_until(lambda: group.watches[2]._seen[0].error is not None)
    group.watches[0].end("the disk is full", 2)
    group.wait_until(lambda: group.watches[2]._verdict is not None)
    with pytest.raises(ToldElsewhere, match="rank 0: the disk is full") as error:
        group.watches[2].require_well()
    assert error.value.exit_code == 2


def test_the_first_leaves_last(group: Group) -> None:
    """The store may be in its process, and the others may still need it."""
    left = group.time.Thread(target=group.watches[0].end)
    left.start()
    group.watches[2].end()
    left.join(watchdog.SILENT)
    assert left.is_alive()
    group.watches[1].end()
    left.join(watchdog.SILENT)
    assert not left.is_alive()
    assert group.codes == [None] * 3


def test_a_start_that_takes_too_long_ends(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    late = threading.Event()

    def out(code: int) -> None:
        codes.append(code)
        late.set()

    with ended_if_late(2, 0.05, out):
        assert late.wait(60)
    assert codes == [1]
    assert "rank 2 has not met the other processes within 0 s" in capsys.readouterr().err
    with no_thread_left(), ended_if_late(2, 600.0, out):
        pass
    assert codes == [1], "nothing is left that could end it"

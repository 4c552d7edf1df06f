"""Checkpoints: bit-exact, whole or refused, the newest readable one found by itself."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from progan.config import make_config
from progan.errors import CheckpointError, StorageError
from progan.models.generator import Generator
from progan.models.weights import save as save_weights
from progan.runs import checkpoint
from progan.runs.checkpoint import Record, load, newest, paths, save
from progan.system import tensor_file
from progan.system.files import remove_leftovers, write_text
from progan.training.spec import ImageSpec
from progan.training.state import TrainState
from tiny import OPTIONS, require_equal

RECORD = Record(
    images_seen=1234,
    phase="fade to level 3",
    level=1,
    alpha=1 / 3,
    config={"a": [1, 2.5, None, True], "b": {"c": "dög"}},
    fingerprint="0f" * 16,
    versions={"progan": "0", "torch": "0"},
)


def small(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "G/weight": torch.randn(3, 4, generator=generator),
        "G/bias": torch.tensor([0.0, -0.0, 1e-45, 3.4e38]),
        "d_optimizer/step.weight": torch.tensor(7.0),
        "wide": torch.randn(2, generator=generator, dtype=torch.float64),
    }


def at(clock: int) -> Record:
    return replace(RECORD, images_seen=clock)


def test_round_trip_of_small_tensors_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path, RECORD, small(), keep=3)
    assert path == tmp_path / "000000001234.safetensors"
    record, tensors = load(path)
    assert record == RECORD
    require_equal(tensors, small())


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    one = save(tmp_path / "one", RECORD, small(), keep=1)
    other = save(tmp_path / "other", RECORD, dict(reversed(small().items())), keep=1)
    assert one.read_bytes() == other.read_bytes()


def test_round_trip_of_a_whole_state_is_exact(tmp_path: Path) -> None:
    config, image = make_config(OPTIONS), ImageSpec(3, (4, 4), 2, ("a", "b"))
    state = TrainState.create(config, image, torch.device("cpu"))
    for network, adam in ((state.G, state.g_optimizer), (state.D, state.d_optimizer)):
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            adam.step(0.01)
    tensors = state.tensors()
    assert {name.split("/")[0] for name in tensors} == {"G", "D", "G_ema", "g_optimizer", "d_optimizer"}
    save(tmp_path, RECORD, tensors, keep=1)
    loaded = load(paths(tmp_path)[-1])[1]
    require_equal(loaded, {name: value.contiguous() for name, value in tensors.items()})
    other = TrainState.create(make_config({**OPTIONS, "run": {"seed": 9}}), image, torch.device("cpu"))
    assert not torch.equal(other.G.conv.weight, state.G.conv.weight)
    other.load_tensors(loaded)
    require_equal(
        {name: value.contiguous() for name, value in other.tensors().items()},
        {name: value.contiguous() for name, value in state.tensors().items()},
    )
    # The next update is the same too: moments, counts and the corrected epsilon are all there.
    for one in (state, other):
        for parameter in one.G.parameters():
            parameter.grad = torch.ones_like(parameter)
        one.g_optimizer.step(0.01)
    assert torch.equal(state.G.conv.weight, other.G.conv.weight)


def test_a_state_of_other_shapes_is_refused() -> None:
    config = make_config(OPTIONS)
    image = ImageSpec(3, (4, 4), 2)
    tensors = TrainState.create(config, image, torch.device("cpu")).tensors()
    other = TrainState.create(config, ImageSpec(1, (4, 4), 2), torch.device("cpu"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_tensors(tensors)
    same = TrainState.create(config, image, torch.device("cpu"))
    with pytest.raises(KeyError, match="G_ema"):
        same.load_tensors({name: value for name, value in tensors.items() if not name.startswith("G_ema")})


def data_begins(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, RECORD, small(), keep=1)
    good, begin = path.read_bytes(), data_begins(path)
    assert len(good) - begin == sum(t.nbytes for t in small().values())
    dice = random.Random(0)
    places = [(i, 1 << dice.randrange(8)) for i in range(len(good))]
    places += [(dice.randrange(len(good)), dice.randrange(1, 256)) for _ in range(300)]
    for place, mask in places:
        damaged = bytearray(good)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            record, tensors = load(path)
        except CheckpointError:
            continue
        # JSON writes some things in two ways (1e-08, 1E-08): such a flip changes nothing.
        assert place < begin, f"byte {place} of the data, mask {mask:#x}"
        assert record == RECORD
        require_equal(tensors, small())


@pytest.mark.parametrize("place", ["length", "header", "first number", "last number"])
def test_a_damaged_file_gives_way_to_the_one_before(tmp_path: Path, place: str) -> None:
    save(tmp_path, at(100), small(1), keep=3)
    path = save(tmp_path, at(200), small(2), keep=3)
    content, begin = bytearray(path.read_bytes()), data_begins(path)
    content[{"length": 1, "header": 30, "first number": begin, "last number": -1}[place]] ^= 0x10
    path.write_bytes(content)
    found, passed_over = newest(tmp_path)
    assert found is not None
    assert found[0] == at(100)
    require_equal(found[1], small(1))
    assert len(passed_over) == 1
    assert str(path) in passed_over[0]


def foreign(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def foreign_metadata(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path, metadata={"format": "pt", "progan": "[1]"})


def other_format(path: Path) -> None:
    tensor_file.write(path, "progan-checkpoint-0", {}, small())


def weight_file(path: Path) -> None:
    save_weights(Generator(max_level=0, fmap_base=8, fmap_max=4), path)


def pickle(path: Path) -> None:
    torch.save(small(), path)


def truncated(path: Path) -> None:
    whole = save(path.parent / "whole", at(200), small(), keep=1)
    path.write_bytes(whole.read_bytes()[:-1])
    shutil.rmtree(whole.parent)


BAD = [
    ("is not a readable|cannot be read", truncated),
    ("is not a readable|cannot be read", lambda path: path.write_bytes(b"")),
    ("is not a readable|cannot be read", lambda path: path.write_bytes(b"\x10\0\0\0")),
    ("is not a readable|cannot be read", lambda path: path.write_bytes(b"\xff" * 100)),
    ("is not a readable|cannot be read", lambda path: path.write_text("not a checkpoint" * 100)),
    ("is not a readable|cannot be read", lambda path: path.mkdir()),
    ("is not a readable|cannot be read", pickle),
    ("format None", foreign),
    ("format None", foreign_metadata),
    ("progan-checkpoint-0", other_format),
    ("progan-weights-1", weight_file),
]


@pytest.mark.parametrize(("message", "make"), BAD)
def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path, message: str, make) -> None:  # type: ignore[no-untyped-def]
    good = save(tmp_path, at(100), small(), keep=3)
    path = tmp_path / f"{200:012d}.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=message):
        load(path)
    found, passed_over = newest(tmp_path)
    assert found is not None
    assert found[0] == at(100)
    assert [str(path) in said for said in passed_over] == [True]
    good.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        newest(tmp_path)


def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"000\.safetensors"):
        load(tmp_path / "000.safetensors")
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "12ab.safetensors").write_text("mine too")
    clocks = [5, 40, 300, 2000, 10**7]
    for clock in clocks:
        save(tmp_path, at(clock), small(), keep)
    assert [int(path.stem) for path in paths(tmp_path)] == clocks[-keep:]
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "12ab.safetensors").exists()


def test_damaged_ones_do_not_push_out_good_ones(tmp_path: Path) -> None:
    """Going on from 100 because 200 and 300 are damaged: what is written at 150 must stay."""
    save(tmp_path, at(100), small(), keep=3)
    for clock in (200, 300):
        (tmp_path / f"{clock:012d}.safetensors").write_bytes(b"damaged")
    save(tmp_path, at(150), small(1), keep=1)
    found, passed_over = newest(tmp_path)
    assert found is not None
    assert found[0] == at(150)
    assert passed_over == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    good = save(tmp_path, at(100), small(), keep=3)
    for name in (".000000000200.4711.tmp.safetensors", ".generator.12.tmp.safetensors", ".tmpA1b2C3"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".hidden").write_text("mine")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".hidden", good]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_found(value: float) -> None:
    assert checkpoint.not_finite(small()) == []
    bad = {**small(), "d_optimizer/exp_avg.conv.weight": torch.tensor([0.0, value])}
    assert checkpoint.not_finite(bad) == ["d_optimizer/exp_avg.conv.weight"]


def test_a_copy_is_not_changed_by_training(tmp_path: Path) -> None:
    state = {"a": torch.ones(3), "b": torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)}
    expected = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    copy = checkpoint.host_copy(state)
    for value in state.values():
        value.add_(1)
    require_equal(load(save(tmp_path, RECORD, copy, keep=1))[1], expected)


def test_what_a_newer_version_wrote_is_refused_and_kept(tmp_path: Path) -> None:
    """Going on from an older checkpoint would lose, and then delete, the newer version's work."""
    save(tmp_path, at(100), small(), keep=3)
    path = tmp_path / f"{200:012d}.safetensors"
    tensor_file.write(path, "progan-checkpoint-999", {"other": 1}, small())
    with pytest.raises(CheckpointError, match=r"was written by a newer progan .*; update progan") as caught:
        newest(tmp_path)
    assert str(path) in str(caught.value)
    found, _ = newest(tmp_path, before=200)
    assert found is not None
    assert found[0] == at(100)


def test_what_an_older_version_wrote_is_read(tmp_path: Path) -> None:
    """Runs had no attempts before there was a way back from a divergence."""
    older = {key: value for key, value in asdict(RECORD).items() if key != "attempt"}
    tensor_file.write(tmp_path / f"{1234:012d}.safetensors", checkpoint.FORMAT, older, small())
    found, passed_over = newest(tmp_path)
    assert found is not None
    assert (found[0], passed_over) == (RECORD, [])


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """A part is written, then there is no space."""

    def write(_tensors: object, path: Path, metadata: object = None) -> None:  # noqa: ARG001
        Path(path).write_bytes(b"part")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", write)
        yield


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (SafetensorError("Error while serializing: I/O error: ... (os error 28)"), "no space left"),
        (SafetensorError("Error while serializing: I/O error: ... (os error 122)"), "quota"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
    ],
)
def test_a_full_disk_leaves_the_last_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    save(tmp_path, at(100), small(), keep=1)
    with full_disk(monkeypatch, error), pytest.raises(StorageError, match=f"000000000200.*{why}"):
        save(tmp_path, at(200), small(), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000100.safetensors"], "and no leftovers"
    found, passed_over = newest(tmp_path)
    assert found is not None
    assert (found[0], passed_over) == (at(100), [])
    assert save(tmp_path, at(200), small(), keep=1).exists(), "with room again it goes on"


def test_the_limits_of_the_system_are_errors_in_words(tmp_path: Path) -> None:
    """What safetensors itself raises where it cannot write, not a stand-in for it."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        save(blocked, RECORD, small(), keep=1)
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        write_text(blocked / "deeper" / "config.yaml", "")
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="larger than allowed"):
            save(tmp_path / "run", RECORD, {"a": torch.zeros(10_000)}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "run").iterdir()) == []


def test_names_of_files_sort_by_the_clock(tmp_path: Path) -> None:
    for clock in (9, 10, 99, 100, 10**11):
        save(tmp_path, at(clock), small(), keep=9)
    assert [checkpoint.load(path)[0].images_seen for path in paths(tmp_path)] == [9, 10, 99, 100, 10**11]

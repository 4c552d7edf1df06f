"""Reading a stranger's file costs in proportion to the file: time, memory, and the length of the message."""

from __future__ import annotations

import io
import pickle
import sys
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import ESCAPES, aliased, cycle, laughs, many_names, network, option
from progan import Discriminator, Generator, import_weights, save
from progan.__main__ import main
from progan.errors import MAX_CHARACTERS, MAX_LINES, CheckpointError, ProganError, listed, printable, shown

CONFIG = Generator(channels=1, max_level=1, fmap_base=16, fmap_max=8).config()
NAMES = [f"weight {i}\x1b[2J" for i in range(50_000)]


def refusal(path: Path, data: bytes) -> str:
    """Return what is said of a file, which must fit a screen and move nobody's cursor."""
    path.write_bytes(data)
    with pytest.raises(ProganError) as caught:
        import_weights(path)
    said = str(caught.value)
    assert len(said) <= MAX_CHARACTERS + 100
    assert said.count("\n") < MAX_LINES
    assert printable(said) == said
    return said


OPTIONS = ("fmap_decay", "fmap_base", "fmap_max", "latent_size", "num_channels", "resolution", "label_size",
           "pixelnorm_epsilon", "use_wscale")  # fmt: skip


@pytest.mark.parametrize(
    "value", [laughs(), cycle(), b"\x8a\xff" + b"\x7f" * 255], ids=["laughs", "cycle", "long"]
)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_endless_option(tmp_path: Path, name: str, value: bytes) -> None:
    data = network("G_paper", option(name, value))
    assert len(data) < 1000
    assert "sets items" not in refusal(tmp_path / "x.pkl", data), "the option is reached"


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_an_endless_description(tmp_path: Path, key: str) -> None:
    endless: Any = []
    for _ in range(60):
        endless = [endless, endless]
    for value in (endless, [1] * 100_000, "x\x1b" * 100_000, {"a": endless}, 10**4000):
        stream = io.BytesIO()
        torch.save({"config": {**CONFIG, key: value}, "state_dict": {}}, stream)
        refusal(tmp_path / "x.pt", stream.getvalue())


def memory_of(call: Callable[[], Any]) -> int:
    """Return the most bytes that Python and NumPy held during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_array_under_many_names(tmp_path: Path) -> None:
    shapes = [f"{4 << i}x{4 << i}/Conv{j}/weight" for i in range(1, 20) for j in (0, 1)]
    pairs = pickle.loads(many_names(shapes, np.zeros((64, 64, 16, 16), np.float32)))
    state = {"build_func_name": "G_paper", "static_kwargs": {"resolution": 4 << 19}, "variables": pairs}
    kind = type("Network", (), {"__module__": "tfutil", "__getstate__": lambda _: state})
    module = types.ModuleType("tfutil")
    module.Network = kind  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tfutil", module)
        data = pickle.dumps(kind(), 4)
    path = tmp_path / "x.pkl"
    said = ""

    def read() -> None:
        nonlocal said
        said = refusal(path, data)

    assert memory_of(read) < 3 * len(data)
    assert "under many names: more numbers than the file has" in said


@pytest.mark.parametrize("beside", [{"config": CONFIG}, {}])
def test_one_tensor_under_many_names(tmp_path: Path, beside: dict[str, Any]) -> None:
    names = [*Generator(**CONFIG).state_dict(), *(f"n{i}" for i in range(3000))]
    said = refusal(tmp_path / "x.pt", aliased(names, 100_000, **beside))
    assert beside == {} or "more numbers than the file has" in said


def test_many_unknown_names(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content in (
        {"config": CONFIG, "state_dict": {name: torch.zeros(1) for name in NAMES[:2000]}},
        {"config": {**CONFIG, **dict.fromkeys(NAMES, 1)}, "state_dict": {}},
        dict.fromkeys(NAMES, 1),
        {"config": {}, "netG": {name: torch.zeros(1) for name in NAMES[:2000]}},
    ):
        stream = io.BytesIO()
        torch.save(content, stream)
        refusal(path, stream.getvalue())


def test_words_about_values_are_short() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (
        endless,
        "x" * 10**6,
        dict.fromkeys(range(1000), "y" * 1000),
        ESCAPES * 9,
        10**5000,
        b"\x1b" * 999,
    ):
        assert len(shown(value)) <= 80
        assert printable(shown(value)) == shown(value)
    assert shown(0.25) == "0.25"
    assert shown("a b") == "'a b'"
    assert listed(["a", "b\n\x1b"], 5) == r"a, b\n\x1b"
    assert listed([str(i) for i in range(12)], 2) == "0, 1 and 10 more"
    long = str(CheckpointError("start\x1b\n" + "line\n" * 10**5 + "do this"))
    assert long.startswith(r"start\x1b")
    assert long.endswith("do this")
    assert long.count("\n") < MAX_LINES
    assert str(CheckpointError("tab\tand\nline")) == "tab\tand\nline"


@pytest.fixture(name="named")
def weights_with_names(tmp_path: Path) -> Path:
    names = (f"cat{ESCAPES}", "dog\nerror: disk full", *(f"class {i}" for i in range(2000)))
    G = Generator(channels=1, max_level=1, fmap_base=16, fmap_max=8, label_size=len(names), label_names=names)
    save(G, tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


@pytest.mark.parametrize("command", ["info", "generate", "vector"])
def test_names_do_not_reach_the_terminal_raw(
    named: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["info", str(named)]
    if command != "info":
        arguments = ["generate", str(named), "--label", f"x{ESCAPES}", "--out", str(named.parent / "x.png")]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    output = "".join(capsys.readouterr())
    assert done.value.code in ((0, None) if command == "info" else (2,))
    assert printable(output) == output
    assert r"cat\x1b]0;owned" in output
    assert "and 1,952 more" in output
    assert "\nerror: disk full" not in output


def test_a_discriminator_of_strangers_names_nothing_raw(tmp_path: Path) -> None:
    D = Discriminator(max_level=0, fmap_base=16, fmap_max=8)
    stream = io.BytesIO()
    torch.save({"config": {**D.config(), f"opt{ESCAPES}": 1}, "state_dict": D.state_dict()}, stream)
    assert "opt" in refusal(tmp_path / "x.pt", stream.getvalue())

"""Every snippet of docs/extend.md runs as it stands, on a few small pictures and networks."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import progan
from progan.__main__ import main
from progan.config import load_config
from tiny import Listener, options, words

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
SMALL: dict[str, Any] = {
    **options(),
    "schedule": {"growth": "none", "total_kimg": 0.032, "batch_size": 8},
}


def snippets(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


FILES = {
    text.split("\n")[0].removeprefix("# file: "): text
    for text in snippets("python")
    if text.startswith("# file")
}
RUN = [text for text in snippets("python") if text.startswith("# run")]
COMMANDS = [line for text in snippets("sh") for line in text.splitlines()]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder with pictures and the files of the page, on small networks for a moment."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(32):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    train = progan.train

    def shortly(*given: Any, **told: Any) -> progan.Run:
        return train(*given, **told, options=SMALL, reporter=Listener())

    monkeypatch.setattr(progan, "train", shortly)
    monkeypatch.setattr(progan, "load_config", lambda name="quickstart": load_config(name, SMALL))
    yield
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_the_page_has_them() -> None:
    assert len(FILES) >= 3
    assert len(RUN) >= 6
    assert all(text.startswith(("# file: ", "# run\n")) for text in snippets("python"))


@pytest.mark.parametrize("number", range(len(RUN)))
def test_python(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    if "accelerate" in RUN[number]:
        pytest.importorskip("accelerate")
    exec(compile(RUN[number], f"snippet {number}", "exec"), {"__name__": "snippet"})
    capsys.readouterr()


def carry_out(line: str, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *given = shlex.split(line)
    assert name == "progan"
    more = {
        "train": ["--out", out, "--recipe", "quickstart", *words(SMALL)],
        "evaluate": ["--num-images", "16"],
    }
    with pytest.raises(SystemExit) as end:
        main([*given, *more.get(given[0], [])])
    assert not end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "RUN" in line:  # that of the command before it which has the same plugin
        [plugin] = re.findall(r"--plugin \S+", line)
        carry_out(next(each for each in COMMANDS if plugin in each), "RUN", capsys)
    carry_out(line, "run", capsys)

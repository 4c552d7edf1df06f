"""Pictures of a source of one's own are packed and trained on like any others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import progan
from own_parts import plugin
from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.runs.run_folder import RunFolder
from tiny import Listener, options, words


class Squares(progan.PictureSource):
    """Squares of two grays; half of them as arrays, half as picture files."""

    def names(self) -> list[str]:
        return [f"{i:03d}" for i in range(int(self.argument))]

    def picture(self, name: str) -> Any:
        value = 40 if int(name) % 2 else 200
        array = np.full((16, 16, 3), value, np.uint8)
        if int(name) % 4 < 2:
            return array
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        return stream.getvalue()

    def label(self, name: str) -> str | None:
        return "dark" if int(name) % 2 else "light"


def told(tmp_path: Path, **data: Any) -> dict[str, Any]:
    return options(schedule={"total_kimg": 0.032}, data={"cache": str(tmp_path / "cache"), **data})


def test_in_python(tmp_path: Path) -> None:
    run = progan.train(
        Squares("24"), tmp_path / "run", options=told(tmp_path, labels="inside"), reporter=Listener()
    )
    packed = PackedSet.open(RunFolder(run).pictures())
    assert packed.count == 24
    assert packed.label_names == ("dark", "light")
    labels = packed.labels(np.arange(24))
    pixels = packed.read(packed.max_level, np.arange(24)).reshape(24, -1)
    assert [set(row) for row in pixels] == [{40} if label == 0 else {200} for label in labels]
    assert RunFolder(run).dataset().source == "squares:24"
    progan.resume(run, options={"schedule": {"total_kimg": 0.064}}, reporter=Listener())
    assert run.images_seen == 64, "the packed set is there, so the class is not needed"


TEXT = '''
import numpy as np
import progan

class Gray(progan.PictureSource):
    """Gray pictures."""

    def names(self):
        return [str(i) for i in range(int(self.argument))]

    def picture(self, name):
        return np.full((16, 16), int(name), np.uint8)
'''


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = plugin(tmp_path, TEXT), tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["train", "gray:20", "--plugin", str(file), "--out", str(out), *words(told(tmp_path))])
    assert not end.value.code, capsys.readouterr().err
    assert PackedSet.open(RunFolder(out).pictures()).channels == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"names": lambda _: []}, r"squares:4: names\(\) must return texts"),
        ({"names": lambda _: ["a", "a"]}, "each once"),
        ({"names": lambda self: self.nothing}, r"squares:4: names failed: AttributeError"),
    ],
)
def test_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    for name, value in changed.items():
        monkeypatch.setattr(Squares, name, value)
    with pytest.raises(DataError, match=said):
        progan.train(Squares("4"), tmp_path / "run", options=told(tmp_path), reporter=Listener())

"""Output that cannot be shown ends no work, and nothing out of a file acts on the terminal."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from progan.__main__ import main
from progan.cli.exit import ended_in_words
from progan.cli.terminal.console import PlainConsole, say
from progan.data.packed import PackedSet
from progan.errors import printable
from tiny import command, environment, options, words

LATIN = os.fsdecode(b"caf\xe9")  # no UTF-8
NAMES = ("фото", LATIN, "tea\x1b[31mred\rx", "\u202eabc")


@pytest.fixture(name="source")
def strange_pictures(tmp_path: Path) -> Path:
    """A folder whose name, classes and pictures no terminal shows as they are."""
    source = tmp_path / f"фото \x1b[5m{LATIN}"
    for name in NAMES:
        (source / name).mkdir(parents=True)
        for pixels in np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8):
            Image.fromarray(pixels).save(source / name / f"{pixels[0, 0, 0]}\a.png")
    (source / NAMES[0] / "bad\x1b[2J.png").write_bytes(b"not a picture")
    return source


def run(*arguments: object, encoding: str = "utf-8") -> tuple[int, str]:
    """Run the command here; returns its exit code and what it printed, all of it printable."""
    printed = io.BytesIO()
    stream = io.TextIOWrapper(printed, encoding=encoding, newline="\n")
    with redirect_stdout(stream), redirect_stderr(stream), pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    text = printed.getvalue().decode(encoding)
    assert printable(text) == text
    return int(caught.value.code or 0), text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_pictures_with_strange_names_are_trained_on_and_used(
    source: Path, tmp_path: Path, encoding: str
) -> None:
    tree = options(data={"labels": "folders"}, schedule={"total_kimg": 0.02})
    out = tmp_path / "мой \x1b[5mrun"
    code, text = run("train", source, "--out", out, *words(tree), encoding=encoding)
    assert code == 0, text
    escaped = r"\u0444\u043e\u0442\u043e" if encoding == "cp1252" else "фото"
    assert f"{escaped}, " in text
    assert r"caf\udce9" in text
    assert r"tea\x1b[31mred\rx" in text
    code, text = run("info", out, encoding=encoding)
    assert code == 0, text
    assert r"\x1b[5m" in text
    code, text = run("generate", out, "--n", 2, "--label", "nobody", encoding=encoding)
    assert code == 2
    assert r"tea\x1b[31mred\rx" in text
    code, text = run("generate", out, "--n", 2, "--label", LATIN, "--out", tmp_path / f"{LATIN}.png")
    assert code == 0, text


def test_a_run_folder_that_cannot_be_written_is_refused_before_training(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run("train", source, "--out", tmp_path / LATIN, *words(options()))
    assert code == 2
    assert "no UTF-8; choose another --out" in text
    # Whoever names none is given one that can.
    monkeypatch.chdir(tmp_path)
    code, text = run("train", source, "--dry-run", *words(options()))
    assert code == 0, text
    assert "фото" in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("recipes",), 2),
        (("--help",), 2),
        (("--version",), 2),
        (("config", "show"), 2),
        (("recipes", "no such recipe"), 2),
        (("prepare", "builtin:glyphs", "--help"), 0),
    ],
)
def test_a_full_disk_is_said_in_one_line(arguments: tuple[str, ...], code: int) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=60
        )
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ("No space left on device" in done.stderr) == ("no such recipe" not in arguments)


def test_training_outlives_a_full_disk_under_its_output(blobs: PackedSet, tmp_path: Path) -> None:
    arguments = ["train", str(blobs.path), "--out", str(tmp_path / "run")]
    told = io.StringIO()
    with Path("/dev/full").open("w") as full, redirect_stdout(full), redirect_stderr(told):  # noqa: SIM117
        with pytest.raises(SystemExit) as caught:
            main([*arguments, *words(options(schedule={"total_kimg": 0.02}))])
    assert not caught.value.code, told.getvalue()
    assert "No space left on device; what the command makes besides is whole" in told.getvalue()
    assert (tmp_path / "run" / "generator.safetensors").is_file()


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "| head -0", "2>/dev/full"])
def test_streams_that_are_closed_are_no_error(closing: str) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {closing}', "bash", *command("recipes")],
        capture_output=True, text=True, env=environment(), timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_console_shows_what_would_act_and_keeps_its_own_colours() -> None:
    console = PlainConsole(width=60, force_terminal=True, color_system="standard", record=True)
    table = Table.grid()
    table.add_row("a\x07b\x1b[1mc")
    with console.capture() as captured:
        console.print(table)
        say(console, "x\ry\x9b5m\u202e")
        console.print("coloured", style="red")
    shown = captured.get()
    assert r"a\x07b\x1b[1mc" in shown
    assert r"x\ry\x9b5m\u202e" in shown
    assert "\x1b[31mcoloured\x1b[0m" in shown


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(27, "File too large"), "File too large"), (MemoryError(), "MemoryError")]
)
def test_what_ends_a_thread_is_told_in_a_line(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    before = threading.excepthook
    with ended_in_words(["train"]):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert threading.excepthook is before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("what is done beside the work failed: ")
    assert told in line

"""How runs stand, from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import progan
from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.runs.run_folder import RunFolder
from tiny import TOTAL, options


def status(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what the command prints."""
    with pytest.raises(SystemExit) as ended:
        main(["status", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    return out


def test_status_of_runs_that_go_on_and_are_complete(
    blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = progan.train(blobs.path, tmp_path / "whole", options=options())
    part = progan.train(blobs.path, tmp_path / "part", options=options(run={"stop_after": "phase"}))
    stats = RunFolder(part).stats_file
    line = json.loads(stats.read_text().splitlines()[-1])
    told = {**line, "images_per_second": 4.0, "swd/mean": 12.5}
    stats.write_text(json.dumps(told) + "\n" + '{"cut off')
    out = status(capsys, whole, part)
    assert f"{whole}: {TOTAL} of {TOTAL} images (100%), stabilise level 2 (16x16), complete" in out
    assert f"{part}: 64 of {TOTAL} images (27%), " in out
    assert "4.0 images/s; last log point " in out
    assert "swd 12.5" in out
    state = json.loads(status(capsys, part, "--json"))
    assert (state["images_seen"], state["total"], state["alarms"]) == (64, TOTAL, [])
    assert state["seconds_left"] > (TOTAL - 64) / 4, "levels above take longer"
    assert state["last"] == told


def test_status_of_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ([str(tmp_path)], "is no run folder"), ([], "at least one run"):
        with pytest.raises(SystemExit) as ended:
            main(["status", *arguments])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err

"""A report says what a run's files say, in one file that needs nothing else."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from browser import find_browser, opened
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DataError
from progan.report import neighbours
from progan.report.follow import follow
from progan.report.html_page import MOST_BYTES, write_report
from progan.report.run_facts import read_run
from progan.runs.run import train
from progan.runs.run_folder import RunFolder
from tiny import options

pytest.importorskip("plotly")


@pytest.fixture(scope="module", name="run")
def tiny_run(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one & <two>"
    return Path(train(blobs.path, out=out, options=options(monitor={"metrics": ["swd"], "num_images": 16})))


def copy(run: Path, name: Path) -> Path:
    shutil.copytree(run, name)
    return name


def test_what_a_run_says(run: Path) -> None:
    facts = read_run(run)
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert facts.images_seen == lines[-1]["images_seen"] == 240
    clocks, values = facts.series("D/loss")
    assert clocks == [line["images_seen"] for line in lines]
    assert values == [line["D/loss"] for line in lines]
    assert [size for _, size in facts.growths()] == ["8x8", "16x16"]
    costs = facts.costs()
    assert [cost.resolution for cost in costs] == ["4x4", "8x8", "16x16"]
    assert sum(cost.images for cost in costs) == 240
    expected = sum(
        (line["images_seen"] - before["images_seen"]) / line["images_per_second"]
        for before, line in zip([{"images_seen": 0}, *lines], lines, strict=False)
    )
    assert sum(cost.seconds for cost in costs) == pytest.approx(expected)
    recipe, differing = facts.recipe()
    assert recipe
    assert ("model.generator.fmap_max", 8) in [(key, here) for key, _, here in differing]
    assert facts.source().startswith("48 pictures of ")
    assert str(run.parent) not in facts.source()


def test_the_machine_is_written_down(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "run")
    folder = RunFolder(other)
    (line,) = folder.machines()
    assert (line["images_seen"], line["device"], line["processes"]) == (0, "cpu", 1)
    assert (line["torch"], line["threads"]) == (torch.__version__, torch.get_num_threads())
    folder.note_machine(120, {key: line[key] for key in line if key != "images_seen"})
    assert folder.machines() == [line]
    folder.note_machine(120, {"name": "A <GPU>", "device": "cuda", "processes": 8, "torch": "2.5.0"})
    text = write_report([other], tmp_path / "r.html").read_text()
    assert "<li>From 120 images on: 8 processes, each on A &lt;GPU&gt; (cuda); torch 2.5.0</li>" in text
    folder.machines_file.write_text("no JSON")
    assert "has not written down" in write_report([other], tmp_path / "r.html").read_text()


def test_a_copy_of_a_picture_is_seen_beside_its_original(
    run: Path, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = [7, 3, 40, 12, 0, 21]
    monkeypatch.setattr(neighbours, "render", lambda *_: blobs.read(2, copied))
    found = neighbours.near_reals(RunFolder(run))
    assert isinstance(found, neighbours.Near)
    assert found.ratios == [0] * 6
    assert found.looked_at == 48
    pixels = np.asarray(found.picture)
    side = 16 * 6  # 16 pixels of a side, six times as large, with 2 between two
    for row, real in enumerate(copied):
        for column in (0, 1):
            left, top = column * (side + 2), row * (side + 2)
            cell = pixels[top : top + side : 6, left : left + side : 6]
            assert np.array_equal(cell.transpose(2, 0, 1), blobs.read(2, [real])[0])
    monkeypatch.undo()
    honest = neighbours.near_reals(RunFolder(run))
    assert isinstance(honest, neighbours.Near)
    assert min(honest.ratios) > 0.3


def test_reals_that_are_gone_are_told(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "run")
    tree = json.loads((other / "dataset.json").read_text())
    gone = dict.fromkeys(tree, str(tmp_path / "gone"))
    (other / "dataset.json").write_text(json.dumps({**gone, "fingerprint": tree["fingerprint"]}))
    assert "Not looked for: " in write_report([other], tmp_path / "r.html").read_text()


def test_alarms_are_found_again(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "run")
    lines = [json.loads(line) for line in (other / "stats.jsonl").read_text().splitlines()]
    many = [dict(lines[0], images_seen=i + 1) for i in range(30)]
    many.append(dict(many[0], images_seen=40, **{"D/gradient_norm": 1e9}))
    (other / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in many))
    assert [clock for clock, _ in read_run(other).alarms] == [40]
    text = write_report([other], tmp_path / "r.html").read_text()
    assert "At 40 images: " in text


def test_one_page_of_one_run(run: Path, tmp_path: Path) -> None:
    out = write_report([run], tmp_path / "new" / "r.html")
    text = out.read_text()
    assert out.stat().st_size < MOST_BYTES
    assert f"<title>{html.escape('one & <two>')}</title>" in text
    assert "<two>" not in text.replace("&lt;two&gt;", "")
    body = text[text.rindex("</script>", 0, text.index("<header>")) :]
    for figure in ("Losses", "Scores", "Gradient norms", "Images a second", "Schedule", "Metrics"):
        assert f"<figcaption>{figure}</figcaption>" in body
    for size in ("8x8", "16x16"):
        assert f'"text":"{size}"' in body  # at the line of a growth
    shots = json.loads(html.unescape(re.search(r'data-shots="([^"]*)"', body)[1]))  # type: ignore[index]
    assert [words for words, _ in shots] == [f"{clock:,} images" for clock, _ in read_run(run).grids]
    assert body.count("progan train --resume") == 1
    assert "swd" in body
    assert "http-equiv" not in text[: text.index("<script>")]
    # Nothing is loaded from elsewhere.
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]+"', body)


def test_several_runs(run: Path, blobs: PackedSet, tmp_path: Path) -> None:
    other = train(blobs.path, out=tmp_path / "other", options=options(optimizer={"g_lr": 0.002}))
    body = write_report([run, other], tmp_path / "r.html").read_text()
    assert "<td>optimizer.g_lr</td><td>[0.001]</td><td>[0.002]</td>" in body
    assert "other D" in body.replace("\\u002f", "/")
    assert body.count('class="film"') == 2


def test_what_cannot_be_reported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_report([run], tmp_path / "r.txt")
    with pytest.raises(ConfigError, match="no run folder"):
        write_report([tmp_path], tmp_path / "r.html")
    other = copy(run, tmp_path / "run")
    (other / "stats.jsonl").unlink()
    with pytest.raises(DataError, match="no log points yet"):
        write_report([other], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_it_follows_a_run(run: Path, tmp_path: Path) -> None:
    other, out = copy(run, tmp_path / "run"), tmp_path / "r.html"
    lines = (other / "stats.jsonl").read_text().splitlines(keepends=True)
    (other / "stats.jsonl").write_text("".join(lines[:2]))
    write_report([other], out, refresh=7)
    assert '<meta http-equiv="refresh" content="7">' in out.read_text()
    seen: list[tuple[float, int]] = []

    def wait(seconds: float) -> None:
        seen.append((seconds, out.stat().st_mtime_ns))
        if len(seen) == 2:
            (other / "stats.jsonl").write_text("".join(lines))
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow([other], out, 7, wait=wait)
    first, second, third, fourth = (when for _, when in seen)
    assert first == second < third == fourth
    assert "240 images shown" in out.read_text()


@pytest.mark.slow
def test_in_a_browser(run: Path, tmp_path: Path) -> None:
    find_browser()
    write_report([run], tmp_path / "index.html")
    with opened(tmp_path, viewport={"width": 400, "height": 800}) as web:
        web.page.wait_for_selector(".js-plotly-plot .main-svg")
        assert web.page.evaluate("() => document.documentElement.scrollWidth") == 400
        last = web.page.get_attribute(".film img", "src")
        web.page.evaluate(
            "() => { const e = document.querySelector('.film input'); e.value = 0;"
            "e.dispatchEvent(new Event('input')); }"
        )
        assert web.page.get_attribute(".film img", "src") != last
        assert web.page.inner_text(".film output").startswith(f"{read_run(run).grids[0][0]:,} ")
        assert web.said == []
        assert web.elsewhere() == []

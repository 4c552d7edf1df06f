"""What training returns: a run whose generator, numbers and pictures are there; in notebooks, too."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import progan
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, Interrupted
from progan.runs.loop import Trainer
from progan.system.signals import StopRequest
from tiny import Listener, options

SHORT: dict[str, Any] = {"total_kimg": 0.064}


@pytest.fixture(scope="module", name="run")
def trained(blobs: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> progan.Run:
    out = tmp_path_factory.mktemp("runs") / "mine"
    return progan.train(blobs.path, out, options=options(schedule=SHORT), reporter=Listener())


def test_what_a_run_has(run: progan.Run) -> None:
    assert repr(run) == f"Run({str(run)!r})"
    assert Path(run) == run
    assert run.config.loss.adversarial == "wgan"
    assert run.images_seen == 64
    assert isinstance(run.generator, progan.Generator)
    assert torch.equal(run.generator.dense.weight, progan.load(run).dense.weight)
    assert [point["images_seen"] for point in run.log_points] == [32, 64]
    assert list(run.stats["images_seen"]) == [32, 64]
    assert run.samples().size == run.samples(0.064).size
    assert run.samples(0).tobytes() != run.samples().tobytes()
    assert isinstance(run.find(0.064), progan.Generator)
    assert progan.open_run(str(run)) == run
    assert (run / "stats.jsonl").is_file()


def test_numbers_without_pandas(run: progan.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run.stats == run.log_points


def test_what_is_made_of_a_run(run: progan.Run) -> None:
    assert "<html" in run.report().read_text(encoding="utf-8")
    [result] = run.evaluate(["pr"], n=8, extractor=halves())
    assert result.metric.startswith("pr")
    assert len(result.numbers) == 2
    assert (run / "metrics.jsonl").is_file()


def halves() -> Any:
    from progan.metrics.extractor import Extractor

    return Extractor(lambda x: x.flatten(1)[:, :4].float(), "first-pixels")


def test_it_goes_on(run: progan.Run) -> None:
    longer = progan.resume(run, options={"schedule": {"total_kimg": 0.08}}, reporter=Listener())
    assert longer == run
    assert run.images_seen == 80


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path} is no run folder")):
        progan.open_run(tmp_path)


def test_every_public_name_is_there() -> None:
    for name in progan.__all__:
        assert getattr(progan, name) is not None
    assert set(dir(progan)) == set(progan.__all__)


@pytest.fixture(name="shown")
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Stand in for the kernel of a notebook, and note what it is told to show."""
    shown: list[tuple[str, Any]] = []

    class Handle:
        def update(self, what: Any) -> None:
            shown.append(("update", what))

    def display(what: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(("new", what))
        return Handle()

    ipython, shows = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    vars(shows).update(
        display=display, HTML=lambda text: ("html", text), Image=lambda data, format: (format, data)
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shows)
    return shown


def test_a_notebook_shows_a_bar_and_the_newest_samples(
    blobs: PackedSet, tmp_path: Path, shown: list[tuple[str, Any]]
) -> None:
    run = progan.train(blobs.path, tmp_path / "run", options=options(schedule=SHORT))
    assert [how for how, _ in shown].count("new") == 2, "one area for the bar, one for the samples"
    pictures = [data for _, (kind, data) in shown if kind == "png"]
    assert pictures == [path.read_bytes() for path in sorted((run / "samples").glob("0*.png"))]
    bars = [text for _, (kind, text) in shown if kind == "html"]
    assert '<progress max="64" value="64"' in bars[-1]
    assert "0.1 of 0.064 kimg" in bars[-1]
    assert "D loss" in bars[-1]


def test_the_stop_button_saves_and_returns_the_run(
    blobs: PackedSet, tmp_path: Path, shown: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after_one(monkeypatch)
    run = progan.train(blobs.path, tmp_path / "run", options=options(schedule=SHORT))
    assert run.images_seen == 16
    said = [text for _, (kind, text) in shown if kind == "html"][-1]
    assert "stopped at 16 images, checkpoint written; to go on: progan train --resume" in said
    monkeypatch.delitem(sys.modules, "IPython")
    stop_after_one(monkeypatch)
    with pytest.raises(Interrupted, match="stopped at 32 images") as caught:
        progan.resume(run, reporter=Listener())
    assert caught.value._render_traceback_() == [f"Interrupted: {caught.value}"]


def stop_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a signal come during the next iteration."""
    stops: list[StopRequest] = []
    run, iterate = Trainer.run, Trainer._iterate

    def begin(trainer: Trainer, stop: StopRequest) -> None:
        stops.append(stop)
        run(trainer, stop)

    def once(trainer: Trainer, point: Any) -> None:
        iterate(trainer, point)
        stops[-1].signal_number = 2

    monkeypatch.setattr(Trainer, "run", begin)
    monkeypatch.setattr(Trainer, "_iterate", once)


def test_a_packed_set_for_loaders_of_others(blobs: PackedSet) -> None:
    pictures = progan.PictureDataset(blobs, level=1)
    assert len(pictures) == blobs.count
    image, label = pictures[5]
    expected = torch.from_numpy(blobs.read(1, blobs.indices("train")[5:6]))[0].float() / 127.5 - 1
    torch.testing.assert_close(image, expected)
    assert label.shape == (4,)
    assert label.sum() == 1
    images, labels = next(iter(DataLoader(pickle.loads(pickle.dumps(pictures)), batch_size=7)))
    assert images.shape == (7, 3, 8, 8)
    assert labels.shape == (7, 4)
    with pytest.raises(ValueError, match=r"expected 0\.\.2"):
        progan.PictureDataset(blobs, level=9)

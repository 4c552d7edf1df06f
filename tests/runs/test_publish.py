"""A run goes to the hub and comes back from it, by huggingface_hub's own code and a stand-in of the hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hub_stand_in import TOKEN, Hub, hub
from progan import generate, load, train
from progan.__main__ import main
from progan.errors import CheckpointError, ConfigError
from progan.evaluation.results import FILE, Result, append_result
from progan.explore.web_page import About, write_page
from progan.models.generator import Generator
from progan.models.hub import is_hub_name
from progan.models.weights import save
from progan.preparation.builtin_sets import synthetic
from progan.report.growth_film import make_movie
from progan.runs.trained.publish import push, write_hub_folder
from said_commands import shell_words
from tiny import Listener, environment, options


@pytest.fixture(scope="module", name="run")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("published")
    synthetic(place / "blobs", count=40, resolution=16, labelled=True)
    train(place / "blobs", place / "run", options=options(), reporter=Listener())
    about = {"images": {"images_seen": 240}}
    result = Result("swd", 1, {"swd/mean": 12.5}, {}, 40, 40, 0, {"resolution": "16"}, {}, about)
    append_result(place / "run" / FILE, result)
    return place / "run"


SEVERAL = """
import contextlib, io, json, sys
from progan.__main__ import main
done = []
for words in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
json.dump(done, sys.__stdout__)
"""
"""Runs commands one after the other in one process: huggingface_hub reads its environment when imported."""


def talk(held: Hub, cwd: Path, *commands: list[object], token: str = TOKEN) -> list[tuple[int, str, str]]:
    """Run commands that talk to the stand-in; returns exit code, stdout and stderr of each."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL], input=json.dumps([list(map(str, each)) for each in commands]),
        capture_output=True, text=True, cwd=cwd, timeout=120, check=True,
        env={**environment(), **held.environment(cwd / "cache", token)},
    )  # fmt: skip
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def test_there_and_back(run: Path, tmp_path: Path) -> None:
    with hub() as held:
        held.repositories["ann/empty"] = {"README.md": b"nothing"}
        sent, made, none, empty = talk(
            held, tmp_path,
            ["push", run, "ann/blobs", "--license", "cc-by-4.0", "--no-onnx"],
            ["generate", "ann/blobs", "--n", 3, "--out", "there.npy"],
            ["generate", "ann/none"],
            ["generate", "ann/empty"],
        )  # fmt: skip
        assert sent[0] == 0, sent[2]
        assert f"{held.address}/ann/blobs/commit/" in sent[1]
        assert set(held.repositories["ann/blobs"]) == {
            "README.md", "config.json", "model.safetensors", "samples.png", "film.gif", "training.yaml",
        }  # fmt: skip
        assert made[0] == 0, made[2]
        here = np.concatenate(list(generate(load(run), 3)))
        off = np.load(tmp_path / "there.npy").astype(int) - here
        assert abs(off).max() <= 1  # another layout in memory rounds otherwise
        assert (none[0], empty[0]) == (2, 2)
        assert "ann/none: no such file or folder, and it cannot be fetched" in none[2]
        assert "ann/empty, on the Hugging Face hub, holds no network of progan" in empty[2]
        before = len(held.calls)
        (refused,) = talk(held, tmp_path, ["push", run, "ann/other", "--no-onnx"], token="hf_wrong")
        assert refused[0] == 2
        assert "ann/other was not written on the hub" in refused[2]
        assert "hf auth login" in refused[2]
        assert "ann/other" not in held.repositories
        ((code, out, _),) = talk(held, tmp_path, ["info", "ann/blobs"])
        assert code == 0
        assert "16x16, 3 channels (level 2 of 2)" in out
        assert not [call for call in held.calls[before:] if "model.safetensors" in call]  # it is in the cache
    # What is in the cache needs no hub.
    (alone,) = talk(held, tmp_path, ["generate", "ann/blobs", "--n", 3, "--out", "alone.npy"])
    assert alone[0] == 0, alone[2]
    assert (tmp_path / "alone.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()


def test_the_folder(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = write_hub_folder(run, "ann/blobs", tmp_path / "out", license="mit", say=said.append)
    assert said[0].startswith("generator.onnx is at most ")
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit"
    assert head["pipeline_tag"] == "unconditional-image-generation"
    assert head["library_name"] == "progan"
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"]) == ("swd/mean", 12.5)
    for part in ("![samples](samples.png)", "![a walk through latent space](film.gif)",
                 'progan.load("ann/blobs")', "| pictures | 40 of blobs |", "| images shown | 240 |",
                 "| swd/mean | 12.5 | 40 | 40 |",
                 "## Intended use", "License of the weights: mit.", "Labels: 4 classes (1, 2, 3, 4)",
                 "1710.10196", '"labels": labels'):  # fmt: skip
        assert part in card, part
    for file in folder.iterdir():
        assert str(tmp_path.parent).encode() not in file.read_bytes(), f"a path of this machine in {file}"
    with Image.open(folder / "samples.png") as grid, Image.open(folder / "film.gif") as film:
        assert grid.size == (6 * 66 - 2, 4 * 66 - 2)
        assert getattr(film, "n_frames", 1) > 20
    assert load(folder).config() == load(run).config()
    # What the card tells people to run runs.
    code = card.split("import numpy, onnxruntime")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import numpy, onnxruntime{code}\nprint(images.shape)"],
        capture_output=True, text=True, cwd=folder, timeout=60,
    )  # fmt: skip
    assert done.stdout == "(4, 3, 16, 16)\n", done.stderr


def test_the_page_and_the_film_of_a_run(run: Path, tmp_path: Path) -> None:
    """What `progan explore` and `progan movie` wrote into the run goes along, and the card shows it."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    write_page(load(own), own / "explore", About("blobs"))
    film = make_movie(own, own / "growth.gif", seconds=1, fps=8)
    said: list[str] = []
    folder = write_hub_folder(own, "ann/blobs", tmp_path / "out", onnx=False, say=said.append)
    card = (folder / "README.md").read_text()
    assert "![the training](growth.gif)" in card
    assert (folder / "growth.gif").read_bytes() == film.read_bytes()
    assert 'hf download ann/blobs --include "explore/*" --local-dir blobs' in card
    kept = {path.name for path in (own / "explore").iterdir()} - {"README.md"}
    assert {path.name for path in (folder / "explore").iterdir()} == kept
    assert {"index.html", "level-0.onnx", "level-2.onnx"} <= kept
    assert said == []
    save(Generator(**load(own).config()), own / "generator.safetensors")
    folder = write_hub_folder(own, "ann/blobs", tmp_path / "old", onnx=False, say=said.append)
    assert not (folder / "explore").exists()
    assert "explore" not in (folder / "README.md").read_text()
    page = own / "explore"
    again = f"progan explore {own} --out {page}"
    assert said == [f"the page in {page} is of another generator and left out; {again} writes it again"]
    with pytest.raises(SystemExit, match="0"):
        main(shell_words(again))
    folder = write_hub_folder(own, "ann/blobs", tmp_path / "new", onnx=False, say=said.append)
    assert (folder / "explore" / "index.html").is_file()
    assert len(said) == 1


def test_a_weight_file_alone(tmp_path: Path) -> None:
    save(Generator(max_level=1, fmap_base=32, fmap_max=4, channels=5), tmp_path / "g.safetensors")
    folder = write_hub_folder(tmp_path / "g.safetensors", "a/b", tmp_path / "out", onnx=False)
    assert (folder / "samples.png").is_file()
    card = (folder / "README.md").read_text()
    assert "not stated" in card
    assert "None was measured" in card
    assert "## Training" not in card
    with pytest.raises(ConfigError, match="is not empty"):
        write_hub_folder(tmp_path / "g.safetensors", "a/b", tmp_path / "out")


@pytest.mark.parametrize("name", ["a", "a/b/c", "../a", "a b/c", ""])
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="user/name"):
        push(tmp_path / "run", name)


def test_what_means_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("ann/blobs")
    (tmp_path / "runs").mkdir()
    for place in (
        "runs/blobs",
        "blobs",
        "ann/blobs/run",
        "ann/g.safetensors",
        "/ann/blobs",
        "./ann",
        "../ann",
        "",
    ):
        assert not is_hub_name(place), place
    with pytest.raises(CheckpointError, match=r"no such file or folder$"):
        load("runs/blobs")


def test_dry_run_sends_nothing(run: Path, tmp_path: Path) -> None:
    with hub() as held:
        ((code, out, err),) = talk(held, tmp_path, ["push", run, "ann/blobs", "--dry-run", "--no-onnx"])
        assert code == 0, err
        assert "nothing was sent" in out
        assert held.calls == []
    assert json.loads((tmp_path / "blobs" / "config.json").read_text())["label_size"] == 4

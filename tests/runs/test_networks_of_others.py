"""Networks of other systems train on, are exported, and find pictures again, as our own do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foreign_files import write_of
from progan import import_weights, load, train
from progan.explore.projection import project, psnr
from progan.generation.sampling import generate
from progan.interop.export import export
from progan.preparation.builtin_sets import synthetic
from progan.runs.run_folder import RunFolder
from tiny import Listener, options, progan

SYSTEMS = {
    "gan_zoo": "GD", "pro_gan_3": "GD", "pro_gan_2": "G", "rosinality": "G", "genforce": "GD", "mmagic": "GD",
    "theano": "GD", "flax": "GD", "matt_roz": "G", "varabei": "GD",
}  # fmt: skip
"""System -> the networks that lie in the file of it that is written here."""


LARGE = ("pro_gan_2", "rosinality")
"""Systems of which the networks that are written here make larger images."""


@pytest.mark.parametrize(
    "system", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in SYSTEMS]
)
def test_on_from_a_file_of_others(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_of(system, tmp_path, monkeypatch)
    G = import_weights(file)
    synthetic(tmp_path / "set", count=24, resolution=max(G.resolution()), channels=G.channels)
    heard = Listener()
    tree = options(init={"source": str(file)}, schedule={"stabilise_kimg": [0.016], "batch_size": 8})
    del tree["model"]
    train(tmp_path / "set", tmp_path / "run", options=tree, reporter=heard)
    assert any(line.startswith(f"{file} is ") for line in heard.said)
    for name in "GD":
        (taken,) = (line for line in heard.said if line.startswith(f"  {name}: "))
        got, whole = taken.split()[1], taken.split()[3]
        assert got == (whole if name in SYSTEMS[system] else "0"), taken
    on = load(tmp_path / "run")
    old, new = G.config(), on.config()
    assert {key: new[key] for key in old if key not in ("level", "alpha")}.items() <= old.items()
    moved = [not torch.equal(value, on.state_dict()[name]) for name, value in G.state_dict().items()]
    assert any(moved)
    assert RunFolder(tmp_path / "run").config().init.sha256
    small = min(on.level, 2)  # above it, the few filters of these networks magnify rounding
    assert export(on, tmp_path / "g.torchscript", "torchscript", level=small).difference < 1e-4
    target = next(generate(on, 1, seed=3, level=small))[0]
    found = project(on, target, num_steps=40, level=small)
    assert found.z.shape == (1, on.latent_size)
    assert found.latent_psnr > psnr(next(generate(on, 1, seed=4, level=small))[0], target)


@pytest.mark.slow
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, as a user does it: import, train on, export, project."""
    file = write_of("gan_zoo", tmp_path, monkeypatch)
    synthetic(tmp_path / "set", count=24, resolution=16)
    quick = ["--schedule.stabilise-kimg", 0.016, "--schedule.batch-size", 8, "--run.grid", 2, 3]
    for words in (
        ["import", file, "--out", "own.safetensors"],
        ["train", "set", "--init", "own.safetensors", "--out", "run", "--recipe", "quickstart", *quick],
        ["generate", "run", "--n", 1, "--out", "one.png"],
        ["export", "run", "--out", "g.onnx"],
        ["project", "run", "--target", "one.png", "--num-steps", 20],
    ):
        done = progan(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    told = progan("info", "run", cwd=tmp_path).stdout
    assert "begun with" in told
    assert "own.safetensors" in "".join(told.split())
    assert (tmp_path / "projected" / "projected.npz").is_file()

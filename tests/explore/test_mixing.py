"""Mixtures begin at one picture and end at the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progan.__main__ import main
from progan.errors import ConfigError, DataError
from progan.explore.mixing import Ingredient, ingredient, mix, save_sheet
from progan.generation.samples import of_seeds
from progan.generation.save_samples import save_samples
from progan.models import weights
from progan.models.generator import Generator


def make(labels: int = 2, level: int = 2) -> Generator:
    torch.manual_seed(1)
    G = Generator(max_level=2, label_size=labels, fmap_base=64, fmap_max=16, latent_size=8, level=level)
    return G.requires_grad_(False).eval()


def picture(G: Generator, seed: int, folder: Path) -> Any:
    return np.load(save_samples(G, folder / "x.npy", of_seeds(G, [seed])))[0].astype(int)


@pytest.mark.parametrize("how", ["average", "halves", "layers"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_share_of_nothing_is_the_first_picture(tmp_path: Path, how: Any, at: int) -> None:
    G = make()
    a, b = ingredient(G, "3"), ingredient(G, "4")
    first, second = picture(G, 3, tmp_path), picture(G, 4, tmp_path)
    assert np.abs(mix(G, a, b, how, share=0, at=at) - first).max() <= 1
    whole = mix(G, a, b, how, share=1, at=at)
    if how != "layers":
        assert np.abs(whole - second).max() <= 1
    assert np.abs(whole - first).max() > 8


def test_halves_at_the_last_level_are_halves_of_the_pictures(tmp_path: Path) -> None:
    G = make()
    made = mix(G, ingredient(G, "3"), ingredient(G, "4"), "halves", at=2).astype(int)
    assert np.abs(made[..., :8] - picture(G, 3, tmp_path)[..., :8]).max() <= 1
    assert np.abs(made[..., 8:] - picture(G, 4, tmp_path)[..., 8:]).max() <= 1


def test_layers_take_the_statistics_of_the_other() -> None:
    """With the first's own statistics nothing changes; with those of the second, means are the second's."""
    G = make()
    a, b = ingredient(G, "3"), ingredient(G, "4")
    assert np.abs(mix(G, a, a, "layers", share=1, at=1).astype(int) - mix(G, a, a)).max() <= 1
    with torch.no_grad():
        ours, theirs = (G.features(part.z, part.label, level=2) for part in (a, b))
        mean, std = theirs.mean(dim=(2, 3), keepdim=True), theirs.std(dim=(2, 3), keepdim=True)
        own_mean, own_std = ours.mean(dim=(2, 3), keepdim=True), ours.std(dim=(2, 3), keepdim=True)
        expected = G.from_features((ours - own_mean) / (own_std + 1e-5) * (std + 1e-5) + mean, 2)
    pixels = (expected[0] * 127.5 + 127.5).round().clamp(0, 255).numpy()
    assert np.abs(mix(G, a, b, "layers", share=1, at=2) - pixels).max() <= 1


def test_features_of_a_projection_take_the_place_of_its_latent(tmp_path: Path) -> None:
    G = make()
    z, label = of_seeds(G, [3]).rows(0, 1)
    assert label is not None
    other = G.features(*of_seeds(G, [8]).rows(0, 1))
    np.savez(tmp_path / "p.npz", z=z.numpy(), labels=label.numpy(), features=other.numpy())
    part = ingredient(G, str(tmp_path / "p.npz"))
    assert np.abs(mix(G, part, part).astype(int) - picture(G, 8, tmp_path)).max() <= 1
    np.savez(tmp_path / "q.npz", z=z.numpy(), labels=label.numpy(), features=other.numpy()[:, :3])
    with pytest.raises(DataError, match="features of shape"):
        ingredient(G, str(tmp_path / "q.npz"))


def test_wrong_arguments(tmp_path: Path) -> None:
    G = make()
    a = ingredient(G, "1")
    for options, message in (
        ({"how": "x"}, "average, halves, layers"),
        ({"share": 1.5}, "share 1.5"),
        ({"at": 3}, "level 3: there are those of level 0 to 2"),
        ({"level": 3}, "no level 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            mix(G, a, a, **dict[str, Any](options))
    np.save(tmp_path / "two.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(DataError, match="holds 2 latents"):
        ingredient(G, str(tmp_path / "two.npy"))
    with pytest.raises(ConfigError, match="neither a seed nor a file"):
        ingredient(G, "x")


def test_a_level_that_is_coming_in(tmp_path: Path) -> None:
    G = make()
    G.set_growth(2, 0.5)
    a, b = ingredient(G, "3"), ingredient(G, "4")
    assert np.abs(mix(G, a, b, "halves", share=0, at=1) - picture(G, 3, tmp_path)).max() <= 1
    with pytest.raises(ConfigError, match="level 2: there are those of level 0 to 1"):
        mix(G, a, b, at=2)


def test_the_sheet_and_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    G = make()
    save_sheet(
        G, Ingredient(*of_seeds(G, [1]).rows(0, 1)), ingredient(G, "2"), tmp_path / "s.png", names=("a", "b")
    )
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width == 6 * 64 + 5 * 2
    weights.save(G, tmp_path / "G.safetensors")
    place = str(tmp_path / "G.safetensors")
    Image.new("RGB", (20, 20), (200, 0, 100)).save(tmp_path / "photo.png")
    for words in (
        ["project", place, "--target", f"{tmp_path}/photo.png", "--num-steps", "60", "-o", f"{tmp_path}/p"],
        ["mix", place, "1", f"{tmp_path}/p/projected.npz", "-o", f"{tmp_path}/m.png"],
        ["mix", place, "1", "2", "--how", "layers", "--scale", "3", "-o", f"{tmp_path}/l.png"],
        ["directions", place, "-K", "2", "--method", "sefa", "--names", "tilt", "--seeds", "0"],
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, "--device", "cpu"])
        assert end.value.code in (0, None), capsys.readouterr()
    said = capsys.readouterr().out
    assert "dB, features to" in said
    assert "2 directions, tilt, sefa 2" in said
    assert (tmp_path / "G-directions" / "01-tilt.png").is_file()
    with Image.open(tmp_path / "l.png") as mixed:
        assert mixed.size == (48, 48)

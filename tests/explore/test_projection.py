"""The latent of a picture is found again; what is written can be read by the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progan.errors import ConfigError, DataError
from progan.explore.projection import describe, project, psnr, read_target, save_projection
from progan.generation.samples import read_latents
from progan.generation.sampling import generate, label_vectors
from progan.models.generator import Generator


def make(labels: int = 0, base: tuple[int, int] = (4, 4), level: int | None = None) -> Generator:
    torch.manual_seed(1)
    names = ("cat", "dog")[:labels]
    G = Generator(
        max_level=2, base_shape=base, label_size=labels, label_names=names, fmap_base=128, fmap_max=16,
        latent_size=12, level=level,
    )  # fmt: skip
    return G.requires_grad_(False).eval()


def test_psnr() -> None:
    black, grey = np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(255 / 51))
    assert psnr(grey, grey) == 99


@pytest.mark.parametrize("labels", [0, 2])
def test_samples_are_found_again(labels: int) -> None:
    G = make(labels)
    target = next(generate(G, 3, seed=5))[2]
    said: list[tuple[str, int, int]] = []
    seen: list[str] = []
    found = project(
        G, target, num_steps=500, progress=lambda *state: said.append(state),
        watch=lambda _image, what, _near: seen.append(what),
    )  # fmt: skip
    assert found.latent_psnr > 45
    assert found.feature_psnr > 45
    with torch.inference_mode():
        again = G(found.z, found.label)
    assert psnr(((again[0] * 127.5 + 127.5).round().clamp(0, 255)).byte().numpy(), target) == pytest.approx(
        found.latent_psnr, abs=0.1
    )
    if labels:
        own = label_vectors(G, None, 5, 2, 1)
        assert own is not None
        assert found.label is not None
        assert torch.equal(found.label, own)
        assert "as " + G.label_names[int(own.argmax())] in describe(found, G)
    assert {"searching", "latent", "features"} == set(seen)
    assert all(done <= total == 500 for _, done, total in said)


def test_the_same_seed_finds_the_same() -> None:
    G = make()
    target = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    first, second = (project(G, target, num_steps=60, seed=3) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.features, second.features)
    # What no latent makes, features come nearer to.
    assert first.feature_psnr > first.latent_psnr


def test_odd_shapes_and_levels_that_come_in() -> None:
    G = make(base=(3, 5))
    G.set_growth(2, 0.5)
    target = next(generate(G, 1, seed=1))[0]
    assert project(G, target, num_steps=300).latent_psnr > 40
    small = next(generate(G, 1, seed=1, level=0))[0]
    assert project(G, small, num_steps=100, level=0).latent_psnr > 40


def test_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    G = make(2)
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 30).convert("RGB").save(tmp_path / "photo.jpg")
    target = read_target(G, tmp_path / "photo.jpg")
    assert target.shape == (3, 16, 16)
    found = save_projection(G, target, tmp_path / "out", save_video=True, num_steps=100, label="dog")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "projected.mp4", "projected.npz", "projected.png",
    ]  # fmt: skip
    z, labels = read_latents(G, tmp_path / "out" / "projected.npz")
    assert torch.equal(z, found.z)
    assert labels is not None
    assert labels.tolist() == [[0, 1]]
    with Image.open(tmp_path / "out" / "projected.png") as sheet:
        assert sheet.width > 3 * 64


def test_targets_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    for name in ("x.png", "missing.png", "."):
        with pytest.raises(DataError, match=r"x\.png|no such file"):
            read_target(make(), tmp_path / name)
    picture = np.zeros((3, 16, 16), np.uint8)
    for target, options, message in (
        (picture[:1], {}, r"shape \[1, 16, 16\]"),
        (picture, {"num_steps": 1}, "num-steps 1"),
        (picture, {"seed": -1}, "seed -1"),
        (picture, {"label": "cat"}, "no labels"),
        (picture, {"level": 7}, "no level 7"),
    ):
        with pytest.raises(ConfigError, match=message):
            project(make(), target, **dict[str, Any](options))


def test_a_broken_generator_is_told() -> None:
    G = make()
    G.to_rgb[2].bias.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(DataError, match="not finite"):
        project(G, np.zeros((3, 16, 16), np.uint8), num_steps=50)


def test_a_label_between_two_is_found() -> None:
    """A picture of half a cat and half a dog comes back only if the label may be searched."""
    G, between = make(2), torch.tensor([[0.5, 0.5]])
    z = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        target = (G(z, between)[0] * 127.5 + 127.5).round().clamp(0, 255).byte().numpy()
    fixed = project(G, target, num_steps=400)
    free = project(G, target, num_steps=400, search_label=True)
    assert free.latent_psnr > 45
    assert free.latent_psnr > fixed.latent_psnr + 3
    assert free.label is not None
    assert free.label.shape == (1, 2)
    assert "cat" in describe(free, G)
    assert "dog" in describe(free, G)
    with torch.inference_mode():
        again = (G(free.z, free.label)[0] * 127.5 + 127.5).round().clamp(0, 255).byte().numpy()
    assert psnr(again, target) == pytest.approx(free.latent_psnr, abs=0.1)
    with pytest.raises(ConfigError, match="no labels to search"):
        project(make(), target, search_label=True)

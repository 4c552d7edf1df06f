"""Samples by seed, by several seeds and by latents; pictures that say what makes them again."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from progan.__main__ import main
from progan.errors import ConfigError, DataError
from progan.generation.grids import printable, save_grid
from progan.generation.picture_form import PictureForm, enlarge, format_of, is_whole, read_facts
from progan.generation.samples import (
    choose,
    of_seed,
    of_seeds,
    parse_grid,
    parse_seeds,
    read_latents,
    save_latents,
)
from progan.generation.sampling import generate, latents
from progan.generation.save_samples import Layout, save_samples
from progan.generation.truncation import Truncation
from progan.models import weights
from progan.models.generator import Generator

NAMES = ("cat", "dog", "Ölße")


def make(labels: int = 0, channels: int = 3) -> Generator:
    torch.manual_seed(0)
    names = NAMES[:labels]
    return (
        Generator(
            channels=channels, max_level=2, label_size=labels, label_names=names, fmap_base=64, fmap_max=8
        )
        .requires_grad_(False)
        .eval()
    )


@pytest.mark.parametrize(
    ("text", "seeds"), [("0,1,4-6", [0, 1, 4, 5, 6]), ("7", [7]), (" 3 - 3 , 2", [3, 2]), ("5,5", [5, 5])]
)
def test_lists_of_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@given(st.text(alphabet="0123456789,- x²", max_size=12))
def test_any_text_is_seeds_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(ConfigError):
        seeds = parse_seeds(text)
        assert seeds
        assert min(seeds) >= 0


@pytest.mark.parametrize("text", ["", "1,", "-1", "6-4", "0-99999999999", "1.5", "a"])
def test_what_are_no_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        parse_seeds(text)


def test_grids_in_words() -> None:
    assert parse_grid("3x6") == parse_grid("3 6") == parse_grid("3,6") == (3, 6)
    for wrong in ("3", "0x2", "x", "3x6x9", "-1x2"):
        with pytest.raises(ConfigError, match="as 3x6"):
            parse_grid(wrong)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_a_seed_in_a_list_is_the_first_sample_of_that_seed(seeds: list[int]) -> None:
    G = make(3)
    z, labels = of_seeds(G, seeds).rows(0, len(seeds))
    for i, seed in enumerate(seeds):
        own_z, own_labels = of_seed(G, 1, seed).rows(0, 1)
        assert torch.equal(z[i], own_z[0])
        assert labels is not None
        assert own_labels is not None
        assert torch.equal(labels[i], own_labels[0])


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_latents_come_back(tmp_path: Path, ending: str) -> None:
    G = make(3)
    samples = of_seed(G, 5, 2)
    save_latents(samples, tmp_path / f"z{ending}")
    z, labels = samples.rows(0, 5)
    read, own = read_latents(G, tmp_path / f"z{ending}")
    assert torch.equal(read, z)
    if ending == ".npz":
        assert labels is not None
        assert own is not None
        assert torch.equal(own, labels)
        again = choose(G, files=[tmp_path / "z.npz"])
        expected = np.concatenate(list(generate(G, 5, seed=2)))
        save_samples(G, tmp_path / "again.npy", again)
        assert np.array_equal(np.load(tmp_path / "again.npy"), expected)
    else:
        assert own is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((2, 3))}, r"shape \[2, 3\].*\[N, 8\]"),
        ({"x": np.zeros((2, 8))}, "no array named z, only x"),
        ({"z": np.full((1, 8), np.nan)}, "not finite"),
        ({"z": np.zeros((0, 8))}, "no row"),
        ({"z": np.array(["a"] * 8)}, "numbers"),
        ({"z": np.zeros((2, 8)), "labels": np.zeros((1, 3))}, "1 labels for 2 latents"),
    ],
)
def test_latents_that_are_none(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "z.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_latents(make(3), tmp_path / "z.npz")


def test_files_that_hold_no_latents(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("z")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("text.npy", "objects.npy", "missing.npy", "."):
        with pytest.raises(DataError, match="no latents can be read"):
            read_latents(make(), tmp_path / name)


def test_two_ways_to_choose_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        choose(make(), seeds=[1], files=[tmp_path / "z.npy"])
    with pytest.raises(ConfigError, match="n 3: there are 2 samples"):
        choose(make(), n=3, seeds=[1, 2])


def test_labels_in_turn_fill_rows() -> None:
    G = make(3)
    _, labels = of_seed(G, 8, 0, ["dog", 0], repeat=2).rows(1, 7)
    assert labels is not None
    assert labels.argmax(dim=1).tolist() == [1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_format_is_read_again(tmp_path: Path, form: str, channels: int) -> None:
    G = make(channels=channels)
    layout = Layout(format=form, scale=2)  # type: ignore[arg-type]
    folder = save_samples(G, tmp_path / "x", of_seeds(G, [4, 9]), layout=layout)
    assert sorted(path.name for path in folder.iterdir()) == [
        "samples.json", f"seed0004.{form}", f"seed0009.{form}",
    ]  # fmt: skip
    facts = read_facts(folder / f"seed0009.{form}")
    assert facts is not None
    assert (facts["seed"], facts["sample"], facts["resolution"]) == (9, 0, "16x16")
    expected = enlarge(next(generate(G, 1, seed=9)), 2)[0]
    with Image.open(folder / f"seed0009.{form}") as picture:
        assert picture.size == (32, 32)
        if form != "jpg" and channels >= 3:
            assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), expected)
    assert is_whole(folder / f"seed0009.{form}")
    data = (folder / f"seed0009.{form}").read_bytes()
    for cut in (0, 5, len(data) - 3):
        (folder / f"cut.{form}").write_bytes(data[:cut])
        assert not is_whole(folder / f"cut.{form}")


def test_other_seeds_lie_beside_the_first(tmp_path: Path) -> None:
    G = make(3)
    for seeds in ([1, 2], [2, 7]):
        save_samples(G, tmp_path / "x", of_seeds(G, seeds))
    assert len(list((tmp_path / "x").glob("seed*.png"))) == 3
    with pytest.raises(ConfigError, match="another label"):
        save_samples(G, tmp_path / "x", of_seeds(G, [1], ["cat"]))
    with pytest.raises(ConfigError, match="another trunc"):
        save_samples(G, tmp_path / "x", of_seeds(G, [1]), trunc=0.5)


def test_a_zip_and_an_npz_hold_what_makes_them_again(tmp_path: Path) -> None:
    G = make(3)
    save_samples(G, tmp_path / "x.zip", of_seeds(G, [3, 3]), layout=Layout("webp"))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == ["000000-seed0003.webp", "000001-seed0003.webp"]
    save_samples(G, tmp_path / "x.npz", 3, seed=5)
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["images"], np.concatenate(list(generate(G, 3, seed=5))))
        assert np.array_equal(arrays["z"], latents(5, 0, 3, 8).numpy())
        assert arrays["labels"].shape == (3, 3)


def test_a_grid_has_names(tmp_path: Path) -> None:
    images = np.full((6, 3, 64, 64), 128, np.uint8)
    with Image.open(save_grid(images, tmp_path / "plain.png", 3)) as picture:
        plain = picture.size
    with Image.open(save_grid(images, tmp_path / "rows.png", 3, captions=["cat"] * 3 + ["dog"] * 3)) as rows:
        assert rows.height == plain[1]
        assert rows.width > plain[0]
        margin = np.asarray(rows)[:, : rows.width - plain[0]]
    assert margin.min() < 100 < margin.max()
    with Image.open(save_grid(images, tmp_path / "each.png", 3, captions=[*"abcdef"])) as each:
        assert each.width == plain[0]
        assert each.height > plain[1]
    long = save_grid(images[:, :, :16, :16], tmp_path / "long.png", 3, captions=["x" * 500] * 5 + ["y"])
    assert long.is_file()


def test_names_in_other_letters_are_shown_in_those_there_are() -> None:
    assert printable("Öl é\n") == "Ol e?"
    assert printable("猫") == "?"


def test_trunc_moves_pictures_toward_that_of_their_label(tmp_path: Path) -> None:
    G = make(3)
    z, labels = of_seed(G, 12, 0, ["cat", "dog"]).rows(0, 12)
    spread = []
    for psi in (1.0, 0.5, 0.0):
        images = Truncation(G, psi)(z, labels)
        spread.append(float(images[::2].std(dim=0).mean()))
        if psi == 1:
            assert torch.equal(images, G(z, labels))
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-6
    assert not torch.allclose(images[0], images[1])
    for wrong in (-0.1, 2.5, float("nan")):
        with pytest.raises(ConfigError, match="trunc"):
            save_samples(G, tmp_path / "x", 1, trunc=wrong)


def test_scaling_a_latent_does_nothing_which_is_why_trunc_does_something_else() -> None:
    G, z = make(), latents(0, 0, 4, 8)
    assert torch.allclose(G(z), G(0.5 * z), atol=1e-5)


def test_lanczos_is_smooth() -> None:
    step = np.zeros((1, 1, 4, 4), np.uint8)
    step[..., 2:] = 200
    assert set(np.unique(enlarge(step, 4))) == {0, 200}
    assert len(np.unique(enlarge(step, 4, "lanczos"))) > 4


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        (Layout(scale=0), "x", "scale"),
        (Layout(scale=5000), "x", "larger than programs open"),
        (Layout(scale=5000), "x.png", "million pixels"),
        (Layout(scale=2), "x.npz", "leave --scale 2 out"),
        (Layout(columns=2), "x", "a grid is one picture"),
        (Layout(format="bmp"), "x", "png, jpg, webp"),  # type: ignore[arg-type]
        (Layout(resample="x"), "x", "nearest, lanczos"),  # type: ignore[arg-type]
    ],
)
def test_layouts_that_do_not_fit(tmp_path: Path, layout: Layout, name: str, message: str) -> None:
    if layout.scale == 0:
        with pytest.raises(ConfigError, match=message):
            PictureForm(scale=0)
        return
    with pytest.raises(ConfigError, match=message):
        save_samples(make(), tmp_path / name, 4, layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_endings() -> None:
    assert format_of(Path("x.JPEG")) == "jpg"
    with pytest.raises(ConfigError, match="png, jpg, webp"):
        format_of(Path("x.bmp"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights.save(make(3), tmp_path / "G.safetensors")
    arguments = ["generate", str(tmp_path / "G.safetensors"), "--device", "cpu", "--save-latents"]
    main_ends([*arguments, f"{tmp_path}/z.npz", "--grid", "2x3", "--label", "cat", "--label", "dog",
               "--trunc", "0.7", "-o", f"{tmp_path}/grid"])  # fmt: skip
    assert "6 pictures" in capsys.readouterr().out
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 3 * 64
    main_ends(["generate", str(tmp_path / "G.safetensors"), "--latents", f"{tmp_path}/z.npz", "-o",
               f"{tmp_path}/again", "--format", "npz", "--device", "cpu"])  # fmt: skip
    assert np.load(tmp_path / "again.npz")["images"].shape == (6, 3, 16, 16)


def main_ends(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code in (0, None)

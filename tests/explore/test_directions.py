"""Directions are those of their formulas, and are found where they were put."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DataError
from progan.explore import directions as ways
from progan.explore.about import about_of, directions_of
from progan.explore.scores import read_scores
from progan.explore.strips import save_strips
from progan.generation.samples import of_seed, of_seeds
from progan.generation.sampling import latents, render
from progan.generation.save_samples import save_samples
from progan.models.generator import Generator
from progan.models.loading import load
from progan.runs.run import train
from tiny import options


def make(labels: int = 0, channels: int = 3) -> Generator:
    torch.manual_seed(1)
    G = Generator(channels=channels, max_level=1, label_size=labels, fmap_base=64, fmap_max=16, latent_size=8)
    return G.requires_grad_(False).eval()


def test_sefa_finds_what_the_first_layer_magnifies() -> None:
    G = make(3)
    found = ways.sefa(G, 8)
    weights = G.dense.scaled_weight()[:, :8]
    gains = [float((weights @ way.vector).norm()) for way in found]
    assert gains == sorted(gains, reverse=True)
    random = torch.nn.functional.normalize(latents(0, 0, 200, 8), dim=1)
    assert gains[0] >= float((random @ weights.T).norm(dim=1).max())
    matrix = torch.stack([way.vector for way in found])
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8), atol=1e-5, rtol=0)
    assert found[0].strength == 1
    assert found[1].strength == pytest.approx(gains[1] / gains[0], rel=1e-4)


@pytest.mark.parametrize("labels", [0, 3])
def test_principal_directions_change_features_most(labels: int) -> None:
    """A layer that magnifies one number of the latent by ten makes that the first direction."""
    G = make(labels)
    G.dense.weight[:, 5] *= 10
    first, *others = ways.principal(G, 3, samples=400)
    assert first.vector[5].abs() > 0.95
    assert first.vector[first.vector.abs().argmax()] > 0
    assert first.strength == 1
    assert all(way.strength < 1 for way in others)
    assert all(way.vector.norm().item() == pytest.approx(1, abs=1e-5) for way in others)


@pytest.mark.parametrize("kind", ["numbers", "two groups"])
def test_a_linear_fit_finds_the_direction_of_scores(kind: str) -> None:
    z, true = latents(0, 0, 600, 8), torch.nn.functional.normalize(torch.arange(8.0), dim=0)
    scores = (z @ true).double().numpy() * 7 + 3
    labels = torch.eye(2)[torch.arange(600) % 2]
    scores += 100 * labels[:, 0].numpy()  # what labels explain is no direction
    if kind == "two groups":
        scores = (z @ true > 0).double().numpy()
    (found,) = ways.fitted(z, labels, {"smile": scores})
    assert found.vector @ true > (0.999 if kind == "numbers" else 0.97)
    assert (found.name, found.method) == ("smile", "scores")
    assert found.strength > (0.999 if kind == "numbers" else 0.7)


def test_brightness_makes_pictures_brighter() -> None:
    G = make()
    found = {way.name: way for way in ways.looks(G, samples=400)}
    assert set(found) == {"brightness", "contrast", "warmth", "green to magenta", "saturation"}
    z = latents(3, 0, 50, 8)
    moved = ways.moved(z, found["brightness"], torch.tensor([-2.0, 0.0, 2.0]))
    means = [render(G, part).mean() for part in moved]
    assert means[0] < means[1] < means[2]
    assert {way.name for way in ways.looks(make(channels=1), samples=100)} == {"brightness", "contrast"}


def test_directions_come_back(tmp_path: Path) -> None:
    G = make()
    found = ways.find_directions(G, 2, names=["tilt", "weight"])
    assert [way.name for way in found][:3] == ["tilt", "weight", "warmth"]
    assert len(found) == 5 + 2 + 2
    ways.save(found, tmp_path / ways.FILE)
    again = ways.read(tmp_path / ways.FILE, 8)
    for one, other in zip(found, again, strict=True):
        assert (one.name, one.method) == (other.name, other.method)
        assert torch.equal(one.vector, other.vector)
    with pytest.raises(DataError, match="another size"):
        ways.read(tmp_path / ways.FILE, 9)
    (tmp_path / "x.npz").write_text("none")
    np.savez(tmp_path / "y.npz", names=np.arange(3))
    for name in ("x.npz", "y.npz", "missing.npz"):
        with pytest.raises(DataError, match="no directions can be read"):
            ways.read(tmp_path / name, 8)


def test_wrong_arguments() -> None:
    G = make()
    for k in (0, 9):
        with pytest.raises(ConfigError, match=f"K {k}"):
            ways.find_directions(G, k)
    with pytest.raises(ConfigError, match="method 'x': expected sefa, pca, looks"):
        ways.find_directions(G, 1, ["x"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="3 names for 2 directions"):
        ways.find_directions(G, 2, ["sefa"], names=["a", "b", "c"])
    with pytest.raises(ConfigError, match="one name"):
        ways.find_directions(G, 2, ["sefa"], names=["sefa 2"])


def test_strips(tmp_path: Path) -> None:
    G = make(3)
    found = ways.find_directions(G, 1, ["sefa", "pca"], names=["a/b: c"])
    paths = list(save_strips(G, found, of_seeds(G, [0, 1]), tmp_path))
    assert [path.name for path in paths] == ["01-a-b-c.png", "02-pca-1.png", "all.png"]
    with Image.open(paths[0]) as strip:
        assert strip.width == 7 * 64 + 6 * 2


def test_scores_of_pictures(tmp_path: Path) -> None:
    """Pictures say in their metadata which samples they are; others by their names."""
    G = make(3)
    save_samples(G, tmp_path, of_seed(G, 20, 9))
    values = [float(np.asarray(Image.open(tmp_path / f"{i:06d}.png")).mean()) for i in range(20)]
    lines = [f"{i:06d}.png,{value},{i % 2}" for i, value in enumerate(values)]
    table = tmp_path / "scores.csv"
    table.write_text("file,bright,odd\n" + "\n".join(lines) + "\nseed0004.png,3,1\n", encoding="utf-8-sig")
    z, labels, scores = read_scores(G, table)
    assert torch.equal(z[:20], latents(9, 0, 20, 8))
    assert torch.equal(z[20:], latents(4, 0, 1, 8))
    assert labels is not None
    assert list(scores) == ["bright", "odd"]
    assert scores["bright"].tolist() == [*values, 3]
    found = ways.find_directions(G, 1, ["sefa"], table=table)
    assert [way.name for way in found] == ["bright", "odd", "sefa 1"]
    with torch.no_grad():
        next(G.parameters()).add_(1)
    with pytest.raises(DataError, match=r"line 2: .*another generator"):
        read_scores(G, table)


def test_pictures_that_were_sorted(tmp_path: Path) -> None:
    """Into two folders, or by a column of labels: the fit is the same; three labels are a direction each."""
    G = make()
    save_samples(G, tmp_path / "made", of_seed(G, 60, 9))
    files = sorted((tmp_path / "made").glob("*.png"))
    bright = {file: float(np.asarray(Image.open(file)).mean()) for file in files}
    middle = float(np.median(list(bright.values())))
    for file, value in bright.items():
        place = tmp_path / "sorted" / ("light" if value > middle else "dark")
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    (tmp_path / "sorted" / "notes.txt").write_text("x")
    (found,) = ways.from_table(G, tmp_path / "sorted")
    assert found.name == "dark to light"
    darker, lighter = ways.moved(latents(1, 0, 40, 8), found, torch.tensor([-2.0, 2.0]))
    assert render(G, darker).mean() < render(G, lighter).mean() - 2
    order = sorted(files, key=bright.__getitem__)
    kinds = {file: ("dark", "grey", "light")[i // 20] for i, file in enumerate(order)}
    lines = [f"{file.name},{'light' if bright[file] > middle else 'dark'},{kinds[file]}" for file in files]
    (tmp_path / "made" / "t.csv").write_text("file,two,three\n" + "\n".join(lines))
    two, *three = ways.from_table(G, tmp_path / "made" / "t.csv")
    torch.testing.assert_close(two.vector, found.vector, atol=1e-5, rtol=0)
    assert [way.name for way in three] == ["dark", "grey", "light"]
    assert three[2].vector @ two.vector > 0.5 > three[0].vector @ two.vector
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="two sub-folders"):
        ways.from_table(G, tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file\nseed1.png\nseed2.png\n", "column of pictures"),
        ("file,a\nseed1.png,1\n", "column of pictures"),
        ("file,a\nseed1.png,1\nseed2.png\n", "line 3: 1 columns"),
        ("file,a\nseed1.png,1\nseed2.png,x\n", "line 3: x are no numbers"),
        ("file,a\nseed1.png,1\nseed2.png,nan\n", "finite"),
        ("file,a\nseed1.png,1\nother.png,2\n", "line 3: nothing says which sample other.png is"),
        ("file,a\nseed1.png,1\nseed2.png,1\n", "all the same"),
        ("file,a\nseed1.png,x\nseed2.png,x\n", "1 labels in 'a'"),
        ("file,a,a\nseed1.png,1,2\nseed2.png,2,1\n", "two columns or labels are called 'a'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        ways.from_table(make(), tmp_path / "scores.csv")


def test_any_generator_of_a_run_can_be_asked(
    blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has its own directions, and a page that says which it is."""
    run = Path(train(blobs.path, out=tmp_path / "run", options=options(run={"generator_kimg": 0.08})))
    seen = min(int(file.stem) for file in (run / "generators").glob("*.safetensors"))
    kimg = ["--kimg", str(seen / 1000)]
    for words in (
        ["directions", str(run), "-K", "1", "--method", "sefa", "--seeds", "0", *kimg],
        ["mix", str(run), "1", "2", "-o", str(tmp_path / "mix.png"), *kimg],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code in (0, None), capsys.readouterr()
    folder = run / f"directions-{seen:09d}"
    G = load(run / "generators" / f"{seen:09d}.safetensors")
    assert torch.equal(directions_of(run, G, images_seen=seen)[0].vector, ways.sefa(G, 1)[0].vector)
    assert ways.read(folder / ways.FILE, G.latent_size)[0].name == "sefa 1"
    assert not (run / "directions").exists()
    assert dict(about_of(run, G, images_seen=seen).facts)["Training"].startswith(f"{seen:,} images shown")
    level = max(G.resolution())
    with Image.open(tmp_path / "mix.png") as sheet:
        assert sheet.width == 6 * max(64, level) + 5 * 2

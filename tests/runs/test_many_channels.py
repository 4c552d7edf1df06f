"""Sixteen bits and many channels, from the files to what a trained generator writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from PIL import Image

import progan
from progan.config import DataOptions
from progan.data.packed import PackedSet
from progan.data.pixels import to_8_bit
from progan.data.showing import Sight
from progan.errors import ConfigError
from progan.generation.save_samples import Layout, save_samples
from progan.models.loading import load
from progan.preparation.decoding import Rules, develop
from progan.preparation.formats.folder import Folder
from progan.preparation.picture.value_range import ValueRange
from tiny import options


def stacks(folder: Path, channels: int, count: int = 24) -> Path:
    """Write 16-bit TIFF files of 8x8 pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        kinds: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack"}
        if channels > 3:
            kinds["planarconfig"] = "contig"
        pixels = random.integers(0, 65536, (8, 8, channels), dtype=np.uint16).squeeze()
        tifffile.imwrite(folder / f"{i:02d}.tif", pixels, **kinds)
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_run_on_sixteen_bits(tmp_path: Path, channels: int) -> None:
    run = progan.train(stacks(tmp_path / "p", channels), tmp_path / "run", options=options())
    assert PackedSet.open(next((tmp_path / "p.progan").iterdir())).depth == 16
    G = load(run)
    assert G.depth == 16
    array = np.load(save_samples(G, tmp_path / "x.npy", 3))
    assert array.dtype == np.uint16
    assert len(np.unique(array % 257)) > 100
    forms: tuple[tuple[Literal["png", "tiff"], str], ...] = (("png", ".png"), ("tiff", ".tiff"))
    for form, ending in forms:
        folder = save_samples(G, tmp_path / form, 3, layout=Layout(form))
        assert sorted(path.name for path in folder.iterdir())[:3] == [f"00000{i}{ending}" for i in range(3)]
        for i in range(3):
            # The rules of a set of 16 bits read back what was written, bit for bit.
            rules = Rules(channels, 16, {"integer": ValueRange(0, 65535)})
            read = develop(Folder(folder), f"00000{i}{ending}", rules).pixels
            np.testing.assert_array_equal(np.asarray(read), array[i].transpose(1, 2, 0))
    shallow = np.load(save_samples(G, tmp_path / "y.npy", 3, layout=Layout(depth=8)))
    np.testing.assert_allclose(shallow, array / 257, atol=1)
    save_samples(G, tmp_path / "grid.png", 4)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == ("L" if channels == 1 else "RGB")


def test_an_interrupted_folder_of_tiffs_goes_on(tmp_path: Path) -> None:
    G = progan.Generator(channels=5, max_level=1, fmap_base=16, fmap_max=4, latent_size=4)
    folder = save_samples(G, tmp_path / "x", 4)
    whole = {path.name: path.read_bytes() for path in folder.glob("*.tiff")}
    assert len(whole) == 4
    (folder / "000002.tiff").write_bytes(whole["000002.tiff"][:-5])
    (folder / "000003.tiff").unlink()
    save_samples(G, folder, 4)
    assert {path.name: path.read_bytes() for path in folder.glob("*.tiff")} == whole
    with pytest.raises(ConfigError, match="holds samples of another depth"):
        save_samples(G, folder, 5, layout=Layout(depth=16))


def test_a_run_on_many_channels(tmp_path: Path) -> None:
    source = stacks(tmp_path / "p", 5)
    shown = options(run={"grid_channels": [4, 2, 0]})
    run = progan.train(source, tmp_path / "run", options=shown)
    packed = PackedSet.open(next((tmp_path / "p.progan").iterdir()))
    assert (packed.channels, packed.depth) == (5, 16)
    with Image.open(run / "samples" / "reals.png") as grid:
        corner = np.asarray(grid)[0, 0]
    first = to_8_bit(packed.read(packed.max_level, [0]))[0]
    np.testing.assert_array_equal(corner, first[[4, 2, 0], 0, 0])
    G = load(run)
    assert (G.channels, G.depth) == (5, 16)
    folder = save_samples(G, tmp_path / "x", 2)
    read = tifffile.imread(folder / "000000.tiff")
    assert read.shape == (8, 8, 5)
    assert read.dtype == np.uint16
    save_samples(G, tmp_path / "grid.png", 4, layout=Layout(sight=Sight((1,))))
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == "L"
    with pytest.raises(ConfigError, match="channels 5: images of 5 channels can show one of 0 to 4"):
        save_samples(G, tmp_path / "grid.png", 4, layout=Layout(sight=Sight((5,))))


def test_channels_that_cannot_be_shown_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="channels 7: images of 1 channels"):
        progan.train(stacks(tmp_path / "p", 1), tmp_path / "run", options=options(run={"grid_channels": [7]}))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_another_depth_than_the_set_has_is_refused(tmp_path: Path) -> None:
    source = stacks(tmp_path / "p", 1)
    progan.prepare(source, tmp_path / "set", DataOptions())
    with pytest.raises(ConfigError, match=r"data.depth 8 was asked for, but .* was prepared with 16"):
        progan.train(tmp_path / "set", tmp_path / "run", options=options(data={"depth": 8}))
    with pytest.raises(ConfigError, match=r"data.range 0:4095 was asked for, but .* with its default"):
        progan.train(tmp_path / "set", tmp_path / "run", options=options(data={"range": "0:4095"}))

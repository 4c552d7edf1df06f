"""Pictures with transparency are measured on a ground, which the definition names; what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import progan
from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.data.showing import laid_on
from progan.errors import DataError
from progan.evaluation.generated_images import GeneratedImages
from progan.evaluation.image_set import ArrayImages
from progan.evaluation.measure import compare, evaluate
from progan.evaluation.monitor import Monitor
from progan.metrics.extractor import Extractor
from progan.models.generator import Generator
from tiny import Listener, options, words

RED = (255, 0, 0)


def cut_outs(count: int, channels: int = 4, side: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def folder_of(place: Path, images: NDArray[np.uint8]) -> Path:
    place.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i:02d}.png")
    return place


def tiny(channels: int = 4) -> Generator:
    torch.manual_seed(0)
    return Generator(channels=channels, max_level=2, fmap_base=64, fmap_max=8, latent_size=6)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("ground", [(255, 255, 255), RED])
def test_the_numbers_are_those_of_pictures_on_the_ground(channels: int, ground: tuple[int, int, int]) -> None:
    a, b = cut_outs(20, channels), cut_outs(20, channels, seed=1)
    found = compare(a, b, ["swd", "ms_ssim"], background=ground)
    expected = compare(laid_on(a, ground), laid_on(b, ground), ["swd", "ms_ssim"])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.numbers == theirs.numbers
        assert ours.definition == theirs.definition | {"background": "#{:02x}{:02x}{:02x}".format(*ground)}
        assert ours.images["background"] == ours.definition["background"]
        assert ours.key() != theirs.key()


def test_folders_of_cut_outs(tmp_path: Path) -> None:
    a, b = cut_outs(20), cut_outs(20, seed=1)
    found = compare(folder_of(tmp_path / "a", a), folder_of(tmp_path / "b", b), ["swd"])
    assert found[0].numbers == compare(a, b, ["swd"])[0].numbers


def test_a_generator_of_cut_outs() -> None:
    G = tiny()
    plain = GeneratedImages(G, seed=5)
    laid = plain.on(RED)
    indices = np.arange(4)
    np.testing.assert_array_equal(laid.read(indices), laid_on(plain.read(indices), RED))
    assert laid.shape == (3, 16, 16)
    assert laid.fingerprint != plain.fingerprint
    gray = tiny(3)
    assert (same := GeneratedImages(gray)).on(RED) is same
    result = evaluate(G, cut_outs(20), ["swd"], n=20)[0]
    assert result.definition["background"] == "#ffffff"
    assert all(np.isfinite(list(result.numbers.values())))


def test_paths_of_cut_outs_are_followed_on_the_ground() -> None:
    seen: list[torch.Size] = []

    def features(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape)
        return images.mean(dim=(2, 3))

    evaluate(tiny(), None, ["ppl"], n=4, extractor=Extractor(features, "means"))
    assert {shape[1] for shape in seen} == {3}


def test_what_can_be_measured_is_and_what_cannot_is_said() -> None:
    def features(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :8]

    small = cut_outs(20, 3, side=8)
    found = compare(
        small, cut_outs(20, 3, side=8, seed=1), ["swd", "kid"], extractor=Extractor(features, "few")
    )
    assert not found[0].numbers
    assert found[0].notes[0].startswith("swd is not measured: ")
    assert found[1].numbers
    with pytest.raises(DataError, match="8x8"):
        compare(small, small, ["swd", "ms_ssim"])


def test_monitor_measures_cut_outs_and_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "p", cut_outs(40))
    listener = Listener()
    run = progan.train(
        folder, tmp_path / "run", reporter=listener,
        options=options(monitor={"metrics": ["swd", "ms_ssim"], "interval_kimg": 0.05}),
    )  # fmt: skip
    lines = (run / "stats.jsonl").read_text()
    assert "swd" in lines
    packed = PackedSet.open(next((tmp_path / "p.progan").iterdir()))
    assert packed.channels == 4
    monitor = Monitor(packed, ["swd"], n=20)
    assert monitor.left_out == {}
    assert any(name.startswith("swd") for name in monitor.measure(tiny()))
    tiny_set = folder_of(tmp_path / "q", cut_outs(40, side=8))
    with pytest.raises(DataError, match=r"no metric of monitor\.metrics can be measured: swd.*--monitor\.m"):
        progan.train(tiny_set, tmp_path / "small", options=options(monitor={"metrics": ["swd"]}))
    # What is never reached counts as little as what is not there; what comes later is said at the start.
    assert "swd and ms_ssim: measured from 16x16 on, not defined for smaller images" in listener.said
    dry = ["train", str(folder), "--out", str(tmp_path / "dry"), "--dry-run"]
    dry += words(options(monitor={"metrics": ["swd"]}))
    with pytest.raises(SystemExit):
        main(dry)
    assert "swd: measured from 16x16 on" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([*dry, "--kimg", "0.1"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "not measured, as it is not defined for any size of this run: swd: Images of 8x8" in shown


def test_arrays_keep_their_transparency_until_they_are_laid() -> None:
    images = ArrayImages(cut_outs(3), "x")
    assert images.shape == (4, 16, 16)
    assert images.on(RED).read(np.arange(3)).shape == (3, 3, 16, 16)

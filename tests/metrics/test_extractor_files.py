"""Extractors from files: found, fetched, verified, read without pickle; what is wrong with them in words."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from progan.errors import CheckpointError, DataError, StorageError
from progan.metrics import extractor_files
from progan.metrics.extractor_files import (
    INCEPTION,
    PublishedFile,
    extractor_from_file,
    find_published,
    inception,
)
from progan.system.files import cache_folder


class Tiny(nn.Module):
    """Eight numbers of an image of 4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 48 * 8).reshape(48, 8))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


class TinyInception(nn.Module):
    """Called like the published network: features, or probabilities with or without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 5)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        if use_fp16:
            img = img.half()
        features = img.to(torch.float32).mean([2, 3]) / 255
        if return_features:
            return features
        bias = None if no_output_bias else self.output.bias
        return torch.softmax(nn.functional.linear(features, self.output.weight, bias), dim=1)


IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 3, 4, 4), dtype=np.uint8)


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.fixture(scope="module", name="exported")
def exported_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "my net.pt2"
    dynamic = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(Tiny(), (torch.zeros(2, 3, 4, 4),), dynamic_shapes=dynamic), path)
    return path


@pytest.fixture(name="published")
def published_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """A tiny network published in a folder in place of the real one, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    path = script(TinyInception(), tmp_path / "web.pt")
    published = PublishedFile(INCEPTION.name, path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(extractor_files, "INCEPTION", published)
    return published


def expected_features() -> Tensor:
    return torch.from_numpy(IMAGES).float().flatten(1) @ Tiny().weight.detach()


def test_a_torchscript_file_is_named_by_stem_and_hash(tmp_path: Path) -> None:
    path = script(Tiny(), tmp_path / "my net.pt")
    extractor = extractor_from_file(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.name == f"my-net-{sha256[:8]}"
    assert extractor.definition()["extractor_sha256"] == sha256
    assert torch.allclose(extractor(IMAGES), expected_features(), rtol=1e-4)


def test_an_exported_file_takes_any_number_of_images(exported: Path) -> None:
    extractor = extractor_from_file(exported, name="mine", resize="bilinear:4", normalisation="0..1", batch=4)
    assert extractor.name == "mine_bilinear4_0..1"
    features = extractor(IMAGES)  # 4 and 1
    assert torch.allclose(features, expected_features() / 255, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_not_taken_for_a_wrong_size(
    error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = extractor_from_file(script(Tiny(), tmp_path / "x.pt"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch.jit.ScriptModule, "__call__", fail)
    with pytest.raises(DataError, match=r"not enough memory on cpu .*x\.pt.*smaller batch"):
        extractor(IMAGES)


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_images_of_a_wrong_size_are_an_error_in_words(kind: str, tmp_path: Path, exported: Path) -> None:
    path = exported if kind == "exported" else script(Tiny(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"failed on images \[2, 3, 8, 8\].*resize rule"):
        extractor_from_file(path)(np.zeros((2, 3, 8, 8), dtype=np.uint8))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no extractor .*none\.pt"):
        extractor_from_file(tmp_path / "none.pt")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_cut_off_file_is_damaged(kind: str, keep: float, tmp_path: Path, exported: Path) -> None:
    whole = (exported if kind == "exported" else script(Tiny(), tmp_path / "whole.pt")).read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(CheckpointError, match="damaged"):
        extractor_from_file(path)


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_an_archive_with_a_part_missing_is_damaged(kind: str, tmp_path: Path, exported: Path) -> None:
    source = exported if kind == "exported" else script(Tiny(), tmp_path / "whole.pt")
    path = tmp_path / "holes.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            if not item.endswith(("data.pkl", "weights_config.json", "serialized_state_dict.pt")):
                new.writestr(item, old.read(item))
    with pytest.raises(CheckpointError, match="damaged"):
        extractor_from_file(path)


def test_weights_alone_are_no_network(tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"only its weights.*torch\.jit\.save"):
        extractor_from_file(tmp_path / "weights.pth")


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def with_a_bomb(exported: Path, path: Path, mark: Path) -> Path:
    """Put a bomb in the place of the example inputs, which no one needs but which are unpickled."""
    torch.save(({"x": Bomb(mark)}, {}), path.with_suffix(".inputs"))
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            inputs = "inputs" in item and item.endswith(".pt")
            new.writestr(item, path.with_suffix(".inputs").read_bytes() if inputs else old.read(item))
    return path


def test_a_pickle_in_an_exported_file_is_not_read(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    path = with_a_bomb(exported, tmp_path / "bomb.pt2", mark)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with pytest.raises(CheckpointError, match=r"bomb\.pt2 has pickled objects"):
        extractor_from_file(path)
    assert not mark.exists()
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"


def test_pickled_objects_in_an_exported_file_are_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "objects.pt2"
    path.write_bytes(exported.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("my net/data/constants/opaque_obj_0", pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(CheckpointError, match="pickled objects"):
        extractor_from_file(path)


def test_inception_is_called_as_stylegan2_ada_does(published: PublishedFile) -> None:
    both = inception(download=True)
    torch.manual_seed(0)
    module = TinyInception()
    pixels = torch.from_numpy(IMAGES)
    assert both.features.name == both.probabilities.name == "inception-2015-12-05"
    assert both.features.definition()["extractor_sha256"] == published.sha256
    with torch.no_grad():
        assert torch.allclose(both.features(IMAGES), module(pixels, return_features=True))
        assert torch.allclose(both.probabilities(IMAGES), module(pixels, no_output_bias=True))


def test_a_download_is_kept_and_found_again(published: PublishedFile, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    place = find_published(published, download=True, progress=lambda *state: told.append(state))
    size = place.stat().st_size
    assert place == cache_folder() / INCEPTION.name == tmp_path / "cache" / "progan" / INCEPTION.name
    assert told[-1] == ("downloading the extractor", size, size)
    (tmp_path / "web.pt").unlink()
    assert find_published(published, download=True) == find_published(published) == place
    assert [file.name for file in place.parent.iterdir()] == [INCEPTION.name]


def test_without_xdg_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "progan"


def test_a_given_path_or_folder_is_used(published: PublishedFile, tmp_path: Path) -> None:
    assert find_published(published, tmp_path / "web.pt") == tmp_path / "web.pt"
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "web.pt").rename(folder / INCEPTION.name)
    assert find_published(published, folder) == folder / INCEPTION.name


def test_a_missing_file_says_where_it_was_looked_for_and_how_to_get_it(
    published: PublishedFile, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_published(published)
    for words in (
        "no path was given",
        str(cache_folder() / INCEPTION.name),
        "--extractor",
        "--download",
        published.url,
    ):
        assert words in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        find_published(published, tmp_path / "not here.pt", download=True)
    for words in (str(tmp_path / "not here.pt"), str(cache_folder()), published.url):
        assert words in str(caught.value)


def test_another_file_in_its_place_is_not_taken(published: PublishedFile) -> None:
    place = cache_folder() / INCEPTION.name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"an error page")
    found = hashlib.sha256(b"an error page").hexdigest()
    for download in (False, True):
        with pytest.raises(CheckpointError, match=f"damaged or another file.*{found}.*{published.sha256}"):
            inception(download=download)


def test_a_damaged_download_leaves_nothing_behind(published: PublishedFile, tmp_path: Path) -> None:
    web = tmp_path / "web.pt"
    web.write_bytes(web.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"web\.pt gave is damaged"):
        find_published(published, download=True)
    assert list(cache_folder().iterdir()) == []


def test_a_download_that_fails_says_why_and_where_to_put_the_file(
    published: PublishedFile, tmp_path: Path
) -> None:
    (tmp_path / "web.pt").unlink()
    with pytest.raises(CheckpointError, match=r"cannot download .*web\.pt: .*No such file.*put it at"):
        find_published(published, download=True)
    assert list(cache_folder().iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_storage_error(published: PublishedFile, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        find_published(published, download=True)


def test_the_published_file_is_the_one_of_stylegan2_ada() -> None:
    assert INCEPTION.sha256 == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert INCEPTION.url.endswith(f"/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION.name}")

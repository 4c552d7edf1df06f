"""A weight file is all that is needed, and a bad one is an error in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from progan.data.pixels import to_uint8
from progan.errors import CheckpointError, StorageError
from progan.generation.sampling import generate
from progan.models.averaged import GENERATOR_FILE
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.loading import load, load_network
from progan.models.weights import FORMAT, HUB_FILE, save
from progan.system.tensor_file import KEY, digest, read_header


@pytest.fixture(name="G")
def small_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(
        channels=2,
        base_shape=(4, 6),
        max_level=2,
        label_size=2,
        latent_size=5,
        fmap_base=64,
        fmap_decay=0.5,
        fmap_max=8,
        normalize_latents=False,
        pixel_norm=False,
        level=1,
        alpha=0.25,
        label_names=("cat", "dög"),
    )


def same(first: Generator, second: Generator) -> bool:
    """Whether two generators have one description, one set of bits and one output."""
    z, labels = torch.randn(3, first.latent_size), torch.eye(2)[[0, 1, 0]]
    tensors, others = first.state_dict(), second.state_dict()
    return (
        first.config() == second.config()
        and list(tensors) == list(others)
        and all(torch.equal(value, others[name]) for name, value in tensors.items())
        and torch.equal(first.place("cpu")(z, labels), second.place("cpu")(z, labels))
    )


def write_foreign(
    path: Path, G: Generator, config: Any, *, form: str = FORMAT, network: Any = "Generator"
) -> Path:
    """Write a file, with the right checksum, that holds the weights of G and another description."""
    record = {"network": network, "config": config}
    header = {"format": form, "record": record, "sha256": digest(record, G.state_dict())}
    save_file(G.state_dict(), path, metadata={KEY: json.dumps(header)})
    return path


def test_a_file_is_all_that_is_needed(tmp_path: Path, G: Generator) -> None:
    path = tmp_path / "new" / "g.safetensors"
    save(G, path)
    read = load(str(path))
    assert same(read, G)
    assert read.label_names == ("cat", "dög")
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_the_header_can_be_read_without_progan(tmp_path: Path, G: Generator) -> None:
    save(G, tmp_path / "g.safetensors")
    header = read_header(tmp_path / "g.safetensors")
    assert header["format"] == FORMAT
    assert header["record"] == {"network": "Generator", "config": G.config()}


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, G: Generator) -> None:
    for name in ("a", "b"):
        save(G, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_flipped_bit_is_found(tmp_path: Path, G: Generator) -> None:
    path = tmp_path / "g.safetensors"
    save(G, path)
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(whole), size=200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError, match=r"g\.safetensors"):
            load(path)


def test_a_run_folder_stands_for_its_generator(tmp_path: Path, G: Generator) -> None:
    save(G, tmp_path / GENERATOR_FILE)
    assert same(load(tmp_path), G)


def test_hub_folder(tmp_path: Path, G: Generator) -> None:
    assert G.save_pretrained(tmp_path) is None
    assert json.loads((tmp_path / "config.json").read_text()) == G.config()
    assert same(load(tmp_path), G)
    assert same(load(tmp_path / HUB_FILE), G)
    assert same(Generator.from_pretrained(tmp_path), G)


def test_growth_after_building_is_saved(tmp_path: Path, G: Generator) -> None:
    G.set_growth(2, 0.5)
    save(G, tmp_path / "g")
    G.save_pretrained(tmp_path / "hub")
    for read in (load(tmp_path / "g"), load(tmp_path / "hub"), Generator.from_pretrained(tmp_path / "hub")):
        assert (read.level, read.alpha) == (2, 0.5)


def test_discriminator(tmp_path: Path) -> None:
    D = Discriminator(max_level=1, fmap_base=64, fmap_max=8, stddev_group=2)
    save(D, tmp_path / "d.safetensors")
    D.save_pretrained(tmp_path / "hub")
    for path in (tmp_path / "d.safetensors", tmp_path / "hub" / HUB_FILE):
        read = load_network(path)
        assert isinstance(read, Discriminator)
        assert read.config() == D.config()
        with pytest.raises(CheckpointError, match="holds a Discriminator, not a Generator"):
            load(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_become_float32(tmp_path: Path, G: Generator, dtype: torch.dtype) -> None:
    save(G.to(dtype), tmp_path / "g")
    read = load(tmp_path / "g")
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    assert torch.equal(read.dense.weight, G.dense.weight.float())


OLD_KEYS = {
    "channels",
    "base_shape",
    "max_level",
    "label_size",
    "fmap_base",
    "fmap_decay",
    "fmap_max",
    "latent_size",
    "normalize_latents",
    "pixel_norm",
    "stddev_group",
    "downscale",
    "level",
    "alpha",
    "label_names",
}


def test_files_of_before_there_were_more_options(tmp_path: Path, G: Generator) -> None:
    old = {name: value for name, value in G.config().items() if name in OLD_KEYS}
    assert same(load(write_foreign(tmp_path / "g", G, old)), G)
    D = Discriminator(max_level=1, fmap_base=64, fmap_max=8, label_size=2, downscale="separate")
    D.save_pretrained(tmp_path)
    old = {name: value for name, value in D.config().items() if name in OLD_KEYS}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert load_network(tmp_path / HUB_FILE).config() == D.config()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no generator\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 8, 200, -1])
def test_files_cut_short(tmp_path: Path, G: Generator, kept: int) -> None:
    path = tmp_path / "g.safetensors"
    save(G, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"g\.safetensors"):
        load(path)


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + b"0" * 99, b"\x80\x04K*.", b"PK\x03\x04" + b"0" * 99]
)
def test_files_of_another_kind(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(tmp_path / "x")


def test_a_safetensors_file_of_somebody_else(tmp_path: Path, G: Generator) -> None:
    for name, metadata in (("model.safetensors", None), ("x", {"format": "pt"})):
        save_file(G.state_dict(), tmp_path / name, metadata=metadata)
        with pytest.raises(CheckpointError, match="has the format None"):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match="no progan weight file"):
        load(write_foreign(tmp_path / "y", G, G.config(), network="Encoder"))
    with pytest.raises(CheckpointError, match="no progan weight file"):
        load(write_foreign(tmp_path / "y", G, G.config(), network=["Generator"]))


def test_a_newer_format(tmp_path: Path, G: Generator) -> None:
    with pytest.raises(CheckpointError, match=r"newer progan \(format progan-weights-9, this one"):
        load(write_foreign(tmp_path / "x", G, G.config(), form="progan-weights-9"))


@pytest.mark.parametrize(
    "change",
    [
        {"max_level": 3},
        {"max_level": 1},
        {"max_level": -1},
        {"max_level": "2"},
        {"max_level": 5000},
        {"channels": 3},
        {"latent_size": 10**30},
        {"latent_size": -3},
        {"base_shape": [4, 4]},
        {"base_shape": 4},
        {"fmap_base": float("inf")},
        {"fmap_max": float("nan")},
        {"alpha": float("nan")},
        {"label_names": ["cat"]},
        {"unknown": 1},
        {"latent_size": 0},
        {"latent_size": 2.5},
        {"fmap_base": 0},
        {"fmap_base": 10**400},
        {"fmap_max": 0},
        {"fmap_decay": -4000},
        {"fmap_decay": 1e300},
        {"fmap_decay": float("inf")},
        {"level": 1.0},
        {"label_names": [1, 2]},
        {"label_form": "classes"},
        {"label_form": []},
        {"kernel_size": 5},
        {"kernel_size": 4},
        {"kernel_size": 10**9 + 1},
        {"activation": "eval"},
        {"leaky_slope": float("nan")},
        {"bias": False},
        {"bias": "perhaps"},
        {"dense_gain": float("inf")},
    ],
)
def test_a_description_that_does_not_fit(tmp_path: Path, G: Generator, change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="do not fit their description"):
        load(write_foreign(tmp_path / "x", G, {**G.config(), **change}))


@pytest.mark.parametrize("text", ["{", "", "3", "null", "[]", '"x"', "[" * 100_000])
def test_a_description_that_is_none(tmp_path: Path, G: Generator, text: str) -> None:
    save_file(G.state_dict(), tmp_path / "x", metadata={KEY: text})
    with pytest.raises(CheckpointError, match="x"):
        load(tmp_path / "x")
    G.save_pretrained(tmp_path / "hub")
    (tmp_path / "hub" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cannot be read|describes no network"):
        load(tmp_path / "hub")


@pytest.mark.parametrize("config", [None, 3, [], "x"])
def test_a_description_of_another_type(tmp_path: Path, G: Generator, config: Any) -> None:
    with pytest.raises(CheckpointError, match="describes no network"):
        load(write_foreign(tmp_path / "x", G, config))


def test_from_pretrained_reads_what_is_there(tmp_path: Path, G: Generator) -> None:
    save(G, tmp_path / GENERATOR_FILE)
    assert same(Generator.from_pretrained(tmp_path), G)
    assert same(Generator.from_pretrained(tmp_path / GENERATOR_FILE), G)
    with pytest.raises(CheckpointError, match="holds a Generator, not a Discriminator"):
        Discriminator.from_pretrained(tmp_path)


def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, G: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.safetensors"
    save(G, path)
    old = path.read_bytes()

    def full(_: Any, path: Path, **__: Any) -> None:
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("progan.system.tensor_file.save_file", full)
    with pytest.raises(StorageError, match="no space left"):
        save(G, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_loaded_network_is_laid_out_for_speed(tmp_path: Path, G: Generator) -> None:
    save(G, tmp_path / "a")
    G.save_pretrained(tmp_path / "hub")
    read = load(tmp_path / "a")
    assert read.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not read.conv.weight.is_contiguous()
    # The layout is none of the file's business.
    save(read, tmp_path / "b")
    read.save_pretrained(tmp_path / "hub2")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "hub" / HUB_FILE).read_bytes() == (tmp_path / "hub2" / HUB_FILE).read_bytes()

    z, labels = torch.randn(3, 5), torch.eye(2)[[0, 1, 0]]
    torch.testing.assert_close(read(z, labels), G(z, labels))
    assert np.abs(to_uint8(read(z, labels)).astype(int) - to_uint8(G(z, labels))).max() <= 1
    first, second = (np.concatenate(list(generate(load(tmp_path / name), 9))) for name in "ab")
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"stddev_group": -1},
        {"downscale": "bilinear"},
        {"fmap_decay": -1.0},
        {"stddev_features": 3},
        {"conditioning": "projection"},
        {"conditioning": "concat"},
        {"kernel_size": 17},
    ],
)
def test_a_discriminator_that_does_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    D = Discriminator(max_level=1, fmap_base=64, fmap_max=8)
    D.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**D.config(), **change}))
    with pytest.raises(CheckpointError, match=f"do not fit their description.*{next(iter(change))}"):
        load_network(tmp_path / HUB_FILE)


def test_a_name_on_the_hub_loads_like_a_path(
    tmp_path: Path, G: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    G.save_pretrained(tmp_path / "snapshot")
    asked: list[tuple[str, dict[str, Any]]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("progan.models.hub.snapshot_download", fetch)
    read = Generator.from_pretrained("somebody/cats", revision="v1")
    assert same(read, G)
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    files = ["config.json", GENERATOR_FILE, HUB_FILE]
    assert asked == [("somebody/cats", {"revision": "v1", "allow_patterns": files})]
    with pytest.raises(CheckpointError, match="somebody/cats holds a Generator, not a Discriminator"):
        Discriminator.from_pretrained("somebody/cats")
    for name in ("somebody/cats", tmp_path / "snapshot"):
        with pytest.raises(TypeError, match="takes no map_location, strict"):
            Generator.from_pretrained(name, strict=True, map_location="cpu")
    assert len(asked) == 2


def test_a_name_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no/such/path", "no such name"):
        with pytest.raises(CheckpointError, match=f"{name}: no such file or folder, and .*HFValidationError"):
            Generator.from_pretrained(name)
    with pytest.raises(
        CheckpointError, match="somebody/cats: no such file or folder, and it cannot be fetched"
    ):
        Generator.from_pretrained("somebody/cats", local_files_only=True, cache_dir=tmp_path)

    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("the network\nis down")

    monkeypatch.setattr("progan.models.hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match="the network is down"):
        Generator.from_pretrained("somebody/cats")


def test_the_model_card_says_what_it_is(tmp_path: Path, G: Generator) -> None:
    G.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for part in ("library_name: progan", "Generator of 8x12 images", "labels: cat, dög", "1710.10196"):
        assert part in card
    assert "More Information Needed" not in card


def test_push_to_hub_uploads_what_is_saved(
    tmp_path: Path, G: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        def __init__(self, **_: Any) -> None:
            pass

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, **_: Any) -> str:
            assert same(load(folder_path), G)
            return "address"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert G.push_to_hub("somebody/cats") == "address"
    assert G.save_pretrained(tmp_path / "cats", push_to_hub=True) == "address"


@pytest.mark.parametrize("level", [0, 1, None])
def test_a_trimmed_generator_makes_the_same_images(level: int | None) -> None:
    torch.manual_seed(0)
    G = Generator(
        max_level=3, fmap_base=64, fmap_max=8, label_size=2, label_form="vector", level=2, alpha=0.25
    )
    G.label_examples.normal_()
    small, z, labels = G.trimmed(level), torch.randn(2, G.latent_size), torch.randn(2, 2)
    torch.testing.assert_close(small(z, labels), G(z, labels, level=level), rtol=0, atol=0)
    assert small.max_level == small.level == (2 if level is None else level)
    assert small.alpha == (0.25 if level is None else 1.0)
    assert torch.equal(small.label_examples, G.label_examples)
    assert small.conv.weight.data_ptr() == G.conv.weight.data_ptr()
    assert G.conv.weight.requires_grad
    with pytest.raises(ValueError, match="has grown to level 2"):
        G.trimmed(3)

"""Weights of others: the original code's pickles, state dicts of PyTorch, and what is wrong with either."""

from __future__ import annotations

import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_weights import Arrays, at_lod, golden
from progan import Discriminator, Generator, import_weights, load, save
from progan.__main__ import main
from progan.errors import CheckpointError, ConfigError, ProganError
from progan.models.loading import load_network

ORDER = ("G", "D", "Gs")


class Network:
    """What `tfutil.Network` of the original is to a pickle: a class with `__getstate__`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __getstate__(self) -> dict[str, Any]:
        return self.state


@pytest.fixture(autouse=True)
def tfutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of that name, for writing; reading must do without."""
    module = types.ModuleType("tfutil")
    monkeypatch.setattr(Network, "__module__", "tfutil")
    module.Network = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tfutil", module)


def state_of(arrays: Arrays, network: str, **changes: Any) -> dict[str, Any]:
    """What `__getstate__` of the original gives for a network of the golden files."""
    kind = "D" if network == "D" else "G"
    start = f"{kind}.vars/"
    variables = [(key.removeprefix(start), arrays[key][()]) for key in arrays if key.startswith(start)]
    state = {
        "version": 2,
        "name": network,
        "static_kwargs": json.loads(str(arrays[f"{kind}.static_kwargs_json"])),
        "build_module_src": "raise SystemExit('the source was run')",
        "build_func_name": f"{kind}_paper",
        "variables": variables,
    }
    return {**state, **changes}


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def triple(config: str) -> tuple[Network, ...]:
    return tuple(Network(state_of(golden(f"networks_{config}"), name)) for name in ORDER)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("config", list("ABC"))
def test_networks_of_the_original_make_its_images(tmp_path: Path, config: str, protocol: int) -> None:
    arrays = golden(f"networks_{config}")
    path = write(tmp_path / "network.pkl", triple(config), protocol)
    del sys.modules["tfutil"]
    G, D = import_weights(path), import_weights(path, "D")
    save(G, tmp_path / "g.safetensors")
    G = load(tmp_path / "g.safetensors")
    assert isinstance(D, Discriminator)
    z, labels, images = (torch.from_numpy(arrays[key]) for key in ("latents", "labels", "images_in"))
    made = G(z, labels)
    scores, logits = D(images)
    for ours, theirs in ((made, "G.images"), (scores[:, None], "D.scores"), (logits, "D.labels")):
        np.testing.assert_allclose(ours.numpy(), arrays[f"{theirs}/lod=0/f32"], rtol=0, atol=5e-5)


def test_a_network_that_was_still_fading(tmp_path: Path) -> None:
    arrays, lod = golden("networks_A"), 0.35
    state = state_of(arrays, "G")
    state["variables"] = [(n, np.float32(lod) if n == "lod" else v) for n, v in state["variables"]]
    G = import_weights(write(tmp_path / "g.pkl", Network(state)))
    level, alpha = at_lod(lod, 3, torch.float32)
    assert G.level == level
    assert G.alpha == pytest.approx(float(alpha or 0))
    made = G(torch.from_numpy(arrays["latents"])).detach().numpy()
    np.testing.assert_allclose(made, arrays["G.images/lod=0.35/f32"], rtol=0, atol=5e-5)


def test_one_of_three_is_taken(tmp_path: Path) -> None:
    arrays = golden("networks_A")
    networks = triple("A")
    networks[2].state["variables"] = [(n, v * np.float32(2)) for n, v in networks[2].state["variables"]]
    path = write(tmp_path / "network.pkl", networks)
    bias = torch.from_numpy(arrays["G.vars/4x4/Conv/bias"])
    for name, factor in (("G", 1), ("Gs", 2), (None, 2)):
        made = import_weights(path, name)  # type: ignore[arg-type]
        assert torch.equal(made.state_dict()["conv.bias"], bias * factor)
    assert import_weights(write(tmp_path / "one", networks[1]), "D").config()["stddev_group"] == 4
    with pytest.raises(CheckpointError, match="holds a Discriminator; Gs is something else"):
        import_weights(write(tmp_path / "one", networks[1]), "Gs")


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        ({"use_wscale": False}, "equalized_lr", False),
        ({"use_leakyrelu": False}, "activation", "relu"),
        ({"use_pixelnorm": False}, "pixel_norm", False),
        ({"pixelnorm_epsilon": 1e-4}, "pixel_norm_eps", 1e-4),
        ({"normalize_latents": False}, "normalize_latents", False),
        ({"fused_scale": False}, "upscale", "separate"),
        ({"structure": "linear", "of_later_versions": 3}, "upscale", "fused"),
    ],
)
def test_arguments_of_the_original(
    tmp_path: Path, arguments: dict[str, Any], option: str, value: Any
) -> None:
    state = state_of(golden("networks_A"), "G")
    state["static_kwargs"] |= arguments
    assert import_weights(write(tmp_path / "g", Network(state))).config()[option] == value


@pytest.mark.parametrize(("group", "expected"), [(1, 0), (0, 0), (8, 8)])
def test_groups_of_the_original(tmp_path: Path, group: int, expected: int) -> None:
    state = state_of(golden("networks_A"), "D")
    state["static_kwargs"]["mbstd_group_size"] = group
    if expected == 0:  # without the statistic there is one feature map less
        cut = {"4x4/Conv/weight": slice(0, -1)}
        state["variables"] = [(n, v[:, :, cut[n]] if n in cut else v) for n, v in state["variables"]]
    assert import_weights(write(tmp_path / "d", Network(state)), "D").config()["stddev_group"] == expected


OBJECTS = np.array([None, 1], dtype=object)
FIELDS = np.zeros(3, dtype=[("a", "f4")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"build_func_name": "G_mine"}, "the function 'G_mine', not by G_paper"),
        ({"build_func_name": ["G_paper"]}, "the function .'G_paper'., not by"),
        ({"static_kwargs": None}, "with the arguments None"),
        ({"static_kwargs": {"resolution": 24}}, "24 pixels"),
        ({"static_kwargs": {"resolution": 2**40}}, "resolution"),
        ({"static_kwargs": {"resolution": True}}, "resolution"),
        ({"static_kwargs": {"num_channels": "3"}}, "num_channels"),
        ({"static_kwargs": {"fused_scale": 1}}, "fused_scale"),
        ({"static_kwargs": {"fmap_decay": []}}, "fmap_decay"),
        ({"variables": {}}, "no list of variables"),
        ({"variables": [("lod",)]}, "variables without names"),
        ({"variables": [("lod", "x")]}, "'lod' is no array of numbers"),
        ({"variables": [("lod", 0.0), ("lod", 0.0)]}, "there twice"),
        ({"variables": [("lod", np.zeros(2))]}, "lod out of range"),
        ({"variables": [("lod", np.float32("nan"))]}, "lod out of range"),
        ({"variables": [("12x12/Conv0/weight", np.zeros(2))]}, "unknown variable '12x12/Conv0/weight'"),
        ({"variables": [("4x4/__class__/bias", np.zeros(2))]}, "unknown variable"),
        ({"variables": [("8x8/Conv9/bias", np.zeros(2))]}, "unknown variable"),
        ({"variables": [("../ToRGB_lod0/bias", np.zeros(2))]}, "unknown variable"),
        ({"variables": [("4x4/Conv/bias", np.zeros(2, int))]}, "no array of numbers"),
        (
            {"variables": [("4x4/Conv/bias", np.full(32, np.nan))]},
            "conv.bias holds values that are not",
        ),
        ({"variables": [("4x4/Conv/bias", OBJECTS)]}, "something else than plain numbers"),
        ({"variables": [("4x4/Conv/bias", FIELDS)]}, "something else than plain numbers"),
        ({"variables": [("4x4/Conv/bias", np.zeros(5))]}, "do not fit their description"),
        ({"variables": []}, "do not fit their description"),
    ],
)
def test_networks_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "g.pkl", Network(state_of(golden("networks_A"), "G", **change)))
    with pytest.raises(CheckpointError, match=message) as caught:
        import_weights(path)
    assert "g.pkl" in str(caught.value)


@pytest.fixture(name="G")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(channels=1, max_level=1, fmap_base=16, fmap_max=8, latent_size=3, pixel_norm=False)


def test_a_state_dict_with_its_description(tmp_path: Path, G: Generator) -> None:
    path = tmp_path / "g.pt"
    for key in ("state_dict", "weights"):
        torch.save({"config": G.config(), key: G.state_dict(), "epoch": 3}, path)
        read = import_weights(path)
        assert read.config() == G.config()
        assert torch.equal(read(torch.ones(1, 3)), G.place("cpu")(torch.ones(1, 3)))
        assert not read.training
    with pytest.raises(ConfigError, match="leave out --like"):
        import_weights(path, like=path)
    D = Discriminator(max_level=1, fmap_base=16, fmap_max=8)
    torch.save({"config": D.config(), "state_dict": D.state_dict()}, path)
    assert import_weights(path).config() == D.config()
    with pytest.raises(CheckpointError, match="holds a Discriminator; G is something else"):
        import_weights(path, "G")


def test_a_state_dict_alone_needs_a_description(tmp_path: Path, G: Generator) -> None:
    path = tmp_path / "g.pt"
    parameters = OrderedDict((name, torch.nn.Parameter(value)) for name, value in G.state_dict().items())
    save(G, tmp_path / "like.safetensors")
    G.save_pretrained(tmp_path / "hub")
    for content in (G.state_dict(), dict(G.state_dict()), parameters):
        torch.save(content, path)
        with pytest.raises(ConfigError, match="give --like"):
            import_weights(path)
        for like in ("like.safetensors", "hub/config.json"):
            read = import_weights(path, like=tmp_path / like)
            assert read.config() == G.config()
            assert all(torch.equal(v, G.state_dict()[n]) for n, v in read.state_dict().items())
    (tmp_path / "none.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"none\.json cannot be read"):
        import_weights(path, like=tmp_path / "none.json")
    other = Generator(channels=1, max_level=2, fmap_base=16, fmap_max=8, latent_size=3)
    save(other, tmp_path / "other")
    with pytest.raises(CheckpointError, match="do not fit their description"):
        import_weights(path, like=tmp_path / "other")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_kinds_and_layouts(tmp_path: Path, G: Generator, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype).flip(0) for name, value in G.state_dict().items()}
    shared = torch.cat([value.flatten() for value in tensors.values()])
    start, views = 0, {}
    for name, value in tensors.items():
        view = shared[start : start + value.numel()].view(value.shape)  # of one storage
        views[name] = view.to(memory_format=torch.channels_last) if view.ndim == 4 else view
        start += value.numel()
    torch.save({"config": G.config(), "state_dict": views}, tmp_path / "g.pt")
    read = import_weights(tmp_path / "g.pt").state_dict()
    assert all(torch.equal(read[name], value.float()) for name, value in tensors.items())


def rewrite(path: Path, change: Any, method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip file again, each entry changed by `change(name, data)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)


def without(part: str) -> Any:
    return lambda name, data: None if name.endswith(part) else data


def replaced(part: str, new: bytes) -> Any:
    return lambda name, data: new if name.endswith(part) else data


@pytest.mark.parametrize(
    ("change", "method", "message"),
    [
        (without("data.pkl"), zipfile.ZIP_STORED, "is a zip archive that holds g/.*, and not one data.pkl"),
        (without("data/0"), zipfile.ZIP_STORED, "lacks the entry 'data/0'"),
        (replaced("data/0", b"1234"), zipfile.ZIP_STORED, "4 bytes for"),
        (replaced("byteorder", b"big"), zipfile.ZIP_STORED, "big-endian"),
        (lambda _, data: data, zipfile.ZIP_DEFLATED, "compressed, which torch.save never does"),
        (replaced("data.pkl", pickle.dumps([1])), zipfile.ZIP_STORED, "holds a list of 1"),
        (replaced("data.pkl", pickle.dumps({})), zipfile.ZIP_STORED, "holds an empty dict"),
        (replaced("data.pkl", pickle.dumps({"a": 1})), zipfile.ZIP_STORED, "with the entries a, and no"),
        (replaced("data.pkl", b"\x80\x02K"), zipfile.ZIP_STORED, "cut short"),
    ],
)
def test_archives_that_are_none(tmp_path: Path, G: Generator, change: Any, method: int, message: str) -> None:
    path = tmp_path / "g.pt"
    torch.save({"config": G.config(), "state_dict": G.state_dict()}, path)
    rewrite(path, change, method)
    with pytest.raises(CheckpointError, match=message):
        import_weights(path)


def test_encrypted_archives_are_refused(tmp_path: Path, G: Generator) -> None:
    path = tmp_path / "g.pt"
    torch.save(G.state_dict(), path)
    rewrite(path, lambda _, data: data)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # of the first entry, which is the pickle
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"its entry 'data\.pkl' cannot be read .*encrypted"):
        import_weights(path)


def test_whole_modules_are_refused_in_words(tmp_path: Path, G: Generator) -> None:
    torch.save(G, tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"asks for 'progan\.models\.generator\.Generator'"):
        import_weights(tmp_path / "module.pt")
    save(G, tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match="is a safetensors file"):
        import_weights(tmp_path / "g.safetensors")


def test_a_description_that_contains_itself(tmp_path: Path, G: Generator) -> None:
    config: dict[str, Any] = G.config()
    config["label_names"] = [config]
    torch.save({"config": config, "state_dict": G.state_dict()}, tmp_path / "g.pt")
    with pytest.raises(CheckpointError, match="other entries than numbers, text"):
        import_weights(tmp_path / "g.pt")


@pytest.mark.parametrize("data", [b"", b"\x80", b"hello", b"PK\x03\x04", b"(lp0\n.", b"\x80\x01."])
def test_files_of_another_kind(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(CheckpointError, match="x is not imported: it is"):
        import_weights(tmp_path / "x")
    for path, said in ((tmp_path / "nothing", "cannot be read"), (tmp_path, "it is a folder, and holds no")):
        with pytest.raises(CheckpointError, match=said):
            import_weights(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "network.pkl", triple("C")), tmp_path / "new" / "g.safetensors"
    with pytest.raises(SystemExit) as done:
        main(["import", str(path), "--out", str(out)])
    assert done.value.code in (0, None)
    assert f"progan generate {out}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["generate", str(out), "--n", "2", "--label", "3", "--out", str(tmp_path / "x.npy")])
    assert np.load(tmp_path / "x.npy").shape == (2, 1, 16, 16)
    with pytest.raises(SystemExit):
        main(["import", str(path), "--network", "D", "-o", str(out)])
    assert isinstance(load_network(out), Discriminator)
    assert "progan generate" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="`progan import` reads weights of others"):
        load(path)
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SystemExit) as done:
        main(["import", str(tmp_path / "bad.pkl")])
    assert done.value.code == ProganError.exit_code
    assert "bad.pkl is not imported" in capsys.readouterr().err

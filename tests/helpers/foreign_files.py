"""Files of other systems for tests, written as those systems write them."""

from __future__ import annotations

import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import h5py
import msgpack
import numpy as np
import pytest
import torch
from torch import Tensor

from foreign import golden, numbers, state_dict


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


class Python2(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its strings, which are both."""

    dispatch: ClassVar[dict[Any, Any]] = pickle._Pickler.dispatch.copy()

    def save_string(self: Any, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        short = len(data) < 256
        self.write((b"U" if short else b"T") + len(data).to_bytes(1 if short else 4, "little") + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


class Network:
    """What `network.Network` of the Theano code is to a pickle."""

    __module__ = "network"

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __getstate__(self) -> dict[str, Any]:
        return self.state


def theano_network(entries: list[Any], seed: int, spec: dict[str, Any], lod: float, func: str) -> Network:
    """Make what the Theano code pickles; an entry without a shape is the constant of a layer."""
    values = [
        np.asarray(numbers(seed + i, *shape) * deviation if shape else deviation, np.float32)
        for i, (_, shape, deviation) in enumerate(entries)
    ]
    return Network(
        {
            "build_func_spec": {"func": func, **spec},
            "build_module_src": "raise SystemExit('the source was run')",
            "param_values": values,
            "toplevel_params": {"cur_lod": np.asarray(lod, np.float32)},
        }
    )


def write_theano(path: Path, networks: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write networks as Python 2 wrote them."""
    with monkeypatch.context() as patch:
        module = types.ModuleType("network")
        module.Network = Network  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "network", module)
        with path.open("wb") as stream:
            Python2(stream, 2).dump(networks)
    return path


def flax_extension(value: Any) -> msgpack.ExtType:
    """Write an array as Flax does: (shape, type, bytes)."""
    array = np.asarray(value)
    packed = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
    return msgpack.ExtType(1, packed)


def flax_parameters(entries: list[Any], seed: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in state_dict(entries, seed).items():
        *path, leaf = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = flax_extension(value.numpy())
    return tree


def described(meta: dict[str, Any]) -> dict[str, Any]:
    """Return what Keras says of a model: here, the layers that decide something."""
    order = "channels_last" if meta["channels_last"] else "channels_first"
    norm = {"name": "block_2/pixel_norm_1", "epsilon": meta["eps"], "data_format": order}
    layers = [
        {"class_name": "WeightScalingWrapper", "config": {}},
        {"class_name": "LeakyReLU", "config": {"alpha": float(np.float32(meta["slope"]))}},
        {"class_name": "PixelNormalization", "config": norm},
        {"class_name": "StandardDeviationLayer", "config": {"epsilon": 1e-8, "data_format": order}},
    ]
    if meta["normalized"]:
        layers.append(
            {"class_name": "PixelNormalization", "config": {**norm, "name": "block_s/pixel_norm_noise"}}
        )
    return {"class_name": "Functional", "config": {"layers": layers}}


def write_keras(path: Path, entries: list[Any], seed: int, config: dict[str, Any] | None) -> Path:
    """Write a model as Keras 2 does: each weight below its layer, under a name of its own.

    An entry without a shape is the constant of a layer.
    """
    with h5py.File(path, "w") as file:
        root = file if config is None else file.create_group("model_weights")
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            root.create_group("block_2/flatten")
        for i, (name, shape, deviation) in enumerate(entries):
            layer, _, leaf = name.rpartition("/")
            values = numbers(seed + i, *shape) * deviation if shape else deviation
            root[f"{layer}/Scaled/{layer}/Scaled/{leaf}:0"] = np.asarray(values, np.float32)
    return path


def write_folders(path: Path, meta: dict[str, Any], place: str) -> Path:
    """Write networks as that code does, and the configuration of its training."""
    for folder, entries, seed in (("G_model_smoothed", meta["G"], 100), ("D_model", meta["D"], 500)):
        (path / place / folder).mkdir(parents=True)
        for name, value in state_dict(entries, seed).items():
            np.save(path / place / folder / f"{name}.npy", value.numpy())
    (path / "config.json").write_text(json.dumps(meta["options"]))
    return path / place


CASES = {
    "gan_zoo": "scale2", "pro_gan_3": "equalized", "pro_gan_2": "equalized", "rosinality": "one",
    "genforce": "plain", "mmagic": "plain", "theano": "plain", "flax": "flax", "matt_roz": "strided",
}  # fmt: skip
"""System -> the case of its golden file that `write_of` writes."""


def write_of(system: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write networks of a system: those that its files hold beside one another."""
    cases = golden(system)[0]
    if system == "varabei":
        return write_folders(folder, cases["default,4,stabilization"], "step8")
    meta = cases[CASES[system]]
    path = folder / f"{system}.file"
    if system == "theano":
        spec = {kind: (meta[kind], seed, meta[f"spec_{kind}"]) for kind, seed in (("G", 100), ("D", 500))}
        networks = [theano_network(*spec[kind], 0.0, f"{kind}_paper") for kind in "GDG"]
        return write_theano(path, tuple(networks), monkeypatch)
    if system == "flax":
        parts = {name: flax_parameters(meta[name[0].upper()], 100) for name in ("g_ema_params", "d_params")}
        path.write_bytes(msgpack.packb(parts))
        return path
    if system == "matt_roz":
        return write_keras(path, meta["G"], 100, described(meta))
    G, D = state_dict(meta["G"], 100), state_dict(meta["D"], 500)
    contents: dict[str, Any] = {
        "gan_zoo": {"config": meta.get("config"), "netG": G, "netD": D, "avgG": G},
        "pro_gan_3": {
            "shadow_generator": {"conf": meta.get("conf_G"), "state_dict": G},
            "discriminator": {"conf": meta.get("conf_D"), "state_dict": D},
        },
        "genforce": {"generator_smooth": G, "discriminator": D},
        "mmagic": {"state_dict": {**prefixed(G, "generator_ema."), **prefixed(D, "discriminator.")}},
    }
    torch.save(contents.get(system, G), path)
    return path

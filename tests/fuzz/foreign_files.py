"""Weights of other systems: mutated files, and files made to ask for more than they weigh."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import numpy as np
import torch

import foreign_files
import hostile
from foreign import golden
from fuzz.mutations import mutate
from fuzz.readers import Reader, as_file, either, of_seeds, small_networks
from progan import import_weights


def import_readers(folder: Path) -> list[Reader]:
    """Pickles of the original code, and what torch.save wrote."""
    seeds = [pickle_of_the_original(protocol) for protocol in (2, 4, 5)]
    G, _ = small_networks()
    stream = io.BytesIO()
    torch.save({"config": G.config(), "state_dict": G.state_dict()}, stream)
    with zipfile.ZipFile(stream) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    names = sorted(entries)

    def of_entry(rng: Random) -> bytes:
        """Mutate one file of the archive, mostly the pickle."""
        pickled = next(name for name in names if name.endswith("data.pkl"))
        chosen = rng.choice((pickled, pickled, rng.choice(names)))
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as file:
            for name, data in entries.items():
                file.writestr(name, mutate(data, rng, seeds) if name == chosen else data)
        return made.getvalue()

    old = io.BytesIO()
    torch.save(
        {"config": G.config(), "state_dict": G.state_dict()}, old, _use_new_zipfile_serialization=False
    )
    return [
        Reader("original pickle", of_seeds(seeds), as_file(folder / "x.pkl", import_weights)),
        Reader("old torch file", of_seeds([old.getvalue()]), as_file(folder / "x.pth", import_weights)),
        Reader("flax file", of_seeds([flax_file()]), as_file(folder / "x.flax", import_weights)),
        Reader("crafted weights", crafted, as_file(folder / "x.bin", import_weights)),
        Reader(
            "torch file",
            either(of_entry, of_seeds([stream.getvalue()])),
            as_file(folder / "x.pt", import_weights),
        ),
        *_tensorflow2(folder),
    ]


def _tensorflow2(folder: Path) -> list[Reader]:
    """Return the readers of what the two systems in TensorFlow 2 write: an HDF5 file, a folder of arrays."""
    meta = golden("matt_roz")[0]["first"]
    path = foreign_files.write_keras(folder / "x.h5", meta["G"], 100, foreign_files.described(meta))
    arrays = golden("varabei")[0]["default,3,fade-in"]
    written = foreign_files.write_folders(folder / "varabei", arrays, "step8") / "G_model_smoothed"
    whole = {one.name: one.read_bytes() for one in sorted(written.iterdir())}

    def make(rng: Random) -> bytes:
        name = rng.choice(list(whole))
        return name.encode() + b"\n" + mutate(whole[name], rng, list(whole.values()))

    def read(data: bytes) -> object:
        name, changed = data.split(b"\n", 1)
        for one, kept in whole.items():
            (written / one).write_bytes(changed if one == name.decode() else kept)
        return import_weights(written)

    return [
        Reader("keras file", of_seeds([path.read_bytes()]), as_file(path, import_weights)),
        Reader("folder of arrays", make, read),
    ]


def flax_file() -> bytes:
    """Return a small generator as Flax writes it."""
    shapes = {"4x4_block_0": (1, 1, 2, 32), "4x4_block_1": (3, 3, 2, 2), "4x4_to_rgb": (1, 1, 2, 1)}
    layers = {}
    for name, shape in shapes.items():
        parts = {"kernel": np.ones(shape, np.float32), "bias": np.zeros(shape[3], np.float32)}
        packed = {key: msgpack.packb((v.shape, v.dtype.name, v.tobytes())) for key, v in parts.items()}
        inner = {key: msgpack.ExtType(1, data) for key, data in packed.items()}
        layers[name] = inner if name == "4x4_to_rgb" else {"EqualizedLRConv_0": inner}
    written: bytes = msgpack.packb(layers)
    return written


def crafted(rng: Random) -> bytes:
    """Make a file that is small and whole, and asks for much: of another system, or of values without end."""
    system = rng.choice(sorted(STATES))
    names = [*STATES[system], *(rng.choice(("x", "\x1b[2J", "a" * 999)) + str(i) for i in range(9))]
    kind = rng.randrange(4)
    if kind == 0:
        value = rng.choice((hostile.laughs(), hostile.cycle(), hostile.text(hostile.ESCAPES * 99)))
        name = rng.choice(("fmap_base", "latent_size", "resolution", "label_size", hostile.ESCAPES))
        return hostile.network(rng.choice(("G_paper", "D_paper")), hostile.option(name, value))
    shared = torch.zeros(rng.choice((0, 1, 4, 99)), *rng.choice(((), (1,), (2, 4, 4))))
    tensors = {
        name: shared
        if kind == 1
        else torch.zeros([rng.choice((0, 1, 2, 3, 16, 32)) for _ in range(rng.choice((1, 2, 4)))])
        for name in rng.sample(names, rng.randint(0, len(names)))
    }
    config = rng.choice(
        ({}, {"alpha": rng.choice((0.5, 2, None, "x"))}, {"depthOtherScales": [1], "alpha": 0})
    )
    found: Any = {"zoo": {"config": config, "netG": tensors, "netD": tensors}}.get(system, tensors)
    stream = io.BytesIO()
    torch.save(found, stream, _use_new_zipfile_serialization=rng.random() < 0.5)
    return mutate(stream.getvalue(), rng, [b"\x1b"]) if rng.random() < 0.2 else stream.getvalue()


STATES: dict[str, list[str]] = {
    "zoo": [
        "formatLayer.module.weight",
        "groupScale0.0.module.weight",
        "toRGBLayers.0.module.weight",
        "toRGBLayers.1.module.weight",
        "scaleLayers.0.0.module.weight",
        "fromRGBLayers.0.module.weight",
    ],
    "pro_gan": [
        "layers.0.conv_1.weight",
        "layers.0.conv_2.weight",
        "layers.1.conv_1.weight",
        "layers.1.conv_2.weight",
        "layers.0.conv_1.bias",
        "rgb_converters.0.weight",
        "rgb_converters.1.weight",
        "from_rgb.0.0.weight",
        "initial_block.conv_1.weight",
    ],
    "rosinality": [
        "progression.0.conv.0.conv.weight_orig",
        "progression.0.conv.3.conv.weight_orig",
        "to_rgb.0.weight",
        "label_embed.weight",
        "from_rgb.0.weight",
        "linear.weight",
    ],
    "genforce": [
        "layer0.weight",
        "layer1.weight",
        "output0.weight",
        "output1.weight",
        "input0.weight",
        "lod",
    ],
    "mmagic": [
        "noise2feat.linear.weight_orig",
        "noise2feat.bias",
        "torgb_layers.0.conv.weight_orig",
        "conv_blocks.0.conv.weight_orig",
        "decision.linear0.weight_orig",
        "fromrgb_layers.0.conv.weight_orig",
    ],
    "own": ["dense.weight", "to_rgb.0.weight", "from_rgb.0.weight", "dense0.weight"],
}
"""Names by which files of the systems are told."""


def pickle_of_the_original(protocol: int) -> bytes:
    """Return a small network as `tfutil.Network` of the original is pickled."""
    shapes = {
        "4x4/Dense/weight": (2, 32), "4x4/Dense/bias": (2,), "4x4/Conv/weight": (3, 3, 2, 2),
        "4x4/Conv/bias": (2,), "ToRGB_lod0/weight": (1, 1, 2, 1), "ToRGB_lod0/bias": (1,),
    }  # fmt: skip
    state = {
        "version": 2,
        "name": "Gs",
        "static_kwargs": {
            "num_channels": 1,
            "resolution": 4,
            "fmap_base": 4,
            "fmap_max": 2,
            "fmap_decay": 1.0,
        },
        "build_module_src": "",
        "build_func_name": "G_paper",
        "variables": [
            ("lod", np.float32(0)),
            *((name, np.ones(s, np.float32)) for name, s in shapes.items()),
        ],
    }
    kind = type("Network", (), {"__module__": "tfutil", "__getstate__": lambda _: state})
    module, before = types.ModuleType("tfutil"), sys.modules.get("tfutil")
    module.Network = kind  # type: ignore[attr-defined]
    sys.modules["tfutil"] = module
    try:
        return pickle.dumps(kind(), protocol)
    finally:
        del sys.modules["tfutil"]
        if before is not None:
            sys.modules["tfutil"] = before

"""Reference numbers of the original TensorFlow code, and its weights in our layout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.interop.systems.tensorflow import translate
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator

FOLDER = Path(__file__).parents[1] / "golden"
Arrays = dict[str, NDArray[Any]]


@cache
def golden(name: str) -> Arrays:
    """Return all arrays of a golden file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def official_kwargs(arrays: Arrays, network: str) -> dict[str, Any]:
    kwargs: dict[str, Any] = json.loads(str(arrays[f"{network}.all_kwargs_json"]))
    return kwargs


def state_dict(
    arrays: Arrays, network: str, max_level: int, prefix: str = "", suffix: str = ""
) -> dict[str, Tensor]:
    """Return the official variables `<prefix><network>.vars/<name><suffix>` as our state dict."""
    start = f"{prefix}{network}.vars/"
    result = {}
    for key, value in arrays.items():
        official = key.removeprefix(start).removesuffix(suffix)
        if key.startswith(start) and key.endswith(suffix) and official != "lod":
            ours = "D" if network == "D" else "G"
            name, tensor = translate(official, value, max_level, ours)
            result[name] = tensor
    return result


def networks(
    config: str, dtype: torch.dtype, *, stddev_group: int | None = None
) -> tuple[Generator, Discriminator, int]:
    """Build G and D of golden configuration A, B or C with the official weights; also the top level.

    Another stddev_group than the configuration's leaves the weights as they are.
    """
    arrays = golden(f"networks_{config}")
    g, d = official_kwargs(arrays, "G"), official_kwargs(arrays, "D")
    max_level = g["resolution"].bit_length() - 3
    shape = {
        "channels": g["num_channels"],
        "max_level": max_level,
        "label_size": g["label_size"],
        "fmap_base": g["fmap_base"],
        "fmap_decay": g["fmap_decay"],
        "fmap_max": g["fmap_max"],
    }
    generator = Generator(
        **shape,
        latent_size=g["latent_size"],
        normalize_latents=g["normalize_latents"],
        pixel_norm=g["use_pixelnorm"],
    )
    discriminator = Discriminator(
        **shape,
        stddev_group=d["mbstd_group_size"] if stddev_group is None else stddev_group,
        downscale="fused" if d["fused_scale"] else "separate",
    )
    generator.load_state_dict(state_dict(arrays, "G", max_level))
    discriminator.load_state_dict(state_dict(arrays, "D", max_level))
    return generator.to(dtype), discriminator.to(dtype), max_level


def at_lod(lod: float, max_level: int, dtype: torch.dtype) -> tuple[int, Tensor | None]:
    """Translate the original's lod (0 = full resolution) to level and alpha."""
    whole = int(np.floor(lod))
    fraction = lod - whole
    alpha = torch.tensor(1 - fraction, dtype=dtype) if fraction else None
    return max_level - whole, alpha

"""A generator as other runtimes run it: its output, its weights of 16 or 32 bits, and its description."""

from __future__ import annotations

import json
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from progan.config import format_resolution
from progan.data.pixels import quantize
from progan.models.generator import Generator
from progan.version import __version__

Output = Literal["float", "uint8"]
KEY = "progan"
"""Where a file has its description."""


class ExportedGenerator(nn.Module):
    """A generator whose output is what was asked for, and which computes in float32 whatever its weights are.

    Args:
        G: The generator; it is not changed.
        output: `float` for its images, `uint8` for pixels.
        half: Keep weights in 16 bits.
    """

    def __init__(self, G: Generator, output: Output, half: bool) -> None:
        super().__init__()
        self.output = output
        self.G = rounded(G, keep=True) if half else G

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents [N, latent_size] and labels [N, label_size], if there are any, to [N, C, H, W]."""
        image: Tensor = self.G(z, labels)
        return quantize(image) if self.output == "uint8" else image


class _Widened(nn.Module):
    """What is kept in 16 bits, in the 32 that are computed with."""

    def forward(self, value: Tensor) -> Tensor:
        return value.float()


def rounded(G: Generator, *, keep: bool = False) -> Generator:
    """Return a copy of a generator whose weights are rounded to 16 bits.

    Args:
        G: The generator.
        keep: Whether the copy holds them in 16 bits, and widens them at each use; otherwise it holds the
            rounded numbers in 32.

    Raises:
        OverflowError: if a weight is too large for 16 bits.
    """
    halves = {name: value.half() for name, value in G.state_dict().items()}
    bad = [name for name, value in halves.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise OverflowError(f"{bad[0]} holds numbers above 65504")
    with torch.device("meta"):
        made = Generator(**G.config())
    state = halves if keep else {name: value.float() for name, value in halves.items()}
    made.load_state_dict(state, assign=True)
    made.requires_grad_(False).eval()
    if keep:
        for module in list(made.modules()):
            for name, _ in list(module.named_parameters(recurse=False)):
                register_parametrization(module, name, _Widened(), unsafe=True)  # it changes the type
    return made


def description(G: Generator, output: Output, half: bool, license: str) -> dict[str, str]:
    """Return what a file says of its generator: texts by name, those with structure as JSON."""
    low, high = ("0", "255") if output == "uint8" else ("-1", "1")
    facts = {
        "made_by": f"progan {__version__}",
        "license": license,
        "resolution": format_resolution(G.resolution()),
        "channels": str(G.channels),
        "level": str(G.level),
        "alpha": f"{G.alpha:g}",
        "input_z": f"[N, {G.latent_size}] float32, standard normal; normalised inside",
        "output": f"[N, {G.channels}, {', '.join(map(str, G.resolution()))}] "
        + ("uint8, 0 to 255" if output == "uint8" else "float32, nominally -1 to 1, not clipped"),
        "output_range": json.dumps([float(low), float(high)]),
        "weights": "float16, computed with in float32" if half else "float32",
        "config": json.dumps(G.config()),
    }
    if G.label_size:
        what = {"class": "one-hot", "classes": "0 or 1 a class", "vector": "numbers as trained"}
        facts["input_labels"] = f"[N, {G.label_size}] float32, {what[G.label_form]}"
        facts["label_names"] = json.dumps(list(G.label_names), ensure_ascii=False)
    return facts

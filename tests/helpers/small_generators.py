"""Small generators of every kind, as training leaves them, and arguments of their calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from progan import Generator

KINDS: dict[str, dict[str, Any]] = {
    "fused": {},
    "separate": {"upscale": "separate"},
    "strided": {"upscale": "strided"},
    "labels": {"label_size": 3},
    "fading": {"alpha": 0.3},
    "morphing": {"alpha": 0.3, "growth": "morph"},
    "level 0": {"level": 0},
    "other options": {"activation": "gelu", "pixel_norm": False, "kernel_size": 5, "normalize_latents": False,
                      "output_activation": "tanh", "equalized_lr": False, "base_shape": (3, 4)},
    "of other systems": {"label_size": 2, "label_norm": "both", "pixel_norm_form": "root",
                         "latent_norm_eps": 1e-6, "pixel_norm_place": "before",
                         "dense_norm": "units", "dense_bias": "unit", "fmaps": (6, 5)},
    "strided, 1x1": {"upscale": "strided", "kernel_size": 1, "label_size": 2, "label_form": "vector"},
}  # fmt: skip


def trained(kind: str, dtype: str = "float32") -> Generator:
    """Return a generator as training leaves them: its biases are not zero, which would hide lost factors."""
    torch.manual_seed(0)
    G = Generator(**{"max_level": 2, "fmap_base": 64, "fmap_max": 16, "latent_size": 16, **KINDS[kind]})
    for name, value in G.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1)
    return G.eval().requires_grad_(False).to(getattr(torch, dtype))


def inputs(G: Generator, n: int) -> tuple[Tensor, ...]:
    """Return arguments of a call: latents, and labels if it has them."""
    dtype = next(G.parameters()).dtype
    z = torch.randn(n, G.latent_size, generator=torch.Generator().manual_seed(n)).to(dtype)
    labels = torch.eye(G.label_size, dtype=dtype)[torch.arange(n) % G.label_size] if G.label_size else None
    return (z,) if labels is None else (z, labels)

"""Trading variety for quality where latents are normalised, so that scaling them would do nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from progan.errors import ConfigError
from progan.generation.sampling import latents
from progan.models.generator import Generator

_AVERAGED = 256
"""Latents that a mean is taken over."""

_SEED = 2**32 + 1
"""Theirs, which nobody asks for by chance."""


class Truncation:
    """A generator whose first features are moved toward their mean.

    The truncation trick of StyleGAN (Karras et al., arXiv 1812.04948, section B) moves w toward its mean:
    w' = mean + psi (w - mean). This generator has no w, and a latent has no length, as it is normalised
    before use; what the first two layers make of it (level 0) takes the place of w. The mean is that of the
    label.

    Args:
        G: The generator.
        psi: 1 leaves pictures as they are, 0 makes one picture a label; from 0 to 2.

    Raises:
        ConfigError: if psi is out of range.
    """

    def __init__(self, G: Generator, psi: float) -> None:
        if not (math.isfinite(psi) and 0 <= psi <= 2):
            raise ConfigError(
                f"trunc {psi:g}: expected a number from 0 (one picture a label) to 2; 1 is none"
            )
        self.G, self.psi = G, psi
        self._means: dict[tuple[float, ...], Tensor] = {}

    def __call__(self, z: Tensor, labels: Tensor | None = None, *, level: int | None = None) -> Tensor:
        """Make images as the generator does: [N, channels, H, W], nominally in [-1, 1]."""
        if self.psi == 1:
            images: Tensor = self.G(z, labels, level=level)
            return images
        features = self.G.features(z, labels)
        mean = self._mean(z, None) if labels is None else torch.stack([self._mean(z, row) for row in labels])
        return self.G.from_features(torch.lerp(mean, features, self.psi), level=level)

    def _mean(self, like: Tensor, label: Tensor | None) -> Tensor:
        """Return the mean features of a label: [filters, h0, w0]."""
        key = () if label is None else tuple(label.tolist())
        if key not in self._means:
            z = latents(_SEED, 0, _AVERAGED, self.G.latent_size).to(like)
            rows = None if label is None else label.expand(_AVERAGED, -1)
            self._means[key] = self.G.features(z, rows).mean(dim=0)
        return self._means[key]

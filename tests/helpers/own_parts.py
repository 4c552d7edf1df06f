"""A file of parts of one's own, as a user writes one."""

from __future__ import annotations

from pathlib import Path

PLUGIN = '''
import torch.nn.functional as F
from torch import Tensor

import progan


class Tempered(progan.AdversarialLoss):
    """Cross-entropy of scores that are divided by a temperature."""

    class Options(progan.PartOptions):
        temperature: float = progan.option(2.0, "What scores are divided by.", gt=0)

    facts = progan.LossFacts({"r1_gamma": 5.0}, middle=0.0)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        t = self.options.temperature
        return F.softplus(-real / t) + F.softplus(fake / t)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return F.softplus(-fake / self.options.temperature)


class Smooth(progan.Penalty):
    """Squared slope between reals and fakes, and bright pictures of G."""

    slope = "between"

    def discriminator(self, seen: progan.Seen) -> Tensor:
        return seen.squares

    def generator(self, seen: progan.Seen) -> Tensor:
        return seen.images.mean((1, 2, 3))
'''


def plugin(folder: Path, text: str = PLUGIN) -> Path:
    """Write it into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.py"
    file.write_text(text, encoding="utf-8")
    return file

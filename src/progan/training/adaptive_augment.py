"""How strongly to augment: a constant, or what keeps D from being too sure of the real images.

Karras et al. 2020, *Training Generative Adversarial Networks with Limited Data*, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from progan.config import AugmentOptions

ADJUST_INTERVAL = 4
"""Updates of D between two adjustments of the probability (section 3.1)."""


class Augmenter:
    """Holds the probability of the augmentations during a run; nothing here waits for the device.

    If adaptive, it rises where a larger share of D's scores of real images is positive than the target, and
    falls where it is smaller. The share is (r_t + 1) / 2 of the paper's r_t = E[sign(D_train)], so the target
    of 0.8 is its 0.6. Otherwise it stays as it is configured, and there is no state.

    Attributes:
        probability: float32, 0-d, in [0, 1], one tensor for the whole run, changed in place; None if nothing
            is augmented.
    """

    def __init__(self, options: AugmentOptions, device: torch.device) -> None:
        self._options = options
        self._probability = torch.tensor(options.initial, dtype=torch.float32, device=device)
        self.probability = self._probability if options.policy else None
        # Since the last adjustment; whole numbers, which add up to the same in any order.
        self._positives = torch.zeros((), dtype=torch.int64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._updates = 0

    @torch.no_grad()
    def observe(self, positive: Tensor, n: int) -> None:
        """Take note of one update of D, and adjust the probability after each `ADJUST_INTERVAL` of them.

        Args:
            positive: Share of real images that D took for real, 0-d, in [0, 1], at least float32. It is
                turned back into a number of images, so that it does not matter how it was added up.
            n: Real images of the update.
        """
        if not self._options.adaptive:
            return
        self._positives += (positive * n).round().to(torch.int64)
        self._count += n
        self._updates += 1
        if self._updates == ADJUST_INTERVAL:
            self._adjust()

    def _adjust(self) -> None:
        """Move the probability by the images since the last time, as a share of adapt_kimg."""
        share = self._positives.float() / self._count.float()
        direction = torch.sign(share - self._options.target)
        self._probability += direction * self._count / (self._options.adapt_kimg * 1000)
        self._probability.clamp_(0, 1)
        self._positives.zero_()
        self._count.zero_()
        self._updates = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return the state by name: what a checkpoint holds; empty if the probability is constant."""
        if not self._options.adaptive:
            return {}
        return {
            "probability": self._probability,
            "positives": self._positives,
            "count": self._count,
            "updates": torch.tensor(self._updates),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned.

        An empty state changes nothing, and a constant probability takes none: a run may turn adaptivity on or
        off when it goes on.

        Raises:
            KeyError: if a part of the state is missing.
        """
        if not self._options.adaptive or not tensors:
            return
        self._probability.copy_(tensors["probability"])
        self._positives.copy_(tensors["positives"])
        self._count.copy_(tensors["count"])
        self._updates = int(tensors["updates"])

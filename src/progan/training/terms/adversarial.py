"""The adversarial losses: five that ship with progan, and what one of one's own has to be.

Scores are [N], higher for real, at least in float32. Each loss has one value a sample; the mean over the
whole batch is taken once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor

from progan.config import LOSSES, Config, LossPart, Part, made
from progan.config import Loss as LossBranch


class AdversarialLoss(LossPart, ABC):
    """What D and G minimise, of D's scores. Derive from this for a loss of your own.

    The value of a sample depends on the scores of that sample and its partner alone, so that a batch may be
    computed in parts and by several processes.

    Attributes:
        facts: What goes with it: its usual penalties, where its scores have their zero, whether G's loss
            compares with real images (`LossFacts`).
        Options: A model of its own options, each with a default; `self.options` has their values.
    """

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what D minimises, without penalties.

        Args:
            real, fake: Scores [N]; sample i of one is the partner of sample i of the other.

        Returns:
            [N].
        """

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return what G minimises.

        Args:
            fake: Scores [N].
            real: Scores [N] of the partners, if `facts.paired`, else None.

        Returns:
            [N].
        """

    def noisy_discriminator(self, real: Tensor, fake: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """Return the same where noise [N, 2] moves the targets of real and fake, if the loss has targets."""
        return self.discriminator(real, fake)


class _Shipped(AdversarialLoss):
    """A loss that ships with progan: what goes with it is in the configuration, which imports no torch."""

    Options = LossBranch

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.facts = LOSSES[cls.name]


class Wgan(_Shipped):
    """D(fake) - D(real) (Arjovsky et al. 2017; section 2 of the paper); G: -D(fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return D(fake) - D(real): [N]."""
        return fake - real

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return -D(fake): [N]."""
        return -fake


class LeastSquares(_Shipped):
    """Half the squared distances to the targets 1 and 0 (Mao et al. 2017, eq. 2), which noise may move."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return ((D(real) - 1)^2 + D(fake)^2) / 2: [N]."""
        return self._distances(real, fake, 0.0, 0.0)

    def noisy_discriminator(self, real: Tensor, fake: Tensor, noise: Tensor) -> Tensor:
        """Return the same with the targets moved by noise: [N, 2] -> [N]."""
        return self._distances(real, fake, *noise.unbind(dim=1))

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return (D(fake) - 1)^2 / 2: [N]."""
        return (fake - 1).square() / 2

    @staticmethod
    def _distances(real: Tensor, fake: Tensor, to_real: Tensor | float, to_fake: Tensor | float) -> Tensor:
        return ((real - 1 - to_real).square() + (fake - to_fake).square()) / 2


class Logistic(_Shipped):
    """The cross-entropy of Goodfellow et al. 2014; for G the form that does not saturate."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return softplus(-D(real)) + softplus(D(fake)): [N]."""
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return softplus(-D(fake)): [N]."""
        return F.softplus(-fake)


class Hinge(_Shipped):
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye 2017; Miyato et al. 2018); G: -D(fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return max(0, 1 - D(real)) + max(0, 1 + D(fake)): [N]."""
        return F.relu(1 - real) + F.relu(1 + fake)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return -D(fake): [N]."""
        return -fake


class Relativistic(_Shipped):
    """For pairs of real and fake (Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return softplus(D(fake) - D(real)): [N]."""
        return F.softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return softplus(D(real) - D(fake)): [N]; a ValueError if there are no partners."""
        if real is None:
            raise ValueError("the relativistic loss compares fakes with reals: give real scores")
        return F.softplus(real - fake)


SHIPPED: tuple[type[AdversarialLoss], ...] = (Wgan, LeastSquares, Logistic, Hinge, Relativistic)


def adversarial_loss(config: Config) -> AdversarialLoss:
    """Return the adversarial loss that a configuration names, with its options."""
    own = config.parts.of("loss.adversarial")
    shipped: dict[str, type[Part]] = {part.name: part for part in SHIPPED}
    return made((shipped | own)[config.loss.adversarial], AdversarialLoss, config.loss)  # type: ignore[type-abstract]

"""What an adversarial loss and a penalty have to be, those that ship and one's own.

Scores are [N], higher for real, at least in float32. Each term has one value a sample; the mean over the
whole batch is taken once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from progan.config import Branch, Conditioning, LabelForm, LossPart, Part, PenaltyOptions

Slope = Literal["reals", "fakes", "between"]
"""Where the slope of D's score is taken: at real images, at fakes, or somewhere between each pair."""


class AdversarialLoss(LossPart, ABC):
    """What D and G minimise, of D's scores. Derive from this for a loss of your own.

    The value of a sample depends on the scores of that sample and its partner alone, so that a batch may be
    computed in parts and by several processes.

    Attributes:
        facts: What goes with it: its usual penalties, where its scores have their zero, whether G's loss
            compares with real images, or is D's with the other sign (`LossFacts`).
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


@dataclass(frozen=True)
class Verdict:
    """What D makes of images: scores [N], and logits [N, label_size] of AC-GAN, else [N, 0].

    If asked for, [N] squared norms of the scores' gradients with respect to the images.
    """

    scores: Tensor
    logits: Tensor
    squares: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """What a penalty may look at during an update of D or of G.

    Attributes:
        images: [N, C, H, W] in [-1, 1], the fakes; between reals and fakes where the slope is taken there.
        fake: What D makes of the fakes; None between reals and fakes.
        reals: [N, C, H, W], real images; None in an update of G, unless the loss compares with them.
        real: What D makes of them, in an update of D.
        squares: [N], squared norms of the slope that the penalty asks for (`Penalty.slope`), else None.
        labels: [N, label_size], of reals and fakes alike; `label_form` says what they are.
        latents: [N, latent_size], of the fakes.
        judge: Has D judge images [N, C, H, W] with labels [N, label_size], augmented as the fakes are.
        generate: Has G make images of latents and labels.
    """

    images: Tensor
    fake: Verdict | None
    reals: Tensor | None
    real: Verdict | None
    squares: Tensor | None
    labels: Tensor
    label_form: LabelForm
    latents: Tensor
    judge: Callable[[Tensor, Tensor], Verdict]
    generate: Callable[[Tensor, Tensor], Tensor]


class Penalty(Part):
    """A term of D's loss, or of G's, beside the adversarial loss. Derive from this for one of your own.

    The value of a sample depends on that sample and its partner alone, so that a batch may be computed in
    parts and by several processes.

    Attributes:
        slope: Where it asks for the slope of D's score, which it is then given (`Seen.squares`); it is
            computed at every `loss.penalty_interval`-th update of D only, and counts as many times as much
            there.
        Options: A model of its own options, each with a default; `self.options` has their values.
            `weight` is one of them, unless `weight` is overridden.
    """

    chosen_by = "loss.penalties"
    slope: ClassVar[Slope | None] = None
    Options: ClassVar[type[Branch]] = PenaltyOptions

    def looks_at_fakes(self, conditioning: Conditioning) -> bool:  # noqa: ARG002 - of use to label losses
        """Return whether a loss depends on the fakes through it, if not through the slope between the images.

        If none does, and the adversarial loss is `mirrored`, simultaneous updates save a pass through D.

        Args:
            conditioning: What D does with labels.
        """
        return self.slope != "between" or type(self).generator is not Penalty.generator

    @property
    def weight(self) -> float:
        """What its values are multiplied by in the loss."""
        return float(self.options.weight)

    @property
    def is_on(self) -> bool:
        """Whether it is computed at all."""
        return self.weight > 0

    def discriminator(self, seen: Seen) -> Tensor | None:  # noqa: ARG002 - of use to those that override it
        """Return the term of D's loss, [N], unweighted; None for none."""
        return None

    def generator(self, seen: Seen) -> Tensor | None:  # noqa: ARG002 - of use to those that override it
        """Return the term of G's loss, [N], unweighted; None for none."""
        return None

"""The five adversarial losses and the penalties that ship: terms of the loss, each by its formula.

Scores are [N], higher for real, at least in float32; each term has one value a sample.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import LOSSES, Conditioning, Config, LabelForm, Part, made
from progan.config import Loss as LossBranch
from progan.errors import ConfigError
from progan.training.terms.kinds import AdversarialLoss, Penalty, Seen, Verdict


class _ShippedLoss(AdversarialLoss):
    """A loss that ships with progan: what goes with it is in the configuration, which imports no torch."""

    Options = LossBranch

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.facts = LOSSES[cls.name]


class Wgan(_ShippedLoss):
    """D(fake) - D(real) (Arjovsky et al. 2017; section 2 of the paper); G: -D(fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return D(fake) - D(real): [N]."""
        return fake - real

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return -D(fake): [N]."""
        return -fake


class LeastSquares(_ShippedLoss):
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


class Logistic(_ShippedLoss):
    """The cross-entropy of Goodfellow et al. 2014; for G the form that does not saturate."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return softplus(-D(real)) + softplus(D(fake)): [N]."""
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return softplus(-D(fake)): [N]."""
        return F.softplus(-fake)


class Hinge(_ShippedLoss):
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye 2017; Miyato et al. 2018); G: -D(fake)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return max(0, 1 - D(real)) + max(0, 1 + D(fake)): [N]."""
        return F.relu(1 - real) + F.relu(1 + fake)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002 - not compared
        """Return -D(fake): [N]."""
        return -fake


class Relativistic(_ShippedLoss):
    """For pairs of real and fake (Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return softplus(D(fake) - D(real)): [N]."""
        return F.softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return softplus(D(real) - D(fake)): [N]; a ValueError if there are no partners."""
        if real is None:
            raise ValueError("the relativistic loss compares fakes with reals: give real scores")
        return F.softplus(real - fake)


class _ShippedPenalty(Penalty):
    """A penalty whose weight is an option of the branch loss."""

    Options = LossBranch
    options: LossBranch


class GradientPenalty(_ShippedPenalty):
    """(|grad D| - target)^2 / target^2 between reals and fakes (Gulrajani et al. 2017; appendix A.1)."""

    name, slope = "gp", "between"

    @property
    def weight(self) -> float:
        """`loss.gp_lambda`."""
        return self.options.gp_lambda

    def discriminator(self, seen: Seen) -> Tensor:
        """Return the penalty: [N], at least 0."""
        assert seen.squares is not None
        one_sided = self.options.gp_sides == "one"
        return gradient_penalty(seen.squares, self.options.gp_target, one_sided=one_sided)


class RealSlope(_ShippedPenalty):
    """R1: |grad D|^2 at real images (Mescheder et al. 2018); its weight is gamma / 2."""

    name, slope = "r1", "reals"

    def looks_at_fakes(self, conditioning: Conditioning) -> bool:  # noqa: ARG002
        """Return False: minibatch-stddev groups of reals and fakes do not mix."""
        return False

    @property
    def weight(self) -> float:
        """Half of `loss.r1_gamma`."""
        return self.options.r1_gamma / 2

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the squared slope: [N]."""
        return seen.squares


class FakeSlope(_ShippedPenalty):
    """R2: |grad D|^2 at fakes (Mescheder et al. 2018); its weight is gamma / 2."""

    name, slope = "r2", "fakes"

    @property
    def weight(self) -> float:
        """Half of `loss.r2_gamma`."""
        return self.options.r2_gamma / 2

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the squared slope: [N]."""
        return seen.squares


class Drift(_ShippedPenalty):
    """D(real)^2, which keeps the scores near zero (appendix A.1)."""

    def looks_at_fakes(self, conditioning: Conditioning) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    @property
    def weight(self) -> float:
        """`loss.drift`."""
        return self.options.drift

    def discriminator(self, seen: Seen) -> Tensor:
        """Return the squared scores of reals: [N]."""
        assert seen.real is not None
        return seen.real.scores.square()


class _Labels(_ShippedPenalty):
    """How far D's estimate of the labels is off, where it estimates them (AC-GAN, Odena et al. 2017)."""

    @property
    def weight(self) -> float:
        """`loss.label_weight`."""
        return self.options.label_weight

    @property
    def is_on(self) -> bool:
        """Always: D's logits tell whether there is anything to estimate."""
        return True


class LabelReal(_Labels):
    """The label loss of real images; D's alone."""

    def looks_at_fakes(self, conditioning: Conditioning) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the label loss of reals, [N], if D estimates labels."""
        return None if seen.real is None else _label_term(seen, seen.real)


class LabelFake(_Labels):
    """The label loss of fakes, which both networks minimise."""

    def looks_at_fakes(self, conditioning: Conditioning) -> bool:
        """Return whether D estimates labels."""
        return conditioning == "ac_gan"

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the label loss of fakes, [N], if D estimates labels."""
        return None if seen.fake is None else _label_term(seen, seen.fake)

    def generator(self, seen: Seen) -> Tensor | None:
        """Return the same."""
        return self.discriminator(seen)


ADVERSARIAL: tuple[type[AdversarialLoss], ...] = (Wgan, LeastSquares, Logistic, Hinge, Relativistic)


def adversarial_loss(config: Config) -> AdversarialLoss:
    """Return the adversarial loss that a configuration names, with its options."""
    own = config.parts.of("loss.adversarial")
    shipped: dict[str, type[Part]] = {part.name: part for part in ADVERSARIAL}
    return made((shipped | own)[config.loss.adversarial], AdversarialLoss, config.loss)  # type: ignore[type-abstract]


ALWAYS = ("real_score", "fake_score", "adversarial", "real_positive")
"""Terms that an update may have whatever the penalties are."""

PENALTIES: tuple[type[Penalty], ...] = (GradientPenalty, RealSlope, FakeSlope, Drift, LabelReal, LabelFake)
"""In the order in which they are added up."""


def penalties(config: Config) -> tuple[Penalty, ...]:
    """Return the penalties that a configuration asks for, with their options, in the order of the sum."""
    own = config.parts.of(Penalty.chosen_by)
    taken = {*ALWAYS, "loss", *(part.name for part in PENALTIES)}
    if clash := taken.intersection(own):
        raise ConfigError(f"{Penalty.chosen_by}: {min(clash)!r} is a term of progan; rename your own penalty")
    chosen = [*PENALTIES, *(own[name] for name in config.loss.penalties)]
    every = [made(part, Penalty, config.loss) for part in chosen]
    return tuple(penalty for penalty in every if penalty.is_on)


def _label_term(seen: Seen, verdict: Verdict) -> Tensor | None:
    if not verdict.logits.shape[1]:
        return None
    return label_loss(seen.label_form, verdict.logits, seen.labels)


def label_loss(form: LabelForm, logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far D's estimate of the labels is off (AC-GAN, Odena et al. 2017).

    Args:
        form: `class`: cross-entropy, as the original loss.py. `classes`: the sum of each class's binary
            cross-entropy. `vector`: half the squared distance.
        logits: [N, label_size].
        labels: [N, label_size]; rows of `class` add up to 1, entries of `classes` are 0 or 1.

    Returns:
        [N], at least 0.
    """
    match form:
        case "class":
            return -(labels * F.log_softmax(logits, dim=1)).sum(dim=1)
        case "classes":
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1)
        case "vector":
            return (logits - labels).square().sum(dim=1) / 2


def gradient_penalty(squares: Tensor, target: float, *, one_sided: bool) -> Tensor:
    """Return (|grad D| - target)^2 / target^2 (Gulrajani et al. 2017; appendix A.1).

    Args:
        squares: [N], squared norms; there is no epsilon under the root, as in the original. The root of an
            exact 0, whose slope is infinite, counts as the constant 0.
        target: Norm that is not penalised (gamma).
        one_sided: Norms below the target are not penalised either (section 5 of Gulrajani et al.).

    Returns:
        [N], at least 0.
    """
    sloping = squares > 0
    excess = torch.where(sloping, torch.where(sloping, squares, 1).sqrt(), 0) - target
    return (F.relu(excess) if one_sided else excess).square() / target**2

"""Terms beside the adversarial loss: penalties of D, losses of labels, and what one of one's own has to be.

Each has one value a sample; the mean over the whole batch is taken once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import Branch, Config, LabelForm, Part, PenaltyOptions, made
from progan.config import Loss as LossBranch
from progan.errors import ConfigError

Slope = Literal["reals", "fakes", "between"]
"""Where the slope of D's score is taken: at real images, at fakes, or somewhere between each pair."""


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


class Penalty(Part, ABC):
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

    @property
    def weight(self) -> float:
        """What its values are multiplied by in the loss."""
        return float(self.options.weight)

    @property
    def is_on(self) -> bool:
        """Whether it is computed at all."""
        return self.weight > 0

    @abstractmethod
    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the term of D's loss, [N], unweighted; None for none."""

    def generator(self, seen: Seen) -> Tensor | None:  # noqa: ARG002 - of use to those that override it
        """Return the term of G's loss, [N], unweighted; None for none."""
        return None


class _Shipped(Penalty):
    """A penalty whose weight is an option of the branch loss."""

    Options = LossBranch
    options: LossBranch


class GradientPenalty(_Shipped):
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


class RealSlope(_Shipped):
    """R1: |grad D|^2 at real images (Mescheder et al. 2018); its weight is gamma / 2."""

    name, slope = "r1", "reals"

    @property
    def weight(self) -> float:
        """Half of `loss.r1_gamma`."""
        return self.options.r1_gamma / 2

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the squared slope: [N]."""
        return seen.squares


class FakeSlope(_Shipped):
    """R2: |grad D|^2 at fakes (Mescheder et al. 2018); its weight is gamma / 2."""

    name, slope = "r2", "fakes"

    @property
    def weight(self) -> float:
        """Half of `loss.r2_gamma`."""
        return self.options.r2_gamma / 2

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the squared slope: [N]."""
        return seen.squares


class Drift(_Shipped):
    """D(real)^2, which keeps the scores near zero (appendix A.1)."""

    @property
    def weight(self) -> float:
        """`loss.drift`."""
        return self.options.drift

    def discriminator(self, seen: Seen) -> Tensor:
        """Return the squared scores of reals: [N]."""
        assert seen.real is not None
        return seen.real.scores.square()


class _Labels(_Shipped):
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

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the label loss of reals, [N], if D estimates labels."""
        return None if seen.real is None else _label_term(seen, seen.real)


class LabelFake(_Labels):
    """The label loss of fakes, which both networks minimise."""

    def discriminator(self, seen: Seen) -> Tensor | None:
        """Return the label loss of fakes, [N], if D estimates labels."""
        return None if seen.fake is None else _label_term(seen, seen.fake)

    def generator(self, seen: Seen) -> Tensor | None:
        """Return the same."""
        return self.discriminator(seen)


ALWAYS = ("real_score", "fake_score", "adversarial", "real_positive")
"""Terms that an update may have whatever the penalties are."""

SHIPPED: tuple[type[Penalty], ...] = (GradientPenalty, RealSlope, FakeSlope, Drift, LabelReal, LabelFake)
"""In the order in which they are added up."""


def penalties(config: Config) -> tuple[Penalty, ...]:
    """Return the penalties that a configuration asks for, with their options, in the order of the sum."""
    own = config.parts.of(Penalty.chosen_by)
    taken = {*ALWAYS, "loss", *(part.name for part in SHIPPED)}
    if clash := taken.intersection(own):
        raise ConfigError(f"{Penalty.chosen_by}: {min(clash)!r} is a term of progan; rename your own penalty")
    chosen = [*SHIPPED, *(own[name] for name in config.loss.penalties)]
    every = [made(part, Penalty, config.loss) for part in chosen]  # type: ignore[type-abstract]
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

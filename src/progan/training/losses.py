"""The loss terms, each one value per sample; their mean over the whole batch is taken once.

Five adversarial losses, and penalties of D's gradients that go with any of them. Scores are [N], higher
for real; every function returns [N], at least in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import Adversarial, Config, LabelForm
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.models.autograd import with_squares
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.augment import augment

Terms = dict[str, Tensor]
"""Loss terms by name; each [N] before, 0-d after the mean over the batch."""

Stage = Callable[[], Terms]
"""Computes some of the terms of a loss; the stages of one loss have no term in common, and add up."""

TERM_NAMES = (
    "real_score",
    "fake_score",
    "adversarial",
    "real_positive",
    "r1",
    "r2",
    "gp",
    "drift",
    "label_real",
    "label_fake",
    "loss",
)
"""Every term there can be, and the loss: what processes that share a batch add up, in this order."""


@dataclass(frozen=True)
class Conditions:
    """What holds during one update.

    Attributes:
        level: The level that is computed.
        alpha: 0-d tensor while it comes in, else None.
        probability: Of the augmentations, a 0-d tensor; None for none.
        penalize: Whether the penalties of D's gradients are due (they may be computed now and then only).
        scale: What the loss is multiplied by before its backward pass (float16), else 1.
    """

    level: int
    alpha: Tensor | None = None
    probability: Tensor | None = None
    penalize: bool = True
    scale: Tensor | float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What D makes of images: scores [N], and logits [N, label_size] of AC-GAN, else [N, 0].

    If asked for, [N] squared norms of the scores' gradients with respect to the images.
    """

    scores: Tensor
    logits: Tensor
    squares: Tensor | None = None


class _Judge:
    """D as the losses see it: images are augmented first."""

    def __init__(self, D: Discriminator, at: Conditions, config: Config) -> None:
        self.D, self.at, self._policy = D, at, config.augment.policy

    def __call__(
        self, images: Tensor, labels: Tensor, draws: Tensor | None, *, squares: bool = False, sets: int = 1
    ) -> Verdict:
        """Judge images [N, C, H, W] with labels [N, label_size], augmented by draws [N, DRAWS] or None.

        With `squares` the gradients with respect to the images, before augmentation, are computed, too. The
        minibatch-stddev groups of `sets` equal parts of the batch do not mix.
        """

        def judge(images: Tensor) -> tuple[Tensor, Tensor]:
            if self.at.probability is not None and draws is not None:
                images = augment(images, draws, self.at.probability, self._policy)
            verdict: tuple[Tensor, Tensor] = self.D(
                images, labels, level=self.at.level, alpha=self.at.alpha, sets=sets
            )
            return verdict

        if not squares:
            return Verdict(*judge(images))
        return Verdict(*with_squares(judge, images, self.at.scale))

    def both(self, batch: DiscriminatorBatch, fakes: Tensor, *, squares: bool) -> tuple[Verdict, Verdict]:
        """Judge the reals of a batch and as many fakes in one go, which computes with larger tensors."""
        draws = None
        if batch.augment_real is not None and batch.augment_fake is not None:
            draws = torch.cat([batch.augment_real, batch.augment_fake])
        images, labels = torch.cat([batch.reals, fakes]), torch.cat([batch.labels, batch.labels])
        verdict = self(images, labels, draws, squares=squares, sets=2)
        scores, logits = verdict.scores.chunk(2), verdict.logits.chunk(2)
        parts = (None, None) if verdict.squares is None else verdict.squares.chunk(2)
        return Verdict(scores[0], logits[0], parts[0]), Verdict(scores[1], logits[1], parts[1])


def discriminator_stages(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, config: Config
) -> list[Stage]:
    """Return D's loss in stages: first what judges reals and fakes, then the gradient penalty, if it is due.

    The two have nothing in common but the fakes, which are made by this call. With each stage's gradients
    taken before the next is computed, no more than one of them is in memory.

    Returns:
        Functions without arguments, each of which computes terms of its own, unweighted: `adversarial`, and
        where they are configured `r1`, `r2`, `drift`, `label_real` and `label_fake`; then `gp`. Each is [N].
        Also `real_score`, `fake_score` and, where scores have a zero, `real_positive` (1 where D takes a real
        image for real, else 0), which are no losses.
    """
    judge = _Judge(D, at, config)
    with torch.no_grad():
        fakes = G(batch.latents, batch.labels, level=at.level, alpha=at.alpha).to(batch.reals.dtype)
    stages: list[Stage] = [partial(_verdict_terms, judge, batch, fakes, config)]
    if at.penalize and config.loss.gp_lambda > 0:
        stages.append(partial(_penalty_terms, judge, batch, fakes, config))
    return stages


def _verdict_terms(judge: _Judge, batch: DiscriminatorBatch, fakes: Tensor, config: Config) -> Terms:
    """Return the terms that regard reals and fakes themselves."""
    loss, D = config.loss, judge.D
    r1, r2 = (judge.at.penalize and gamma > 0 for gamma in (loss.r1_gamma, loss.r2_gamma))
    if r1 == r2:
        real, fake = judge.both(batch, fakes, squares=r1)
    else:  # gradients with respect to images cost another pass, so only those that are asked for
        real = judge(batch.reals, batch.labels, batch.augment_real, squares=r1)
        fake = judge(fakes, batch.labels, batch.augment_fake, squares=r2)
    terms = {
        "real_score": real.scores,
        "fake_score": fake.scores,
        "adversarial": discriminator_loss(loss.adversarial, real.scores, fake.scores, batch.noise),
    }
    if (middle := undecided(loss.adversarial)) is not None:
        terms["real_positive"] = (real.scores > middle).to(real.scores.dtype)
    if real.squares is not None:
        terms["r1"] = real.squares
    if fake.squares is not None:
        terms["r2"] = fake.squares
    if loss.drift > 0:
        terms["drift"] = drift(real.scores)
    if D.conditioning == "ac_gan":
        terms["label_real"] = label_loss(D.label_form, real.logits, batch.labels)
        terms["label_fake"] = label_loss(D.label_form, fake.logits, batch.labels)
    return terms


def _penalty_terms(judge: _Judge, batch: DiscriminatorBatch, fakes: Tensor, config: Config) -> Terms:
    """Return the penalty of the scores' slope between reals and fakes."""
    mixed = torch.lerp(batch.reals, fakes, batch.mixing.view(-1, 1, 1, 1))
    squares = judge(mixed, batch.labels, batch.augment_real, squares=True).squares
    assert squares is not None
    loss = config.loss
    return {"gp": gradient_penalty(squares, loss.gp_target, one_sided=loss.gp_sides == "one")}


def generator_stages(
    G: Generator, D: Discriminator, batch: GeneratorBatch, at: Conditions, config: Config
) -> list[Stage]:
    """Return G's loss as a list of a single stage, which computes `generator_terms`."""
    return [partial(generator_terms, G, D, batch, at, config)]


def discriminator_terms(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, config: Config
) -> Terms:
    """Return all terms of D's loss together; see `discriminator_stages`."""
    terms: Terms = {}
    for stage in discriminator_stages(G, D, batch, at, config):
        terms |= stage()
    return terms


def generator_terms(
    G: Generator, D: Discriminator, batch: GeneratorBatch, at: Conditions, config: Config
) -> Terms:
    """Return the terms of G's loss, unweighted, per sample: `adversarial` and, with AC-GAN, `label_fake`."""
    judge = _Judge(D, at, config)
    fakes = G(batch.latents, batch.labels, level=at.level, alpha=at.alpha)
    fake = judge(fakes, batch.labels, batch.augment_fake)
    partners = None
    if batch.reals is not None:
        with torch.no_grad():
            partners = judge(batch.reals, batch.labels, batch.augment_real).scores
    terms = {"adversarial": generator_loss(config.loss.adversarial, fake.scores, partners)}
    if D.conditioning == "ac_gan":
        terms["label_fake"] = label_loss(D.label_form, fake.logits, batch.labels)
    return terms


def total(terms: Terms, config: Config) -> Tensor:
    """Return the weighted sum of the terms, per sample: [N].

    Penalties that are computed at every k-th update only are k times as strong there (lazy regularisation,
    Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*, appendix B).
    """
    loss = config.loss
    every = loss.penalty_interval
    weights = {
        "adversarial": 1.0,
        "gp": loss.gp_lambda * every,
        "r1": loss.r1_gamma / 2 * every,
        "r2": loss.r2_gamma / 2 * every,
        "drift": loss.drift,
        "label_real": loss.label_weight,
        "label_fake": loss.label_weight,
    }
    there = {name: weight for name, weight in weights.items() if name in terms}
    return reduce(torch.add, [w * terms[name] if w != 1 else terms[name] for name, w in there.items()])


def joined(terms: Terms, more: Terms) -> Terms:
    """Return the terms of the stages of a loss so far, none or some, and of another; their `loss` adds up."""
    return {**terms, **more, "loss": terms["loss"] + more["loss"]} if terms else more


def discriminator_loss(kind: Adversarial, real: Tensor, fake: Tensor, noise: Tensor | None = None) -> Tensor:
    """Return what D minimises, without penalties.

    Args:
        kind: `wgan`: D(fake) - D(real) (Arjovsky et al. 2017; section 2 of the paper).
            `least_squares`: half the squared distances to the targets 1 and 0 (Mao et al. 2017, eq. 2).
            `logistic`: the cross-entropy of Goodfellow et al. 2014, softplus(-D(real)) + softplus(D(fake)).
            `hinge`: max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye 2017; Miyato et al. 2018).
            `relativistic`: softplus(D(fake) - D(real)), for pairs (Jolicoeur-Martineau 2018; Huang et al.
            2024, eq. 2).
        real, fake: Scores [N]; sample i of one is the partner of sample i of the other.
        noise: [N, 2], added to the targets of real and fake; `least_squares` only.

    Returns:
        [N].
    """
    match kind:
        case "wgan":
            return fake - real
        case "least_squares":
            to_real, to_fake = (0.0, 0.0) if noise is None else noise.unbind(dim=1)
            return ((real - 1 - to_real).square() + (fake - to_fake).square()) / 2
        case "logistic":
            return F.softplus(-real) + F.softplus(fake)
        case "hinge":
            return F.relu(1 - real) + F.relu(1 + fake)
        case "relativistic":
            return F.softplus(fake - real)


def generator_loss(kind: Adversarial, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Return what G minimises; the losses are those of `discriminator_loss`.

    Args:
        kind: `wgan` and `hinge`: -D(fake). `least_squares`: (D(fake) - 1)^2 / 2. `logistic`:
            softplus(-D(fake)), the form that does not saturate. `relativistic`:
            softplus(D(real) - D(fake)).
        fake: Scores [N].
        real: Scores [N] of the partners; `relativistic` only.

    Returns:
        [N].

    Raises:
        ValueError: if `relativistic` has no partners.
    """
    match kind:
        case "wgan" | "hinge":
            return -fake
        case "least_squares":
            return (fake - 1).square() / 2
        case "logistic":
            return F.softplus(-fake)
        case "relativistic":
            if real is None:
                raise ValueError("the relativistic loss compares fakes with reals: give real scores")
            return F.softplus(real - fake)


def undecided(kind: Adversarial) -> float | None:
    """Return the score half-way between D's aims for fake and real images; None where there is none."""
    match kind:
        case "wgan" | "relativistic":
            return None
        case "least_squares":
            return 0.5
        case "logistic" | "hinge":
            return 0.0


def drift(real_scores: Tensor) -> Tensor:
    """Return D(real)^2, which keeps the scores near zero: [N] -> [N]. Source: appendix A.1."""
    return real_scores.square()


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

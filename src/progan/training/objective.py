"""What D and G minimise, given a batch: the loss terms and their weights. No randomness here.

Reads as the paper's training loop with its choices spelled out: fakes, scores, adversarial term, penalties,
labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from progan.config import Config
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.augment import augment
from progan.training.losses import (
    discriminator_loss,
    drift,
    generator_loss,
    gradient_penalty,
    label_loss,
    undecided,
    with_squares,
)

Terms = dict[str, Tensor]
"""Loss terms by name; each [N] before, 0-d after the mean over the batch."""

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
    """What D makes of images.

    Attributes:
        scores: [N].
        logits: [N, label_size] of AC-GAN, else [N, 0].
        squares: [N], squared norms of the scores' gradients with respect to the images, if asked for.
    """

    scores: Tensor
    logits: Tensor
    squares: Tensor | None = None


class _Judge:
    """D as the losses see it: images are augmented first."""

    def __init__(self, D: Discriminator, at: Conditions, config: Config) -> None:
        self._D, self._at, self._policy = D, at, config.augment.policy

    def __call__(
        self, images: Tensor, labels: Tensor, draws: Tensor | None, *, squares: bool = False, sets: int = 1
    ) -> Verdict:
        """Judge images.

        Args:
            images: [N, C, H, W].
            labels: [N, label_size].
            draws: [N, DRAWS], what the augmentation of each image is; None for none.
            squares: Compute the gradients with respect to the images, before augmentation, too.
            sets: Equal parts of the batch whose minibatch-stddev groups must not mix.
        """

        def judge(images: Tensor) -> tuple[Tensor, Tensor]:
            if self._at.probability is not None and draws is not None:
                images = augment(images, draws, self._at.probability, self._policy)
            verdict: tuple[Tensor, Tensor] = self._D(
                images, labels, level=self._at.level, alpha=self._at.alpha, sets=sets
            )
            return verdict

        if not squares:
            return Verdict(*judge(images))
        return Verdict(*with_squares(judge, images, self._at.scale))

    def both(self, batch: DiscriminatorBatch, fakes: Tensor, *, squares: bool) -> tuple[Verdict, Verdict]:
        """Judge the reals of a batch and as many fakes in one go, which computes with larger tensors."""
        draws = None
        if batch.augment_real is not None and batch.augment_fake is not None:
            draws = torch.cat([batch.augment_real, batch.augment_fake])
        images, labels = torch.cat([batch.reals, fakes]), torch.cat([batch.labels, batch.labels])
        verdict = self(images, labels, draws, squares=squares, sets=2)
        parts = [value.chunk(2) for value in vars(verdict).values() if value is not None]
        real, fake = (Verdict(*values) for values in zip(*parts, strict=True))
        return real, fake


def discriminator_terms(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, config: Config
) -> Terms:
    """Return the terms of D's loss, unweighted, per sample.

    Returns:
        `adversarial`, and where they are configured `gp`, `r1`, `r2`, `drift`, `label_real` and
        `label_fake`, each [N]; also `real_score`, `fake_score` and, where scores have a zero, `real_positive`
        (1 where D takes a real image for real, else 0), which are no losses.
    """
    loss, judge = config.loss, _Judge(D, at, config)
    with torch.no_grad():
        fakes = G(batch.latents, batch.labels, level=at.level, alpha=at.alpha).to(batch.reals.dtype)
    r1, r2 = (at.penalize and gamma > 0 for gamma in (loss.r1_gamma, loss.r2_gamma))
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
    if at.penalize and loss.gp_lambda > 0:
        mixed = torch.lerp(batch.reals, fakes, batch.mixing.view(-1, 1, 1, 1))
        squares = judge(mixed, batch.labels, batch.augment_real, squares=True).squares
        assert squares is not None
        terms["gp"] = gradient_penalty(squares, loss.gp_target, one_sided=loss.gp_sides == "one")
    if loss.drift > 0:
        terms["drift"] = drift(real.scores)
    if D.conditioning == "ac_gan":
        terms["label_real"] = label_loss(D.label_form, real.logits, batch.labels)
        terms["label_fake"] = label_loss(D.label_form, fake.logits, batch.labels)
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
        "gp": loss.gp_lambda * every,
        "r1": loss.r1_gamma / 2 * every,
        "r2": loss.r2_gamma / 2 * every,
        "drift": loss.drift,
        "label_real": loss.label_weight,
        "label_fake": loss.label_weight,
    }
    result = terms["adversarial"]
    for name, weight in weights.items():
        if name in terms:
            result = result + weight * terms[name]
    return result

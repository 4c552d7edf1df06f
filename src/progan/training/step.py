"""One update of D and one of G, given their batches: no randomness and no files here.

The step reads as the paper's training loop: D (several times, each followed by the average of G), then G.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from progan.config import Config, LossOptions
from progan.data.batches import DiscriminatorBatch, GeneratorBatch, micro_batches
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.losses import (
    drift,
    gradient_penalty,
    label_loss,
    wgan_discriminator,
    wgan_generator,
)
from progan.training.optimizer import Adam

Terms = dict[str, Tensor]
"""Loss terms by name; each [N] before, 0-d after the mean over the batch."""


@dataclass(frozen=True)
class Growth:
    """Where the networks stand: the level, and alpha as a 0-d tensor while it fades in (else None)."""

    level: int
    alpha: Tensor | None


def discriminator_terms(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, growth: Growth, loss: LossOptions
) -> Terms:
    """Return the terms of D's loss, unweighted, per sample.

    Returns:
        `wasserstein`, `penalty`, `drift` and, for labelled data, `label_real` and `label_fake`, each [N];
        also `real_score` and `fake_score`, which are no losses.
    """
    level, alpha = growth.level, growth.alpha
    with torch.no_grad():
        fakes = G(batch.latents, batch.labels, level=level, alpha=alpha)
    real_scores, real_logits = D(batch.reals, level=level, alpha=alpha)
    fake_scores, fake_logits = D(fakes, level=level, alpha=alpha)
    terms = {
        "real_score": real_scores,
        "fake_score": fake_scores,
        "wasserstein": wgan_discriminator(real_scores, fake_scores),
    }
    if loss.gp_lambda > 0:

        def score(images: Tensor) -> Tensor:
            scores: Tensor = D(images, level=level, alpha=alpha)[0]
            return scores

        terms["penalty"] = gradient_penalty(score, batch.reals, fakes, batch.mixing, loss.gp_target)
    if loss.drift > 0:
        terms["drift"] = drift(real_scores)
    if D.label_size:
        terms["label_real"] = label_loss(real_logits, batch.labels)
        terms["label_fake"] = label_loss(fake_logits, batch.labels)
    return terms


def generator_terms(G: Generator, D: Discriminator, batch: GeneratorBatch, growth: Growth) -> Terms:
    """Return the terms of G's loss, unweighted, per sample: `wasserstein` and, if labelled, `label_fake`."""
    fakes = G(batch.latents, batch.labels, level=growth.level, alpha=growth.alpha)
    scores, logits = D(fakes, level=growth.level, alpha=growth.alpha)
    terms = {"wasserstein": wgan_generator(scores)}
    if D.label_size:
        terms["label_fake"] = label_loss(logits, batch.labels)
    return terms


def total(terms: Terms, loss: LossOptions) -> Tensor:
    """Return the weighted sum of the terms, per sample: [N]."""
    weights = {
        "penalty": loss.gp_lambda,
        "drift": loss.drift,
        "label_real": loss.label_weight,
        "label_fake": loss.label_weight,
    }
    result = terms["wasserstein"]
    for name, weight in weights.items():
        if name in terms:
            result = result + weight * terms[name]
    return result


def discriminator_step(
    networks: tuple[Generator, Discriminator],
    optimizer: Adam,
    batch: DiscriminatorBatch,
    growth: Growth,
    config: Config,
    lr: float,
) -> Terms:
    """Update D once; G makes the fakes and is not changed.

    Args:
        networks: G and D.
        optimizer: D's.
        batch: The whole batch; it is computed in micro-batches of whole stddev groups if configured.
        growth: Level and alpha.
        config: Loss and micro-batch size.
        lr: Learning rate.

    Returns:
        The mean of each term over the batch, and of the `loss`: 0-d tensors on the device, detached.
    """
    G, D = networks
    means: Terms = {}
    for part in micro_batches(len(batch), D.stddev_group, config.run.micro_batch):
        terms = discriminator_terms(G, D, batch.take(part), growth, config.loss)
        _accumulate(means, terms, total(terms, config.loss), len(batch))
    optimizer.step(lr)
    return means


def generator_step(
    networks: tuple[Generator, Discriminator],
    optimizer: Adam,
    batch: GeneratorBatch,
    growth: Growth,
    config: Config,
    lr: float,
) -> Terms:
    """Update G once; D is not changed, and its weights get no gradients. See `discriminator_step`."""
    G, D = networks
    means: Terms = {}
    D.requires_grad_(False)
    for part in micro_batches(len(batch), D.stddev_group, config.run.micro_batch):
        terms = generator_terms(G, D, batch.take(part), growth)
        _accumulate(means, terms, total(terms, config.loss), len(batch))
    D.requires_grad_(True)
    optimizer.step(lr)
    return means


def _accumulate(means: Terms, terms: Terms, losses: Tensor, n: int) -> None:
    """Add one part's share of the batch's mean to the gradients and to the reported means."""
    torch.autograd.backward(losses.sum() / n)
    for name, values in {**terms, "loss": losses}.items():
        share = values.detach().sum() / n
        means[name] = means[name] + share if name in means else share

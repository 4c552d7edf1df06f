"""The loss of an update, in the stages in which it is computed: what D judges, and the terms of the parts.

Every term has one value per sample; their mean over the whole batch is taken once. Scores are [N], higher
for real; every term is [N], at least in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from progan.config import Config
from progan.data.batches import DiscriminatorBatch, GeneratorBatch
from progan.models.autograd import with_squares
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.training.augment import Policy, augment, policy_of
from progan.training.terms.kinds import AdversarialLoss, Penalty, Seen, Verdict
from progan.training.terms.shipped import ALWAYS, PENALTIES, adversarial_loss, penalties

Terms = dict[str, Tensor]
"""Loss terms by name; each [N] before, 0-d after the mean over the batch."""

Stage = Callable[[], Terms]
"""Computes some of the terms of a loss; the stages of one loss have no term in common, and add up."""

TERM_NAMES = (*ALWAYS, *(penalty.name for penalty in PENALTIES), "loss")
"""Every term of shipped parts that there can be, and the loss."""


@dataclass(frozen=True)
class Objective:
    """What both networks minimise: the parts that a configuration chooses, with their options.

    Attributes:
        adversarial: The adversarial loss.
        penalties: The penalties that are on, in the order in which they are added up.
        policy: The augmentations.
        config: The configuration.
    """

    adversarial: AdversarialLoss
    penalties: tuple[Penalty, ...]
    policy: Policy
    config: Config

    @classmethod
    def of(cls, config: Config) -> Objective:
        """Return the objective of a configuration.

        Raises:
            ConfigError: if the definition of a part is not at hand.
        """
        return cls(adversarial_loss(config), penalties(config), policy_of(config), config)

    def due(self, at: Conditions) -> list[Penalty]:
        """Return the penalties that count in an update of D."""
        return [penalty for penalty in self.penalties if at.penalize or penalty.slope is None]

    @property
    def term_names(self) -> tuple[str, ...]:
        """Every term there can be, and the loss: what processes that share a batch add up, in this order."""
        own = (penalty.name for penalty in self.penalties if penalty.name not in TERM_NAMES)
        return (*TERM_NAMES, *own)


@dataclass(frozen=True)
class Conditions:
    """What holds during one update.

    Attributes:
        level: The level that is computed.
        alpha: 0-d tensor while it comes in, else None.
        probability: Of the augmentations, a 0-d tensor; None for none.
        penalize: Whether the penalties of D's gradients are due (they may be computed now and then only).
        d_scale, g_scale: What the loss of each network is multiplied by before its backward pass (float16),
            else 1.
    """

    level: int
    alpha: Tensor | None = None
    probability: Tensor | None = None
    penalize: bool = True
    d_scale: Tensor | float = 1.0
    g_scale: Tensor | float = 1.0


class _Judge:
    """D as the losses see it: images are augmented first."""

    def __init__(self, D: Discriminator, at: Conditions, policy: Policy) -> None:
        self.D, self.at, self._policy = D, at, policy

    def __call__(
        self, images: Tensor, labels: Tensor, draws: Tensor | None, *, squares: bool = False, sets: int = 1
    ) -> Verdict:
        """Judge images [N, C, H, W] with labels [N, label_size], augmented by draws [N, numbers] or None.

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
        return Verdict(*with_squares(judge, images, self.at.d_scale))

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
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, objective: Objective
) -> list[Stage]:
    """Return D's loss in stages: first what judges reals and fakes, then penalties between them that are due.

    The two have nothing in common but the fakes, which are made by this call. With each stage's gradients
    taken before the next is computed, no more than one of them is in memory.

    Returns:
        Functions without arguments, each of which computes terms of its own, unweighted: `adversarial` and
        those of the penalties, by name; then those of penalties between reals and fakes. Each is [N].
        Also `real_score`, `fake_score` and, where scores have a zero, `real_positive` (1 where D takes a real
        image for real, else 0), which are no losses.
    """
    judge = _Judge(D, at, objective.policy)
    with torch.no_grad():
        fakes = _make(G, batch, at)
    due = objective.due(at)
    beside = [penalty for penalty in due if penalty.slope != "between"]

    def verdict_terms() -> Terms:
        real, fake = _verdicts(judge, batch, fakes, beside)
        return _discriminator_terms(G, judge, batch, fakes, (real, fake), objective.adversarial, beside)

    return [verdict_terms, *_stages_between(G, judge, batch, fakes, due)]


@dataclass(frozen=True)
class Shared:
    """The losses of both networks from fakes that are made, and judged, once.

    Attributes:
        make: Makes the fakes [N, C, H, W], with the gradients of G's weights.
        judge: Given the fakes as they are, returns the terms of D's loss and those of G's.
        mirrored: Whether the gradient of D's loss with respect to the fakes is G's with the other sign.
        between: Given the fakes as constants, returns the stages of D's penalties between reals and fakes.
    """

    make: Callable[[], Tensor]
    judge: Callable[[Tensor], tuple[Terms, Terms]]
    mirrored: bool
    between: Callable[[Tensor], list[Stage]]


def shared_losses(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, objective: Objective
) -> Shared:
    """Return the losses of both networks at the weights that they have now, of the fakes of a batch of D.

    Their terms are those of `discriminator_stages` and `generator_terms`, of the same fakes. With D(fake) -
    D(real) and -D(fake), all that reaches the fakes is the same for both but for its sign, so one backward
    pass serves both; that holds where no other term looks at the fakes. Else G's gradient is found by a pass
    of its own, and D judges reals and fakes apart, so that this pass goes through the fakes alone.
    """
    judge, due = _Judge(D, at, objective.policy), objective.due(at)
    beside = [penalty for penalty in due if penalty.slope != "between"]
    looking = any(penalty.looks_at_fakes(D.conditioning) for penalty in objective.penalties)
    mirrored = objective.adversarial.facts.mirrored and not looking

    def verdict_terms(fakes: Tensor) -> tuple[Terms, Terms]:
        real, fake = _verdicts(judge, batch, fakes, beside, apart=not mirrored)
        d_terms = _discriminator_terms(G, judge, batch, fakes, (real, fake), objective.adversarial, beside)
        return d_terms, _generator_terms(G, judge, batch, fakes, fake, real.scores.detach(), objective)

    return Shared(
        make=partial(_make, G, batch, at),
        judge=verdict_terms,
        mirrored=mirrored,
        between=lambda fakes: _stages_between(G, judge, batch, fakes, due),
    )


def _make(G: Generator, batch: DiscriminatorBatch, at: Conditions) -> Tensor:
    """Return the fakes of a batch of D, in the type of its reals."""
    fakes: Tensor = G(batch.latents, batch.labels, level=at.level, alpha=at.alpha)
    return fakes.to(batch.reals.dtype)


def _verdicts(
    judge: _Judge, batch: DiscriminatorBatch, fakes: Tensor, due: list[Penalty], *, apart: bool = False
) -> tuple[Verdict, Verdict]:
    """Judge reals and fakes, with the squared slopes that penalties ask for; `apart`: in two passes."""
    at_reals, at_fakes = (any(one.slope == place for one in due) for place in ("reals", "fakes"))
    if at_reals == at_fakes and not apart:
        return judge.both(batch, fakes, squares=at_reals)
    # Gradients with respect to images cost another pass, so only those that are asked for.
    real = judge(batch.reals, batch.labels, batch.augment_real, squares=at_reals)
    return real, judge(fakes, batch.labels, batch.augment_fake, squares=at_fakes)


def _discriminator_terms(
    G: Generator,
    judge: _Judge,
    batch: DiscriminatorBatch,
    fakes: Tensor,
    verdicts: tuple[Verdict, Verdict],
    loss: AdversarialLoss,
    due: list[Penalty],
) -> Terms:
    """Return the terms of D's loss that regard reals and fakes themselves, of what D makes of them."""
    real, fake = verdicts
    scores, noise = (real.scores, fake.scores), batch.noise
    terms = {
        "real_score": real.scores,
        "fake_score": fake.scores,
        "adversarial": loss.discriminator(*scores)
        if noise is None
        else loss.noisy_discriminator(*scores, noise),
    }
    if (middle := loss.facts.middle) is not None:
        terms["real_positive"] = (real.scores > middle).to(real.scores.dtype)
    slopes = {"reals": real.squares, "fakes": fake.squares}
    for penalty in due:
        squares = None if penalty.slope is None else slopes[penalty.slope]
        seen = Seen(
            fakes, fake, batch.reals, real, squares, judge=partial(judge, draws=batch.augment_fake),
            **_common(G, judge, batch),
        )  # fmt: skip
        _add(terms, penalty.name, penalty.discriminator(seen))
    return terms


def _stages_between(
    G: Generator, judge: _Judge, batch: DiscriminatorBatch, fakes: Tensor, due: list[Penalty]
) -> list[Stage]:
    """Return the stage of the penalties of slopes between reals and fakes, if there are any."""
    between = [penalty for penalty in due if penalty.slope == "between"]
    return [partial(_terms_between, G, judge, batch, fakes, between)] if between else []


def _terms_between(
    G: Generator, judge: _Judge, batch: DiscriminatorBatch, fakes: Tensor, due: list[Penalty]
) -> Terms:
    """Return the penalties of the scores' slope between reals and fakes."""
    mixed = torch.lerp(batch.reals, fakes, batch.mixing.view(-1, 1, 1, 1))
    squares = judge(mixed, batch.labels, batch.augment_real, squares=True).squares
    draw = partial(judge, draws=batch.augment_real)
    seen = Seen(mixed, None, batch.reals, None, squares, judge=draw, **_common(G, judge, batch))
    terms: Terms = {}
    for penalty in due:
        _add(terms, penalty.name, penalty.discriminator(seen))
    return terms


def generator_stages(
    G: Generator, D: Discriminator, batch: GeneratorBatch, at: Conditions, objective: Objective
) -> list[Stage]:
    """Return G's loss as a list of a single stage, which computes `generator_terms`."""
    return [partial(generator_terms, G, D, batch, at, objective)]


def discriminator_terms(
    G: Generator, D: Discriminator, batch: DiscriminatorBatch, at: Conditions, objective: Objective
) -> Terms:
    """Return all terms of D's loss together; see `discriminator_stages`."""
    terms: Terms = {}
    for stage in discriminator_stages(G, D, batch, at, objective):
        terms |= stage()
    return terms


def generator_terms(
    G: Generator, D: Discriminator, batch: GeneratorBatch, at: Conditions, objective: Objective
) -> Terms:
    """Return the terms of G's loss, unweighted, per sample: `adversarial` and those of penalties, by name."""
    judge = _Judge(D, at, objective.policy)
    fakes = G(batch.latents, batch.labels, level=at.level, alpha=at.alpha)
    fake = judge(fakes, batch.labels, batch.augment_fake)
    partners = None
    if batch.reals is not None:
        with torch.no_grad():
            partners = judge(batch.reals, batch.labels, batch.augment_real).scores
    return _generator_terms(G, judge, batch, fakes, fake, partners, objective)


def _generator_terms(
    G: Generator,
    judge: _Judge,
    batch: DiscriminatorBatch | GeneratorBatch,
    fakes: Tensor,
    fake: Verdict,
    partners: Tensor | None,
    objective: Objective,
) -> Terms:
    """Return the terms of G's loss, of what D makes of the fakes and, if it compares, the partners."""
    paired = objective.adversarial.facts.paired
    terms = {"adversarial": objective.adversarial.generator(fake.scores, partners if paired else None)}
    seen = Seen(
        fakes, fake, batch.reals if paired else None, None, None,
        judge=partial(judge, draws=batch.augment_fake), **_common(G, judge, batch),
    )  # fmt: skip
    for penalty in objective.penalties:
        _add(terms, penalty.name, penalty.generator(seen))
    return terms


def _common(G: Generator, judge: _Judge, batch: DiscriminatorBatch | GeneratorBatch) -> dict[str, Any]:
    """Return what penalties may look at in every stage."""
    at = judge.at
    return {
        "labels": batch.labels,
        "label_form": judge.D.label_form,
        "latents": batch.latents,
        "generate": partial(G, level=at.level, alpha=at.alpha),
    }


def _add(terms: Terms, name: str, term: Tensor | None) -> None:
    if term is not None:
        terms[name] = term


def total(terms: Terms, objective: Objective) -> Tensor:
    """Return the weighted sum of the terms, per sample: [N].

    Penalties of slopes are computed at every k-th update only, and are k times as strong there (lazy
    regularisation, Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*, appendix B).
    """
    every = objective.config.loss.penalty_interval
    weights = {"adversarial": 1.0} | {
        penalty.name: penalty.weight * (1 if penalty.slope is None else every)
        for penalty in objective.penalties
    }
    there = {name: weight for name, weight in weights.items() if name in terms}
    return reduce(torch.add, [w * terms[name] if w != 1 else terms[name] for name, w in there.items()])


def joined(terms: Terms, more: Terms) -> Terms:
    """Return the terms of the stages of an update so far, if any, and of another; each `loss` adds up."""
    both = [name for name in ("D/loss", "G/loss") if name in terms and name in more]
    return {**terms, **more, **{name: terms[name] + more[name] for name in both}}

"""The loss terms, each one value per sample; their mean over the whole batch is taken once.

Five adversarial losses, and penalties of D's gradients that go with any of them. Scores are [N], higher
for real; every function returns [N], at least in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import Adversarial, LabelForm
from progan.models.autograd import outside_autocast
from progan.models.layers import at_least_float32


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


def with_squares(
    judge: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor, scale: Tensor | float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge images, and measure how steeply the scores change with them.

    Args:
        judge: Maps images [N, C, H, W] to scores [N] and anything else.
        images: [N, C, H, W]; they are looked at as constants.
        scale: The gradient is computed of `scale` times the scores and divided by it again, so that it
            neither vanishes nor overflows in float16.

    Returns:
        What `judge` returns, and the squared norm of each image's gradient [N], all differentiable with
        respect to the parameters of `judge`. There is no epsilon, as in the original.
    """
    images = images.detach()
    if torch.compiler.is_compiling():
        # Compilation follows the functional form only; eager, it costs a call more for every operation.
        def total(images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            scores, rest = judge(images)
            return (scores * scale).sum(), (scores, rest)

        gradient, (scores, rest) = torch.func.grad(total, has_aux=True)(images)
    else:
        images = images.requires_grad_(True)
        scores, rest = judge(images)
        with outside_autocast(images):
            (gradient,) = torch.autograd.grad((scores * scale).sum(), images, create_graph=True)
    return scores, rest, (at_least_float32(gradient) / scale).square().sum(dim=(1, 2, 3))


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

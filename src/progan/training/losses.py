"""The loss terms of the paper, each one value per sample; their mean over the whole batch is taken once.

WGAN-GP (Gulrajani et al., 2017) with drift (appendix A.1), and AC-GAN's label term as in the original
loss.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.models.layers import at_least_float32


def wgan_discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return D(fake) - D(real): scores [N], [N] -> [N]."""
    return fake_scores - real_scores


def wgan_generator(fake_scores: Tensor) -> Tensor:
    """Return -D(fake): [N] -> [N]."""
    return -fake_scores


def drift(real_scores: Tensor) -> Tensor:
    """Return D(real)^2, which keeps the scores near zero: [N] -> [N]. Source: appendix A.1."""
    return real_scores.square()


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the label outputs.

    Args:
        logits: [N, label_size].
        labels: [N, label_size], rows that add up to 1.

    Returns:
        [N], at least 0.
    """
    return -(labels * F.log_softmax(logits, dim=1)).sum(dim=1)


def gradient_penalty(
    score: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, mixing: Tensor, target: float
) -> Tensor:
    """Return (|grad D(mixed)| - target)^2 / target^2 at points between real and fake images.

    Args:
        score: Maps images [N, C, H, W] to scores [N].
        reals, fakes: [N, C, H, W].
        mixing: [N] in [0, 1]: 0 looks at the real image, 1 at the fake one.
        target: Norm that is not penalised.

    Returns:
        [N], differentiable with respect to the parameters of `score`. There is no epsilon under the
        root, as in the original.
    """
    mixed = torch.lerp(reals, fakes, mixing.view(-1, 1, 1, 1)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(mixed).sum(), mixed, create_graph=True)
    norms = at_least_float32(gradient).square().sum(dim=(1, 2, 3)).sqrt()
    return (norms - target).square() / target**2

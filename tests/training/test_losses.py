"""Each loss against its published formula, written out with NumPy; penalties against known gradients."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Adversarial, make_config
from progan.models.autograd import with_squares
from progan.training.terms.kinds import AdversarialLoss, Seen, Verdict
from progan.training.terms.shipped import Drift, adversarial_loss, gradient_penalty, label_loss

Array = NDArray[np.float64]
scores = npst.arrays(np.float64, 6, elements=st.floats(-30, 30))


def shipped(kind: str) -> AdversarialLoss:
    return adversarial_loss(make_config({"loss": {"adversarial": kind}}))


def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + e^-x)), in a form that is exact for any x."""
    return -np.logaddexp(0, -x)


def discriminator_formula(kind: str, real: Array, fake: Array) -> Array:
    match kind:
        case "wgan":
            return fake - real
        case "least_squares":
            return 0.5 * (real - 1) ** 2 + 0.5 * fake**2
        case "logistic":  # -log D(x) - log(1 - D(G(z))), D = sigmoid(score)
            return -log_sigmoid(real) - log_sigmoid(-fake)
        case "hinge":
            return np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)
        case _:  # f(D(G(z)) - D(x)) with f(t) = -log(1 + e^-t), negated for the sign of D
            return -log_sigmoid(real - fake)


def generator_formula(kind: str, real: Array, fake: Array) -> Array:
    match kind:
        case "wgan" | "hinge":
            return -fake
        case "least_squares":
            return 0.5 * (fake - 1) ** 2
        case "logistic":
            return -log_sigmoid(fake)
        case _:
            return -log_sigmoid(fake - real)


@pytest.mark.parametrize("kind", get_args(Adversarial))
@given(real=scores, fake=scores)
def test_adversarial_losses(kind: Adversarial, real: Array, fake: Array) -> None:
    r, f = torch.from_numpy(real), torch.from_numpy(fake)
    ours = shipped(kind).discriminator(r, f).numpy()
    np.testing.assert_allclose(ours, discriminator_formula(kind, real, fake), rtol=1e-9, atol=1e-9)
    ours = shipped(kind).generator(f, r).numpy()
    np.testing.assert_allclose(ours, generator_formula(kind, real, fake), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", get_args(Adversarial))
def test_d_and_g_pull_in_opposite_directions(kind: Adversarial) -> None:
    real, fake = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([0.3, -0.2], [0.1, 0.4]))
    to_real, to_fake = torch.autograd.grad(shipped(kind).discriminator(real, fake).sum(), (real, fake))
    assert bool((to_real < 0).all()), "D wants higher scores for reals"
    assert bool((to_fake > 0).all()), "and lower ones for fakes"
    (to_fake,) = torch.autograd.grad(shipped(kind).generator(fake, real.detach()).sum(), fake)
    assert bool((to_fake < 0).all()), "G wants higher scores for fakes"


def test_partners_are_needed() -> None:
    with pytest.raises(ValueError, match="real scores"):
        shipped("relativistic").generator(torch.zeros(2), None)


def test_noise_moves_the_targets() -> None:
    real, fake = torch.tensor([1.5, 0.5]), torch.tensor([-0.25, 0.75])
    noise = torch.tensor([[0.5, -0.25], [-0.5, 0.75]])
    assert torch.equal(shipped("least_squares").noisy_discriminator(real, fake, noise), torch.zeros(2))


def test_what_counts_as_positive_lies_between_the_targets() -> None:
    assert shipped("least_squares").facts.middle == 0.5
    assert shipped("logistic").facts.middle == shipped("hinge").facts.middle == 0
    assert shipped("wgan").facts.middle is shipped("relativistic").facts.middle is None


@pytest.mark.parametrize("one_sided", [False, True])
def test_a_flat_score_has_a_finite_slope(one_sided: bool) -> None:
    squares = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(squares, 2.0, one_sided=one_sided)
    assert penalty.tolist() == ([0.0] * 3 if one_sided else [1.0] * 3)
    (slope,) = torch.autograd.grad(penalty.sum(), squares)
    assert slope.tolist() == [0.0] * 3


def quadratic(images: Tensor) -> tuple[Tensor, Tensor]:
    """A score whose gradient is the image itself."""
    return images.square().sum((1, 2, 3)) / 2, images


@given(st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 750.0]), st.booleans())
def test_gradient_penalty(seed: int, target: float, one_sided: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 2, 3, 3)) / 4)
    scores, same, squares = with_squares(quadratic, x)
    norms = x.flatten(1).norm(dim=1)
    torch.testing.assert_close(scores.detach(), norms.square() / 2)
    assert torch.equal(same, x)
    torch.testing.assert_close(squares.detach(), norms.square())
    expected = (norms / target - 1).square()
    if one_sided:
        expected = torch.where(norms < target, torch.zeros_like(norms), expected)
    torch.testing.assert_close(gradient_penalty(squares, target, one_sided=one_sided).detach(), expected)


def test_penalties_reach_the_weights() -> None:
    """R1 of w * |x|^2 / 2 is w^2 |x|^2, whose slope in w is 2 w |x|^2; the scale changes nothing."""
    for scale in (1.0, torch.tensor(1024.0)):
        w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)

        def judge(images: Tensor, w: Tensor = w) -> tuple[Tensor, Tensor]:
            return w * quadratic(images)[0], images

        _, _, squares = with_squares(judge, x, scale)
        (slope,) = torch.autograd.grad(squares.sum(), w)
        torch.testing.assert_close(squares.detach(), torch.full((2,), 9.0, dtype=torch.float64))
        assert float(slope) == pytest.approx(2 * 3 * 2)


def test_drift() -> None:
    judged = Verdict(torch.tensor([-3.0, 2.0]), torch.zeros(2, 0))
    nothing = torch.zeros(2, 0)
    seen = Seen(
        nothing,
        judged,
        nothing,
        judged,
        None,
        nothing,
        "class",
        nothing,
        lambda *_: judged,
        lambda *_: nothing,
    )
    penalty = Drift(make_config({}).loss)
    assert penalty.weight == 0.001
    assert penalty.discriminator(seen).tolist() == [9.0, 4.0]


def test_label_losses() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
    several = torch.tensor([[1.0, 1, 0], [0, 0, 0]], dtype=torch.float64)
    entropy = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]), reduction="none")
    torch.testing.assert_close(label_loss("class", logits, one_hot), entropy)
    sigmoid = torch.sigmoid(logits)
    binary = -(several * sigmoid.log() + (1 - several) * (1 - sigmoid).log()).sum(1)
    torch.testing.assert_close(label_loss("classes", logits, several), binary)
    vector = label_loss("vector", logits, logits + torch.tensor([[3.0, 0, 4], [0, 0, 0]]))
    assert vector.tolist() == pytest.approx([12.5, 0])


def test_gradients_of_scores_are_computed_outside_autocast() -> None:
    """On a GPU they are computed in a thread that does not know autocast's type."""
    enabled: list[bool] = []

    def judge(x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x.square().sum(dim=(1, 2, 3))
        scores.register_hook(lambda _: enabled.append(torch.is_autocast_enabled("cpu")))  # type: ignore[no-untyped-call]
        return scores, scores

    with torch.autocast("cpu", dtype=torch.bfloat16):
        with_squares(judge, torch.ones(2, 1, 2, 2))
        assert torch.is_autocast_enabled("cpu")
    assert enabled == [False]

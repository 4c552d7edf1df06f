"""The networks with any options together: derivatives, number types, devices, files."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from progan.config import Activation, Conditioning, Scaling
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.loading import load_network
from progan.models.weights import save

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("name", "downscale"), list(zip(ACTIVATIONS, SCALINGS * 3, strict=False)))
def test_derivatives(name: Activation, downscale: Scaling) -> None:
    """First and second derivatives, by the images and by the weights, against finite differences."""
    torch.manual_seed(1)
    D = Discriminator(
        channels=1,
        base_shape=(2, 2),
        max_level=1,
        fmap_max=2,
        label_size=2,
        conditioning="projection",
        activation=name,
        downscale=downscale,
        stddev_group=2,
    ).double()
    # Scores of sound size, and no gradient that only rounding makes
    x, labels, alpha = randn(2, 1, 4, 4).requires_grad_(), randn(2, 2), torch.tensor(0.3)
    names = [key for key, _ in D.named_parameters()]
    weights = [randn(*p.shape).requires_grad_() for p in D.parameters()]

    def score(images: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(
            D, dict(zip(names, values, strict=True)), (images, labels), {"level": 1, "alpha": alpha}
        )[0]
        return result

    assert torch.autograd.gradcheck(score, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(score, (x, *weights), fast_mode=True)


common = st.fixed_dictionaries(
    {
        "fmap_max": st.sampled_from([2, 4, 6]),
        "kernel_size": st.sampled_from([1, 3, 5]),
        "activation": st.sampled_from(ACTIVATIONS),
        "bias": st.booleans(),
        "equalized_lr": st.booleans(),
        "weight_init": st.sampled_from(["he", "lecun", "truncated"]),
        "gain": st.sampled_from(["paper", "activation"]),
    }
)
of_g = st.fixed_dictionaries(
    {
        "latent_size": st.sampled_from([None, 1, 5]),
        "normalize_latents": st.booleans(),
        "pixel_norm": st.booleans(),
        "pixel_norm_eps": st.sampled_from([1e-8, 1e-4]),
        "dense_gain": st.sampled_from([None, 1.0]),
        "upscale": st.sampled_from(SCALINGS),
        "output_activation": st.sampled_from(["linear", "tanh"]),
    }
)
of_d = st.fixed_dictionaries(
    {
        "stddev_group": st.sampled_from([0, 1, 2, 4]),
        "stddev_features": st.sampled_from([1, 2]),
        "downscale": st.sampled_from(SCALINGS),
        "dense_features": st.sampled_from([None, 3]),
    }
)
shapes = st.fixed_dictionaries(
    {
        "channels": st.integers(1, 4),
        "base_shape": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "max_level": st.integers(0, 2),
        "label_size": st.integers(0, 2),
        "label_form": st.sampled_from(["class", "classes", "vector"]),
    }
)
any_networks = given(common, of_g, of_d, shapes, st.booleans())
Options = dict[str, Any]


def make(
    both: Options, g: Options, d: Options, shape: Options, project: bool
) -> tuple[Generator, Discriminator]:
    assume(not (both["weight_init"] == "lecun" and both["gain"] == "activation"))
    torch.manual_seed(0)
    conditioning: Conditioning | None = "projection" if project and shape["label_size"] else None
    return (
        Generator(**both, **g, **shape),
        Discriminator(**both, **d, **shape, conditioning=conditioning),
    )


def both_steps(G: Generator, D: Discriminator, like: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, scores and the squared gradient of the scores, with its backward pass; half faded in."""
    z, labels = like[:, : G.latent_size], like[:, : G.label_size]
    alpha = torch.full((), 0.5, device=like.device)
    images = G(z, labels, level=level, alpha=alpha)
    wide = images.detach().to(like.dtype).requires_grad_(True)
    scores, logits = D(wide, labels, level=level, alpha=alpha)
    assert scores.shape == (4,)
    assert logits.shape == (4, 0 if D.conditioning == "projection" else D.label_size)
    (gradient,) = torch.autograd.grad(scores.sum() + 0 * logits.sum(), wide, create_graph=True)
    squares = gradient.square().sum(dim=(1, 2, 3))
    (squares.sum() + D(images, labels, level=level, alpha=alpha)[0].sum()).backward()
    return images, scores, squares


@settings(max_examples=30)
@any_networks
def test_every_combination(both: Options, g: Options, d: Options, shape: Options, project: bool) -> None:
    G, D = make(both, g, d, shape, project)
    like = torch.randn(4, 8)
    for level in range(G.max_level + 1):
        results = both_steps(G, D, like, level)
        assert results[0].shape == (4, G.channels, *G.resolution(level))
        for result in results:
            assert result.dtype == torch.float32
            assert torch.isfinite(result).all()
    used = [p.grad for p in [*G.parameters(), *D.parameters()]]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in used)

    wide_G, wide_D = copy.deepcopy(G).double(), copy.deepcopy(D).double()
    wide = both_steps(wide_G, wide_D, like.double(), G.max_level)
    assert {result.dtype for result in wide} == {torch.float64}
    torch.testing.assert_close(wide[0].float(), results[0].detach(), rtol=1e-3, atol=1e-3)

    with torch.autocast("cpu", torch.bfloat16):
        narrow = both_steps(G, D, like, G.max_level)
    assert narrow[1].dtype == torch.float32, "scores"
    assert all(torch.isfinite(result).all() for result in narrow)

    with torch.device("meta"):
        meta = both_steps(*make(both, g, d, shape, project), torch.empty(4, 8), G.max_level)
    assert [result.shape for result in meta] == [result.shape for result in results]


@settings(max_examples=15)
@any_networks
def test_every_combination_is_saved(
    tmp_path_factory: pytest.TempPathFactory,
    both: Options,
    g: Options,
    d: Options,
    shape: Options,
    project: bool,
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    for network in make(both, g, d, shape, project):
        text = json.dumps(network.config())
        assert type(network)(**json.loads(text)).config() == network.config()
        save(network, folder / "x")
        network.save_pretrained(folder / type(network).__name__)
        for path in (folder / "x", folder / type(network).__name__ / "model.safetensors"):
            read = load_network(path)
            assert type(read) is type(network)
            assert read.config() == network.config()
            assert read.options == network.options
            for name, value in network.state_dict().items():
                assert torch.equal(read.state_dict()[name], value)


def test_bfloat16_is_near_float32() -> None:
    """The fade, the statistics and the projection lose no more than their inputs' precision."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"max_level": 2, "fmap_max": 32, "label_size": 3}
    G, D = Generator(**options), Discriminator(**options, conditioning="projection", stddev_features=4)
    z, labels, alpha = torch.randn(8, G.latent_size), torch.eye(3)[torch.arange(8) % 3], torch.tensor(0.5)
    with torch.no_grad():
        exact = G(z, labels, level=2, alpha=alpha)
        scores = D(exact, labels, level=2, alpha=alpha)[0]
        with torch.autocast("cpu", torch.bfloat16):
            near = G(z, labels, level=2, alpha=alpha)
            near_scores = D(exact, labels, level=2, alpha=alpha)[0]
    assert near.dtype == torch.bfloat16, "it was computed in half precision"
    assert np.abs((near.float() - exact).numpy()).max() < 0.05 * exact.abs().max().item()
    assert np.abs((near_scores - scores).numpy()).max() < 0.05 * max(1, scores.abs().max().item())

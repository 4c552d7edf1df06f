"""What is computed in one operation must be what its parts compute, gradients and their gradients too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from progan.config import DiscriminatorOptions, GeneratorOptions
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator, after_convolution
from progan.models.layers import StddevForm, minibatch_stddev, pixel_norm
from progan.models.leaky_pixel_norm import LeakyPixelNorm, leaky_pixel_norm


def parts(x: Tensor, slope: float, eps: float) -> Tensor:
    return pixel_norm(F.leaky_relu(x, slope), eps)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([1e-8, 1e-3, 1.0]),
    st.integers(0, 99),
)
def test_leaky_pixel_norm_is_its_parts(
    shape: tuple[int, int, int, int], slope: float, eps: float, seed: int
) -> None:
    x, slopes = features(*shape, seed=seed), features(*shape, seed=seed + 1)
    results = []
    for function in (leaky_pixel_norm, parts):
        given_x = x.clone().requires_grad_()
        y = function(given_x, slope, eps)
        (first,) = torch.autograd.grad((y * slopes).sum(), given_x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), given_x)
        results.append((y, first, second))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_gradients_of_leaky_pixel_norm(slope: float) -> None:
    x = features(2, 5, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: leaky_pixel_norm(x, slope, 1e-3), x)
    assert torch.autograd.gradgradcheck(lambda x: leaky_pixel_norm(x, slope, 1e-3), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_leaky_pixel_norm_are_float32(dtype: torch.dtype) -> None:
    # Squares of these leave the range of float16, and sums of them the precision of bfloat16.
    x = (features(4, 512, 2, 2) + 300).to(dtype)
    y = leaky_pixel_norm(x, 0.2, 1e-8)
    assert y.dtype == dtype
    exact = parts(x.float(), 0.2, 1e-8)
    torch.testing.assert_close(y.float(), exact, rtol=torch.finfo(dtype).eps * 2, atol=0)


def test_the_input_of_leaky_pixel_norm_stays() -> None:
    x = features(2, 3, 4, 4)
    before = x.clone()
    leaky_pixel_norm(x, 0.2, 1e-8)
    assert torch.equal(x, before)


def test_what_follows_a_convolution() -> None:
    x = features(2, 4, 3, 3)
    for activation, slope in (("leaky_relu", 0.1), ("relu", 0.0)):
        options = GeneratorOptions.model_validate({"activation": activation, "leaky_slope": 0.1})
        after = after_convolution(options)
        assert isinstance(after, LeakyPixelNorm)
        torch.testing.assert_close(after(x.clone()), parts(x, slope, 1e-8))
    for options in (GeneratorOptions(activation="tanh"), GeneratorOptions(pixel_norm=False)):
        assert not isinstance(after_convolution(options), LeakyPixelNorm)


def test_a_generator_keeps_one_tensor_a_layer_for_its_gradient() -> None:
    """Of each hidden layer, the result alone is kept: it is what the next one needs, too."""
    G = Generator(max_level=2, fmap_base=64, fmap_max=16).double()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.ndim == 4 and tensor.shape[0] == 3:
            kept[tensor.untyped_storage().data_ptr()] = tensor.shape[-1]
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        images = G(features(3, 16), level=2)
    assert images.shape[-1] == 16
    sides = [side for side in kept.values() if side in (8, 16)]
    # Two layers at each size, and the factors of their norms.
    assert sorted(sides) == [8] * 4 + [16] * 4


@pytest.mark.parametrize("group", [0, 2, 4])
@pytest.mark.parametrize("conditioning", ["ac_gan", "projection"])
def test_sets_of_a_batch_are_judged_apart(group: int, conditioning: str) -> None:
    torch.manual_seed(0)
    options = DiscriminatorOptions(fmap_base=64, fmap_max=16, stddev_group=group).model_dump()
    D = Discriminator(max_level=2, label_size=3, conditioning=conditioning, **options).double()  # type: ignore[arg-type]
    images, labels = features(16, 3, 16, 16), F.one_hot(torch.arange(16) % 3, 3).double()
    together = D(images, labels, sets=2)
    apart = [D(images[i : i + 8], labels[i : i + 8]) for i in (0, 8)]
    for one, others in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(others), rtol=1e-12, atol=1e-12)
    mixed, _ = D(images, labels)
    assert torch.allclose(mixed, together[0], rtol=1e-6) == (group == 0), "groups must matter"


def test_sets_must_be_equal() -> None:
    with pytest.raises(ValueError, match="a batch of 4 cannot be divided into minibatch-stddev groups of 3"):
        minibatch_stddev(features(8, 2, 4, 4), StddevForm(3), sets=2)
    with pytest.raises(ValueError, match="cannot be divided"):
        minibatch_stddev(features(9, 2, 4, 4), StddevForm(2), sets=2)

"""The layers against their definitions, and the networks as a whole at any shape, level and alpha."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plain_layers import FORMULAS, same_convolution, stddev_by_loops
from progan.config import Activation, NetworkOptions, Scaling
from progan.models.activations import activation, hidden_gain, variance_gain
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    StddevForm,
    conv2d_downscale2d,
    downscale2d,
    fade,
    feature_maps,
    minibatch_stddev,
    pixel_norm,
    strided_down,
    strided_up,
    upscale2d,
    upscale2d_conv2d,
)

few = st.integers(1, 5)
kernels = st.sampled_from([1, 3, 5, 7])
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
SMALL: dict[str, Any] = {"fmap_base": 64, "fmap_max": 8}


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def with_gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """An output, its gradients, and the gradients of their squares: what the gradient penalty needs."""
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), inputs, allow_unused=True)
    return (y, *first, *(g for g in second if g is not None))


def close(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(ours, expected, strict=True):
        # Rounding goes with the largest numbers that a sum is made of, not with the sum.
        size = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * size)


@given(few, few, few, st.integers(1, 7), st.integers(1, 7), kernels, st.integers(0, 100))
def test_fused_up_is_unfused_up(n: int, i: int, o: int, h: int, w: int, k: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = randn(n, i, h, w).requires_grad_(), randn(o, i, k, k).requires_grad_()
    results = [
        with_gradients(upscale2d_conv2d(x, weight, kernel=k, fused=fused), x, weight)
        for fused in (True, False)
    ]
    assert results[0][0].shape == (n, o, 2 * h, 2 * w)
    close(*results)


@given(few, few, few, st.integers(1, 5), st.integers(1, 5), kernels, st.booleans(), st.integers(0, 100))
def test_fused_down_is_unfused_down(
    n: int, i: int, o: int, h: int, w: int, k: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = randn(n, i, 2 * h, 2 * w).requires_grad_(), randn(o, i, k, k).requires_grad_()
    b = randn(o) if bias else None
    results = [
        with_gradients(conv2d_downscale2d(x, weight, b, kernel=k, fused=fused), x, weight)
        for fused in (True, False)
    ]
    assert results[0][0].shape == (n, o, h, w)
    close(*results)


strides = given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([1, 3, 5, 7]),
)


@settings(max_examples=20)
@strides
def test_strided_down_is_tensorflows_same(n: int, i: int, o: int, h: int, w: int, k: int) -> None:
    x, weight, bias = randn(n, i, 2 * h, 2 * w), randn(o, i, k, k), randn(o)
    expected = same_convolution(x, weight)
    torch.testing.assert_close(strided_down(x, weight, kernel=k), expected)
    torch.testing.assert_close(strided_down(x, weight, bias, kernel=k), expected + bias.view(1, -1, 1, 1))


@settings(max_examples=20)
@strides
def test_strided_up_is_tensorflows_same(n: int, i: int, o: int, h: int, w: int, k: int) -> None:
    # TensorFlow's transposed convolution is the gradient of its convolution.
    x, weight, large = randn(n, i, h, w), randn(o, i, k, k), randn(n, o, 2 * h, 2 * w).requires_grad_()
    forward = same_convolution(large, weight.transpose(0, 1))
    (expected,) = torch.autograd.grad(forward, large, x)
    torch.testing.assert_close(strided_up(x, weight, kernel=k), expected)


def test_alignment_in_numbers() -> None:
    """What TensorFlow gives for pictures and kernels of ones: the odd row and column are the last ones."""
    ones = torch.ones(1, 1, 3, 3)
    up = [[1, 1, 2, 1], [1, 1, 2, 1], [2, 2, 4, 2], [1, 1, 2, 1]]
    assert strided_up(torch.ones(1, 1, 2, 2), ones, kernel=3)[0, 0].tolist() == up
    assert strided_down(torch.ones(1, 1, 4, 4), ones, kernel=3)[0, 0].tolist() == [[9, 6], [6, 4]]


@given(few, few, st.integers(1, 4), st.integers(1, 4))
def test_scaling_by_two(n: int, c: int, h: int, w: int) -> None:
    x = randn(n, c, h, w)
    up = upscale2d(x)
    assert torch.equal(up, x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(downscale2d(up), x)
    y = randn(n, c, 2 * h, 2 * w)
    mean = (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(downscale2d(y), mean)


stddev_forms = st.builds(
    StddevForm,
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0.0, 1e-8)),
)


@given(stddev_forms, st.integers(1, 4), few, few, few, st.booleans(), st.booleans())
def test_minibatch_stddev(
    form: StddevForm, m: int, c: int, h: int, w: int, small: bool, of_images: bool
) -> None:
    n = m if small and m < form.group else form.group * m
    x = randn(n, c * form.features, h, w)
    of = randn(n, 2 * form.features, 2 * h, w) if of_images else None
    expected = stddev_by_loops(x, form, of)
    torch.testing.assert_close(minibatch_stddev(x, form, of=of), expected)
    twice = minibatch_stddev(torch.cat([x, x]), form, sets=2, of=None if of is None else torch.cat([of, of]))
    torch.testing.assert_close(twice, torch.cat([expected, expected]))


def test_the_deviation_of_equal_images_has_a_gradient() -> None:
    images = torch.ones(4, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    form = StddevForm(4, unbiased=True, epsilon=0.0)
    (gradient,) = torch.autograd.grad(minibatch_stddev(randn(4, 2, 2, 2), form, of=images).sum(), images)
    assert not gradient.any()


def test_minibatch_stddev_of_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="a batch of 6 cannot be divided into minibatch-stddev groups of 4"):
        minibatch_stddev(randn(6, 2, 4, 4), StddevForm(4))


@given(few, st.integers(1, 16), st.floats(1e-2, 1e3), st.booleans())
def test_pixel_norm(n: int, c: int, size: float, flat: bool) -> None:
    x = randn(n, c) * size if flat else randn(n, c, 3, 2) * size
    # A feature vector far above epsilon; with one channel it may come close to zero.
    x = x + x.sign() * 0.1
    y = pixel_norm(x)
    torch.testing.assert_close(y.square().mean(1), torch.ones_like(y[:, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(F.cosine_similarity(x, y, dim=1), torch.ones_like(y[:, 0]))
    assert torch.equal(pixel_norm(torch.zeros_like(x)), torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    # Squares of these leave the range of float16, and sums of them the precision of bfloat16.
    x = (randn(4, 512, 2, 2, dtype=torch.float32) + 300).to(dtype)
    y = pixel_norm(x)
    assert y.dtype == dtype
    expected = pixel_norm(x.float())
    torch.testing.assert_close(y.float(), expected, rtol=torch.finfo(dtype).eps * 2, atol=0)
    s = minibatch_stddev(x, StddevForm(4))
    assert s.dtype == dtype
    exact = minibatch_stddev(x.float(), StddevForm(4))[:, -1]
    assert 0.5 < float(exact.mean()) < 2
    torch.testing.assert_close(s[:, -1].float(), exact, rtol=torch.finfo(dtype).eps, atol=0)


def test_equalized_learning_rate() -> None:
    torch.manual_seed(0)
    options = NetworkOptions()
    conv, linear = EqualizedConv2d(64, 96, 3, options), EqualizedLinear(512, 256, options, gain=1.0)
    assert conv.scale == math.sqrt(2) / math.sqrt(64 * 9)
    assert linear.scale == 1 / math.sqrt(512)
    for layer in (conv, linear):
        assert layer.weight.std().item() == pytest.approx(1, abs=0.02), "N(0, 1), scaled at use"
        assert layer.bias is not None
        assert not layer.bias.any()
    torch.testing.assert_close(conv.scaled_weight(), conv.weight * conv.scale)
    x = torch.randn(2, 512)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight / math.sqrt(512), linear.bias))
    assert linear.bias is not None
    linear.bias.data.fill_(0.5)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight / math.sqrt(512)) + 0.5)
    # Variance is kept: He's initialisation at gain sqrt(2) doubles it for leaky ReLU to halve it again.
    assert conv(torch.randn(4, 64, 16, 16))[..., 1:-1, 1:-1].std().item() == pytest.approx(
        math.sqrt(2), rel=0.1
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: Activation) -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    torch.testing.assert_close(activation(NetworkOptions(activation=name))(x.clone()), FORMULAS[name](x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_keep_the_variance(name: Activation) -> None:
    x = torch.linspace(-12, 12, 2_400_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    expected = torch.trapezoid(density * FORMULAS[name](x).square(), x).rsqrt().item()
    assert variance_gain(name, 0.2) == pytest.approx(expected, rel=1e-9)


def test_gains_that_are_known() -> None:
    assert variance_gain("relu", 0.2) == pytest.approx(math.sqrt(2), rel=1e-13)
    for slope in (0.0, 0.01, 0.2, 1.0):
        assert variance_gain("leaky_relu", slope) == pytest.approx(
            torch.nn.init.calculate_gain("leaky_relu", slope), rel=1e-13
        )
    # The constants of selu are chosen so that unit variance is a fixed point.
    assert variance_gain("selu", 0.2) == pytest.approx(1, rel=1e-13)
    assert hidden_gain(NetworkOptions(activation="tanh")) == math.sqrt(2), (
        "the paper's, whatever the activation"
    )
    assert hidden_gain(NetworkOptions(weight_init="lecun")) == 1


def test_filters_of_table_2() -> None:
    def filters(levels: int, **options: float) -> list[int]:
        return [feature_maps(i, fmap_decay=1.0, fmap_max=512, **options) for i in range(levels)]  # type: ignore[arg-type]

    assert filters(9, fmap_base=8192) == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert filters(6, fmap_base=2048) == [512, 512, 256, 128, 64, 32]  # appendix A.2
    assert feature_maps(-1, fmap_base=8192, fmap_decay=1.0, fmap_max=512) == 512
    assert feature_maps(20, fmap_base=8192, fmap_decay=1.0, fmap_max=512) == 1
    assert feature_maps(20, fmap_base=8192, fmap_decay=1e300, fmap_max=512) == 1


def test_parameters_of_table_2() -> None:
    """The numbers at the foot of Table 2: 23.1M in each network."""
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in network.parameters()) for network in (Generator(), Discriminator())]
    # Those of the lower levels' toRGB and fromRGB, which Table 2 does not count, are a few thousand.
    assert [round(size / 1e6, 1) for size in sizes] == [23.1, 23.1]


@settings(max_examples=25)
@given(
    st.integers(1, 5),
    st.tuples(st.integers(2, 7), st.integers(2, 7)),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["fused", "separate"]),
)
def test_networks_of_any_shape(
    channels: int, base: tuple[int, int], top: int, label_size: int, downscale: Scaling
) -> None:
    shape: dict[str, Any] = {
        "channels": channels,
        "base_shape": base,
        "max_level": top,
        "label_size": label_size,
    }
    G = Generator(**shape, **SMALL).double()
    D = Discriminator(**shape, **SMALL, stddev_group=2, downscale=downscale).double()
    z = randn(4, 8)
    labels = torch.eye(label_size, dtype=torch.float64)[torch.arange(4) % label_size] if label_size else None
    with torch.no_grad():
        for level in range(top + 1):
            images = G(z, labels, level=level)
            assert images.shape == (4, channels, base[0] << level, base[1] << level)
            assert G.resolution(level) == tuple(images.shape[2:])
            scores, logits = D(images, level=level)
            assert scores.shape == (4,)
            assert logits.shape == (4, label_size)
            for alpha in (0.0, 0.3, 1.0, torch.tensor(0.7)):
                assert G(z, labels, level=level, alpha=alpha).shape == images.shape
                assert bool(torch.isfinite(D(images, level=level, alpha=alpha)[0]).all())
            close((G(z, labels, level=level, alpha=1.0),), (images,))
            close(D(images, level=level, alpha=1.0), (scores, logits))
            if level:
                old = G(z, labels, level=level - 1)
                assert torch.equal(G(z, labels, level=level, alpha=0.0), upscale2d(old))
                half = G(z, labels, level=level, alpha=0.5)
                close((half,), ((upscale2d(old) + images) / 2,))
                close(D(images, level=level, alpha=0.0), D(downscale2d(images), level=level - 1))
        close((G(z, labels),), (G(z, labels, level=top),))


def test_how_far_it_has_grown_is_what_a_call_computes() -> None:
    G = Generator(max_level=2, **SMALL, level=1, alpha=0.25)
    D = Discriminator(max_level=2, **SMALL, level=1, alpha=0.25)
    z = torch.randn(4, 8)
    with torch.no_grad():
        images = G(z)
        assert images.shape[2:] == (8, 8)
        assert torch.equal(images, G(z, level=1, alpha=0.25))
        assert not torch.equal(images, G(z, level=1)), "a level that is named is computed in full"
        assert torch.equal(D(images)[0], D(images, level=1, alpha=0.25)[0])
        G.set_growth(2)
        assert torch.equal(G(z), G(z, level=2))
    assert Generator(**G.config()).config() == G.config()


def test_growing_changes_nothing_at_first() -> None:
    """Gradients at alpha 0 reach the old parts alone: the new level starts to train when alpha rises."""
    G = Generator(max_level=1, **SMALL)
    G(torch.randn(2, 8), level=1, alpha=torch.tensor(0.0)).square().sum().backward()
    new = [p.grad for name, p in G.named_parameters() if name.startswith(("blocks.0", "to_rgb.1"))]
    old = [p.grad for name, p in G.named_parameters() if name.startswith(("conv", "dense", "to_rgb.0"))]
    assert all(g is not None and not g.any() for g in new)
    assert all(g is not None and g.any() for g in old)


def test_errors_say_what_was_expected() -> None:
    G = Generator(max_level=2, label_size=3, **SMALL)
    D = Discriminator(max_level=2, **SMALL)
    z, labels = torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 0]]
    with pytest.raises(ValueError, match=r"z must be \[N, 8\], not \[4, 9\]"):
        G(torch.randn(4, 9), labels)
    with pytest.raises(ValueError, match=r"labels must be \[4, 3\], not none"):
        G(z)
    with pytest.raises(ValueError, match=r"labels must be \[4, 3\], not \[3, 3\]"):
        G(z, labels[:3])
    with pytest.raises(ValueError, match="takes no labels"):
        Generator(max_level=0, **SMALL)(z, labels)
    plain = Generator(max_level=2, **SMALL)
    for network, x in ((plain, z), (D, torch.randn(4, 3, 8, 8))):
        for level in (-1, 3):
            with pytest.raises(ValueError, match=rf"level {level}: expected 0\.\.2"):
                network(x, level=level)
            with pytest.raises(ValueError, match=r"expected 0\.\.2 and 0\.\.1"):
                network.set_growth(level)
        for alpha in (-0.1, 1.5, math.nan):
            with pytest.raises(ValueError, match="alpha"):
                network(x, level=1, alpha=alpha)
            with pytest.raises(ValueError, match="alpha"):
                network.set_growth(1, alpha)
    with pytest.raises(ValueError, match=r"images of level 1 must be \['N', 3, 8, 8\], not \[4, 3, 16, 16\]"):
        D(torch.randn(4, 3, 16, 16), level=1)
    with pytest.raises(ValueError, match="a batch of 6 cannot be divided"):
        D(torch.randn(6, 3, 4, 4), level=0)
    with pytest.raises(ValueError, match="2 label names for 3 labels"):
        Generator(label_size=3, label_names=("a", "b"), **SMALL)
    with pytest.raises(ValueError, match="channels 0"):
        Generator(channels=0)
    with pytest.raises(ValueError, match=r"latent_size: .* greater than or equal to 1 \(given: 0\)"):
        Generator(latent_size=0)
    for kind in (Generator, Discriminator):
        for name, value in (("fmap_base", 0), ("fmap_max", 0), ("fmap_decay", -1), ("fmap_decay", math.inf)):
            with pytest.raises(ValueError, match=rf"{name}: .*\(given: {value}\)"):
                kind(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"unknown option 'fmap_bass'; did you mean 'fmap_base'\?"):
            kind(fmap_bass=8)
        with pytest.raises(ValueError, match="kernel_size 4: expected an odd number"):
            kind(kernel_size=4)
        with pytest.raises(ValueError, match="label_form 'onehot': expected class, classes, vector"):
            kind(label_form="onehot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"stddev_group: .*\(given: -1\)"):
        Discriminator(stddev_group=-1)
    with pytest.raises(
        ValueError, match=r"downscale: .*'fused', 'separate' or 'strided' \(given: 'bilinear'\)"
    ):
        Discriminator(downscale="bilinear")
    with pytest.raises(ValueError, match="stddev_features 3 does not divide the 8 filters of level 0"):
        Discriminator(stddev_features=3, **SMALL)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.3, 0.999, 1 - 1e-4, 1.0])
def test_a_fade_in_a_small_type_is_rounded_like_its_features(dtype: torch.dtype, alpha: float) -> None:
    """The shares, the products and their sum are each rounded once; near 0 and 1, too, no share is lost."""
    rng = torch.Generator().manual_seed(0)
    old, new = (torch.randn(4, 8, 3, 3, generator=rng).to(dtype) for _ in range(2))
    made = fade(old, new, torch.tensor(alpha))
    assert made.dtype == dtype
    exact = old.double() * (1 - alpha) + new.double() * alpha
    size = old.double().abs() * (1 - alpha) + new.double().abs() * alpha
    assert float(((made.double() - exact).abs() / size).max()) < 2 * torch.finfo(dtype).eps
    slight = fade(torch.zeros_like(old), new, torch.tensor(alpha))
    torch.testing.assert_close(
        slight.double(), new.double() * alpha, rtol=2 * torch.finfo(dtype).eps, atol=1e-7
    )


def test_a_fade_of_float32_is_the_interpolation() -> None:
    rng = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 5, generator=rng), torch.randn(2, 5, generator=rng)
    assert torch.equal(fade(old, new, torch.tensor(0.3)), torch.lerp(old, new, torch.tensor(0.3)))

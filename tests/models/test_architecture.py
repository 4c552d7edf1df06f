"""Every option of the networks does what it says, in every combination, type and place."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from plain_layers import FORMULAS, same_convolution
from progan.config import (
    Activation,
    DiscriminatorOptions,
    GeneratorOptions,
    LabelForm,
    PixelNormForm,
    Scaling,
)
from progan.models.activations import variance_gain
from progan.models.discriminator import Discriminator
from progan.models.generator import LABEL_EXAMPLES, Generator
from progan.models.layers import EqualizedLayer
from progan.models.loading import load_network
from progan.models.weights import save

SMALL: dict[str, Any] = {"fmap_base": 32, "fmap_max": 4}
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: Generator | Discriminator, level: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(network, Generator):
            network(torch.empty(1, network.latent_size, device="meta"), level=level)
        else:
            network(torch.empty(1, 3, *network.resolution(level), device="meta"), level=level)
    return int(counter.get_total_flops())


def test_operations() -> None:
    """The scaling convolution costs 4 k^2, (k + 1)^2 or k^2 products a pixel of the lower level.

    In D a stride has the other convolution work on a quarter of the pixels, too.
    """
    for kernel_size in (3, 5):
        options: dict[str, Any] = {"fmap_max": 16, "max_level": 2, "kernel_size": kernel_size}
        with torch.device("meta"):
            networks = [
                (Generator(upscale=scaling, **options), Discriminator(downscale=scaling, **options))
                for scaling in SCALINGS
            ]
        for i, networks_of_kind in enumerate(zip(*networks, strict=True)):
            fused, separate, strided = (flops(network, 2) for network in networks_of_kind)
            pixels = (4 * 4 + 8 * 8) * 16 * 16 * 2
            assert separate - fused == pixels * (4 * kernel_size**2 - (kernel_size + 1) ** 2)
            other = 0 if i == 0 else 3 * kernel_size**2
            assert fused - strided == pixels * ((kernel_size + 1) ** 2 - kernel_size**2 + other)


@pytest.mark.parametrize("upscale", SCALINGS)
@pytest.mark.parametrize("name", ["leaky_relu", "gelu", "tanh"])
def test_variance_is_kept_through_the_generator(name: Activation, upscale: Scaling) -> None:
    options: dict[str, Any] = {"channels": 128, "base_shape": (16, 16), "max_level": 1, "fmap_max": 128}
    options |= {"activation": name, "gain": "activation", "dense_gain": 1.0, "pixel_norm": False}
    squares = []
    for seed in range(6):
        torch.manual_seed(seed)
        G = Generator(**options, upscale=upscale)
        with torch.no_grad():
            image = G(torch.randn(2, G.latent_size))[..., 8:24, 8:24]  # the padding does not reach this far
        squares.append(image.square().mean().item())
    # toRGB has gain 1, so its output has the variance E[f(x)^2] = 1 / gain^2.
    assert float(np.mean(squares)) * variance_gain(name, 0.2) ** 2 == pytest.approx(1, abs=0.1)


def layers(network: torch.nn.Module) -> dict[str, EqualizedLayer]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, EqualizedLayer)}


def fan_in(layer: EqualizedLayer) -> int:
    return layer.weight[0].numel()


LINEAR = ("to_rgb", "dense1")


def test_gains_of_every_layer() -> None:
    options: dict[str, Any] = {**SMALL, "max_level": 1, "activation": "tanh"}
    tanh = variance_gain("tanh", 0.2)
    cases: list[tuple[dict[str, Any], float, float]] = [
        ({}, math.sqrt(2), math.sqrt(2) / 4),
        ({"gain": "activation"}, tanh, tanh / 4),
        ({"weight_init": "lecun"}, 1.0, 1.0),
        ({"weight_init": "truncated"}, math.sqrt(2), math.sqrt(2) / 4),
    ]
    for given_options, hidden, dense in cases:
        G, D = Generator(**options, **given_options), Discriminator(**options, **given_options)
        for name, layer in [*layers(G).items(), *layers(D).items()]:
            gain = 1.0 if name.startswith(LINEAR) else dense if name == "dense" else hidden
            assert layer.scale == pytest.approx(gain / math.sqrt(fan_in(layer))), (name, given_options)
        own = Generator(**options, **given_options, dense_gain=0.7)
        assert own.dense.scale == pytest.approx(0.7 / math.sqrt(own.latent_size))


def test_truncated_weights() -> None:
    torch.manual_seed(0)
    he, cut = (
        Discriminator(max_level=0, weight_init=init, fmap_max=128).dense0.weight
        for init in ("he", "truncated")
    )
    # TensorFlow's VarianceScaling divides by this deviation, too.
    assert cut.abs().max().item() == pytest.approx(2 / 0.87962566103423978, rel=1e-3)
    assert he.abs().max() > 3.5
    for weight in (he, cut):
        assert weight.mean().item() == pytest.approx(0, abs=0.01)
        assert weight.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", [Generator, Discriminator])
def test_without_equalized_learning_rate(kind: type[Generator] | type[Discriminator]) -> None:
    """The deviation is in the weights as they are stored; the function is the same."""
    options: dict[str, Any] = {"max_level": 1, "fmap_max": 16}
    networks = []
    for equalized in (True, False):
        torch.manual_seed(0)
        networks.append(kind(**options, equalized_lr=equalized))
    equal, plain = networks
    for (name, a), b in zip(layers(equal).items(), layers(plain).values(), strict=True):
        assert a.scale is not None
        assert b.scale is None
        assert b.scaled_weight() is b.weight
        torch.testing.assert_close(a.weight * a.scale, b.weight, msg=name)
    x = torch.randn(4, 16) if kind is Generator else torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(equal(x), plain(x))


def plain_generator(G: Generator, z: Tensor, name: Activation) -> Tensor:
    """Level 1 of a generator without pixel norm, kernel 5, strided and tanh, written out."""
    f = FORMULAS[name]
    w = {key: value for key, value in G.state_dict().items() if key.endswith("weight")}
    hidden = {key: math.sqrt(2) / math.sqrt(value[0].numel()) for key, value in w.items()}
    x = f((z @ w["dense.weight"].t() * hidden["dense.weight"] / 4).view(len(z), -1, 3, 2))
    x = f(F.conv2d(x, w["conv.weight"] * hidden["conv.weight"], padding="same"))
    spread = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    spread[..., ::2, ::2] = x
    up = w["blocks.0.conv0_up.weight"].flip(2, 3) * hidden["blocks.0.conv0_up.weight"] * 2
    # The whole transposed convolution is k - 2 = 3 longer than twice the side: 1 is cropped before, 2 after.
    x = f(F.conv2d(F.pad(spread, (4, 3, 4, 3)), up)[..., 1:-2, 1:-2][..., : 2 * 3, : 2 * 2])
    x = f(F.conv2d(x, w["blocks.0.conv1.weight"] * hidden["blocks.0.conv1.weight"], padding="same"))
    rgb = w["to_rgb.1.weight"] / math.sqrt(x.shape[1])
    return torch.tanh(torch.einsum("ncij,oc->noij", x, rgb[..., 0, 0]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_generator_of_other_options(name: Activation) -> None:
    G = Generator(
        base_shape=(3, 2),
        max_level=1,
        **SMALL,
        kernel_size=5,
        activation=name,
        bias=False,
        normalize_latents=False,
        pixel_norm=False,
        upscale="strided",
        output_activation="tanh",
    ).double()
    z = randn(2, 4)
    torch.testing.assert_close(G(z), plain_generator(G, z, name))


def test_a_discriminator_of_other_options() -> None:
    D = Discriminator(
        channels=2,
        base_shape=(3, 2),
        max_level=1,
        label_size=2,
        conditioning="projection",
        **SMALL,
        activation="silu",
        equalized_lr=False,
        downscale="strided",
        stddev_group=2,
        stddev_features=2,
        dense_features=7,
    ).double()
    for name, parameter in D.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    w, f = D.state_dict(), FORMULAS["silu"]
    x, labels = randn(4, 2, 6, 4), randn(4, 2)
    y = f(F.conv2d(x, w["from_rgb.1.weight"], w["from_rgb.1.bias"]))
    y = f(same_convolution(y, w["blocks.0.conv0.weight"]) + w["blocks.0.conv0.bias"].view(-1, 1, 1))
    y = f(F.conv2d(y, w["blocks.0.conv1_down.weight"], w["blocks.0.conv1_down.bias"], padding="same"))
    pairs = y.view(2, 2, 4, 3, 2)
    deviation = (pairs[0] - pairs[1]).abs() / 2  # of two samples: i and i + 2
    maps = (deviation.square() + 1e-8).sqrt().view(2, 2, 2 * 3 * 2).mean(2)  # [M, F]
    y = torch.cat([y, maps.repeat(2, 1)[..., None, None].expand(4, 2, 3, 2)], dim=1)
    y = f(F.conv2d(y, w["conv.weight"], w["conv.bias"], padding="same"))
    y = f(F.linear(y.flatten(1), w["dense0.weight"], w["dense0.bias"]))
    assert y.shape == (4, 7)
    psi, v = w["dense1.weight"][0], w["dense1.weight"][1:]
    bias = w["dense1.bias"]
    expected = y @ psi + bias[0] + torch.einsum("nl,nl->n", y @ v.t() + bias[1:], labels)
    scores, logits = D(x, labels)
    torch.testing.assert_close(scores, expected)
    assert logits.shape == (4, 0)


def test_pixel_norm_and_its_epsilon() -> None:
    torch.manual_seed(0)
    G = Generator(max_level=0, **SMALL, pixel_norm_eps=0.5).double()
    z = randn(2, 4)

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 0.5).sqrt()

    x = norm(z) @ G.dense.scaled_weight().t()
    x = norm(F.leaky_relu(x.view(2, 4, 4, 4), 0.2))
    x = norm(F.leaky_relu(F.conv2d(x, G.conv.scaled_weight(), padding=1), 0.2))
    rgb = layers(G)["to_rgb.0"].weight / 2
    torch.testing.assert_close(G(z), F.conv2d(x, rgb))


NORMS: dict[PixelNormForm, Callable[[Tensor], Tensor]] = {
    "mean_square": lambda x: x / (x.square().mean(1, keepdim=True) + 0.1).sqrt(),
    "root": lambda x: x / (x.square().mean(1, keepdim=True).sqrt() + 0.1),
    "variance": lambda x: x / (x.var(1, correction=0, keepdim=True) + 0.1).sqrt(),
}


@pytest.mark.parametrize("place", ["after", "before"])
@pytest.mark.parametrize("dense_norm", ["pixel", "units", "none"])
@pytest.mark.parametrize("form", NORMS)
@pytest.mark.parametrize("label_norm", ["joined", "apart", "both"])
def test_norms_of_the_generator(form: PixelNormForm, dense_norm: str, place: str, label_norm: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"pixel_norm_form": form, "dense_norm": dense_norm, "pixel_norm_place": place}
    G = Generator(
        **SMALL, **options, max_level=1, fmaps=(5, 3), latent_size=4, label_size=2, label_norm=label_norm,
        label_form="vector", pixel_norm_eps=0.1, dense_bias="unit",
    ).double()  # fmt: skip
    w = G.state_dict()
    for name in w:
        w[name].normal_()
    norm = NORMS[form]

    def after(x: Tensor, norm: Callable[[Tensor], Tensor] = norm) -> Tensor:
        return norm(F.leaky_relu(x, 0.2)) if place == "after" else F.leaky_relu(norm(x), 0.2)

    def layer(x: Tensor, name: str, gain: float = math.sqrt(2)) -> Tensor:
        kernel = w[f"{name}.weight"]
        scale = gain / math.sqrt(kernel[0].numel())
        return F.conv2d(x, kernel * scale, w[f"{name}.bias"], padding="same")

    z, y = randn(2, 4), randn(2, 2)
    x = torch.cat([z if label_norm == "joined" else norm(z), y], dim=1)
    x = x if label_norm == "apart" else norm(x)
    x = x @ w["dense.weight"].t() * (math.sqrt(2) / 4 / math.sqrt(6)) + w["dense_bias"]
    norms = {"pixel": norm, "units": lambda x: norm(x.flatten(1)).view_as(x), "none": lambda x: x}
    x = after(x.view(2, 5, 4, 4), norms[dense_norm])
    x = after(layer(x, "conv"))
    x = after(layer(x.repeat_interleave(2, 2).repeat_interleave(2, 3), "blocks.0.conv0_up"))
    x = layer(after(layer(x, "blocks.0.conv1")), "to_rgb.1", 1.0)
    torch.testing.assert_close(G(z, y), x)


def test_a_discriminator_without_what_some_leave_out() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"stddev_of": "images", "stddev_variance": "sample", "rgb_activation": False}
    D = Discriminator(max_level=0, **SMALL, **options, last_conv=False, equalized_lr=False).double()
    assert "conv.weight" not in D.state_dict()
    w, x = D.state_dict(), randn(8, 3, 4, 4)
    deviation = torch.cat([x[i::2].std(0).mean().view(1) for i in range(2)]).repeat(4)
    y = torch.cat([F.conv2d(x, w["from_rgb.0.weight"]), deviation.view(8, 1, 1, 1).expand(8, 1, 4, 4)], 1)
    y = F.leaky_relu(y.flatten(1) @ w["dense0.weight"].t(), 0.2) @ w["dense1.weight"].t()
    torch.testing.assert_close(D(x)[0], y[:, 0])


def test_filters_go_on_where_their_list_ends() -> None:
    for kind in (Generator, Discriminator):
        network = kind(max_level=3, fmap_base=64, fmap_max=8, fmaps=(6, 7))
        rgb = [layer for name, layer in layers(network).items() if "_rgb." in name]
        assert [layer.weight.shape[kind is Generator] for layer in rgb] == [6, 7, 8, 4]


def test_tanh_bounds_every_image() -> None:
    torch.manual_seed(0)
    linear = Generator(max_level=1, **SMALL).double()
    bounded = Generator(max_level=1, **SMALL, output_activation="tanh").double()
    for name, layer in layers(linear).items():
        if name.startswith("to_rgb"):
            layer.weight.data.mul_(20)
    bounded.load_state_dict(linear.state_dict())
    z = randn(4, 4)
    assert linear(z).abs().max() > 2
    torch.testing.assert_close(bounded(z), linear(z).tanh())
    blend = bounded(z, level=1, alpha=0.25)
    assert blend.abs().max() <= 1
    torch.testing.assert_close(blend, linear(z, level=1, alpha=0.25).tanh())


def test_the_gain_of_to_rgb_follows_its_activation() -> None:
    gains = {
        (gain, output): layers(Generator(max_level=0, **SMALL, gain=gain, output_activation=output))[
            "to_rgb.0"
        ].scale
        for gain in ("paper", "activation")
        for output in ("linear", "tanh")
    }
    plain = 1 / math.sqrt(4)
    assert gains.pop(("activation", "tanh")) == pytest.approx(plain * variance_gain("tanh", 0.2))
    assert set(gains.values()) == {plain}


def test_upscale_fused_and_separate_are_one_function() -> None:
    torch.manual_seed(0)
    fused, separate = (Generator(max_level=2, **SMALL, upscale=u).double() for u in ("fused", "separate"))
    separate.load_state_dict(fused.state_dict())
    z = randn(2, 4)
    expected = fused(z)
    torch.testing.assert_close(separate(z), expected)
    costs = []
    for network in (fused, separate):
        with FlopCounterMode(display=False) as counter:
            network(z)
        costs.append(counter.get_total_flops())
    assert costs[0] < costs[1]
    torch.testing.assert_close(separate.use_fused(True)(z), expected)
    with FlopCounterMode(display=False) as counter:
        separate(z)
    assert counter.get_total_flops() == costs[0]


CHANGES: dict[str, Any] = {
    "fmap_base": 16,
    "fmap_decay": 2.0,
    "fmap_max": 3,
    "kernel_size": 5,
    "activation": "gelu",
    "leaky_slope": 0.1,
    "bias": False,
    "equalized_lr": False,
    "weight_init": "truncated",
    "gain": "activation",
    "fmaps": (4, 3),
}
G_CHANGES: dict[str, Any] = {
    **CHANGES,
    "latent_size": 5,
    "normalize_latents": False,
    "pixel_norm": False,
    "pixel_norm_eps": 0.1,
    "label_norm": "both",
    "latent_norm_eps": 0.5,
    "pixel_norm_form": "variance",
    "pixel_norm_place": "before",
    "dense_norm": "units",
    "dense_bias": "unit",
    "dense_gain": 2.0,
    "upscale": "strided",
    "output_activation": "tanh",
}
D_CHANGES: dict[str, Any] = {
    **CHANGES,
    "stddev_group": 2,
    "stddev_features": 2,
    "downscale": "strided",
    "dense_features": 6,
    "stddev_of": "images",
    "stddev_order": "contiguous",
    "stddev_variance": "sample",
    "rgb_activation": False,
    "last_conv": False,
    "widening": "first",
}


def built(kind: type[Generator] | type[Discriminator], **options: Any) -> Generator | Discriminator:
    torch.manual_seed(0)
    return kind(max_level=2, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Generator, *item) for item in G_CHANGES.items()]
    + [(Discriminator, *item) for item in D_CHANGES.items()],
)
def test_every_option_changes_the_network(
    kind: type[Generator] | type[Discriminator], name: str, value: Any
) -> None:
    # The scale of leaky ReLU's inputs is lost in the pixel norm after it, that of others is not.
    needed: dict[str, dict[str, Any]] = {
        "gain": {"activation": "tanh"},
        "label_norm": {"label_size": 2},
        "widening": {"fmaps": (4, 4, 2)},
    }
    others = needed.get(name, {})
    plain, other = built(kind, **others), built(kind, **others, **{name: value})
    assert getattr(other.options, name) == value
    assert type(other)(**other.config()).config() == other.config()
    shapes = [{key: tuple(t.shape) for key, t in network.state_dict().items()} for network in (plain, other)]
    if shapes[0] != shapes[1]:
        return
    if name == "equalized_lr":  # the same function at first, but not the same training
        name = "blocks.0.conv0.weight" if kind is Discriminator else "conv.weight"
        assert not torch.equal(plain.state_dict()[name], other.state_dict()[name])
        return
    x = torch.randn(8, 4) if kind is Generator else torch.randn(8, 3, 16, 16)
    labels = torch.ones(8, plain.label_size)
    outputs = [network(x, labels) for network in (plain, other)]
    a, b = (y[0] if isinstance(y, tuple) else y for y in outputs)
    assert not torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_every_option_is_in_those_tests() -> None:
    assert G_CHANGES.keys() == GeneratorOptions.model_fields.keys()
    assert D_CHANGES.keys() == DiscriminatorOptions.model_fields.keys()


def test_parameters() -> None:
    """Options that change the shapes, counted by hand: widths 4, 4 and 4, and 3 channels."""
    G, D = built(Generator), built(Discriminator)
    blocks = 2 * 2 * (4 * 4 * 9 + 4)
    assert count(G) == 4 * 64 + 4 + (4 * 4 * 9 + 4) + blocks + 3 * (4 * 3 + 3)
    assert count(D) == 3 * (3 * 4 + 4) + blocks + (5 * 4 * 9 + 4) + (64 * 4 + 4) + (4 + 1)
    assert count(built(Generator, kernel_size=5)) - count(G) == 5 * 16 * (25 - 9)
    assert count(built(Discriminator, kernel_size=5)) - count(D) == (4 * 16 + 20) * (25 - 9)
    assert count(G) - count(built(Generator, bias=False)) == 4 + 4 + 4 * 4 + 3 * 3
    assert count(D) - count(built(Discriminator, bias=False)) == 3 * 4 + 4 * 4 + 4 + 4 + 1
    assert count(built(Discriminator, dense_features=9)) - count(D) == 5 * (64 + 1 + 1)
    assert count(built(Discriminator, stddev_features=4)) - count(D) == 3 * 4 * 9
    assert count(D) - count(built(Discriminator, stddev_group=0, stddev_features=3)) == 4 * 9


def test_conditioning() -> None:
    x, labels = torch.randn(4, 3, 4, 4), torch.eye(3)[[0, 2, 1, 0]]
    options: dict[str, Any] = {**SMALL, "max_level": 0}
    torch.manual_seed(0)
    ac_gan = Discriminator(label_size=3, **options)
    assert ac_gan.conditioning == "ac_gan"
    torch.manual_seed(0)
    projection = Discriminator(label_size=3, conditioning="projection", **options)
    scores, logits = ac_gan(x)
    assert logits.shape == (4, 3)
    for a, b in zip(ac_gan(x, labels), (scores, logits), strict=True):
        assert torch.equal(a, b), "it does not look at them"
    given_scores, none = projection(x, labels)
    assert none.shape == (4, 0)
    torch.testing.assert_close(given_scores, scores + logits[torch.arange(4), labels.argmax(1)])
    torch.testing.assert_close(projection(x, torch.zeros(4, 3))[0], scores)
    plain = Discriminator(**options)
    assert plain.conditioning == Discriminator(conditioning="none", **options).conditioning == "none"
    assert plain(x, torch.empty(4, 0))[1].shape == (4, 0)
    for wrong, said in ((None, "none"), (labels[:2], r"\[2, 3\]"), (labels[:, :2], r"\[4, 2\]")):
        with pytest.raises(ValueError, match=rf"labels must be \[4, 3\], not {said}"):
            projection(x, wrong)


@pytest.mark.parametrize(
    ("conditioning", "label_size", "message"),
    [
        ("projection", 0, "conditioning projection needs labels"),
        ("ac_gan", 0, "conditioning ac_gan needs labels"),
        ("none", 2, "conditioning none with label_size 2"),
        ("concat", 2, "conditioning 'concat': expected none, ac_gan, projection"),
    ],
)
def test_conditioning_that_does_not_fit(conditioning: Any, label_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discriminator(conditioning=conditioning, label_size=label_size)


def test_label_examples(tmp_path: Path) -> None:
    assert "label_examples" not in Generator(label_size=2, **SMALL).state_dict()
    forms: tuple[LabelForm, ...] = ("classes", "vector")
    for form in forms:
        G = Generator(label_size=3, label_form=form, max_level=0, **SMALL)
        assert G.label_examples.tolist() == torch.zeros(LABEL_EXAMPLES, 3).tolist()
        assert "label_examples" not in dict(G.named_parameters())
        G.label_examples.copy_(torch.arange(LABEL_EXAMPLES * 3).view(-1, 3))
        save(G, tmp_path / form)
        read = load_network(tmp_path / form)
        assert isinstance(read, Generator)
        assert read.label_form == form
        assert torch.equal(read.label_examples, G.label_examples)
        assert torch.equal(copy.deepcopy(G).label_examples, G.label_examples)
        assert G.double().label_examples.dtype == torch.float64
        assert "label_examples" not in Discriminator(label_size=3, label_form=form, **SMALL).state_dict()

"""Growth by network morphism: the function does not change, and what grew can learn."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import progan
from progan.config import make_config, merge
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.models import morph
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import EqualizedLayer, downscale2d, upscale2d
from progan.models.loading import load_network
from progan.models.weights import FORMAT, save
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder
from progan.system import tensor_file
from progan.training.iteration import Iteration
from progan.training.spec import ImageSpec, make_spec
from tiny import Listener, last_tensors, options, require_equal

ACTIVATIONS = ["leaky_relu", "relu", "elu", "silu", "softplus", "tanh"]
MORPH: dict[str, Any] = {"growth": "morph", "morph_kimg": 0.032, "stabilise_kimg": 0.048, "batch_size": 16}


def networks(channels: int = 3, label_size: int = 0, **both: Any) -> tuple[Generator, Discriminator]:
    """Return both networks of two levels above the base, as if trained: random weights with biases."""
    scaling = both.pop("scaling", "fused")
    shape: dict[str, Any] = {"channels": channels, "label_size": label_size, "max_level": 2} | both
    only_g = {name: shape.pop(name) for name in ("pixel_norm", "output_activation") if name in shape}
    only_d = {name: shape.pop(name) for name in ("conditioning",) if name in shape}
    G = Generator(**shape, **only_g, upscale=scaling, growth="morph")
    D = Discriminator(**shape, **only_d, downscale=scaling, growth="morph")
    with torch.no_grad():
        for parameter in [*G.parameters(), *D.parameters()]:
            # Biases begin at zero.
            spread = parameter.square().mean().sqrt() if parameter.ndim > 1 else 0.6
            parameter.add_(0.5 * spread * torch.randn_like(parameter))
    return G, D


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    channels, label_size = draw(st.integers(1, 4)), draw(st.sampled_from([0, 3]))
    case: dict[str, Any] = {
        "channels": channels,
        "label_size": label_size,
        # filters: all equal, halving, odd, and hardly more than channels
        "fmap_base": draw(st.sampled_from([channels * 8, 64, 72, 1024])),
        "fmap_max": draw(st.sampled_from([channels, channels + 1, 7, 12, 16])),
        "base_shape": draw(st.sampled_from([(4, 4), (1, 2), (3, 1)])),
        "kernel_size": draw(st.sampled_from([3, 5])),
        "scaling": draw(st.sampled_from(["fused", "separate", "strided"])),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "bias": draw(st.booleans()),
        "equalized_lr": draw(st.booleans()),
        "weight_init": draw(st.sampled_from(["he", "lecun", "truncated"])),
        "pixel_norm": draw(st.booleans()),
        "output_activation": draw(st.sampled_from(["linear", "tanh"])),
    }
    case["fmap_max"] = max(case["fmap_max"], channels)
    if label_size:
        case["label_form"] = draw(st.sampled_from(["class", "classes", "vector"]))
        case["conditioning"] = draw(st.sampled_from(["ac_gan", "projection"]))
    return case


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
@given(cases(), st.integers(0, 2**31))
@settings(max_examples=50)
def test_the_function_stays(dtype: torch.dtype, limit: float, case: dict[str, Any], seed: int) -> None:
    """The grown G is the old one's image with each pixel repeated, the grown D the old one on 2x2 means."""
    torch.manual_seed(seed)
    G, D = networks(**case)
    G, D = G.to(dtype), D.to(dtype)
    z, labels = torch.randn(4, G.latent_size, dtype=dtype), torch.randn(4, case["label_size"], dtype=dtype)
    with torch.no_grad():
        for level in (1, 2):
            images = torch.randn(4, case["channels"], *G.resolution(level), dtype=dtype)
            made, judged = G(z, labels, level=level - 1), D(downscale2d(images), labels, level=level - 1)
            for network in (G, D):
                morph.grow(network, level)
            grown = G(z, labels, level=level, alpha=0.0)
            assert (grown - upscale2d(made)).abs().max() < limit
            for new, old in zip(D(images, labels, level=level, alpha=0.0), judged, strict=True):
                if old.numel():
                    assert (new - old).abs().max() < limit


def test_the_condition_of_the_new_layers() -> None:
    """It is little worse than that of fresh weights; a filter that is another's copy would be seen in it."""
    torch.manual_seed(0)
    for network in networks(3, fmap_max=32):
        names = NEW[type(network)]
        fresh = [condition_of(network, name) for name in names]
        found = morph.grow(network, 1)
        grown = [condition_of(network, name) for name in names]
        assert sorted([found.rgb, found.near, found.far]) == pytest.approx(sorted(grown), rel=1e-4)
        assert found.worst < 4 * max(fresh)
        weight = network.get_parameter(f"{names[1]}.weight").detach()
        weight[0] = weight[1]
        assert condition_of(network, names[1]) > 1e4


def condition_of(network: nn.Module, layer: str) -> float:
    """Largest over smallest singular value of a layer's weight as [out, in * k * k]."""
    singular = torch.linalg.svdvals(network.get_parameter(f"{layer}.weight").detach().flatten(1).double())
    return float(singular[0] / singular[-1])


def used(network: Generator, name: str) -> Tensor:
    """Return a layer's weight as it is used."""
    layer = network.get_submodule(name)
    assert isinstance(layer, EqualizedLayer)
    return layer.scaled_weight().detach()


def test_the_composed_kernels_are_the_old_map() -> None:
    """The linear block as one kernel, composed by hand: toRGB at its centre and nothing around it."""
    torch.manual_seed(0)
    G, _ = networks(3, fmap_max=12, scaling="separate")
    G.double()
    morph.grow(G, 1)
    impulse = torch.zeros(12, 12, 9, 9, dtype=torch.float64)
    impulse[range(12), range(12), 4, 4] = 1  # an image that is one at one pixel, for each filter in
    first = F.conv2d(impulse, used(G, "blocks.0.conv0_up"), padding=1)
    image = F.conv2d(F.conv2d(first, used(G, "blocks.0.conv1"), padding=1), used(G, "to_rgb.1"))
    expected = torch.zeros_like(image)
    expected[:, :, 4, 4] = used(G, "to_rgb.0")[:, :, 0, 0].T
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-12)


NEW = {
    Generator: ("blocks.0.conv0_up", "blocks.0.conv1", "to_rgb.1"),
    Discriminator: ("from_rgb.1", "blocks.0.conv0", "blocks.0.conv1_down"),
}


@pytest.mark.parametrize("scaling", ["fused", "separate", "strided"])
@pytest.mark.parametrize("filters", [3, 7, 16])
def test_no_filter_is_degenerate(filters: int, scaling: str) -> None:
    """Each new filter is there, is none of the others, and is given a gradient by the first step."""
    torch.manual_seed(0)
    G, D = networks(3, fmap_max=filters, scaling=scaling)
    for network in (G, D):
        morph.grow(network, 1)
    scores, _ = D(G(torch.randn(8, G.latent_size), level=1, alpha=0.001), level=1, alpha=0.001)
    scores.square().sum().backward()
    for network in (G, D):
        for name in NEW[type(network)]:
            weight = network.get_parameter(f"{name}.weight")
            assert weight.grad is not None
            rows = weight.detach().flatten(1)
            assert rows.norm(dim=1).min() > 1e-2, name
            assert weight.grad.flatten(1).norm(dim=1).min() > 1e-7, name
            apart = torch.cdist(rows, rows) + 10 * torch.eye(len(rows))
            assert apart.min() > 1e-2, name


def test_a_network_and_its_average_agree_next_to_the_image() -> None:
    G, _ = networks(3, fmap_max=16)
    average = copy.deepcopy(G)
    average.get_parameter("to_rgb.0.weight").detach().mul_(0.9)
    morph.grow(G, 1)
    morph.grow(average, 1)
    ours, its = G.state_dict(), average.state_dict()
    for name in ("to_rgb.1.weight", "blocks.0.conv1.weight"):
        assert torch.equal(ours[name], its[name])
    assert not torch.equal(ours["blocks.0.conv0_up.weight"], its["blocks.0.conv0_up.weight"])


def test_alpha_one_is_the_whole_network() -> None:
    """At the end of the blending nothing is left of it: the network is the one that faded in."""
    for scaling in ("fused", "separate", "strided"):
        G, D = networks(3, fmap_max=8, scaling=scaling)
        z = torch.randn(4, G.latent_size)
        faded = Generator(**{**G.config(), "growth": "fade"})
        faded.load_state_dict(G.state_dict())
        judge = Discriminator(**{**D.config(), "growth": "fade"})
        judge.load_state_dict(D.state_dict())
        with torch.no_grad():
            image = faded(z, level=2)
            score, _ = judge(image, level=2)
            torch.testing.assert_close(G(z, level=2, alpha=1.0), image)
            torch.testing.assert_close(D(image, level=2, alpha=1.0)[0], score)
            torch.testing.assert_close(G(z, level=2), image)
            half = [
                (network_alpha, D(image, level=2, alpha=network_alpha)[0]) for network_alpha in (0.5, 0.6)
            ]
            assert not torch.allclose(half[0][1], half[1][1])


def test_what_cannot_grow_is_refused() -> None:
    G, _ = networks(3, fmap_base=16, fmap_max=8)
    with pytest.raises(ValueError, match="level 2 of the generator has 2 filters, and pictures of 3"):
        morph.grow(G, 2)
    with pytest.raises(ValueError, match="1x1 kernel of stride 2"):
        morph.grow(networks(1, kernel_size=1, scaling="strided", fmap_max=8)[1], 1)
    with pytest.raises(ValueError, match=r"level 0: expected 1\.\.2"):
        morph.grow(G, 0)


def test_too_few_filters_are_found_before_training(blobs: PackedSet, tmp_path: Path) -> None:
    narrow = {"generator": {"fmap_base": 16}}
    with pytest.raises(ConfigError, match="level 2 of the generator has 2 filters"):
        progan.train(blobs.path, tmp_path / "run", options=make_tree({"model": narrow, "schedule": MORPH}))


def test_a_half_grown_generator_explains_itself(tmp_path: Path) -> None:
    G, _ = networks(3, fmap_max=8)
    morph.grow(G, 1)
    G.set_growth(1, 0.25)
    save(G, tmp_path / "G.safetensors")
    loaded = load_network(tmp_path / "G.safetensors")
    z = torch.randn(3, G.latent_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(z), G(z, level=1, alpha=0.25))


def test_files_from_before_there_was_a_choice(tmp_path: Path) -> None:
    G = Generator(max_level=1, fmap_max=8, alpha=0.5)
    config = {name: value for name, value in G.config().items() if name != "growth"}
    record = {"network": "Generator", "config": json.loads(json.dumps(config))}
    tensor_file.write(tmp_path / "G.safetensors", FORMAT, record, G.state_dict())
    assert load_network(tmp_path / "G.safetensors").growth == "fade"


def updates_of(blobs: PackedSet, tree: dict[str, Any]) -> Iteration:
    config = make_config(make_tree(tree))
    spec = make_spec(config, ImageSpec(3, (4, 4), 2, blobs.label_names), blobs.count)
    return Iteration(spec, blobs, torch.device("cpu"), print)


def test_training_grows_all_three_networks(blobs: PackedSet) -> None:
    """With steps that move nothing, every level still makes the first level's images while it is linear."""
    slow = {"g_lr": 1e-12, "d_lr": 1e-12, "ema_decay": 0.9}
    updates = updates_of(
        blobs, {"schedule": {**MORPH, "morph_kimg": 1000.0, "total_kimg": 0.08}, "optimizer": slow}
    )
    state = updates.state
    z, labels = torch.randn(4, state.G.latent_size), torch.eye(4)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        before = [G(z, labels, level=0) for G in (state.G, state.G_ema)]
        judged = state.D(downscale2d(images), labels, level=0)[0]
    while state.images_seen < 80:
        updates(updates.spec.schedule.at(state.images_seen))
    assert (state.G.level, state.D.level, state.G_ema.level) == (1, 1, 1)
    assert state.G.alpha < 1e-4
    with torch.no_grad():
        for G, old in zip((state.G, state.G_ema), before, strict=True):
            assert (G(z, labels) - upscale2d(old)).abs().max() < 1e-3
        assert (state.D(images, labels)[0] - judged).abs().max() < 1e-3


CHOICES: dict[str, dict[str, Any]] = {
    "wgan": {"optimizer": {"reset": "never"}},
    "relativistic, projection, bfloat16": {
        "loss": {"adversarial": "relativistic"},
        "model": {"conditioning": "projection"},
        "run": {"precision": "bfloat16"},
    },
    "hinge, separate, lazy": {
        "loss": {"adversarial": "hinge", "penalty_interval": 2, "d_steps": 2},
        "model": {"generator": {"upscale": "separate"}, "discriminator": {"downscale": "separate"}},
    },
    "logistic, strided, augmented, float16": {
        "loss": {"adversarial": "logistic"},
        "augment": {"policy": ["color"], "adaptive": True},
        "model": {"generator": {"upscale": "strided"}, "discriminator": {"downscale": "strided"}},
        "run": {"precision": "float16"},
    },
    "least squares, stages": {
        "loss": {"adversarial": "least_squares"},
        "schedule": {"stage_kimg": 0.096, "fade_delay": 1, "alpha": "smooth"},
    },
}


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_a_run_in_pieces_is_the_whole_run(blobs: PackedSet, tmp_path: Path, choices: dict[str, Any]) -> None:
    """A level grows after its checkpoint, so a resumed run grows it again, to the same bits."""
    tree = make_tree({"schedule": MORPH}, choices)
    whole = progan.train(blobs.path, tmp_path / "whole", options=tree, reporter=(said := Listener()))
    grown = [line for line in said.said if "grows out of" in line]
    assert [line.split(" (")[0] for line in grown] == [
        "level 1 grows out of level 0",
        "level 2 grows out of level 1",
    ]
    pieces = merge(tree, {"run": {"stop_after": "phase"}})
    for _ in range(5):
        run = progan.train(blobs.path, tmp_path / "pieces", options=pieces, reporter=Listener())
    (one, expected), (other, ours) = last_tensors(whole), last_tensors(run)
    assert one.images_seen == other.images_seen
    require_equal(ours, expected)
    phases = {line["phase"] for line in read_stats(RunFolder(whole).stats_file)}
    assert phases == {"stabilise", "morph"}
    assert progan.load(whole).growth == "morph"


def make_tree(*trees: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a tiny run that morphs; the lengths of other ways to grow are none of them."""
    tree = merge(options(), *trees)
    del tree["schedule"]["fade_kimg"]
    if "stage_kimg" in tree["schedule"]:
        del tree["schedule"]["stabilise_kimg"]
    return tree


def test_micro_batches_and_whole_batches_agree(blobs: PackedSet) -> None:
    results = []
    for micro_batch in (None, 8):
        tree = make_tree({"schedule": MORPH, "run": {"micro_batch": micro_batch} if micro_batch else {}})
        config = make_config(tree)
        spec = make_spec(config, ImageSpec(3, (4, 4), 2, blobs.label_names), blobs.count)
        updates = Iteration(spec, blobs, torch.device("cpu"), print)
        for _ in range(8):
            terms = updates(spec.schedule.at(updates.state.images_seen))
        assert updates.state.G.level == 1
        results.append({name: value for part in terms for name, value in part.items()})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_reals_are_not_blended(blobs: PackedSet) -> None:
    """D judged 2x2 means before it grew, and does so after: there is nothing to take from the pictures."""
    updates = updates_of(blobs, {"schedule": MORPH})
    seen: list[Tensor | None] = []
    batches, original = updates.batches, updates.batches.discriminator

    def watch(clock: int, n: int, level: int, alpha: Tensor | None) -> Any:
        seen.append(alpha)
        return original(clock, n, level, alpha)

    batches.discriminator = watch  # type: ignore[method-assign]
    updates(updates.spec.schedule.at(56))
    assert updates.spec.schedule.at(56).growing
    assert seen == [None]


def test_growing_asks_no_device_for_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have none: numbers are moved to the CPU first."""
    monkeypatch.setattr(torch.Tensor, "double", lambda *_: pytest.fail("on the device of the network"))
    G = Generator(channels=3, base_shape=(4, 4), max_level=1, fmap_base=64, fmap_max=8, growth="morph")
    assert morph.grow(G, 1).worst >= 1

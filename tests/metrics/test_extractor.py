"""Feature extractors: what the network sees, what its name tells, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from progan.errors import ConfigError, DataError
from progan.metrics.exact_compute import exact_float32
from progan.metrics.extractor import Extractor
from progan.metrics.metric import Images


class Recorder:
    """A network whose features are its input, and that remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.calls.append(images.clone())
        return images.flatten(1)


def pictures(n: int = 3, channels: int = 3, height: int = 8, width: int = 8, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, channels, height, width), dtype=np.uint8)


def seen(images: Images, **options: Any) -> Tensor:
    """What the network is given."""
    network = Recorder()
    Extractor(network, "x", **options)(images)
    return torch.cat(network.calls)


def test_by_default_the_network_sees_the_pixels() -> None:
    images = pictures()
    given = seen(images)
    assert given.dtype == torch.float32
    assert np.array_equal(given.numpy(), images)


def test_gray_is_shown_as_rgb() -> None:
    images = pictures(channels=1)
    assert np.array_equal(seen(images).numpy(), images.repeat(3, axis=1))


@pytest.mark.parametrize(("rule", "low", "high"), [("0..255", 0, 255), ("0..1", 0, 1), ("-1..1", -1, 1)])
def test_normalisation_maps_black_and_white(rule: str, low: float, high: float) -> None:
    images = np.array([0, 255], dtype=np.uint8)[:, None, None, None].repeat(3, 1)
    given = seen(images, normalisation=rule)
    assert set(given[0].flatten().tolist()) == {low}
    assert set(given[1].flatten().tolist()) == {high}


def test_imagenet_normalisation_makes_the_mean_colour_zero_and_one_deviation_one() -> None:
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = torch.from_numpy(np.stack([mean, mean + deviation]) * 2 - 1)[:, :, None, None]
    network = Recorder()
    Extractor(network, "x", normalisation="imagenet").of_floats(images)
    assert network.calls[0][..., 0, 0].numpy() == pytest.approx(np.array([[0] * 3, [1] * 3]), abs=1e-9)


@pytest.mark.parametrize(
    ("method", "pillow"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_antialiased_resizing_is_that_of_pillow(method: str, pillow: Image.Resampling) -> None:
    images = pictures(n=1, height=24, width=16)
    given = seen(images, resize=f"{method}-antialias:10")
    for channel, ours in zip(images[0], given[0], strict=True):
        theirs = Image.fromarray(channel.astype(np.float32)).resize((10, 10), pillow)
        # Pillow's cubic has a = -0.5, as PyTorch's antialiased one.
        assert ours.numpy() == pytest.approx(np.asarray(theirs), abs=1e-2)


def test_plain_resizing_looks_at_the_nearest_pixels_only() -> None:
    transform = pytest.importorskip("skimage.transform")
    images = pictures(n=1, height=30, width=20)
    given = seen(images, resize="bilinear:8")
    planes = images[0].astype(np.float64)
    theirs = transform.resize(planes, (3, 8, 8), order=1, mode="edge", anti_aliasing=False)
    assert given[0].numpy() == pytest.approx(theirs, abs=1e-2)


def test_images_of_the_right_size_are_not_touched() -> None:
    images = pictures()
    assert np.array_equal(seen(images, resize="bicubic-antialias:8").numpy(), images)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "tiny"),
        ({"resize": "bilinear:299"}, "tiny_bilinear299"),
        (
            {"resize": "bilinear-antialias:224", "normalisation": "imagenet"},
            "tiny_bilinear-antialias224_imagenet",
        ),
        ({"normalisation": "-1..1"}, "tiny_-1..1"),
    ],
)
def test_rules_are_part_of_the_name_and_the_definition(options: dict[str, str], name: str) -> None:
    extractor = Extractor(Recorder(), "tiny", **options)  # type: ignore[arg-type]
    assert extractor.name == name
    expected = {"extractor": "tiny", "extractor_sha256": None, "resize": "none", "normalisation": "0..255"}
    assert extractor.definition() == {**expected, **options}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": "lanczos:8"}, "unknown resize rule 'lanczos:8'"),
        ({"resize": "bilinear:0"}, "unknown resize rule"),
        ({"normalisation": "-1..2"}, "did you mean '-1..1'"),
        ({"batch": 0}, "at least 1"),
        ({"name": "a/b"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
    ],
)
def test_unusable_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Extractor(Recorder(), **{"name": "x", **options})


def test_large_batches_are_cut_and_put_together() -> None:
    images, network = pictures(n=7), Recorder()
    features = Extractor(network, "x", batch=3)(images)
    assert [len(call) for call in network.calls] == [3, 3, 1]
    assert np.array_equal(features.numpy(), images.reshape(7, -1))


def test_the_same_batch_is_computed_once_but_a_changed_one_again() -> None:
    images, network = pictures(), Recorder()
    extractor = Extractor(network, "x")
    first = extractor(images)
    assert extractor(images.copy()) is first
    assert len(network.calls) == 1
    images[0, 0, 0, 0] ^= 1
    assert np.array_equal(extractor(images).numpy(), images.reshape(3, -1))
    assert len(extractor(images.reshape(3, 3, 4, 16))) == 3
    assert [call.shape[2] for call in network.calls] == [8, 8, 4]


def test_read_only_images_are_taken() -> None:
    images = pictures()
    images.setflags(write=False)
    assert np.array_equal(seen(images).numpy(), images)


def test_float_images_are_not_rounded_and_stay_float64() -> None:
    images = torch.linspace(-1.1, 1.1, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    features = Extractor(Recorder(), "x").of_floats(images)
    assert features.dtype == torch.float64
    assert torch.equal(features, (images.flatten(1) + 1) * 127.5)


def test_both_ways_in_agree() -> None:
    images = pictures()
    floats = torch.from_numpy(images) / 127.5 - 1
    extractor = Extractor(Recorder(), "x", resize="bilinear:5", normalisation="imagenet")
    assert torch.allclose(extractor(images), extractor.of_floats(floats), atol=1e-4)


def test_half_precision_features_are_kept_in_float32() -> None:
    assert Extractor(lambda x: x.flatten(1).half(), "x")(pictures()).dtype == torch.float32


def test_a_module_is_put_into_evaluation_mode_and_has_no_gradients() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Dropout(0.5))
    extractor = Extractor(module, "x", batch=1)
    features = extractor(pictures())
    assert not module.training
    assert not features.requires_grad
    expected = module[1](torch.from_numpy(pictures()).float().flatten(1))
    assert torch.allclose(features, expected, atol=1e-3)


def test_features_of_shape_n_d_1_1_are_vectors() -> None:
    assert Extractor(lambda x: x.mean((2, 3), keepdim=True), "x")(pictures()).shape == (3, 3)


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (lambda x: x, r"\[3, 3, 8, 8\] of 3 images"),
        (lambda x: x.mean(), r"\[\] of 3 images"),
        (lambda x: x.flatten(1).mean(0, keepdim=True), r"\[1, 192\] of 3 images"),
        (lambda x: (x, x), "a tuple of 3 images"),
    ],
)
def test_what_is_no_vectors_is_refused(network: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=got):
        Extractor(network, "x")(pictures())


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="x made features that are not finite"):
        Extractor(lambda x: x.flatten(1) / 0, "x")(pictures())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 3] = value
    with pytest.raises(DataError, match="not finite"):
        Extractor(lambda x: x.flatten(1).nan_to_num(), "x").of_floats(images)


def test_float_images_with_alpha_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 4, 4, 4\]"):
        Extractor(Recorder(), "x").of_floats(torch.zeros(2, 4, 4, 4))


def test_speed_settings_of_training_do_not_reach_the_network() -> None:
    found = []

    def network(images: Tensor) -> Tensor:
        product = images.flatten(1) @ torch.eye(192)
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, product.dtype))
        return product

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            Extractor(network, "x")(pictures())
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert found == [("highest", False, torch.float32)]
    assert torch.backends.cudnn.allow_tf32 == before[1]


def test_settings_are_put_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), exact_float32(torch.device("cpu")):
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before

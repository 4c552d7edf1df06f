"""Feature extractors: networks that turn images into vectors, in one exact way that their names tell.

FID and its relatives compare features of images, so their numbers mean something only together with the
network, and with how images are resized and scaled for it. All of that is part of an extractor's name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.errors import ConfigError, DataError, suggest
from progan.metrics.exact_compute import exact_float32
from progan.metrics.metric import Images

Network = Callable[[Tensor], Tensor]
"""Images [n, 3, h, w], floating point, in -> features [n, d] out."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's training images, 0..1; torchvision's networks were trained with them."""


def resizer(rule: str) -> Callable[[Tensor], Tensor]:
    """Return what resizes images [n, C, h, w] to squares; the centres of pixels stay where they are.

    Args:
        rule: 'none', or METHOD[-antialias]:SIZE, such as 'bilinear-antialias:224'. Bicubic values may lie
            outside 0..255 and are not cut. With -antialias the kernel is widened where images shrink, as
            Pillow does; otherwise pixels are skipped. Images that have that size already are not touched.

    Raises:
        ConfigError: if the rule is another.
    """
    if rule == "none":
        return lambda images: images
    found = re.fullmatch(r"(bilinear|bicubic)(-antialias)?:([1-9]\d{0,4})", rule)
    if found is None:
        raise ConfigError(
            f"unknown resize rule {rule!r}; give 'none', or bilinear:SIZE or bicubic:SIZE, or with "
            f"-antialias before the colon, such as 'bilinear-antialias:224'"
        )
    method, size, antialias = found[1], (int(found[3]), int(found[3])), found[2] is not None

    def resize(images: Tensor) -> Tensor:
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size=size, mode=method, align_corners=False, antialias=antialias)

    return resize


def _imagenet(pixels: Tensor) -> Tensor:
    mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (pixels / 255 - mean) / deviation


NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "0..255": lambda pixels: pixels,
    "0..1": lambda pixels: pixels / 255,
    "-1..1": lambda pixels: pixels / 127.5 - 1,
    "imagenet": _imagenet,
}
"""How pixel values 0..255 [n, 3, h, w] are scaled for a network, by name."""


class Extractor:
    """A network with the way that images are made ready for it.

    Gray images are shown as RGB, three equal channels. The network computes without gradients and in float32
    proper (no TF32, no autocast), or in float64 where it is given such images.

    Several metrics on one extractor are fed the same batch one after the other, so the features of the last
    batch are remembered (by the pixels' hash) and computed once.

    Args:
        network: Images [n, 3, h, w] -> features [n, d] (or [n, d, 1, 1]), each from its image alone. A module
            is moved to `device` and put into evaluation mode.
        name: What the network is called: letters, digits, '.', '_' and '-'. A callable is known by this name
            alone, so give a changed one another name (`dino-v2`), or numbers that were measured with the old
            one are taken for its own.
        resize: 'none', or a rule of `resizer`; images are resized before they are scaled.
        normalisation: One of `NORMALISATIONS`.
        device: Where to compute; None for the CPU.
        batch: Images that are computed together; decides memory and speed only.
        sha256: Of the file that the network was read from, if it was.

    Attributes:
        name: The network's name, and the rules unless they are the plain ones ('none', '0..255'): such as
            'dino_bilinear-antialias224_imagenet'.
        device: Where it computes.

    Raises:
        ConfigError: if an option is none of those.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        *,
        resize: str = "none",
        normalisation: str = "0..255",
        device: torch.device | None = None,
        batch: int = 64,
        sha256: str | None = None,
    ) -> None:
        self._resize = resizer(resize)
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ConfigError(
                f"an extractor cannot be called {name!r}: its name becomes part of the metric's, so give "
                f"letters, digits, '.', '_' and '-' only"
            )
        if normalisation not in NORMALISATIONS:
            raise ConfigError(
                f"unknown normalisation {normalisation!r}; there are {', '.join(NORMALISATIONS)}"
                f"{suggest(normalisation, NORMALISATIONS)}"
            )
        if batch < 1:
            raise ConfigError(f"an extractor's batch must be at least 1, not {batch}.")
        self._normalise = NORMALISATIONS[normalisation]
        rules = [] if resize == "none" else [resize.replace(":", "")]
        rules += [] if normalisation == "0..255" else [normalisation]
        self.name = "_".join([name, *rules])
        self.device = device or torch.device("cpu")
        if isinstance(network, nn.Module):
            network.to(self.device).eval()
        self._network = network
        self._batch = batch
        self._definition = {
            "extractor": name,
            "extractor_sha256": sha256,
            "resize": resize,
            "normalisation": normalisation,
        }
        self._last: tuple[bytes, Tensor] | None = None

    def definition(self) -> dict[str, Any]:
        """Return everything that decides the features besides the images, ready for JSON."""
        return dict(self._definition)

    def __call__(self, images: Images) -> Tensor:
        """Return the features of a batch of images.

        Args:
            images: [n, C, H, W] of uint8, C of 1 or 3, n at least 1.

        Returns:
            [n, d] on the CPU, float32 (or what the network gives, if that is wider). Not to be written to.

        Raises:
            DataError: if a feature is not finite.
            ConfigError: if the network gives no vectors.
        """
        pixels = np.array(images, order="C")  # a copy, as PyTorch takes no read-only memory
        key = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
        if self._last is None or self._last[0] != key:
            self._last = key, self._in_parts(torch.from_numpy(pixels))
        return self._last[1]

    def of_floats(self, images: Tensor) -> Tensor:
        """Return the features of images that were not rounded to 8 bits.

        Args:
            images: [n, C, H, W] of floating point, -1 to 1; values outside are not clipped.

        Returns:
            As `__call__`; float64 for float64 images if the network keeps it.

        Raises:
            DataError: if a value of the images or a feature is not finite, or the images are not gray or RGB.
            ConfigError: if the network gives no vectors.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"Images have the shape {list(images.shape)}; give [n, C, H, W], C of 1 or 3.")
        if not images.isfinite().all():
            raise DataError("The images have values that are not finite (NaN or infinity).")
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        return self._in_parts((wide + 1) * 127.5)

    def _in_parts(self, images: Tensor) -> Tensor:
        with exact_float32(self.device):
            return torch.cat([self._features(part) for part in torch.split(images, self._batch)])

    def _features(self, images: Tensor) -> Tensor:
        """Return the features [n, d] of few images, 0..255, uint8 or floating point."""
        pixels = images.to(self.device).to(torch.promote_types(images.dtype, torch.float32))
        pixels = pixels.expand(-1, 3, -1, -1).contiguous()  # gray becomes RGB
        features = self._network(self._normalise(self._resize(pixels)))
        if not _are_vectors(features, len(images)):
            got = list(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
            raise ConfigError(
                f"the extractor {self.name} made {got} of {len(images)} images; it must give one vector for "
                f"each image, [{len(images)}, features]"
            )
        features = features.flatten(1).to("cpu")
        if not features.isfinite().all():
            raise DataError(
                f"The extractor {self.name} made features that are not finite (NaN or infinity); look at its "
                f"normalisation, which is {self._definition['normalisation']!r}."
            )
        return features.to(torch.promote_types(features.dtype, torch.float32))


def _are_vectors(features: object, count: int) -> bool:
    """Tell whether features are [count, d] or [count, d, 1, 1], d at least 1."""
    return (
        isinstance(features, Tensor)
        and features.ndim in (2, 4)
        and len(features) == count
        and features.numel() > 0
        and features.shape[2:].numel() == 1
    )

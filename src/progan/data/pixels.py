"""The one place where stored pixels become network values and network values become pictures.

On disk pixels are uint8 (0..255) or uint16 (0..65535), NCHW; the networks see float in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def to_float(
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Map stored pixels to [-1, 1]: 0 -> -1, the largest value of the type -> 1.

    Args:
        pixels: Any shape, uint8 or uint16.
        dtype: Floating-point type of the result.

    Returns:
        A new tensor of the same shape, where the pixels are. Formula: `adjust_dynamic_range` of the original
        misc.py.
    """
    stored = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
    limit = torch.iinfo(stored.dtype).max
    return stored.to(dtype).mul_(2 / limit).sub_(1)


def ready(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as a tensor on the CPU that can be sent to a device without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def send(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Send an array to a device; with CUDA nobody waits for that."""
    return ready(array, device).to(device, non_blocking=True)


def mirror(pixels: Tensor, flipped: Tensor) -> Tensor:
    """Flip some pictures left to right, where they are.

    Args:
        pixels: [N, C, H, W], uint8 or uint16.
        flipped: [N], bool, on the same device: which.

    Returns:
        A new tensor of the same shape and type.
    """
    # PyTorch chooses among values of 16 bits with a sign only; as such they are the same bits.
    plain = pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels
    return torch.where(flipped.view(-1, 1, 1, 1), plain.flip(3), plain).view(pixels.dtype)


def quantize(images: Tensor, depth: int = 8) -> Tensor:
    """Map network output to pixels: round(x * 127.5 + 127.5), clipped to 0..255.

    Args:
        images: [N, C, H, W], nominally in [-1, 1]; values outside are clipped.
        depth: Bits of a value: of 16, it is x * 32767.5 + 32767.5, and 0..65535.

    Returns:
        uint8 or uint16 of the same shape, where the images are. Formula: `Network.run` with uint8 output in
        the original tfutil.py.
    """
    half = 127.5 if depth == 8 else 32767.5
    scaled = images.detach().float().mul(half).add_(half).round_().clamp_(0.0, 2 * half)
    return scaled.to(torch.uint8 if depth == 8 else torch.uint16)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Map network output to pictures in memory, as `quantize` does."""
    pictures: NDArray[np.uint8] = quantize(images).cpu().numpy()
    return pictures


def to_8_bit(pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
    """Return stored pixels of either type as uint8: 65535 becomes 255."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.rint(pixels / np.float32(257)).astype(np.uint8)


def fade_reals(reals: Tensor, alpha: Tensor) -> Tensor:
    """Blend real images with their own half-resolution version, as the fading networks see them.

    Args:
        reals: [N, C, H, W] in [-1, 1], H and W even.
        alpha: 0-d tensor; 0 shows the half resolution only, 1 the images themselves.

    Returns:
        [N, C, H, W]. Source: paper section 2 (figure 2); `process_reals` of the original train.py.
    """
    half = F.interpolate(F.avg_pool2d(reals, 2), scale_factor=2, mode="nearest")
    return torch.lerp(half, reals, alpha.to(reals.dtype))


def to_image(pixels: NDArray[np.uint8 | np.uint16]) -> Image.Image:
    """Turn one picture [C, H, W] (C of 1, 2, 3 or 4; uint8) into a Pillow image L, LA, RGB or RGBA.

    Of uint16, Pillow has gray alone (I;16).
    """
    if pixels.shape[0] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def tile(images: NDArray[np.uint8], columns: int, *, min_side: int = 0, gap: int = 0) -> NDArray[np.uint8]:
    """Lay pictures out as one, row by row; missing ones at the end are white.

    Args:
        images: [N, C, H, W] uint8.
        columns: Pictures in a row.
        min_side: Enlarge each picture by a whole factor until its smaller side is at least this many
            pixels, so that 4x4 samples can be seen; 0 keeps the size.
        gap: White pixels between pictures.

    Returns:
        [C, rows * h + gaps, columns * w + gaps] uint8.
    """
    n, channels, height, width = images.shape
    factor = max(1, -(-min_side // min(height, width)))
    height, width = height * factor, width * factor
    rows = -(-n // columns)
    canvas = np.full(
        (channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=np.uint8
    )
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        big = images[i].repeat(factor, axis=1).repeat(factor, axis=2)
        canvas[:, top : top + height, left : left + width] = big
    return canvas


Images = NDArray[np.uint8]
"""[n, C, H, W], values 0 to 255."""

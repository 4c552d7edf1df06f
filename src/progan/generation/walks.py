"""Paths through latent space: smooth walks, and ways from one picture to the next."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from progan.errors import ConfigError
from progan.generation.sampling import latents

Interpolation = Literal["linear", "slerp", "cubic"]


def walk(
    frames: int, cells: int, size: int, *, seed: int = 0, smoothing_seconds: float = 1.0, fps: float = 30.0
) -> Tensor:
    """Return latents that wander smoothly and end where they began.

    Noise in time is smoothed by a Gaussian that wraps around the end, so the first frame follows the last
    as any frame follows another; then all of it is scaled to unit mean square. Source:
    `generate_interpolation_video` of the original util_scripts.py.

    Args:
        frames: Length, at least 1.
        cells: Independent walks, one for each cell of a grid.
        size: Length of a latent.
        seed: At least 0.
        smoothing_seconds: Standard deviation of the Gaussian. Of more than about a tenth of the whole
            length, hardly any motion is left.
        fps: Frames a second.

    Returns:
        [frames, cells, size] float32.
    """
    noise = latents(seed, 0, frames * cells, size).view(frames, cells, size).numpy()
    # The Fourier transform of a Gaussian of deviation s is exp(-2 (pi s f)^2), and multiplying the
    # transforms is convolving around the circle.
    response = np.exp(-2 * (np.pi * smoothing_seconds * fps * np.fft.rfftfreq(frames)) ** 2)
    for cell in range(cells):  # one at a time, as the transform is several times as large as the walk
        spectrum = np.fft.rfft(noise[:, cell], axis=0) * response[:, None]
        noise[:, cell] = np.fft.irfft(spectrum, frames, axis=0)
    noise /= np.sqrt(np.mean(np.square(noise)))
    return torch.from_numpy(noise)


def through(points: Tensor, steps: int, interp: Interpolation = "slerp", *, loop: bool = True) -> Tensor:
    """Return a path through points, each reached after `steps` frames.

    Args:
        points: [points, cells, size], at least 1 of them; a path for each cell.
        steps: Frames from one point to the next, at least 1.
        interp: linear; slerp (on great circles, lengths linear: latents keep the length that they had in
            training; Shoemake 1985, White 2016, arXiv 1609.04468); or cubic (Catmull and Rom 1974: without
            corners).
        loop: Whether the path leads back to the first point, which then follows the last frame.

    Returns:
        [frames, cells, size] float32: points * steps frames if it is closed, else (points - 1) * steps + 1.

    Raises:
        ConfigError: if something is out of range.
    """
    if interp not in get_args(Interpolation):
        raise ConfigError(f"interp {interp!r}: expected {', '.join(get_args(Interpolation))}")
    count = len(points)
    if steps < 1 or count < 1 or (not loop and count < 2):
        raise ConfigError(f"a way with {count} points and {steps} frames between two: there must be 2 and 1")
    last = count if loop else count - 1
    at = torch.arange(steps) / steps
    parts = [_between(points, i, at, interp, loop=loop) for i in range(last)]
    if not loop:
        parts.append(points[-1:])
    return torch.cat(parts)


def _between(points: Tensor, i: int, at: Tensor, interp: Interpolation, *, loop: bool) -> Tensor:
    """Return the path from point i to the next: [steps, cells, size]."""

    def point(index: int) -> Tensor:
        return points[index % len(points)] if loop else points[min(max(index, 0), len(points) - 1)]

    t, a, b = at[:, None, None], point(i), point(i + 1)
    if interp == "linear":
        return torch.lerp(a[None], b[None], t)
    if interp == "slerp":
        return slerp(a[None], b[None], t)
    before, after = point(i - 1), point(i + 2)
    return 0.5 * (
        2 * a
        + (b - before) * t
        + (2 * before - 5 * a + 4 * b - after) * t**2
        + (3 * a - before - 3 * b + after) * t**3
    )


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Return the point at share t of the great circle from a to b, lengths between theirs.

    Args:
        a, b: [..., size], not zero.
        t: Broadcasts with them; 0 is a, 1 is b.

    Returns:
        [..., size]. Where a and b are (nearly) parallel the way is straight.
    """
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / length_a, b / length_b
    angle = torch.acos((unit_a * unit_b).sum(dim=-1, keepdim=True).clamp(-1, 1))
    is_straight = torch.sin(angle) < 1e-4
    sine = torch.where(is_straight, torch.ones_like(angle), torch.sin(angle))
    share = torch.as_tensor(t, dtype=a.dtype)
    arc = (torch.sin((1 - share) * angle) * unit_a + torch.sin(share * angle) * unit_b) / sine
    length = length_a + (length_b - length_a) * share
    straight = a + (b - a) * share
    return torch.where(is_straight, straight, arc * length)

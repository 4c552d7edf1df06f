"""Our networks against the outputs of the original code (random weights, no training)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden_weights import at_lod, golden, networks
from progan.data.pixels import to_uint8

TOLERANCE = {"f64": 1e-10, "f32": 5e-5}
DTYPE = {"f64": torch.float64, "f32": torch.float32}
CASES = [(c, float(lod)) for c in "ABC" for lod in golden(f"networks_{c}")["lods"]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize(("config", "lod"), CASES)
def test_outputs_equal_the_originals(config: str, lod: float, kind: str, fused: bool) -> None:
    arrays, dtype = golden(f"networks_{config}"), DTYPE[kind]
    G, D, max_level = networks(config, dtype)
    G.use_fused(fused), D.use_fused(fused)
    level, alpha = at_lod(lod, max_level, dtype)
    z, labels, images = (torch.from_numpy(arrays[k]).to(dtype) for k in ("latents", "labels", "images_in"))
    with torch.no_grad():
        made = G(z, labels, level=level, alpha=alpha)
        shrunk = F.avg_pool2d(images, 2 ** (max_level - level))
        scores, logits = D(shrunk, level=level, alpha=alpha)
    assert made.shape[2:] == G.resolution(level)
    shown = made.repeat_interleave(2 ** (max_level - level), 2).repeat_interleave(2 ** (max_level - level), 3)
    key = f"lod={lod:g}/{kind}"
    tolerance = TOLERANCE[kind]
    np.testing.assert_allclose(shown.numpy(), arrays[f"G.images/{key}"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(scores.numpy(), arrays[f"D.scores/{key}"][:, 0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(logits.numpy(), arrays[f"D.labels/{key}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_every_batch_size(batch: int, kind: str) -> None:
    arrays, dtype = golden("networks_A"), DTYPE[kind]
    _, D, _ = networks("A", dtype)
    with torch.no_grad():
        scores, _ = D(torch.from_numpy(arrays["images_in"][:batch]).to(dtype))
    expected = arrays[f"D.scores_batch{batch}/lod=0/{kind}"][:, 0]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=TOLERANCE[kind])


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize("group", [2, 16])
def test_stddev_groups(group: int, kind: str) -> None:
    arrays, dtype = golden("networks_A"), DTYPE[kind]
    _, D, _ = networks("A", dtype, stddev_group=group)
    with torch.no_grad():
        scores, _ = D(torch.from_numpy(arrays["images_in"]).to(dtype))
    expected = arrays[f"D.scores_mbstd_group{group}/lod=0/{kind}"][:, 0]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=TOLERANCE[kind])


def test_pictures_equal_the_originals() -> None:
    arrays = golden("networks_A")
    G, _, _ = networks("A", torch.float32)
    made = to_uint8(G(torch.from_numpy(arrays["latents"])))
    difference = np.abs(made.astype(int) - arrays["G.images_uint8/lod=0"].astype(int))
    assert difference.max() <= 1  # a float32 rounding may fall on the other side of a half
    assert (difference != 0).mean() < 1e-3

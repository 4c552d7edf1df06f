"""A few updates of tiny networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from progan.config import make_config
from progan.data.packed import PackedSet
from progan.training.iteration import Iteration
from progan.training.spec import ImageSpec, Spec, make_spec
from tiny import options

CPU = torch.device("cpu")


SMOOTH = {"eps": 0.1}
"""With a large epsilon an update is proportional to the gradient, so rounding cannot turn its sign."""


def spec_of(blobs: PackedSet, **branches: Any) -> Spec:
    config = make_config(options(**branches))
    image = ImageSpec(blobs.channels, blobs.base_shape, blobs.max_level, blobs.label_names)
    return make_spec(config, image, blobs.count)


def run(blobs: PackedSet, iterations: int, said: list[str] | None = None, **branches: Any) -> Iteration:
    spec = spec_of(blobs, **branches)
    updates = Iteration(spec, blobs, CPU, (said if said is not None else []).append)
    for _ in range(iterations):
        updates(spec.schedule.at(updates.state.images_seen))
    return updates


def weights(updates: Iteration) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in updates.state.tensors().items()}

"""The ways to compute the same iteration that are compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from progan.config import Config, make_config
from progan.data.batches import Batches
from progan.errors import ConfigError, suggest
from progan.training.augment import draws_of
from progan.training.iteration import Iteration
from progan.training.precision import check_settings


def _as_configured(iteration: Iteration) -> None:
    """Leave networks and pictures as a run places them."""


def _plainly(iteration: Iteration) -> None:
    """Keep everything in NCHW, and scale up and down apart from the convolutions."""
    state, old = iteration.state, iteration.batches
    for network in (state.G, state.D, state.G_ema):
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        network.use_fused(False)
    config = iteration.spec.config
    draws = draws_of(config)
    iteration.batches = Batches(
        old.packed, config, latent_size=state.G.latent_size, draws=draws, device=old.device
    )


@dataclass(frozen=True)
class Variant:
    """One way to compute an iteration; `about` says in words which.

    `run` is laid over the options of that branch; `place` changes how networks and pictures lie in memory,
    and how layers are computed. It is for one kind of device alone, unless that is "".
    """

    about: str
    run: Mapping[str, Any] = field(default_factory=dict)
    place: Callable[[Iteration], None] = _as_configured
    device: str = ""

    def config(self, config: Config) -> Config:
        """Return the configuration of this variant.

        When compiling is left to the run, nothing is compiled here: a run decides after its first iterations.
        """
        run = {"compile": "never"} if config.run.compile == "auto" else {}
        return make_config(config.model_dump(mode="json"), {"run": {**run, **self.run}}, parts=config.parts)


_EAGER = {"compile": "never", "cuda_graphs": False}
VARIANTS: dict[str, Variant] = {
    "plain": Variant(
        "float32, NCHW, up- and downscaling apart from the convolutions, operation by operation",
        {**_EAGER, "precision": "float32"},
        _plainly,
    ),
    "default": Variant("as configured"),
    "eager": Variant("operation by operation", _EAGER),
    "float32": Variant("precision float32", {"precision": "float32"}),
    "tf32": Variant("precision tf32", {"precision": "tf32"}, device="cuda"),
    "bfloat16": Variant("precision bfloat16", {"precision": "bfloat16"}),
    "float16": Variant("precision float16", {"precision": "float16"}),
    "compile": Variant("updates compiled", {"compile": "always"}),
    "unfused": Variant("without fused kernels", {"fused_kernels": False}, device="cuda"),
    "graphs": Variant("updates recorded as CUDA graphs", {"cuda_graphs": True}, device="cuda"),
}
"""By name, in the order in which they are listed."""


def choose_variants(names: tuple[str, ...], config: Config, device: torch.device) -> dict[str, Variant]:
    """Return variants by name.

    Raises:
        ConfigError: if there is no such variant, or none on this device.
    """
    for name in names:
        if name not in VARIANTS:
            raise ConfigError(
                f"no variant is called {name!r}{suggest(name, VARIANTS)} Variants: {', '.join(VARIANTS)}"
            )
        variant = VARIANTS[name]
        if variant.device not in ("", device.type):
            raise ConfigError(f"variant {name} is for {variant.device}, and this is {device}; leave it out")
        try:
            check_settings(variant.config(config).run, device)
        except ConfigError as error:
            raise ConfigError(f"variant {name}: {error}") from None
    return {name: VARIANTS[name] for name in names}

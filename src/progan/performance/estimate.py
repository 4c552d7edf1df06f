"""What a run is going to cost, counted from its shapes without training: memory and operations."""

from __future__ import annotations

from progan.performance.iteration_cost import FLOAT32, Costs
from progan.training.schedule import Phase
from progan.training.spec import Spec

WORKSPACE = 1.4
"""Peak memory over what is counted, for what kernels need and allocators lose; measured on a CPU: 1.03 to
1.38 from a GiB on, and more below, where what a process needs anyway counts (docs/performance.md)."""


class Estimate:
    """Counts what a run asks for; nothing is allocated on any device.

    Attributes:
        levels: What an iteration of each level asks for while it comes in, which is the most.
        parameters: How many of G and of D are in use then.
        state_bytes: Weights, average and moments of the whole networks.
    """

    def __init__(self, spec: Spec) -> None:
        costs = Costs(spec.config, spec.image)
        g, d = (sum(p.numel() for p in network.parameters()) for network in (costs.G, costs.D))
        # float32: weights and two moments of G and D, and the average of G
        self.state_bytes = FLOAT32 * (3 * (g + d) + g)
        levels = range(spec.image.max_level + 1)
        self.levels = [costs.iteration(level, fading=True) for level in levels]
        self.parameters = [costs.used_parameters(level, fading=True) for level in levels]

    def memory(self, phase: Phase) -> int:
        """Return the estimated peak memory of a phase in bytes."""
        return round(WORKSPACE * (self.state_bytes + self.levels[phase.level].activation_bytes))

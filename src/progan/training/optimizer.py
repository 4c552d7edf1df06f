"""Adam in the form of the original, and the averaged generator."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from progan.config import OptimizerOptions
from progan.models.network import Network


class Adam:
    """Adam whose epsilon stands outside the bias correction, as in the original (TensorFlow's form).

    update = lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps). PyTorch's Adam divides v by its
    bias correction before epsilon is added, which is the same with epsilon / sqrt(1 - beta2^t); so that is
    what it is given at each step. Parameters of one level share a group, because they begin to train
    together and so share t.

    Args:
        network: Its parameters are updated; those without a gradient are left alone.
        options: Betas and epsilon.
    """

    def __init__(self, network: Network, options: OptimizerOptions) -> None:
        self._options = options
        levels: dict[int, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            levels.setdefault(level_of(name), []).append(parameter)
        self._device = next(network.parameters()).device
        self._fused = self._device.type in ("cpu", "cuda", "mps")
        self._adam = torch.optim.Adam(
            [{"params": levels[level], "steps": 0} for level in sorted(levels)],
            betas=(options.beta1, options.beta2),
            fused=self._fused,
        )
        self._parameters = dict(network.named_parameters())

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient, then drop the gradients."""
        for group in self._adam.param_groups:
            if all(p.grad is None for p in group["params"]):
                continue
            group["steps"] += 1
            group["lr"] = lr
            group["eps"] = self._options.eps / math.sqrt(1 - self._options.beta2 ** group["steps"])
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def reset(self) -> None:
        """Forget all moments and step counts, as the original does when the networks grow."""
        self._adam.state.clear()
        for group in self._adam.param_groups:
            group["steps"] = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments and step counts by parameter name: what a checkpoint holds."""
        result = {}
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                result[f"{key}.{name}"] = value
        return result

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned.

        Raises:
            KeyError: if a name belongs to no parameter of the network.
        """
        self.reset()
        for entry, value in tensors.items():
            key, name = entry.split(".", 1)
            parameter = self._parameters[name]
            state = self._adam.state.setdefault(parameter, {})
            if key == "step":
                # PyTorch keeps step counts on the CPU, unless its fused kernels read them.
                state[key] = value.to(self._device if self._fused else "cpu", copy=True)
            else:
                state[key] = torch.empty_like(parameter).copy_(value)
        for group in self._adam.param_groups:
            counts = [self._adam.state[p]["step"] for p in group["params"] if p in self._adam.state]
            group["steps"] = int(max((float(count) for count in counts), default=0.0))


def level_of(parameter: str) -> int:
    """Return the level at which a parameter, named as in `state_dict`, begins to train."""
    match = re.match(r"(blocks|to_rgb|from_rgb)\.(\d+)\.", parameter)
    if match is None:
        return 0
    return int(match[2]) + (1 if match[1] == "blocks" else 0)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones: average = lerp(network, average, decay).

    Source: `setup_as_moving_average_of` of the original tfutil.py.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)

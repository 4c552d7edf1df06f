"""Adam in the form of the original, with loss scaling for float16; and the averaged generator."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from progan.config import OptimizerOptions
from progan.errors import DivergenceError

SMALLEST_SCALE = 2.0**-24
"""The smallest number of float16: gradients that overflow at this loss scale are not finite at any."""

SCALE, GROWTH_TRACKER = "loss_scale.scale", "loss_scale.growth_tracker"
"""Names of the loss scale's state among the tensors; no moment of Adam is called `loss_scale`."""


class Optimizer:
    """Adam or AdamW whose epsilon stands outside the bias correction, as in the original (TensorFlow's form).

    update = lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps). PyTorch's Adam divides v by its
    bias correction before epsilon is added, which is the same with epsilon / sqrt(1 - beta2^t); so that is
    what it is given at each step. Parameters of one level share a group, because they begin to train
    together and so share t. AdamW also multiplies the weights by 1 - lr * weight_decay before each update
    (Loshchilov and Hutter 2019, Algorithm 2). If clipped, all gradients of the network are multiplied by
    min(1, clip_norm / (norm + 1e-6)), where norm is that of all of them together.

    Float16 needs loss scaling: gradients below 2^-24 would be lost in it. The loss is multiplied by a scale
    and the gradients are divided by it before they are clipped and used. If they overflowed, the update is
    skipped and the scale halved; after 2,000 updates in a row it is doubled (Micikevicius et al. 2018, as
    `torch.amp.GradScaler` does it). Without loss scaling, no method waits for the device.

    Parameters of the network without a gradient are left alone. `device` is where they are.
    """

    def __init__(
        self,
        network: nn.Module,
        options: OptimizerOptions,
        *,
        loss_scaling: bool = False,
        frozen: Collection[str] = (),
    ) -> None:
        self._options, self._frozen = options, frozenset(frozen)
        levels: dict[int, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            levels.setdefault(level_of(name), []).append(parameter)
        self.device = next(network.parameters()).device
        fused = self.device.type in ("cpu", "cuda", "mps")
        # PyTorch keeps step counts on the CPU, unless its fused kernels read them.
        self._step_device = self.device if fused else torch.device("cpu")
        kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
        self._adam = kind(
            [{"params": levels[level], "steps": 0} for level in sorted(levels)],
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=fused,
        )
        self._parameters = dict(network.named_parameters())
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=loss_scaling)
        # What the scaler will use next, as a number: to ask the device for it is to wait for it.
        self._known_scale = self._scaler.get_scale()
        self._is_ready = False

    @property
    def scale(self) -> Tensor | float:
        """The loss scale: 1.0 if the loss is not scaled, else a 0-d float32 tensor on the device."""
        if not self._scaler.is_enabled():
            return 1.0
        scale: Tensor = self._scaler.scale(torch.ones((), device=self.device))
        return scale

    def add(self, gradients: dict[str, Tensor]) -> None:
        """Add gradients, by parameter name and of the scaled loss, to those since the last step.

        Args:
            gradients: Of the shapes and types of the parameters; the first of a parameter is kept as it is
                and changed in place, so nobody else may go on using it.
        """
        held, given = [], []
        memory: set[int] = set()
        for name, value in gradients.items():
            if name in self._frozen:
                continue
            parameter = self._parameters[name]
            if parameter.grad is not None:
                held.append(parameter.grad)
                given.append(value)
            # Adam's fused kernel reads memory in order, so the layout must be the parameter's. And two
            # parameters that are added to each other have one gradient: each needs its own.
            elif value.stride() == parameter.stride() and value.untyped_storage()._cdata not in memory:
                parameter.grad = value
                memory.add(value.untyped_storage()._cdata)
            else:
                parameter.grad = torch.empty_like(parameter).copy_(value)
        if held:
            torch._foreach_add_(held, given)

    def get_ready(self) -> None:
        """Do what may fail before a step: make room for moments, divide by the loss scale, clip.

        Raises:
            torch.OutOfMemoryError: if there is no room for the moments; nothing has changed then, and the
                step may be begun again after `drop_gradients`.
        """
        if self._is_ready:
            return
        self._make_moments()
        self._is_ready = True
        self._scaler.unscale_(self._adam)
        if self._options.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters.values(), self._options.clip_norm)

    def step(self, lr: float) -> bool:
        """Update every parameter that has a gradient, then drop the gradients.

        Args:
            lr: Learning rate.

        Returns:
            Whether the update was made: False if loss scaling skipped it because gradients overflowed. Then
            weights, moments and step counts are as before, and the scale is halved.

        Raises:
            DivergenceError: if gradients overflow at every loss scale.
            torch.OutOfMemoryError: as `get_ready`, unless that has been called.
        """
        self.get_ready()
        groups = [g for g in self._adam.param_groups if any(p.grad is not None for p in g["params"])]
        for group in groups:
            group["steps"] += 1
            group["lr"] = lr
            group["eps"] = self._options.eps / math.sqrt(1 - self._options.beta2 ** group["steps"])
        scale = self._known_scale
        self._scaler.step(self._adam)
        self._scaler.update()
        self._is_ready = False
        self._known_scale = self._scaler.get_scale()
        made = self._known_scale >= scale
        if not made:
            for group in groups:
                group["steps"] -= 1
            if scale <= SMALLEST_SCALE:
                raise DivergenceError(
                    f"the gradients are not finite, even with the loss scaled by {scale:g}; go on from the "
                    f"last checkpoint with a lower learning rate, or with run.precision bfloat16 or float32"
                )
        self.drop_gradients()
        return made

    def gradients(self, level: int, *, fading: bool) -> list[Tensor]:
        """Return the gradients that an update at a level uses, in the order of the network's parameters.

        Where there is none yet, because this process has no sample of the batch, it becomes zeros.

        Args:
            level: The level.
            fading: Whether it fades in (`is_used`).
        """
        found = []
        for name, parameter in self._parameters.items():
            if is_used(name, level, fading=fading):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                found.append(parameter.grad)
            elif parameter.grad is not None:
                raise AssertionError(f"{name} has a gradient at level {level}")
        return found

    def _make_moments(self) -> None:
        """Make room for the moments of parameters that are updated for the first time.

        PyTorch would do so level by level between the updates, and running out of memory there would leave
        the lower levels updated.
        """
        for parameter in self._parameters.values():
            if parameter.grad is not None and parameter not in self._adam.state:
                moments = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
                self._adam.state[parameter] = {"step": torch.zeros((), device=self._step_device), **moments}

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """Return the norm of the network's gradients as Adam remembers it: 0-d, NaN or infinite if one was.

        It is the root of the sum of Adam's second moments, each divided by its bias correction 1 - beta2^t
        (Kingma and Ba 2015, section 3): a root mean square over about the last 1 / (1 - beta2) updates, after
        clipping. 0 before the first update.
        """
        total = torch.zeros((), device=self.device)
        for group in self._adam.param_groups:
            held = [self._adam.state[p]["exp_avg_sq"] for p in group["params"] if p in self._adam.state]
            if held and group["steps"]:
                sums = torch.stack([moment.sum() for moment in held]).sum()
                total = total + sums / (1 - self._options.beta2 ** group["steps"])
        return total.sqrt()

    def drop_gradients(self) -> None:
        """Drop what `add` has added up, to begin a step again."""
        if self._is_ready:
            # The scaler remembers that it has divided these gradients; the step begins again with others.
            self._load_scale(self.tensors())
            self._is_ready = False
        self._adam.zero_grad(set_to_none=True)

    def reset(self) -> None:
        """Forget all moments and step counts, as the original does when the networks grow.

        The loss scale stays: it is a matter of the range of the gradients, and adapts by itself.
        """
        self._adam.state.clear()
        for group in self._adam.param_groups:
            group["steps"] = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts by parameter name, and the loss scale: what a checkpoint holds."""
        result = {}
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                result[f"{key}.{name}"] = value
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            result[SCALE] = torch.tensor(state["scale"], dtype=torch.float32)
            result[GROWTH_TRACKER] = torch.tensor(state["_growth_tracker"], dtype=torch.int32)
        return result

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned.

        The loss scale begins anew if it is not among them, and is left out where the loss is not scaled.

        Raises:
            KeyError: if a name belongs to no parameter of the network.
        """
        self.reset()
        for entry, value in tensors.items():
            if entry in (SCALE, GROWTH_TRACKER):
                continue
            key, name = entry.split(".", 1)
            parameter = self._parameters[name]
            state = self._adam.state.setdefault(parameter, {})
            if key == "step":
                state[key] = value.to(self._step_device, copy=True)
            else:
                state[key] = torch.empty_like(parameter).copy_(value)
        for group in self._adam.param_groups:
            counts = [self._adam.state[p]["step"] for p in group["params"] if p in self._adam.state]
            group["steps"] = int(max((float(count) for count in counts), default=0.0))
        self._load_scale(tensors)

    def _load_scale(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state of the loss scale, or begin it anew."""
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._scaler.is_enabled())
        if self._scaler.is_enabled() and SCALE in tensors:
            held = {"scale": tensors[SCALE].item(), "_growth_tracker": int(tensors[GROWTH_TRACKER])}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **held})
        self._known_scale = self._scaler.get_scale()


def level_of(parameter: str) -> int:
    """Return the level at which a parameter, by its name in `state_dict`, begins to train."""
    match = re.match(r"(blocks|to_rgb|from_rgb)\.(\d+)\.", parameter)
    if match is None:
        return 0
    return int(match[2]) + (1 if match[1] == "blocks" else 0)


def is_used(parameter: str, level: int, *, fading: bool) -> bool:
    """Return whether a parameter, by its name in `state_dict`, takes part in what a level computes.

    Only the level's own toRGB or fromRGB does, and while it fades in that of the level below.
    """
    if level_of(parameter) > level:
        return False
    if not parameter.startswith(("to_rgb", "from_rgb")):
        return True
    return level_of(parameter) == level or (fading and level_of(parameter) == level - 1)


def average_decay(options: OptimizerOptions, n: int, images_seen: int) -> float:
    """Return what the averaged weights are multiplied by in one update of the average.

    A half-life of h images means 0.5^(n / h). It is ema_half_life_kimg, or what ema_decay amounts to; with
    ema_warmup, at most ema_warmup * images_seen.

    Args:
        options: Decay or half-life, and warm-up.
        n: Images in the batch of D with which the average is updated, at least 1.
        images_seen: The clock after this update, at least n.

    Returns:
        The decay, in [0, 1). Source: `ema_kimg` and `ema_rampup` of the training loop of StyleGAN2-ADA
        (Karras et al. 2020), which reads its clock before the update, so that its first decay is 0.
    """
    decay = options.ema_decay
    if options.ema_half_life_kimg is not None:
        decay = 0.5 ** (n / (options.ema_half_life_kimg * 1000))
    if options.ema_warmup is not None:
        # A shorter half-life is a smaller decay.
        decay = min(decay, 0.5 ** (n / (options.ema_warmup * images_seen)))
    return decay


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones: average = lerp(network, average, decay).

    Buffers are no weights: they are copied.

    Source: `setup_as_moving_average_of` of the original tfutil.py.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for held, current in zip(average.buffers(), network.buffers(), strict=True):
        held.copy_(current)

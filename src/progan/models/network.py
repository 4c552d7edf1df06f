"""What both networks share: their shape, how far they have grown, and how they are described and saved."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from progan.config import Branch, Growth, LabelForm, NetworkOptions, Part, PartOptions, explain
from progan.errors import shown, suggest
from progan.models.activations import LeakyReLU
from progan.models.layers import feature_maps
from progan.models.leaky_pixel_norm import LeakyPixelNorm

OptionsT = TypeVar("OptionsT", bound=Branch)

MAX_LEVEL = 20
"""Far above what any memory holds; keeps a crafted weight file from building networks for ever."""


class Network(nn.Module, Part):
    """What `Generator` and `Discriminator` have in common; their docstrings explain the arguments.

    Attributes:
        kind: `Generator` or `Discriminator`, of one of one's own, too.
        own: The options of one's own (`Options`), beside those of the shipped network.

    Raises:
        ValueError: if a number is out of range.
    """

    kind: ClassVar[str]
    own: Any

    def __init__(
        self,
        own: PartOptions,
        channels: int,
        base_shape: Sequence[int],
        max_level: int,
        label_size: int,
        label_form: LabelForm,
        options: NetworkOptions,
        level: int | None,
        alpha: float,
        label_names: Sequence[str],
        growth: Growth,
    ) -> None:
        super().__init__()
        self.own = own
        if channels < 1 or max_level < 0 or label_size < 0 or len(base_shape) != 2 or min(base_shape) < 1:
            raise ValueError(
                f"channels {shown(channels)}, base_shape {shown(base_shape)}, max_level {shown(max_level)}, "
                f"label_size {shown(label_size)}: channels and shape must be positive, others not negative"
            )
        if max_level > MAX_LEVEL:
            raise ValueError(f"max_level {max_level}: more than {MAX_LEVEL} is not possible")
        if label_form not in get_args(LabelForm):
            raise ValueError(f"label_form {shown(label_form)}: expected {', '.join(get_args(LabelForm))}")
        if growth not in get_args(Growth):
            raise ValueError(f"growth {shown(growth)}: expected {', '.join(get_args(Growth))}")
        if label_names and len(label_names) != label_size:
            raise ValueError(f"{len(label_names)} label names for {label_size} labels")
        if not all(isinstance(name, str) for name in label_names):
            raise ValueError(f"label_names {shown(list(label_names))}: expected text")
        self.channels = channels
        self.base_shape = (int(base_shape[0]), int(base_shape[1]))
        self.max_level = max_level
        self.label_size = label_size
        self.label_form = label_form
        self.label_names = tuple(label_names)
        self.options = options
        self.growth = growth
        self.level, self.alpha = max_level, 1.0
        self.set_growth(max_level if level is None else level, alpha)

    def resolution(self, level: int | None = None) -> tuple[int, int]:
        """Return height and width of the images of a level (None for how far it has grown)."""
        shift = self.level if level is None else level
        return self.base_shape[0] << shift, self.base_shape[1] << shift

    def set_growth(self, level: int, alpha: float = 1.0) -> None:
        """Say how far the network has grown: what a call without `level` computes.

        Raises:
            ValueError: if level is not in 0..max_level or alpha not in [0, 1].
        """
        if not 0 <= level <= self.max_level or not 0 <= alpha <= 1:
            raise ValueError(f"level {level} and alpha {alpha}: expected 0..{self.max_level} and 0..1")
        self.level, self.alpha = operator.index(level), float(alpha)

    def place(self, device: str | torch.device) -> Self:
        """Move the network to a device, in the memory layout in which convolutions are fastest there."""
        # The convolutions of CPU and CUDA have kernels for channels_last; those of MPS have not.
        layout = torch.preserve_format if torch.device(device).type == "mps" else torch.channels_last
        network: Self = self.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        return network

    def resolve_growth(
        self, level: int | None, alpha: Tensor | float | None, like: Tensor
    ) -> tuple[int, Tensor | None]:
        """Resolve the arguments of a call: the level, and alpha as a 0-d tensor or None for 1.

        Args:
            level: Level to compute; None takes the network's own, and its own alpha if none is given.
            alpha: How far the level has come in, in [0, 1]; None for 1.
            like: A number becomes a tensor of this one's device and type.

        Raises:
            ValueError: if the level is not one of this network, or alpha is a number outside [0, 1].
        """
        if level is None:
            level = self.level
            if alpha is None and self.alpha < 1:
                alpha = self.alpha
        if not 0 <= level <= self.max_level:
            raise ValueError(f"level {level}: expected 0..{self.max_level}")
        if alpha is None or isinstance(alpha, Tensor):
            return level, alpha
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: expected 0..1")
        return level, torch.full((), alpha, dtype=like.dtype, device=like.device)

    def require_labels(self, labels: Tensor | None, batch: Tensor) -> Tensor:
        """Return the labels that belong to a batch [N, ...].

        Raises:
            ValueError: if there are none, or they are not [N, label_size].
        """
        wanted = (batch.shape[0], self.label_size)
        if labels is None or not (is_traced() or tuple(labels.shape) == wanted):
            given = "none" if labels is None else list(labels.shape)
            raise ValueError(f"labels must be {list(wanted)}, not {given}")
        return labels

    def use_fused(self, fused: bool) -> Self:
        """Choose how up- and downscaling convolutions are computed; the function stays the same.

        It concerns G with upscale 'fused' or 'separate' and D with downscale 'fused'; other ways of scaling
        have one form.
        """
        for block in self.modules():
            if "fused" in vars(block):
                vars(block)["fused"] = fused
        return self

    def use_kernels(self, kernels: bool) -> Self:
        """Choose whether biases are added by the operation that follows (`models/fused`).

        The function stays the same but for rounding. It concerns convolutions that leaky ReLU follows, with
        pixel norm or without, in float32 and smaller types, where features are channels_last.
        """
        for module in self.modules():
            if isinstance(module, LeakyReLU | LeakyPixelNorm):
                module.kernels = kernels
        return self

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON: `type(self)(**config)` is the same network."""
        return {
            "channels": self.channels,
            "base_shape": list(self.base_shape),
            "max_level": self.max_level,
            "label_size": self.label_size,
            "label_form": self.label_form,
            **self.options.model_dump(mode="json"),
            **self.own.model_dump(mode="json"),
            "level": self.level,
            "alpha": self.alpha,
            "label_names": list(self.label_names),
            "growth": self.growth,
        }

    @property
    def is_own(self) -> bool:
        """Whether it is none of those that ship with progan."""
        return type(self).__name__ != self.kind

    @classmethod
    def take_own(cls, options: dict[str, Any]) -> PartOptions:
        """Take options of one's own out of a constructor's keywords; a ValueError tells of a wrong one."""
        given = {name: options.pop(name) for name in cls.Options.model_fields if name in options}
        own = read_options(cls.Options, given)
        assert isinstance(own, PartOptions)
        return own


def is_traced() -> bool:
    """Return whether `torch.jit.trace` is recording: sizes are tensors then, which no check may look at."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def read_options(kind: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """Check the options of a network.

    Raises:
        ValueError: naming every unknown option with its nearest right name, and every wrong value.
    """
    known = kind.model_fields
    if unknown := [name for name in given if name not in known]:
        lines = [f"unknown option {shown(name)}{suggest(str(name)[:80], known)}" for name in unknown[:10]]
        more = [f"... and {len(unknown) - 10:,} more"] if len(unknown) > 10 else []
        raise ValueError("\n".join([*lines, *more]))
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def filters(options: NetworkOptions, max_level: int) -> list[int]:
    """Return the filters of level -1 (the latent, the last hidden dense layer) and of levels 0..max_level."""
    formula = [
        feature_maps(
            level, fmap_base=options.fmap_base, fmap_decay=options.fmap_decay, fmap_max=options.fmap_max
        )
        for level in range(-1, max_level + 1)
    ]
    listed = list(options.fmaps or ())[: max_level + 1]
    return [formula[0], *listed, *formula[1 + len(listed) :]]

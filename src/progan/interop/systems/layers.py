"""What the modules of the systems have in common: a state that is taken apart, and layers that become ours.

A system's layer computes `factor * weight` and `bias_factor * bias`; ours multiplies its weight by a constant
of its own. Only where the two differ is a weight changed.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from progan.errors import listed, shown
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import EqualizedLayer
from progan.system.safe_pickle import Refused
from progan.system.tensor_file import Record

SQRT2 = math.sqrt(2)
MAX_BLOCKS = 20


@dataclass(frozen=True)
class Network:
    """A network of a stranger as ours.

    Attributes:
        record: What a weight file says of it: `network` and `config`.
        tensors: Its state dict.
    """

    record: Record
    tensors: dict[str, Tensor]


class Foreign(ABC):
    """A file of another system.

    Attributes:
        names: The networks that are in it: 'Gs' (the averaged generator), 'G' and 'D'.
        notes: What is not in the file and was decided, in words; complete when a network was made.
    """

    names: Sequence[str]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def describe(self) -> str:
        """Return what the file is, in words."""

    @abstractmethod
    def network(self, name: str) -> Network:
        """Return one of the networks as ours.

        Raises:
            Refused: if it is not whole, or has an operation that ours have not.
        """


@dataclass(frozen=True)
class Layer:
    """A layer of another system.

    Attributes:
        weight: In our layout: [out, in] or [out, in, k, k], correlated.
        bias: [out]; None for none.
        factor: What the weight is multiplied by at each use.
        bias_factor: What the bias is.
    """

    weight: Tensor
    bias: Tensor | None = None
    factor: float = 1.0
    bias_factor: float = 1.0


class State:
    """The tensors of a network by another system's names; each is taken once.

    Args:
        given: The state dict, as it was read. A prefix `module.` of all names is dropped.
        budget: Bytes that all of it may have. One tensor may be there under many names, and each becomes
            numbers of its own.

    Raises:
        Refused: if there is something else than tensors in it, or more of them than the file has.
    """

    def __init__(self, given: Mapping[str, Any], budget: int) -> None:
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise Refused(f"the entry {shown(name)} of its network is {shown(value)}, and no tensor")
        if sum(value.nbytes for value in given.values()) > budget:
            raise Refused("one tensor is there under many names: more numbers than the file has")
        self._tensors = dict(given)
        if given and all(name.startswith("module.") for name in given):
            self._tensors = {name.removeprefix("module."): value for name, value in given.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def count(self, form: str) -> int:
        """Return how many numbers 0, 1, ... can be put into a name such as `layers.{}.weight`."""
        found = next((i for i in range(MAX_BLOCKS + 2) if form.format(i) not in self._tensors), None)
        if found is None:
            raise Refused(f"its network has more than {MAX_BLOCKS} blocks")
        return found

    def shape(self, name: str, sides: int = 4) -> torch.Size:
        """Return the shape of a tensor that is still there, and must have so many sides."""
        shape = self._get(name).shape
        if len(shape) != sides:
            raise Refused(f"its {shown(name)} has {len(shape)} sides; expected {sides}")
        return shape

    def shapes(self, form: str, places: Iterable[int]) -> list[torch.Size]:
        """Return the shapes of numbered convolutions, at least one."""
        found = [self.shape(form.format(i)) for i in places]
        if not found:
            raise Refused(f"its network has no {form.format('*')}")
        return found

    def take(self, name: str, *sides: int | None) -> Tensor:
        """Return a tensor, which must have these sides (None for any)."""
        value: Tensor = self._get(name)
        fits = len(sides) == value.ndim
        if not fits or any(want not in (None, side) for want, side in zip(sides, value.shape, strict=True)):
            wanted = "x".join("?" if side is None else str(side) for side in sides) or "a single number"
            found = "x".join(map(str, value.shape)) or "a single number"
            raise Refused(f"its {shown(name)} is {found}; expected {wanted}")
        del self._tensors[name]
        wide: Tensor = value if value.dtype == torch.float64 else value.float()
        return wide

    def bias(self, name: str, length: int) -> Tensor | None:
        """Return a bias, or None if there is none."""
        return self.take(name, length) if name in self._tensors else None

    def drop(self, pattern: str) -> None:
        """Leave out what decides nothing: the names that a pattern matches whole."""
        for name in [name for name in self._tensors if re.fullmatch(pattern, name)]:
            del self._tensors[name]

    def rest(self) -> dict[str, Tensor]:
        """Return what is left, in float32 or float64 where it is floating-point."""
        narrow = {name: value for name, value in self._tensors.items() if value.dtype != torch.float64}
        return self._tensors | {
            name: value.float() if value.is_floating_point() else value for name, value in narrow.items()
        }

    def done(self) -> None:
        """Check that everything was taken.

        Raises:
            Refused: naming what is left, since it belongs to operations that the system is not known to have.
        """
        if self._tensors:
            raise Refused(f"its network has {listed(list(self._tensors), 6)}, which that system has not")

    def _get(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise Refused(f"its network lacks {shown(name)} (it has {listed(list(self._tensors), 6)})")
        value: Tensor = self._tensors[name]
        if not value.numel():
            raise Refused(f"its {shown(name)} is empty")
        return value


def equalized(weight: Tensor, bias: Tensor | None, *, gain: float = SQRT2, on: bool = True) -> Layer:
    """Return a layer that multiplies its weight by gain / sqrt(fan_in), or by nothing."""
    return Layer(weight, bias, gain / math.sqrt(weight[0].numel()) if on else 1.0)


def dense_of_full(weight: Tensor) -> Tensor:
    """Return the dense layer that a convolution is which makes 4x4 pixels of one, padded by 3.

    Args:
        weight: [out, in, 4, 4], correlated.

    Returns:
        [out * 16, in], channel-major: pixel (y, x) of the result sees the tap (3 - y, 3 - x).
    """
    return weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)


def dense_of_transposed(weight: Tensor) -> Tensor:
    """Return what a transposed convolution of one pixel is: [in, out, 4, 4] -> dense [out * 16, in]."""
    return weight.permute(1, 2, 3, 0).flatten(0, 2)


def channel_major(units: Tensor) -> Tensor:
    """Bring units from the order row, column, channel into channel, row, column: [16 * channels, ...]."""
    return units.reshape(16, len(units) // 16, *units.shape[1:]).transpose(0, 1).flatten(0, 1)


def require_filters(widths: Sequence[int], what: str) -> tuple[int, ...]:
    """Return the filters of the levels, which must be positive."""
    if not widths or min(widths) < 1:
        raise Refused(f"its {what} has no filters at a level")
    return tuple(widths)


def assemble(
    kind: type[Generator] | type[Discriminator], config: dict[str, Any], layers: Mapping[str, Layer]
) -> Network:
    """Make a network of ours out of layers.

    Args:
        kind: Which.
        config: The arguments of its constructor.
        layers: By the names of our layers. The bias of `dense` is that of the first dense layer of G; with
            `bias` False in `config`, biases are not looked at.

    Raises:
        Refused: if layers are missing, too many, or of other shapes.
    """
    try:
        with torch.device("meta"):
            network = kind(**config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise Refused(f"its {kind.__name__.lower()} cannot be expressed ({error})") from None
    ours = {name: part for name, part in network.named_modules() if isinstance(part, EqualizedLayer)}
    if ours.keys() != layers.keys():
        differ = sorted(ours.keys() ^ layers.keys())
        raise Refused(f"its {kind.__name__.lower()} has other layers than ours ({listed(differ, 6)})")
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        scale = ours[name].scale or 1.0
        tensors[f"{name}.weight"] = _times(layer.weight, layer.factor / scale)
        if layer.bias is not None and config.get("bias", True):
            tensors["dense_bias" if name == "dense" else f"{name}.bias"] = _times(
                layer.bias, layer.bias_factor
            )
    if isinstance(network, Generator) and network.label_form != "class":
        tensors["label_examples"] = torch.zeros(network.label_examples.shape)
    return Network({"network": kind.__name__, "config": network.config()}, tensors)


def _times(value: Tensor, factor: float) -> Tensor:
    """Multiply, unless the factor is one but for rounding."""
    if abs(factor - 1) < 1e-12:
        return value.contiguous()
    return (value.double() * factor).to(value.dtype).contiguous()

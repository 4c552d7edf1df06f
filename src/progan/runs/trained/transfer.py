"""Weights of one network into another one: what fits is taken, what does not stays new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.layers import EqualizedLayer

Either = Generator | Discriminator


@dataclass(frozen=True)
class Transfer:
    """What became of a parameter.

    Attributes:
        name: Of the parameter.
        why: Why it is new, or new in part; empty if it was taken.
        partly: Whether a part was taken.
    """

    name: str
    why: str = ""
    partly: bool = False


@torch.no_grad()
def transfer(
    network: Either, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, labels: bool = True
) -> list[Transfer]:
    """Copy weights into a network as far as they fit, by name and shape; the rest stays as it is.

    A weight that an equalized learning rate multiplies by another factor here than there is divided by their
    ratio, so that it does the same. Of the layers that labels enter or leave, the part that is not of labels
    is taken whatever labels there are, and that of labels by their names.

    Args:
        network: Where to.
        config: Arguments of the constructor of the network that the weights are of.
        tensors: Its state dict.
        labels: Whether to take what belongs to labels.

    Returns:
        What became of each parameter, in order.

    Raises:
        TypeError, ValueError: if the arguments are none of such a network.
    """
    with torch.device("meta"):
        there = type(network)(**config)
    ratios = {name: value / _scales(network).get(name, 1.0) for name, value in _scales(there).items()}
    pairs = _label_pairs(there, network) if labels else []
    same = labels and len(pairs) == there.label_size == network.label_size
    done = []
    for name, parameter in network.named_parameters():
        given = tensors.get(name)
        if given is None:
            done.append(Transfer(name, "the source has none"))
            continue
        value = given.to(parameter.device, parameter.dtype) * ratios.get(name, 1.0)
        if _axis(name) is not None and not same:
            done.append(_in_part(network, there, name, parameter, value, pairs))
        elif value.shape == parameter.shape:
            parameter.copy_(value)
            done.append(Transfer(name))
        else:
            sizes = (" x ".join(map(str, shape)) for shape in (value.shape, parameter.shape))
            done.append(Transfer(name, "{} there, {} here".format(*sizes)))
    return done


def _scales(network: Either) -> dict[str, float]:
    """Return by what each weight is multiplied at each use."""
    layers = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, EqualizedLayer))
    return {f"{name}.weight": 1.0 if layer.scale is None else layer.scale for name, layer in layers}


def _axis(name: str) -> int | None:
    """Return the side of a parameter along which labels lie, behind all else; None if there is none."""
    return {"dense.weight": 1, "dense1.weight": 0, "dense1.bias": 0}.get(name)


def _label_pairs(there: Either, here: Either) -> list[tuple[int, int]]:
    """Return which label there is which here: by their names, or one by one where neither has names."""
    if there.label_form != here.label_form:
        return []
    if not there.label_names and not here.label_names and there.label_size == here.label_size:
        return [(i, i) for i in range(here.label_size)]
    known = {name: i for i, name in enumerate(there.label_names)}
    return [(known[name], i) for i, name in enumerate(here.label_names) if name in known]


def _in_part(
    here: Either, there: Either, name: str, parameter: Tensor, value: Tensor, pairs: list[tuple[int, int]]
) -> Transfer:
    """Copy what is not of labels, and the labels that both have."""
    axis = _axis(name)
    assert axis is not None
    own, given = parameter.movedim(axis, 0), value.movedim(axis, 0)
    first = len(own) - here.label_size
    if len(given) - there.label_size != first or own.shape[1:] != given.shape[1:]:
        return Transfer(name, "of another size there")
    own[:first] = given[:first]
    for old, new in pairs:
        own[first + new] = given[first + old]
    missing = here.label_size - len(pairs)
    return (
        Transfer(name, f"{missing} of {here.label_size} labels are new", partly=True)
        if missing
        else Transfer(name)
    )

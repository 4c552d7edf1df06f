"""From what a user calls a label to the vector that a generator takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from progan.config import LabelForm
from progan.errors import ConfigError, listed
from progan.models.generator import Generator

Label: TypeAlias = str | float | Sequence[str | float]
"""A class by name or number; several, or the numbers of a vector: listed, or in one text with commas."""
NAMED = 50
"""Names of labels that are told; of more, these and how many more there are."""


def class_index(G: Generator, label: str | float) -> int:
    """Return the index of a class that is given by name, by number, or by a number in text.

    Raises:
        ConfigError: if the generator has no labels or no such class; or if a number in text is no name, but
            all names are numbers, as nobody knows then which is meant.
    """
    _require_labels(G, label)
    if label in G.label_names:
        return G.label_names.index(str(label))
    text, number = str(label), _number(G, label)
    if number is not None and isinstance(label, str) and _called_by_numbers(G):
        raise ConfigError(
            f"label {label!r}: no class is called so, and all are called by numbers "
            f"({listed(G.label_names, NAMED)}); class number {number} is called {G.label_names[number]!r}: "
            f"give that name"
        )
    if number is not None:
        return number
    near = difflib.get_close_matches(text, G.label_names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    names = f" Labels: {listed(G.label_names, NAMED)}; or" if G.label_names else " Give"
    raise ConfigError(f"no label {label!r}{hint}{names} a number from 0 to {G.label_size - 1}.")


def _called_by_numbers(G: Generator) -> bool:
    return bool(G.label_names) and all(name.isdigit() for name in G.label_names)


def _number(G: Generator, label: str | float) -> int | None:
    """Return the number of a class that a label may mean; None if it can be none."""
    text = str(label)
    # Not int(text) first, which refuses thousands of digits.
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(G.label_size))
    return int(text) if digits and int(text) < G.label_size else None


def taken_as_names(G: Generator, labels: Sequence[Label]) -> list[str]:
    """Say of labels that are names of classes, and would be the numbers of others, which they are."""
    said = []
    for label in [] if G.label_form == "vector" else [part for each in labels for part in _classes(G, each)]:
        number = _number(G, label) if isinstance(label, str) and label in G.label_names else None
        if number is not None and G.label_names[number] != label:
            said.append(
                f"label {label} is the class that is called so, number {G.label_names.index(str(label))}; "
                f"class number {number} is called {G.label_names[number]}"
            )
    return said


def label_vector(G: Generator, label: Label) -> Tensor:
    """Return the vector of a label.

    Args:
        G: The generator.
        label: By the generator's `label_form`: 'class': the name or number of one class. 'classes': any
            number of them (`"smiling,hat"`, `["smiling", 3]`; `""` for none). 'vector': its numbers
            (`"0.1,0.3"`, `[0.1, 0.3]`).

    Returns:
        [label_size] float32: 1 for the classes that were named and 0 for others; or the numbers.

    Raises:
        ConfigError: if the generator has no labels, or the label is none of its form.
    """
    _require_labels(G, label)
    if G.label_form == "vector":
        return torch.tensor(_numbers(G, label), dtype=torch.float32)
    classes = _classes(G, label)
    if G.label_form == "class" and len(classes) != 1:
        raise ConfigError(f"label {label!r}: this generator takes one class, not {len(classes)}")
    vector = torch.zeros(G.label_size)
    vector[[class_index(G, each) for each in classes]] = 1
    return vector


def written_label(G: Generator, label: Label) -> int | list[float]:
    """Return a label in the one form that JSON files hold: the number of a class, or a vector.

    Raises:
        ConfigError: if the generator has no labels, or the label is none of its form.
    """
    vector = label_vector(G, label)
    numbers: list[float] = vector.tolist()
    return int(vector.argmax()) if G.label_form == "class" else numbers


def describe_labels(form: LabelForm, names: Sequence[str], size: int) -> str:
    """Say in words what the labels of a generator or a packed set are."""
    told = listed(names, NAMED)
    what = {"class": "class", "classes": "several classes", "vector": "vector"}[form]
    return f"{what} ({size}{': ' if told else ''}{told})"


def _require_labels(G: Generator, label: Label) -> None:
    if G.label_size == 0:
        raise ConfigError(f"label {label!r}: this generator has no labels; leave the label out")


def _classes(G: Generator, label: Label) -> list[str | float]:
    """Return the classes of a label, each as it is called."""
    if isinstance(label, str) and (G.label_form == "class" or label in G.label_names):
        return [label]  # its commas are part of the name
    return _parts(label)


def _parts(label: Label) -> list[str | float]:
    """Take a list apart that may be written as text with commas."""
    if not isinstance(label, str):
        return list(label) if isinstance(label, Iterable) else [label]
    return [part.strip() for part in label.split(",")] if label.strip() else []


def _numbers(G: Generator, label: Label) -> list[float]:
    """Return the numbers of a vector."""
    parts = _parts(label)
    expected = f"label {label!r}: this generator takes {G.label_size} finite numbers"
    if G.label_names:
        expected += f" ({listed(G.label_names, NAMED)})"
    if len(parts) != G.label_size:
        raise ConfigError(f"{expected}, not {len(parts)}")
    numbers = []
    for part in parts:
        try:
            numbers.append(float(part))
        except (TypeError, ValueError):
            raise ConfigError(f"{expected}; {part!r} is none") from None
        if not abs(numbers[-1]) <= torch.finfo(torch.float32).max:
            raise ConfigError(f"{expected}; {part!r} is none")
    return numbers

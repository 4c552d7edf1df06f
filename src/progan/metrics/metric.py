"""What every metric is: a definition with a name and a version, fed with images, asked for numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from progan.config import Branch, Part
from progan.errors import DataError
from progan.metrics.image_checks import ImageShapes

if TYPE_CHECKING:
    from progan.metrics.extractor_files import Inception

Images = NDArray[np.uint8]
"""[n, C, H, W], values 0 to 255."""


@dataclass(frozen=True)
class MetricTools:
    """What metrics are made with, besides their options.

    Attributes:
        seed: Of everything that a metric draws.
        device: Where to compute.
        samples: Images, or paths, that are measured.
        network: Returns the network whose `features` and `probabilities` metrics compare: Inception, or that
            of `monitor.extractor`. It is loaded when it is asked for first, and all share it.
    """

    seed: int
    device: torch.device
    samples: int
    network: Callable[[], Inception]


class Measurement(Part, ABC):
    """What gives numbers of a generator: each is one exact definition.

    Attributes:
        name: Of the class, what options call it; of an object, what its numbers are called in tables and
            logs. That names the definition exactly: another extractor, resize rule or count of patches is
            another name.
        version: Raised when the definition changes, so that numbers of two versions are never mixed.
        needs_network: Whether it asks for the network of its tools.
    """

    chosen_by = "monitor.metrics"
    name: str
    version: int = 1
    needs_network: ClassVar[bool] = False

    @classmethod
    def make(cls, options: Branch, tools: MetricTools) -> Self:  # noqa: ARG003 - others need them
        """Return it with its options; what draws, or compares features, takes what it needs from tools."""
        return cls(options)

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """Return everything that decides the numbers besides the images, ready for JSON."""


class Metric(Measurement):
    """A measurement that is computed while images stream through.

    Feed all reals and all fakes in batches of any size, then ask for the numbers; how images are cut into
    batches changes nothing beyond rounding. The reals may be fed once and kept while fakes come and go.

    Attributes:
        needs_reals: Whether reals are fed at all.
        minimum: Fewest images of each set that the definition makes sense for.
    """

    needs_reals: ClassVar[bool] = True
    minimum: int = 1

    @abstractmethod
    def add_reals(self, images: Images) -> None:
        """Take in a batch of real images."""

    @abstractmethod
    def add_fakes(self, images: Images) -> None:
        """Take in a batch of generated images."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the numbers by name, each name beginning with `name`.

        Raises:
            DataError: if there are too few images, or the sets do not fit each other.
        """

    @abstractmethod
    def forget_reals(self) -> None:
        """Drop what came from reals, and its memory."""

    @abstractmethod
    def forget_fakes(self) -> None:
        """Drop what came from fakes and keep the reals, so that the next generator can be measured."""


class CheckedMetric(Metric):
    """A metric of gray or RGB images, all of one shape: each batch is checked before it is taken in."""

    def __init__(self, called: str) -> None:
        self._shapes = ImageShapes(called)

    def add_reals(self, images: Images) -> None:
        """Take in a batch of real images; a DataError says what is wrong with them."""
        self._add(images, "reals")

    def add_fakes(self, images: Images) -> None:
        """Take in a batch of generated images; a DataError says what is wrong with them."""
        self._add(images, "fakes")

    def forget_reals(self) -> None:
        """Drop what came from reals, and its memory."""
        self._shapes.forget("reals")
        self._forget("reals")

    def forget_fakes(self) -> None:
        """Drop what came from fakes, and keep the reals."""
        self._shapes.forget("fakes")
        self._forget("fakes")

    def _add(self, images: Images, name: str) -> None:
        self._shapes.check(images, name)
        self._take(images, name)

    @abstractmethod
    def _take(self, images: Images, name: str) -> None:
        """Take in a batch of the set `name`, "reals" or "fakes"."""

    @abstractmethod
    def _forget(self, name: str) -> None:
        """Drop the set `name`."""


class SetMetric(Metric):
    """A metric of two whole sets, which are kept in memory. Derive from this for a simple one of your own.

    Attributes:
        Options: A model of its own options, each with a default; `self.options` has their values.
    """

    def __init__(self, options: Any = None, **given: Any) -> None:
        super().__init__(options, **given)
        self._sets: dict[str, list[Images]] = {"reals": [], "fakes": []}

    @abstractmethod
    def measure(self, reals: Images, fakes: Images) -> float | Mapping[str, float]:
        """Return a number, or several by name, of real and generated images: [n, C, H, W] uint8 each."""

    def definition(self) -> dict[str, Any]:
        """Return its name and its options."""
        return {"metric": self.name, **self.options.model_dump(mode="json")}

    def add_reals(self, images: Images) -> None:
        """Keep a batch of real images."""
        self._sets["reals"].append(np.array(images))

    def add_fakes(self, images: Images) -> None:
        """Keep a batch of generated images."""
        self._sets["fakes"].append(np.array(images))

    def compute(self) -> dict[str, float]:
        """Return the numbers; a DataError says what went wrong in `measure`."""
        reals, fakes = (np.concatenate(self._sets[name]) for name in ("reals", "fakes"))
        try:
            found = self.measure(reals, fakes)
            named = found if isinstance(found, Mapping) else {"": found}
            return {f"{self.name}/{key}" if key else self.name: float(value) for key, value in named.items()}
        # It is of others, and so are its errors.
        except Exception as error:
            raise DataError(f"{self.name}: {type(error).__name__}: {error}") from error

    def forget_reals(self) -> None:
        """Drop the reals."""
        self._sets["reals"] = []

    def forget_fakes(self) -> None:
        """Drop the fakes."""
        self._sets["fakes"] = []
